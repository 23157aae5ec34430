// head.js - what stands above the events: the session's facts, its notes, and the bar that stays
import { age, compact, date, moment, number } from "./format.js";
import { html } from "./html.js";
import { t } from "./i18n.js";
import { dotted, lineCounts, mark, spoken, times } from "./marks.js";
import { title } from "./parts.js";
import { LEVELS } from "./plan.js";
import { toolTitle } from "./tools.js";

export function header(session) {
    return html`
        <header class="session">
            ${session.parent && html`<p class="parent">${t("parent")} <a href="/session/${session.parent.id}">${session.parent.title || t("untitled")}</a></p>`}
            <div class="titled"><h1 ${spoken(session.title)}>${mark(session.tool)}${session.title || t("untitled")}</h1>
                ${session.can_delete && html`<button type="button" class="plain" data-do="rename">${t("rename")}</button>`}</div>
            <p class="facts">${dotted(facts(session))}</p>
            <p class="facts numbers">${dotted(numbers(session))}</p>
            ${notes(session)}
            ${session.secrets > 0 && html`<p class="facts still" role="note">${t("secrets.still", { n: session.secrets })} <button type="button" class="plain" data-do="redact">${t("secrets.mask")}</button></p>`}
            ${children(session)}
            <p class="facts on-paper">${t("print.part")}</p>
        </header>`;
}

/** Put a session's title where it stands already. */
export function retitle(part, session) {
    part(".titled h1").lastChild.textContent = session.title || t("untitled");
    title(session.title || t("untitled"));
}

function facts(session) {
    const { agent = {} } = session;
    const last = session.updated_at ?? session.created_at;
    return [
        html`<b>${toolTitle(session.tool)}</b>${agent.tool_version && ` ${agent.tool_version}`}`,
        session.agent_model !== "unknown" && session.agent_model,
        session.project && html`<a href="/?project=${encodeURIComponent(session.project)}">${session.project}</a>`,
        session.git_branch && html`<code>${session.git_branch}</code>`,
        session.nickname,
        session.team_name && html`<a href="/teams/${session.team_id}">${session.team_name}</a>`,
        html`<time datetime="${session.created_at}" title="${moment(session.created_at)} – ${moment(last)}">${date(session.created_at)} (${age(last)})</time>`,
    ];
}

function numbers(session) {
    const { total_input_tokens: input, total_output_tokens: output } = session;
    return [
        session.duration_seconds > 0 && html`<span title="${t("time.hint")}">${times(session).both}</span>`,
        t("count.prompts", { n: session.user_message_count ?? 0 }),
        t("count.events", { n: session.event_count }),
        session.files_changed > 0 && html`<button type="button" class="plain" data-do="files">${t("count.files", { n: session.files_changed })}</button>`,
        lineCounts(session),
        (input > 0 || output > 0) && html`<button type="button" class="plain" data-do="usage" title="${t("usage.why")}">${t("tokens.title", { input: compact(input), output: compact(output) })}</button>`,
    ];
}

/** What was left out or not understood: nothing is hidden silently. */
function notes({ redactions, attributes = {} }) {
    const { home = 0, ...secrets } = redactions ?? {};
    const unknown = attributes.unknown_types ?? {};
    const said = [
        sum(secrets) > 0 && html`<span title="${Object.entries(secrets).map(([rule, n]) => `${rule}: ${n}`).join(", ")}">${t("count.redactions", { n: sum(secrets) })}</span>`,
        home > 0 && t("count.home", { n: home }),
        sum(unknown) > 0 && html`<span title="${Object.keys(unknown).join(", ")}">${t("count.unknown", { n: sum(unknown) })}</span>`,
        attributes.bad_lines > 0 && t("count.bad_lines", { n: attributes.bad_lines }),
    ].filter(Boolean);
    return said.length > 0 && html`<p class="facts notes">${dotted(said)}</p>`;
}

const sum = counts => Object.values(counts).reduce((total, count) => total + (Number(count) || 0), 0);

function children({ children: list = [] }) {
    return list.length > 0 && html`
        <details class="children"><summary>${t("count.children", { n: list.length })}</summary>
        <ul>${list.map(child => html`<li><a href="/session/${child.id}">${child.title || t("untitled")}</a> <span class="sub">${t("count.events", { n: child.event_count })}</span></li>`)}</ul></details>`;
}

