// events.js - how each kind of event looks.  To show a new kind, add a line to KINDS.
import { diffBlock, drawBlock, drawBlocks, eventText, link, preformatted, todos, wholeButton } from "./blocks.js";
import { diffCounts } from "./diff.js";
import { clock, compact, duration, moment } from "./format.js";
import { html } from "./html.js";
import { has, t } from "./i18n.js";
import { markdown } from "./markdown.js";
import { firstLine, lines, terminalText } from "./text.js";

const OPEN_DIFF_LINES = 40;

const data = event => event.event_type.data ?? {};

/** Event kind -> (page, {event, results}) -> Markup. */
const KINDS = {
    UserMessage: prompt,
    AgentMessage: reply,
    Thinking: thinking,
    SystemMessage: note,
    ToolCall: (page, item) => step(page, item, data(item.event).name, inputSummary(item.event), { body: () => called(page, item) }),
    ToolResult: (page, item) => step(page, item, t("kind.ToolResult"), firstLine(eventText(item.event)) || data(item.event).name, { body: () => drawBlocks(page, item.event) }),
    FileRead: (page, item) => fileStep(page, item, () => result(page, item)),
    FileEdit: edit,
    FileCreate: (page, item) => fileStep(page, item, () => called(page, item)),
    FileDelete: (page, item) => fileStep(page, item, item.results.length > 0 && (() => result(page, item))),
    ShellCommand: shell,
    CodeSearch: (page, item) => searchStep(page, item, data(item.event).query),
    FileSearch: (page, item) => searchStep(page, item, data(item.event).pattern),
    WebSearch: (page, item) => searchStep(page, item, data(item.event).query),
    WebFetch: (page, item) => step(page, item, kindName(item.event), data(item.event).url, {
        body: () => [html`<p>${link(data(item.event).url)}</p>`, result(page, item)] }),
    ImageGenerate: generated,
    VideoGenerate: generated,
    AudioGenerate: generated,
    TaskStart: (page, item) => quiet(item),
    TaskEnd: taskEnd,
    Custom: custom,
};

/** One event with the results of its call, as markup. */
export function drawEvent(page, item) {
    return (KINDS[item.event.event_type.type] ?? unknown)(page, item);
}

const kindName = event => has(`kind.${event.event_type.type}`) ? t(`kind.${event.event_type.type}`) : event.event_type.type;

/** The event's time, which is the link to it. */
export const permalink = event => html`<a class="at" href="#e=${encodeURIComponent(event.event_id)}" title="${moment(event.timestamp)}"><time datetime="${event.timestamp}">${clock(event.timestamp)}</time></a>`;

function article(event, className, content, { rows = true } = {}) {
    return html`<article class="event ${className}" id="e-${event.ordinal}" ${rows && html`data-row tabindex="-1"`} ${className === "prompt" && "data-prompt"}>${permalink(event)}${content}</article>`;
}

/** A line that says what was done, and unfolds what came of it. */
function step(page, { event, results }, name, what, { facts = [], body, open = false, className = "" } = {}) {
    const failed = isFailed(event, results);
    const key = body && page.keep(body);
    results.forEach(({ ordinal }) => page.liesIn(ordinal, event.ordinal));
    const head = html`<b title="${event.attributes?.tool}">${name}</b> <span class="what">${firstLine(terminalText(String(what ?? "")))}</span> <span class="came">${failed && html`<span class="failed">${failed}</span> `}${facts}${took(event, results)}</span>`;
    return article(event, `step ${className} ${failed && "bad"}`, body
        ? html`<details data-body="${key}" ${open && "open"}><summary>${head}</summary>${open && html`<div class="body">${body()}</div>`}</details>`
        : html`<p class="line">${head}</p>`);
}

function isFailed(event, results) {
    const code = data(event).exit_code;
    if (code) return t("exit", { code });
    const wrong = [event, ...results].some(one => data(one).is_error);
    return wrong ? t("error") : event.attributes?.error === true && t("error");
}

function took(event, results) {
    const ms = event.duration_ms ?? results.find(one => one.duration_ms)?.duration_ms;
    return ms >= 100 && html`<span class="took">${duration(ms)}</span>`;
}

/** What a call returned. */
function result(page, { results }) {
    return results.map(one => html`<section class="result ${data(one).is_error && "bad"}" id="e-${one.ordinal}">${drawBlocks(page, one)}${!one.content.blocks.length && html`<p class="none">${t("output.none")}</p>`}</section>`);
}

const called = (page, item) => [drawBlocks(page, item.event), result(page, item)];

function prompt(page, { event }) {
    return article(event, "prompt", html`<div class="said">${drawBlocks(page, event)}</div>`);
}

function reply(page, { event }) {
    return article(event, "reply", html`<div class="prose">${event.content.blocks.map((block, at) =>
        block.type === "Text" && !block.truncated ? markdown(block.text) : drawBlock(page, event, at))}</div>`);
}

