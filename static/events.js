// events.js - how each kind of event looks.  To show a new kind, add a line to KINDS.
import { drawBlock, drawBlocks, eventText, link, preformatted } from "./blocks.js";
import { drawCall, callSummary } from "./calls.js";
import { compact } from "./format.js";
import { formatted } from "./formatted.js";
import { html } from "./html.js";
import { has, t } from "./i18n.js";
import { spoken } from "./marks.js";
import { article, data, kindName, step } from "./steps.js";
import { edit, create, fileStep, read, result, shell } from "./files.js";
import { firstLine } from "./text.js";

/** Event kind -> (page, {event, results}) -> Markup. */
const KINDS = {
    UserMessage: prompt,
    AgentMessage: reply,
    Thinking: thinking,
    SystemMessage: note,
    ToolCall: (page, item) => step(page, item, data(item.event).name, callSummary(item.event), { body: () => drawCall(page, item) }),
    ToolResult: (page, item) => step(page, item, t("kind.ToolResult"), firstLine(eventText(item.event)) || data(item.event).name, { body: () => drawBlocks(page, item.event) }),
    FileRead: read,
    FileEdit: edit,
    FileCreate: create,
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
    TaskStart: (page, item) => quiet(page, item),
    TaskEnd: taskEnd,
    Custom: custom,
};

/** One event with the results of its call, as markup. */
export function drawEvent(page, item) {
    return (KINDS[item.event.event_type.type] ?? unknown)(page, item);
}

function prompt(page, { event }) {
    return article(page, event, "prompt", html`<div class="said" ${spoken(eventText(event))}>${drawBlocks(page, event)}</div>`);
}

function reply(page, { event }) {
    return article(page, event, "reply", html`<div class="prose" ${spoken(eventText(event))}>${event.content.blocks.map((block, at) =>
        block.type === "Text" && !block.truncated ? formatted(block.text) : drawBlock(page, event, at))}</div>`);
}

function thinking(page, item) {
    const text = eventText(item.event).trim();
    if (!text) return quiet(page, item);
    return step(page, item, t("kind.Thinking"), firstLine(text).replace(/\*\*/g, ""), { className: "thinking",
        body: text.length > 100 || text.includes("\n") ? () => html`<div class="prose">${formatted(text)}</div>` : undefined });
}

/** What the tool or the harness put in, not the person: a line, unfolded on wish. */
function note(page, item) {
    const { event } = item;
    const meta = event.attributes?.meta;
    if (event.attributes?.["progress.type"]) return quiet(page, item);
    const text = eventText(event).trim();
    const name = has(`meta.${meta}`) ? t(`meta.${meta}`) : t("kind.SystemMessage");
    const isLong = text.length > 90 || text.includes("\n") || event.content.blocks.length > 1;
    return step(page, item, name, text, { className: "note",
        body: isLong ? () => meta === "compact_summary" ? html`<div class="prose">${formatted(text)}</div>` : drawBlocks(page, event) : undefined });
}

function searchStep(page, item, what) {
    const asked = item.event.content.blocks.some(block => block.type === "Json");
    const body = () => [asked && drawBlocks(page, item.event), result(page, item)];
    return step(page, item, kindName(item.event), what, { body: item.results.length || asked ? body : undefined });
}

function generated(page, item) {
    return step(page, item, kindName(item.event), data(item.event).prompt, { body: () => [drawBlocks(page, item.event), result(page, item)] });
}

/** The end of a turn may carry the last words, where no reply of its own does. */
function taskEnd(page, item) {
    const summary = (data(item.event).summary ?? "").trim();
    if (summary.length < 120 && !summary.includes("\n") || page.lastReply === summary) return quiet(page, item);
    return article(page, item.event, "reply", html`<div class="prose">${formatted(summary)}</div>`);
}

const BOUNDARIES = ["compaction", "context_compacted", "interrupt", "turn_aborted"];

function custom(page, item) {
    const { kind } = data(item.event);
    if (BOUNDARIES.includes(kind)) return boundary(page, item.event, kind);
    if (kind === "plan" && eventText(item.event)) return article(page, item.event, "reply plan", html`<div class="prose">${formatted(eventText(item.event))}</div>`);
    if (kind === "token_count") return quiet(page, item);
    return unknown(page, item);
}

/** Where the context was compacted or the person broke in; with the sizes, where they are known. */
function boundary(page, event, kind) {
    const { preTokens: before, postTokens: after } = event.attributes ?? {};
    const sizes = before > 0 && after > 0 && t("boundary.sizes", { before: compact(before), after: compact(after) });
    return article(page, event, `boundary ${kind}`, html`<p>${t(`boundary.${kind}`)}${sizes && ` · ${sizes}`}</p>`);
}

function unknown(page, item) {
    const name = data(item.event).kind ?? item.event.event_type.type;
    return step(page, item, name, eventText(item.event), { className: "note", body: () => [
        drawBlocks(page, item.event),
        !item.event.content.blocks.length && preformatted(page, JSON.stringify(item.event, null, 2), { className: "wrap", language: "json" }), result(page, item)] });
}

/** Bookkeeping: there for its link, out of sight until someone follows it. */
function quiet(page, { event }) {
    const { input_tokens_total: input, output_tokens_total: output } = event.attributes ?? {};
    const what = input ? t("tokens.title", { input: compact(input), output: compact(output ?? 0) }) : firstLine(eventText(event));
    return article(page, event, "quiet", html`<p class="line"><b>${data(event).kind ?? kindName(event)}</b> <span class="what">${what}</span></p>`, { rows: false });
}
