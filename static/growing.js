// growing.js - a session that goes on while it is read: new events are drawn, or counted until the reader comes to them
import { get } from "./api.js";
import { keepAsking } from "./following.js";
import { retitle } from "./head.js";
import { element, html } from "./html.js";
import { t } from "./i18n.js";

/** Ask for news of a session from now on.  Returns {news(), toggle(), drawUnseen(), close()}; `take(answers)` is called with what
 *  the session, its map and its outline are then. */
export function openGrowing(part, path, state, { reader, store, take }) {
    const stopAsking = keepAsking(() => state.session, news);

    async function news() {
        const session = await get(path);
        if (!part(".reader")?.isConnected) return;
        if (session.title !== state.session.title) {
            state.session = { ...state.session, title: session.title };
            retitle(part, session);
        }
        if (session.revision === state.session.revision && session.event_count === state.session.event_count) return;
        const [facts, outline] = await Promise.all([get(`${path}/map`), get(`${path}/outline`)]);
        if (!part(".reader")?.isConnected) return;
        const old = state.facts, wasAtEnd = reader.isAtEnd();
        if (!facts.kinds.startsWith(old.kinds)) { staleNotice(); return; }
        store.forgetFrom(Math.max(0, old.total - 1));
        take([session, facts, outline]);
        if (wasAtEnd || reader.reaches(old.total)) await reader.replan();
        if (wasAtEnd && state.following) return reader.last();
        state.unseen += state.facts.total - old.total;
        drawUnseen();
    }

    function toggle() {
        state.following = !state.following;
        part("button.follow").setAttribute("aria-pressed", String(state.following));
        if (state.following) reader.last();
    }

    function drawUnseen() {
        const old = part("button.unseen-events");
        if (!state.unseen) return old?.remove();
        if (!old) part(".reading").append(element(html`<button type="button" class="unseen-events" data-do="unseen"></button>`));
        part("button.unseen-events").textContent = t("unseen", { n: state.unseen });
        return null;
    }

    function staleNotice() {
        if (part(".stale")) return;
        const notice = element(html`<p class="stale" role="status">${t("stale")} <button type="button">${t("reload")}</button></p>`);
        notice.querySelector("button").onclick = () => location.reload();
        part(".reader").before(notice);
    }

    return { news, toggle, drawUnseen, close: stopAsking };
}