function thinking(page, item) {
    const text = eventText(item.event).trim();
    if (!text) return quiet(item);
    return step(page, item, t("kind.Thinking"), firstLine(text).replace(/\*\*/g, ""), { className: "thinking",
        body: text.length > 100 || text.includes("\n") ? () => html`<div class="prose">${markdown(text)}</div>` : undefined });
}

/** What the tool or the harness put in, not the person: a line, unfolded on wish. */
function note(page, item) {
    const { event } = item;
    const meta = event.attributes?.meta;
    if (event.attributes?.["progress.type"]) return quiet(item);
    const text = eventText(event).trim();
    const name = has(`meta.${meta}`) ? t(`meta.${meta}`) : t("kind.SystemMessage");
    const isLong = text.length > 90 || text.includes("\n") || event.content.blocks.length > 1;
    return step(page, item, name, text, { className: "note",
        body: isLong ? () => meta === "compact_summary" ? html`<div class="prose">${markdown(text)}</div>` : drawBlocks(page, event) : undefined });
}

function shell(page, item) {
    const command = terminalText(data(item.event).command);
    const purpose = eventText(item.event).trim();
    const repeat = lines(command).length > 1 || command.length > 70;
    return step(page, item, kindName(item.event), command, { className: "shell", body: () => [
        purpose && purpose !== command && html`<p class="purpose">${purpose}</p>`,
        repeat && preformatted(page, command, { className: "wrap command" }),
        result(page, item)] });
}

function fileStep(page, item, body, options = {}) {
    return step(page, item, kindName(item.event), data(item.event).path, { ...options, body: body || undefined });
}

function edit(page, item) {
    const { diff, truncated, full_size: fullSize } = data(item.event);
    if (!diff) return fileStep(page, item, () => called(page, item));
    const { added, removed } = diffCounts(diff);
    const failed = isFailed(item.event, item.results);
    const body = () => [truncated ? html`<div class="fold">${diffBlock(page, diff)}${wholeButton(item.event, "diff", fullSize)}</div>` : diffBlock(page, diff),
        failed && result(page, item)];
    return fileStep(page, item, body, { className: "edit", open: !truncated && diff.split("\n").length <= OPEN_DIFF_LINES,
        facts: !truncated && html`<span class="added">+${added}</span> <span class="removed">−${removed}</span> ` });
}

function searchStep(page, item, what) {
    return step(page, item, kindName(item.event), what, { body: item.results.length ? () => result(page, item) : undefined });
}

function generated(page, item) {
    return step(page, item, kindName(item.event), data(item.event).prompt, { body: () => called(page, item) });
}

const SUMMARY_KEYS = ["description", "title", "subject", "command", "file_path", "path", "pattern", "query", "url", "name", "prompt", "message", "content", "input", "id"];

/** The most telling short value of a call's input. */
function inputSummary(event) {
    const json = event.content.blocks.find(block => block.type === "Json")?.data;
    if (!json || typeof json !== "object") return eventText(event);
    const list = todos(json);
    if (list) return t("todos", { done: list.filter(item => item.status === "completed").length, all: list.length });
    const values = [...SUMMARY_KEYS.map(key => json[key]), ...Object.values(json)];
    return values.find(value => typeof value === "string" && value.trim()) ?? "";
}

/** The end of a turn may carry the last words, where no reply of its own does. */
function taskEnd(page, item) {
    const summary = (data(item.event).summary ?? "").trim();
    if (summary.length < 120 && !summary.includes("\n") || page.lastReply === summary) return quiet(item);
    return article(item.event, "reply", html`<div class="prose">${markdown(summary)}</div>`);
}

const BOUNDARIES = ["compaction", "context_compacted", "interrupt", "turn_aborted"];

function custom(page, item) {
    const { kind } = data(item.event);
    if (BOUNDARIES.includes(kind)) return article(item.event, "boundary", html`<p>${t(`boundary.${kind}`)}</p>`);
    if (kind === "token_count") return quiet(item);
    return unknown(page, item);
}

function unknown(page, item) {
    const name = data(item.event).kind ?? item.event.event_type.type;
    return step(page, item, name, eventText(item.event), { className: "note", body: () => [
        drawBlocks(page, item.event),
        !item.event.content.blocks.length && preformatted(page, JSON.stringify(item.event, null, 2), { className: "wrap" }), result(page, item)] });
}

/** Bookkeeping: there for its link, out of sight until someone follows it. */
function quiet(item) {
    const { event } = item;
    const { input_tokens_total: input, output_tokens_total: output } = event.attributes ?? {};
    const what = input ? t("tokens.title", { input: compact(input), output: compact(output ?? 0) }) : firstLine(eventText(event));
    return article(event, "quiet", html`<p class="line"><b>${data(event).kind ?? kindName(event)}</b> <span class="what">${what}</span></p>`, { rows: false });
}
