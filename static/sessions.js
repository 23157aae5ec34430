// sessions.js - the list of sessions: filters with counts, a month of days, rows, more
import { get } from "./api.js";
import { openChoosing } from "./choosing.js";
import { facetChips } from "./facets.js";
import { age, day, dayKey, moment, number } from "./format.js";
import { searchResults } from "./found.js";
import { isRunning } from "./following.js";
import { go } from "./go.js";
import { openHeat } from "./heat.js";
import { element, html } from "./html.js";
import { t } from "./i18n.js";
import { useKeys } from "./keys.js";
import { dotted, lineCounts, mark, spoken, stepBar, times, tokens } from "./marks.js";
import { announce, showError, title } from "./parts.js";
import { nothingYet } from "./start.js";
import { onChange } from "./tabs.js";
import { teams, user } from "./who.js";

const PER_PAGE = 50;
const SORTS = ["recent", "popular", "longest"];
const TIMES = ["24h", "7d", "30d"];
/** Parameter of the page -> parameter of the API. */
const FILTERS = { q: "search", team: "team_id", tool: "tool", time: "time_range", sort: "sort", project: "project", user: "user_id", model: "model", branch: "branch", day: "day", secrets: "secrets" };

// The list as it was left, so that coming back finds it as long and at the same place.
let remembered = null;
let isOutdated = false;                 // something was changed here since: what is remembered is not shown again

onChange((path, here) => {
    if (here) isOutdated = true;
    else follow(path);
});

export async function show(view, { query, back }) {
    title(t("nav.sessions"));
    const wanted = String(query);
    const kept = back && !isOutdated && remembered?.wanted === wanted && remembered.who === user()?.user_id ? remembered : null;
    const [list, ownTeams] = await Promise.all([kept ?? load(query), teams()]);
    if (!user() && !list.sessions.length && !wanted) return go("/login", { replace: true });
    remembered = { ...list, wanted, who: user()?.user_id };
    isOutdated = false;
    view.innerHTML = html`
        <h1 class="unseen">${t("nav.sessions")}</h1>
        ${filterBar(query, ownTeams)}
        <div class="facets">${facetChips(remembered, query)}</div>
        <div class="heat"></div>
        <div class="chosen" hidden></div>
        <div class="found"></div>
        <div class="list"></div>`;
    const list_ = view.querySelector(".list");
    drawList(list_, query);
    wireFilters(view, query);
    if (query.get("q")) searchResults(view.querySelector(".found"), query.get("q"), filtersOf(query));
    if (remembered.sessions.length || query.get("day")) openHeat(view.querySelector(".heat"), { asked: askedOf(query), day: query.get("day"), newest: newestOf(remembered.sessions), onDay: each => change(query, "day", each) });
    const choosing = user() && openChoosing(view, { sessions: () => remembered.sessions, teams: ownTeams, onDone: () => { remembered = null; go(location.pathname + location.search, { replace: true }); } });
    return useKeys(choosing ? { x: choosing.toggleFocused } : {});
}

/** What narrows the list, without its words and its order. */
const filtersOf = query => ({ ...askedOf(query), search: null, sort: null });

const newestOf = sessions => sessions.length ? lastActive(sessions[0]) : undefined;

const askedOf = query => ({ ...Object.fromEntries(Object.entries(FILTERS).map(([name, apiName]) => [apiName, query.get(name)])),
    tz: query.get("day") ? -new Date(`${query.get("day")}T12:00`).getTimezoneOffset() : null });

function load(query, cursor) {
    return get("/api/sessions", { ...askedOf(query), per_page: PER_PAGE, cursor, facets: cursor ? null : 1 });
}

/** The list with one filter set, changed or, where it has that value already, dropped. */
function change(query, name, value) {
    const next = new URLSearchParams(query);
    if (!value || next.get(name) === value) next.delete(name);
    else next.set(name, value);
    return go(String(next) ? `/?${next}` : "/");
}

function filterBar(query, ownTeams) {
    const options = (name, values) => values.map(([value, text]) => html`
        <option value="${value}" ${(query.get(name) ?? "") === value && "selected"}>${text}</option>`);
    const choice = (name, label, all, values) => html`
        <select name="${name}" aria-label="${label}" ${query.get(name) && html`class="set"`}><option value="">${all}</option>${options(name, values)}</select>`;
    return html`
        <form class="filters" role="search">
            <input type="search" name="q" value="${query.get("q")}" placeholder="${t("search")}" aria-label="${t("search")}" data-search autocomplete="off">
            ${ownTeams.length > 1 && choice("team", t("team"), t("team.all"), ownTeams.map(team => [team.id, team.name]))}
            ${choice("time", t("time"), t("time.all"), TIMES.map(time => [time, t(`time.${time}`)]))}
            <select name="sort" aria-label="${t("sort")}">${options("sort", SORTS.map(sort => [sort === "recent" ? "" : sort, t(`sort.${sort}`)]))}</select>
        </form>`;
}

