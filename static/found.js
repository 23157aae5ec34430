// found.js - what a search found inside sessions: each with its best places, which are links to the event
import { get } from "./api.js";
import { age } from "./format.js";
import { html } from "./html.js";
import { has, t } from "./i18n.js";
import { dotted, mark } from "./marks.js";
import { announce, showError } from "./parts.js";

/** Search for the page's words within `filters`, the list's own, and draw the hits into `box`. */
export async function searchResults(box, words, filters, cursor) {
    try {
        const answer = await get("/api/search", { ...filters, q: words, limit: 20, cursor });
        if (!box.isConnected) return;
        draw(box, answer, words, cursor);
        const more = box.querySelector(".more button");
        if (more) more.onclick = () => { more.disabled = true; searchResults(box, words, filters, answer.next_cursor); };
    } catch (error) {
        showError(box, error);
    }
}

function draw(box, answer, words, cursor) {
    box.querySelector(".more")?.remove();
    const said = [t("count.hits", { n: answer.count }) + (answer.count_is_capped ? "+" : ""),
        answer.searched_back_to && t("found.back", { time: age(answer.searched_back_to) }),
        answer.indexing > 0 && t("found.indexing", { n: answer.indexing }), answer.query.problems.length > 0 && t("found.cut")];
    const list = html`${answer.hits.map(each => hit(each, words))}`;
    const more = answer.next_cursor && html`<p class="more"><button type="button">${t("more")}</button></p>`;
    if (cursor) box.querySelector("ol").insertAdjacentHTML("beforeend", list);
    else box.innerHTML = html`<h2>${t("found.inside")} <span class="sub">${dotted(said)}</span></h2>
        ${!answer.hits.length && html`<p class="quiet">${t("found.nothing")} <a href="/">${t("list.clear")}</a></p>`}<ol class="hits">${list}</ol>`;
    if (more) box.insertAdjacentHTML("beforeend", more);
    announce(said[0]);
}

function hit({ session, count, places, title, title_from: from }, words) {
    const address = `/session/${session.id}?${new URLSearchParams({ q: words })}`;
    const link = place => place.event_id ? `${address}#e=${encodeURIComponent(place.event_id)}` : address;
    return html`<li>${mark(session.tool)}<div>
        <a class="title" href="${address}" data-open data-row>${session.title || t("untitled")}</a>
        <span class="sub">${dotted([session.project, session.nickname, age(session.updated_at ?? session.created_at), count > 0 && t("count.hits", { n: count })])}</span>
        ${title && (from !== "title" || !places.length) && html`<a class="place" href="${address}">${has(from) && html`<b>${t(from)}</b>`} <span>${lit(title)}</span></a>`}
        ${places.map(place => html`<a class="place" href="${link(place)}"><b>${placeName(place.kind)}</b> <span>${lit(place.snippet ?? [])}</span></a>`)}</div></li>`;
}

const lit = snippet => snippet.map(([text, found]) => found ? html`<mark>${text}</mark>` : text);

const MESSAGES = { UserMessage: "place.prompt", AgentMessage: "place.reply" };

const placeName = kind => has(`kind.${kind}`) ? t(`kind.${kind}`) : t(MESSAGES[kind] ?? "place.other");
