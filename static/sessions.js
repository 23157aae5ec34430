// sessions.js - the list of sessions: search, filters, more
import { get } from "./api.js";
import { age, day, dayKey, moment, number } from "./format.js";
import { go } from "./go.js";
import { html } from "./html.js";
import { t } from "./i18n.js";
import { dotted, lineCounts, mark, tokens } from "./marks.js";
import { announce, showError, title } from "./parts.js";
import { nothingYet } from "./start.js";
import { toolNames, toolTitle } from "./tools.js";
import { teams, user } from "./who.js";

const PER_PAGE = 50;
const SORTS = ["recent", "popular", "longest"];
const TIMES = ["24h", "7d", "30d"];
const FILTERS = { q: "search", team: "team_id", tool: "tool", time: "time_range", sort: "sort", project: "project", user: "user_id" };

// The list as it was left, so that coming back finds it as long and at the same place.
let remembered = null;

export async function show(view, { query, back }) {
    title(t("nav.sessions"));
    const wanted = String(query);
    const kept = back && remembered?.wanted === wanted && remembered.who === user()?.user_id ? remembered : null;
    const [list, ownTeams] = await Promise.all([kept ?? load(query), teams()]);
    if (!user() && !list.sessions.length && !wanted) return go("/login", { replace: true });
    remembered = { ...list, wanted, who: user()?.user_id };
    view.innerHTML = html`
        <h1 class="unseen">${t("nav.sessions")}</h1>
        ${filterBar(query, ownTeams)}
        <div class="list"></div>`;
    drawList(view.querySelector(".list"), query);
    wireFilters(view.querySelector("form"));
}

function load(query, cursor) {
    const asked = Object.entries(FILTERS).map(([name, apiName]) => [apiName, query.get(name)]);
    return get("/api/sessions", { ...Object.fromEntries(asked), per_page: PER_PAGE, cursor });
}

function filterBar(query, ownTeams) {
    const options = (name, values) => values.map(([value, text]) => html`
        <option value="${value}" ${query.get(name) === value && "selected"}>${text}</option>`);
    const choice = (name, label, all, values) => html`
        <select name="${name}" aria-label="${label}" ${query.get(name) && html`class="set"`}><option value="">${all}</option>${options(name, values)}</select>`;
    return html`
        <form class="filters" role="search">
            <input type="search" name="q" value="${query.get("q")}" placeholder="${t("search")}" aria-label="${t("search")}" data-search autocomplete="off">
            ${ownTeams.length > 1 && choice("team", t("team"), t("team.all"), ownTeams.map(team => [team.id, team.name]))}
            ${choice("tool", t("tool"), t("tool.all"), toolNames.map(name => [name, toolTitle(name)]))}
            ${choice("time", t("time"), t("time.all"), TIMES.map(time => [time, t(`time.${time}`)]))}
            <select name="sort" aria-label="${t("sort")}">${options("sort", SORTS.map(sort => [sort === "recent" ? "" : sort, t(`sort.${sort}`)]))}</select>
            ${["project", "user"].map(name => query.get(name) && html`
                <input type="hidden" name="${name}" value="${query.get(name)}">
                <button type="button" class="chip" data-drop="${name}" aria-label="${t("filter.drop", { name: query.get(name) })}">${query.get(name)} ×</button>`)}
        </form>`;
}

function wireFilters(form) {
    const apply = () => {
        const values = [...new FormData(form)].filter(([, value]) => value);
        go("/" + (values.length ? "?" + new URLSearchParams(values) : ""));
    };
    form.addEventListener("change", event => event.target.name !== "q" && apply());
    form.addEventListener("submit", event => { event.preventDefault(); apply(); });
    form.querySelector("[name=q]").addEventListener("search", event => !event.target.value && apply());
    form.addEventListener("click", event => {
        const name = event.target.dataset.drop;
        if (name) { form.elements[name].remove(); apply(); }
    });
}

function drawList(list, query) {
    const { sessions, total, total_is_capped: capped, next_cursor: cursor } = remembered;
    if (!sessions.length) {
        list.innerHTML = String(query) ? nothingFound() : nothingYet();
        return;
    }
    const byDay = !query.get("sort") || query.get("sort") === "recent";
    list.innerHTML = html`
        <table class="sessions">
            <thead><tr><th scope="col">${t("count.sessions", { n: total })}${capped && "+"}</th><th scope="col">${t("prompts")}</th><th scope="col">${t("lines")}</th>
                <th scope="col">${t("tokens")}</th><th scope="col">${t("active")}</th></tr></thead>
            <tbody>${sessions.map((session, at) => [byDay && dayRow(session, sessions[at - 1]), row(session)])}</tbody>
        </table>
        ${cursor && html`<p class="more"><button type="button">${t("more")}</button></p>`}`;
    const more = list.querySelector(".more button");
    if (more) more.onclick = () => loadMore(list, more, query);
    announce(t("count.sessions", { n: total }));
}

async function loadMore(list, button, query) {
    button.disabled = true;
    try {
        const further = await load(query, remembered.next_cursor);
        remembered = { ...remembered, sessions: [...remembered.sessions, ...further.sessions], next_cursor: further.next_cursor };
        drawList(list, query);
    } catch (error) {
        button.disabled = false;
        showError(button.parentNode, error);
    }
}

const lastActive = session => session.updated_at ?? session.created_at;

function dayRow(session, previous) {
    const time = lastActive(session);
    if (previous && dayKey(lastActive(previous)) === dayKey(time)) return null;
    return html`<tr class="day"><th colspan="5" scope="colgroup">${dayName(time)}</th></tr>`;
}

function dayName(time) {
    const today = dayKey(Date.now()) === dayKey(time);
    return today ? t("today") : dayKey(Date.now() - 86400000) === dayKey(time) ? t("yesterday") : day(time);
}

const row = session => html`
    <tr class="row">
        <td>${mark(session.tool)}<div>
            <a href="/session/${session.id}" data-open data-row>${session.title || t("untitled")}</a>
            <span class="sub">${dotted([session.project, session.git_branch, session.nickname, ...rowMarks(session)])}</span></div></td>
        <td title="${t("count.messages", { n: session.message_count })}">${number(session.user_message_count)}</td>
        <td>${lineCounts(session)}</td>
        <td>${tokens(session)}</td>
        <td><time datetime="${lastActive(session)}" title="${moment(lastActive(session))}">${age(lastActive(session))}</time></td>
    </tr>`;

const rowMarks = session => [
    session.child_count > 0 && t("count.children", { n: session.child_count }),
    session.has_errors && html`<span class="failed">${t("errors")}</span>`,
];

const nothingFound = () => html`
    <section class="notice"><h2>${t("list.nothing")}</h2><p>${t("list.nothing.hint")}</p><p><a class="button" href="/">${t("list.clear")}</a></p></section>`;