/** The bar that stays while reading: the chapter, the level of detail, and what can be done. */
export const bar = (session, level) => html`
    <div class="facts-bar">
        <button type="button" class="contents" data-do="contents" aria-label="${t("outline")}" title="${t("outline")}">☰</button>
        <a class="chapter" href="#"></a>
        <span class="where"></span>
        <span class="actions">
            <span class="levels" role="group" aria-label="${t("level")}">${LEVELS.map(name => html`<button type="button" data-level="${name}" aria-pressed="${String(name === level)}">${t(`level.${name}`)}</button>`)}</span>
            <button type="button" data-do="find">${t("find")}</button>
            <button type="button" data-do="filter" aria-expanded="false">${t("filter")}</button>
            <button type="button" class="follow" data-do="follow" aria-pressed="false" hidden>${t("follow")}</button>
            <button type="button" data-do="first" title="${t("first")}" aria-label="${t("first")}">↑</button>
            <button type="button" data-do="last" title="${t("last")}" aria-label="${t("last")}">↓</button>
            <details class="menu"><summary aria-label="${t("menu")}" title="${t("menu")}">⋯</summary>
                <ul>
                    <li><button type="button" data-copy="${location.origin}/session/${session.id}">${t("copy.link")}</button></li>
                    <li><button type="button" data-do="markdown">${t("copy.markdown")}</button></li>
                    <li><button type="button" data-do="print">${t("print")}</button></li>
                    ${resumeCommand(session) && html`<li><button type="button" data-copy="${resumeCommand(session)}" title="${resumeCommand(session)}">${t("copy.resume")}</button></li>`}
                    <li><a href="/api/sessions/${session.id}/raw" download>${t("download")}</a></li>
                    ${session.can_delete && html`<li><button type="button" class="danger" data-do="delete">${t("delete")}</button></li>`}
                </ul></details>
        </span>
    </div>`;

/** Tool -> how it goes on with a session of its own; to add one, its line here.  As the tools' own pages say, or as they print at the end
 *  of a session; tools that show their sessions in an editor's window have none. */
const RESUME = {
    "claude-code": "claude --resume ", codex: "codex resume ", gemini: "gemini --resume ", qwen: "qwen --resume ",
    opencode: "opencode --session ", "kilo-cli": "kilo --session ", droid: "droid --resume ", "copilot-cli": "copilot --resume=",
    amp: "amp threads continue ", kimi: "kimi --session ", goose: "goose session --resume --session-id ", pi: "pi --session ",
    hermes: "hermes --resume ",
};

/** The command that goes on with a session where it was made; only for ids and folders that are safe in a shell, and for no sub-agent. */
function resumeCommand({ tool, hail_session_id: id, attributes: { cwd, session_role: role } = {} }) {
    if (!Object.hasOwn(RESUME, tool) || role === "auxiliary" || !/^\w[\w-]*$/.test(id ?? "")) return null;
    const folder = /^(~|\/)[\w./@+-]*$/.test(cwd ?? "") ? `cd ${cwd} && ` : "";
    return folder + RESUME[tool] + id;
}

/** Why the tokens are what they are: what the file says line by line, and what of it counts. */
export function usageTable({ attributes: { usage } = {}, total_input_tokens: input, total_output_tokens: output }) {
    const rows = usage ? [
        ["usage.raw", usage.raw_input, usage.raw_output],
        ["usage.counted", usage.input ?? input, usage.output ?? output],
        ["usage.cache_read", usage.cache_read, null],
        ["usage.cache_write", usage.cache_write, null],
        ["usage.reasoning", null, usage.reasoning],
        ["usage.subagents", usage.subagents?.input, usage.subagents?.output],
    ] : [["usage.counted", input, output]];
    return html`
        <h2>${t("usage.why")}</h2>
        <table class="usage"><thead><tr><td></td><th scope="col">${t("usage.in")}</th><th scope="col">${t("usage.out")}</th></tr></thead>
            <tbody>${rows.filter(([, first, second]) => first || second).map(([key, first, second]) => html`<tr><th scope="row">${t(key)}</th><td>${first || second ? first !== null && first !== undefined && number(first) : ""}</td><td>${second !== null && second !== undefined && number(second)}</td></tr>`)}</tbody></table>
        ${usage && html`<ul class="why">
            ${usage.responses > 0 && html`<li>${t("usage.responses", { n: usage.responses })}</li>`}
            ${usage.duplicates_removed > 0 && html`<li>${t("usage.duplicates", { n: usage.duplicates_removed })}</li>`}
            ${usage.replayed > 0 && html`<li>${t("usage.replayed", { n: usage.replayed })}</li>`}</ul>`}
        <p class="sub">${t("usage.hint")}</p>
        <p class="actions"><button type="button" value="close" autofocus>${t("close")}</button></p>`;
}
