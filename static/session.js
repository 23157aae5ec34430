// session.js - one session: its facts, then its events
import { get, remove } from "./api.js";
import { age, compact, date, duration, moment, number } from "./format.js";
import { go } from "./go.js";
import { element, html } from "./html.js";
import { t } from "./i18n.js";
import { dotted, lineCounts, mark } from "./marks.js";
import { announce, confirmed, showError, title } from "./parts.js";
import { openReader } from "./reader.js";
import { toolTitle } from "./tools.js";

export async function show(view, { params: [id] }) {
    const path = `/api/sessions/${encodeURIComponent(id)}`;
    const session = await get(path);
    title(session.title || t("untitled"));
    view.innerHTML = html`
        ${header(session)}
        ${bar(session)}
        <section class="reader" aria-label="${t("events")}"></section>`;
    const reader = openReader(view.querySelector(".reader"), session.id, {
        onMove: (at, total) => { view.querySelector(".where").textContent = total ? t("position", { at: number(Math.min(at, total)), total: number(total) }) : ""; },
        onChanged: () => staleNotice(view),
    });
    const follow = () => jump(reader);
    addEventListener("hashchange", follow);
    wireActions(view, session, path, reader);
    const head = new IntersectionObserver(([title]) => view.querySelector(".facts-bar").classList.toggle("stuck", !title.isIntersecting));
    head.observe(view.querySelector("h1"));
    if (!await jump(reader)) await reader.start();
    return () => {
        removeEventListener("hashchange", follow);
        head.disconnect();
        reader.close();
    };
}

/** Go to the event that the address names; false where it names none that is here. */
async function jump(reader) {
    const eventId = new URLSearchParams(location.hash.slice(1)).get("e");
    if (!eventId) return false;
    const found = await reader.jumpTo(eventId).catch(error => {
        if (error.status !== 404) throw error;
        return false;
    });
    if (!found) announce(t("event.missing"));
    return found;
}

function wireActions(view, session, path, reader) {
    const actions = { first: reader.first, last: reader.last, delete: () => deleteSession(session, path) };
    view.addEventListener("click", event => actions[event.target.closest("button[data-do]")?.dataset.do]?.());
}

async function deleteSession(session, path) {
    if (!await confirmed(t("delete.question", { name: session.title || t("untitled") }), t("delete.hint"), t("delete"))) return;
    await remove(path).then(() => go("/", { replace: true }), error => showError(document.querySelector(".facts-bar"), error));
}

function staleNotice(view) {
    if (view.querySelector(".stale")) return;
    const notice = element(html`<p class="stale" role="status">${t("stale")} <button type="button">${t("reload")}</button></p>`);
    notice.querySelector("button").onclick = () => location.reload();
    view.querySelector(".reader").before(notice);
}

function header(session) {
    return html`
        <header class="session">
            ${session.parent && html`<p class="parent">${t("parent")} <a href="/session/${session.parent.id}">${session.parent.title || t("untitled")}</a></p>`}
            <h1>${mark(session.tool)}${session.title || t("untitled")}</h1>
            <p class="facts">${dotted(facts(session))}</p>
            <p class="facts numbers">${dotted(numbers(session))}</p>
            ${notes(session)}
            ${children(session)}
        </header>`;
}

function facts(session) {
    const { agent = {} } = session;
    const last = session.updated_at ?? session.created_at;
    return [
        html`<b>${toolTitle(session.tool)}</b>${agent.tool_version && ` ${agent.tool_version}`}`,
        session.agent_model,
        session.project && html`<a href="/?project=${encodeURIComponent(session.project)}">${session.project}</a>`,
        session.git_branch && html`<code>${session.git_branch}</code>`,
        session.nickname,
        session.team_name && html`<a href="/teams/${session.team_id}">${session.team_name}</a>`,
        html`<time datetime="${session.created_at}" title="${moment(session.created_at)} – ${moment(last)}">${date(session.created_at)}, ${age(last)}</time>`,
    ];
}

function numbers(session) {
    const { total_input_tokens: input, total_output_tokens: output } = session;
    return [
        session.duration_seconds > 0 && duration(session.duration_seconds * 1000),
        t("count.prompts", { n: session.user_message_count ?? 0 }),
        t("count.events", { n: session.event_count }),
        session.files_changed > 0 && t("count.files", { n: session.files_changed }),
        lineCounts(session),
        (input > 0 || output > 0) && html`<span title="${t("tokens.title", { input: number(input), output: number(output) })}">${t("tokens.title", { input: compact(input), output: compact(output) })}</span>`,
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

const bar = session => html`
    <div class="facts-bar">
        <span class="name">${session.title || t("untitled")}</span>
        <span class="where"></span>
        <span class="actions">
            <button type="button" data-do="first" title="${t("first")}" aria-label="${t("first")}">↑</button>
            <button type="button" data-do="last" title="${t("last")}" aria-label="${t("last")}">↓</button>
            <button type="button" data-copy="${location.origin}/session/${session.id}">${t("copy.link")}</button>
            <a class="button" href="/api/sessions/${session.id}/raw" download>${t("download")}</a>
            ${session.can_delete && html`<button type="button" class="danger" data-do="delete">${t("delete")}</button>`}
        </span>
    </div>`;
