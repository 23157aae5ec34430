// reader.js - a long session as pages of a plan: drawn towards both ends, dropped when far away
import { diffBlock, drawBlock } from "./blocks.js";
import { element, html } from "./html.js";
import { t } from "./i18n.js";
import { Page } from "./pages.js";
import { isAway, showError, whenReachable } from "./parts.js";
import { holder, neededBy, pageEnd, pageStart, piecesBetween } from "./plan.js";

const WEIGHT = 50;                      // lines of a page, about
const BAR = 56;                         // pixels that the bar on top covers
const NEAR = 900;                       // what is closer than this is drawn …
const FAR = 1700;                       // … and what is farther goes

/** Show the events of a session in `box`.  `plan()` gives {facts, pieces}, `unhide(ordinal)` opens the folds round an event. */
export function openReader(box, store, { plan, unhide, onMove, onDraw }) {
    const pages = new Map();            // <section> of a page -> Page
    let generation = 0, busy = false, waiting = false, broken = false;

    box.innerHTML = html`<div class="end" data-end="top"></div><div class="pages"></div><div class="end" data-end="bottom"></div>`;
    const [top, list, bottom] = box.children;
    const watch = new IntersectionObserver(entries => entries.some(entry => entry.isIntersecting) && grow(), { rootMargin: `${NEAR}px` });
    [top, bottom].forEach(end => watch.observe(end));
    box.addEventListener("toggle", event => unfold(event.target), true);
    box.addEventListener("click", clicked);
    addEventListener("scroll", moved, { passive: true });
    addEventListener("resize", moved, { passive: true });

    const firstPage = () => pages.get(list.firstElementChild);
    const lastPage = () => pages.get(list.lastElementChild);
    const total = () => plan().facts.total;
    const isNear = end => { const { top, bottom } = end.getBoundingClientRect(); return bottom > -NEAR && top < innerHeight + NEAR; };

    /** Make the page of [from, to); null where everything was drawn anew meanwhile. */
    async function makePage(from, to) {
        const mine = generation;
        const pieces = piecesBetween(plan().pieces, from, to);
        await store.need(neededBy(pieces));
        return mine === generation && box.isConnected ? new Page(pieces, store.at, { from, to }) : null;
    }

    function add(page, where) {
        const section = element(html`<section class="page">${page.markup}</section>`);
        pages.set(section, page);
        list[where](section);
        onDraw(section);
    }

    /** Whether an end in sight lacks something.  The observer alone is not enough: what came near again within a frame is no change to it. */
    const isLacking = () => pages.size && !broken && (lastPage().to < total() && isNear(bottom) || firstPage().from > 0 && isNear(top));

    /** Draw what is missing at the ends in sight, one page at a time. */
    async function grow() {
        if (busy || broken || !pages.size) return;
        busy = true;
        const mine = generation;
        try {
            while (box.isConnected && mine === generation) {
                const { facts, pieces } = plan();
                const { from } = firstPage(), { to } = lastPage();
                if (to < facts.total && isNear(bottom)) await extend(to, pageEnd(facts, pieces, to, WEIGHT), "append");
                else if (from > 0 && isNear(top)) await extend(pageStart(facts, pieces, from, WEIGHT), from, "prepend");
                else break;
            }
        } catch (error) {
            failed(error);
        }
        busy = false;
        if (mine !== generation) return grow();
        drawEnds();
    }

    async function extend(from, to, where) {
        const page = await makePage(from, to);
        if (!page) return;
        keepPlace(() => {
            add(page, where);
            dropFar(() => where === "append" ? list.firstElementChild : list.lastElementChild);
        });
        store.keepOnly(firstPage().from, lastPage().to);
    }

    /** Only what is far out of sight goes; what goes too early would come back at once. */
    function dropFar(farthest) {
        while (pages.size > 2) {
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

    const rows = () => list.querySelectorAll(".page > [data-at]");

    /** The first row in sight. */
    function inSight() {
        for (const section of list.children) {
            if (section.getBoundingClientRect().bottom <= BAR) continue;
            for (const row of section.children) if (row.dataset.at && row.getBoundingClientRect().bottom > BAR) return row;
        }
        return null;
    }

    function lastInSight() {
        for (const section of [...list.children].reverse()) {
            if (section.getBoundingClientRect().top >= innerHeight) continue;
            for (const row of [...section.children].reverse()) {
                const { top, height } = row.getBoundingClientRect();
                if (row.dataset.at && height && top < innerHeight) return row;
            }
        }
        return null;
    }

    function failed(error) {
        broken = true;
        const note = element(html`<p class="error" role="alert">${error.message} <button type="button">${t("retry")}</button></p>`);
        const again = () => { broken = false; note.remove(); grow(); };
        note.querySelector("button").onclick = again;
        bottom.replaceChildren(note);
        if (isAway(error)) whenReachable(note, again);
    }

    function drawEnds() {
        const atEnd = pages.size && lastPage().to >= total();
        if (atEnd) bottom.innerHTML = html`<p class="over">${t("end", { n: total() })}</p>`;
        else if (!bottom.querySelector(".error")) bottom.replaceChildren();
        moved();
    }

    function moved() {
        if (waiting) return;
        waiting = true;
        requestAnimationFrame(() => {
            waiting = false;
            if (!box.isConnected || !pages.size) return;
            if (isLacking()) grow();
            const first = Number(inSight()?.dataset.at ?? 0), last = lastInSight();
            onMove(first, Math.max(first, Number(last?.dataset.to ?? last?.dataset.at ?? first)));
        });
    }

    /** Draw the inside of an event's fold when it is opened for the first time. */
    function unfold(details) {
        const key = details.dataset?.body;
        if (!key || !details.open || details.querySelector(":scope > .body")) return;
        details.append(element(html`<div class="body">${pageOf(details).hidden.get(key)()}</div>`));
        onDraw(details);
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
        onDraw(opened);
    }

    async function fetchWhole(button) {
        const { whole: ordinal, block } = button.dataset;
        button.disabled = true;
        try {
            const event = await store.whole(ordinal);
            replaceFold(button, block === "diff" ? diffBlock(null, event.event_type.data.diff) : drawBlock(null, event, Number(block)));
        } catch (error) {
            button.disabled = false;
            showError(button.parentNode, error);
        }
    }

    /** Begin anew with the page that starts at an ordinal. */
    async function show(ordinal) {
        generation += 1;
        broken = false;
        const { facts, pieces } = plan();
        const from = Math.min(facts.callOf(ordinal), startOf(pieces, ordinal));
        const page = await makePage(from, pageEnd(facts, pieces, from, WEIGHT));
        if (!page) return false;
        list.replaceChildren();
        pages.clear();
        add(page, "append");
        drawEnds();
        return true;
    }

    /** A page begins with a whole line: the fold that an ordinal lies in, else the event itself. */
    function startOf(pieces, ordinal) {
        const piece = holder(pieces, ordinal);
        return piece && piece.type !== "events" ? piece.from : ordinal;
    }

    /** The row that shows an ordinal, or the fold that it lies in. */
    function rowOf(ordinal) {
        const exact = document.getElementById(`e-${ordinal}`);
        if (exact) return exact;
        const piece = holder(plan().pieces, ordinal);
        return piece?.key && document.getElementById(`f-${piece.key}`)
            || [...rows()].findLast(row => Number(row.dataset.at) <= ordinal) || null;
    }

    /** Draw everything anew after the plan has changed; what the reader looks at, or `focus`, stays where it is. */
    async function replan(focus) {
        if (!pages.size) return;
        const anchor = (focus && document.getElementById(focus)) ?? inSight();
        const ordinal = Number(anchor?.dataset.at ?? 0), before = anchor?.getBoundingClientRect().top ?? 0;
        const id = anchor?.id;
        const opened = [...list.querySelectorAll("details[open][data-body]")].map(details => details.closest(".event").id);
        if (!await show(ordinal)) return;
        reopen(opened);
        const row = (id && document.getElementById(id)) ?? rowOf(ordinal);
        const place = () => row && scrollBy({ top: row.getBoundingClientRect().top - before, behavior: "instant" });
        place();
        await grow();
        // Near the start there may be nothing above to scroll by until the pages before are drawn.
        place();
        (focus && row?.querySelector("[data-fold]") || null)?.focus({ preventScroll: true });
    }

    /** Open again what the reader had opened. */
    function reopen(ids) {
        for (const id of ids) {
            const details = document.querySelector(`#${CSS.escape(id)} > details`);
            if (details) { details.open = true; unfold(details); }
        }
    }

    /** Bring an event in sight, opening the folds that it lies in; returns its element or null. */
    async function jumpTo(ordinal, { mark = true } = {}) {
        unhide(ordinal);
        if (!pages.size || !isDrawn(ordinal)) await show(ordinal);
        const target = reveal(ordinal);
        if (!target) return null;
        if (mark) markOnly(target);
        target.scrollIntoView({ block: "start", behavior: "instant" });
        await grow();
        return target;
    }

    const isDrawn = ordinal => [...pages.values()].some(page => page.from <= ordinal && ordinal < page.to) && reveal(ordinal);

    function reveal(ordinal) {
        const found = document.getElementById(`e-${ordinal}`);
        if (found) return found;
        const host = [...pages.values()].map(page => page.places.get(ordinal)).find(place => place !== undefined);
        const details = host !== undefined && document.querySelector(`#e-${host} > details`);
        if (!details) return null;
        details.open = true;
        unfold(details);
        return document.getElementById(`e-${ordinal}`) ?? details.parentNode;
    }

    function markOnly(target) {
        box.querySelectorAll(".marked").forEach(old => old.classList.remove("marked"));
        target.classList.add("marked");
        const details = target.querySelector(":scope > details");
        if (details) { details.open = true; unfold(details); }
        target.focus?.({ preventScroll: true });
    }

    /** Scroll to an ordinal without marking or opening anything; fast enough to follow a pointer. */
    async function scrollToward(ordinal) {
        const drawn = [...pages.values()].some(page => page.from <= ordinal && ordinal < page.to);
        if (!drawn && !await show(ordinal)) return;
        rowOf(ordinal)?.scrollIntoView({ block: "start", behavior: "instant" });
        await grow();
    }

    return {
        show: ordinal => show(ordinal).then(grow),
        replan, jumpTo, scrollToward,
        /** The plan has changed and nothing that is drawn counts any more. */
        restart() {
            generation += 1;
            pages.clear();
            list.replaceChildren();
        },
        kept: (node, key) => pageOf(node).hidden.get(key)(),
        reaches: ordinal => Boolean(pages.size) && lastPage().to >= ordinal,
        inSight: () => Number(inSight()?.dataset.at ?? 0),
        first: () => scrollToward(0).then(() => scrollTo({ top: 0, behavior: "instant" })),
        async last() {
            await scrollToward(Math.max(0, total() - 1));
            scrollTo({ top: document.documentElement.scrollHeight, behavior: "instant" });
            await grow();
            scrollTo({ top: document.documentElement.scrollHeight, behavior: "instant" });
        },
        isAtEnd: () => Boolean(pages.size) && lastPage().to >= total() && bottom.getBoundingClientRect().top < innerHeight + 120,
        close() {
            generation += 1;
            watch.disconnect();
            removeEventListener("scroll", moved);
            removeEventListener("resize", moved);
        },
    };
}