function wireFilters(view, query) {
    const form = view.querySelector("form.filters");
    form.addEventListener("change", event => event.target.name !== "q" && change(query, event.target.name, event.target.value));
    form.addEventListener("submit", event => { event.preventDefault(); if (form.elements.q.value !== (query.get("q") ?? "")) change(query, "q", form.elements.q.value); });
    form.querySelector("[name=q]").addEventListener("search", event => !event.target.value && query.get("q") && change(query, "q", ""));
    view.querySelector(".facets").addEventListener("click", event => {
        const chip = event.target.closest("button[data-facet]");
        if (chip) change(query, chip.dataset.facet, chip.dataset.value);
    });
}

function drawList(list, query) {
    const { sessions, total, total_is_capped: capped, next_cursor: cursor } = remembered;
    if (!sessions.length) {
        list.innerHTML = query.get("q") ? html`` : String(query) ? nothingFound() : nothingYet();
        return;
    }
    const byDay = !query.get("sort") || query.get("sort") === "recent", length = lengthShown(query);
    list.innerHTML = html`
        ${query.get("q") && html`<h2>${t("found.sessions")}</h2>`}
        <table class="sessions">
            <thead><tr><th scope="col">${t("count.sessions", { n: total })}${capped && "+"}</th><th scope="col">${t("project")}</th><th scope="col">${t("steps")}</th>
                <th scope="col">${t("prompts")}</th><th scope="col">${t("lines")}</th><th scope="col">${t("tokens")}</th>
                <th scope="col">${t(`time.${length}.column`)}</th><th scope="col">${t("updated")}</th></tr></thead>
            <tbody>${sessions.map((session, at) => [byDay && dayRow(session, sessions[at - 1]), row(session, length)])}</tbody>
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
        remembered = { ...remembered, sessions: [...remembered.sessions, ...further.sessions],
            with_secrets: [...remembered.with_secrets ?? [], ...further.with_secrets ?? []], next_cursor: further.next_cursor };
        drawList(list, query);
    } catch (error) {
        button.disabled = false;
        showError(button.parentNode, error);
    }
}

/** A session that another tab has changed is shown as it is now, or goes. */
async function follow(path) {
    const old = remembered?.sessions.find(({ id }) => path.startsWith(`/api/sessions/${id}`));
    if (!old) return;
    const now = await get(`/api/sessions/${old.id}`).catch(error => error.status === 404 ? null : old);
    remembered.sessions = remembered.sessions.flatMap(session => session.id !== old.id ? session : now ? { ...session, ...now } : []);
    const shown = document.querySelector(`.sessions a[href="/session/${old.id}"]`)?.closest("tr");
    if (now) shown?.replaceWith(element(row({ ...old, ...now }, lengthShown(new URLSearchParams(location.search)))));
    else shown?.remove();
}

const lastActive = session => session.updated_at ?? session.created_at;

function dayRow(session, previous) {
    const time = lastActive(session);
    if (previous && dayKey(lastActive(previous)) === dayKey(time)) return null;
    return html`<tr class="day"><th colspan="8" scope="colgroup">${dayName(time)}</th></tr>`;
}

function dayName(time) {
    const today = dayKey(Date.now()) === dayKey(time);
    return today ? t("today") : dayKey(Date.now() - 86400000) === dayKey(time) ? t("yesterday") : day(time);
}

/** Which of a session's times the list shows: what it is sorted by, else the active one. */
const lengthShown = query => query.get("sort") === "longest" ? "wall" : "active";

const row = (session, length) => html`
    <tr class="row">
        <td>${user() && html`<input type="checkbox" data-choose="${session.id}" aria-label="${t("choose", { name: session.title || t("untitled") })}">`}${mark(session.tool)}
            <a href="/session/${session.id}" data-open data-row dir="auto" ${spoken(session.title)}>${session.title || t("untitled")}</a></td>
        <td><span class="project" title="${[session.project, session.git_branch].filter(Boolean).join(" · ")}" dir="auto">${session.project}</span>
            <span class="sub">${dotted([session.nickname, ...rowMarks(session, remembered.with_secrets?.includes(session.id))])}</span></td>
        <td>${stepBar(session.step_kinds)}</td>
        <td title="${t("count.messages", { n: session.message_count })}">${number(session.user_message_count)}</td>
        <td>${lineCounts(session)}</td>
        <td>${tokens(session)}</td>
        <td>${times(session)[length]}</td>
        <td><time datetime="${lastActive(session)}" title="${moment(lastActive(session))}">${age(lastActive(session))}</time></td>
    </tr>`;

const rowMarks = (session, hasSecrets) => [
    isRunning(session) && html`<span class="live">${t("live")}</span>`,
    hasSecrets && html`<span class="failed" title="${t("secrets.row")}">${t("secrets")}</span>`,
    session.has_errors && html`<span class="failed">${t("errors")}</span>`,
    session.child_count > 0 && t("count.children", { n: session.child_count }),
];

const nothingFound = () => html`
    <section class="notice"><h2>${t("list.nothing")}</h2><p>${t("list.nothing.hint")}</p><p><a class="button" href="/">${t("list.clear")}</a></p></section>`;
