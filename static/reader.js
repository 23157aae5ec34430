// reader.js - a long session as windows of events: loaded towards both ends, dropped when far away
import { get } from "./api.js";
import { diffBlock, drawBlock } from "./blocks.js";
import { element, html } from "./html.js";
import { number } from "./format.js";
import { t } from "./i18n.js";
import { Page } from "./pages.js";
import { announce, showError } from "./parts.js";

const WINDOW = 200;
const KEPT_PAGES = 3;
const NEAR = 1500;                      // pixels: what is closer than this is loaded …
const BAR = 64;                         // what the bar on top covers, and a little
const FAR = 4000;                       // … and what is farther than this may go

/** Show the events of a session in `box`.  Returns {jumpTo, first, last, ordinal, close}. */
export function openReader(box, sessionId, { onMove, onChanged }) {
    const path = `/api/sessions/${encodeURIComponent(sessionId)}/events`;
    const pages = new Map();            // <section> of a page -> Page
    const taskTitles = new Map();
    let total = 0, revision = null, busy = false;

    box.innerHTML = html`<div class="end" data-end="top"></div><div class="pages"></div><div class="end" data-end="bottom"></div>`;
    const [top, list, bottom] = box.children;
    const watch = new IntersectionObserver(entries => entries.some(entry => entry.isIntersecting) && grow(), { rootMargin: `${NEAR}px` });
    [top, bottom].forEach(end => watch.observe(end));
    box.addEventListener("toggle", event => unfold(event.target), true);
    box.addEventListener("click", clicked);
    addEventListener("scroll", moved, { passive: true });

    async function load(query) {
        const answer = await get(path, { limit: WINDOW, ...query });
        if (revision !== null && answer.revision !== revision) onChanged();
        revision = answer.revision;
        total = answer.total;
        return answer;
    }

    function add(answer, where) {
        const page = new Page(answer.events, taskTitles);
        const section = element(html`<section class="page">${page.markup}</section>`);
        pages.set(section, page);
        list[where](section);
    }

    const pageAt = place => pages.get(place < 0 ? list.lastElementChild : list.firstElementChild);
    const isNear = end => { const { top, bottom } = end.getBoundingClientRect(); return bottom > -NEAR && top < innerHeight + NEAR; };

    /** Load what is missing at the ends in sight, one window at a time. */
    async function grow() {
        if (busy || !pages.size) return;
        busy = true;
        try {
            while (box.isConnected) {
                const first = pageAt(0).from, last = pageAt(-1).to;
                if (last < total && isNear(bottom)) await extend({ from: last }, "append");
                else if (first > 0 && isNear(top)) await extend({ from: Math.max(0, first - WINDOW), limit: Math.min(WINDOW, first) }, "prepend");
                else break;
            }
        } catch (error) {
            failed(error);
        }
        busy = false;
        drawEnds();
    }

    async function extend(query, where) {
        const answer = await load(query);
        if (where === "prepend") await complete(answer, query.from + query.limit);
        if (!box.isConnected || !answer.events.length) throw new Error(t("error.window"));
        keepPlace(() => {
            add(answer, where);
            dropFar(() => where === "append" ? list.firstElementChild : list.lastElementChild);
        });
    }

    /** A window may hold fewer events than asked for: fetch on until it reaches `end`. */
    async function complete(answer, end) {
        for (let from = answer.next; answer.from + answer.events.length < end && from !== null;) {
            const further = await load({ from, limit: end - from });
            answer.events.push(...further.events);
            from = further.next;
        }
    }

    /** Only what is far out of sight goes; pages may be short, and what goes too early comes back at once. */
    function dropFar(farthest) {
        while (pages.size > KEPT_PAGES) {
            const { top, bottom } = farthest().getBoundingClientRect();
            if (bottom > -FAR && top < innerHeight + FAR) return;
            drop(farthest());
        }
    }

    function drop(section) {
        pages.delete(section);
        section.remove();
    }

    /** Change the pages without moving what the reader looks at. */
    function keepPlace(change) {
        const anchor = inSight();
        const before = anchor?.getBoundingClientRect().top;
        change();
        if (anchor?.isConnected) scrollBy({ top: anchor.getBoundingClientRect().top - before, behavior: "instant" });
    }

    /** The first event that is in sight. */
    function inSight() {
        const section = [...list.children].find(section => section.getBoundingClientRect().bottom > BAR);
        return section && [...section.children].find(child => child.getBoundingClientRect().bottom > BAR);
    }

    function failed(error) {
        const note = element(html`<p class="error" role="alert">${error.message} <button type="button">${t("retry")}</button></p>`);
        note.querySelector("button").onclick = () => { note.remove(); grow(); };
        bottom.replaceChildren(note);
    }

    function drawEnds() {
        if (pages.size && pageAt(-1).to >= total) bottom.innerHTML = html`<p class="over">${t("end", { n: total })}</p>`;
        moved();
    }

    let waiting = false;
    function moved() {
        if (waiting) return;
        waiting = true;
        requestAnimationFrame(() => {
            waiting = false;
            const ordinal = Number(inSight()?.id?.slice(2) ?? 0);
            if (box.isConnected) onMove(ordinal + 1, total);
        });
    }

    /** Draw the inside of a fold when it is opened for the first time. */
    function unfold(details) {
        const key = details.dataset?.body;
        if (!key || !details.open || details.querySelector(":scope > .body")) return;
        details.append(element(html`<div class="body">${pageOf(details).hidden.get(key)()}</div>`));
    }

    const pageOf = node => pages.get(node.closest("section.page"));

    function clicked(event) {
        const button = event.target.closest("button");
        if (button?.dataset.more) replaceFold(button, pageOf(button).hidden.get(button.dataset.more)());
        if (button?.dataset.whole) fetchWhole(button);
    }

    function replaceFold(button, markup) {
        const opened = element(html`<div class="opened" tabindex="-1">${markup}</div>`);
        button.closest(".fold").replaceWith(opened);
        opened.focus({ preventScroll: true });
    }

    async function fetchWhole(button) {
        const { whole: ordinal, block } = button.dataset;
        button.disabled = true;
        try {
            const event = await get(`${path}/${ordinal}`);
            replaceFold(button, block === "diff" ? diffBlock(null, event.event_type.data.diff) : drawBlock(null, event, Number(block)));
        } catch (error) {
            button.disabled = false;
            showError(button.parentNode, error);
        }
    }

    async function start(query) {
        const answer = await load(query);
        [...pages.keys()].forEach(drop);
        add(answer, "append");
        drawEnds();
        return answer;
    }

    /** Bring an event in sight by its id, opening the folds that it lies in; false if there is none. */
    async function jumpTo(eventId) {
        let ordinal = loadedOrdinal(eventId);
        if (ordinal === undefined) {
            ordinal = (await start({ around: eventId })).found;
            if (!pageAt(0).events.has(ordinal)) await start({ from: ordinal });
        }
        const target = reveal(ordinal);
        if (!target) return false;
        mark(target);
        grow();
        return true;
    }

    function loadedOrdinal(eventId) {
        for (const page of pages.values()) {
            for (const event of page.events.values()) if (event.event_id === eventId) return event.ordinal;
        }
        return undefined;
    }

    /** The element of an event; where it is folded away, its hosts are opened from the outside in. */
    function reveal(ordinal) {
        const page = [...pages.values()].find(page => page.events.has(ordinal));
        for (let tries = 0; page && tries < 5; tries += 1) {
            const found = document.getElementById(`e-${ordinal}`);
            if (found) return found;
            const details = reveal(page.places.get(ordinal))?.querySelector("details");
            if (!details) return null;
            details.open = true;
            unfold(details);
        }
        return null;
    }

    function mark(target) {
        box.querySelectorAll(".marked").forEach(old => old.classList.remove("marked"));
        target.classList.add("marked");
        const details = target.querySelector(":scope > details");
        if (details) details.open = true;
        target.scrollIntoView({ block: "start", behavior: "instant" });
        target.focus?.({ preventScroll: true });
    }

    async function goTo(from, block) {
        if (!pages.size || from < pageAt(0).from || from >= pageAt(-1).to) await start({ from: Math.max(0, from) });
        if (block === "end") scrollTo({ top: document.documentElement.scrollHeight, behavior: "instant" });
        else scrollTo({ top: 0, behavior: "instant" });
        announce(t("position", { at: number(from + 1), total: number(total) }));
        await grow();
    }

    return {
        start: () => start({ from: 0 }).then(grow),
        jumpTo,
        first: () => goTo(0, "start"),
        last: () => goTo(total - Math.min(total, WINDOW), "end"),
        close() {
            watch.disconnect();
            removeEventListener("scroll", moved);
        },
    };
}
