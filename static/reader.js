// reader.js - a long session as pages of a plan: drawn towards both ends, dropped when far away
import { openAhead } from "./ahead.js";
import { element, html } from "./html.js";
import { t } from "./i18n.js";
import { Page } from "./pages.js";
import { showRetry } from "./parts.js";
import { neededBy } from "./plan.js";
import { farAway, firstInSight, isWithin, keepPlace, lastInSight, nextFrame } from "./sight.js";
import { openUnfolding } from "./unfolding.js";

const SIGHT = 12;                       // lines of a page, about, where the reader sees that it is missing
const SLICE = 6;                        // … where they do not yet: so much can be drawn within a frame
const SCREEN = 40;                      // lines drawn at once where the reader is to see no change
const NEAR = 1100;                      // what is closer than so many pixels is drawn …
const FAR = 2000;                       // … and what is farther goes, in a frame of its own …
const SPARE = 2500;                     // … once it is so much, as all that stays has to be painted anew

/** Show the events of a session in `box`.  `plan()` is what is to be seen, `unhide(ordinal)` opens the folds round an event. */
export function openReader(box, store, { plan, unhide, onMove, onDraw }) {
    const pages = new Map();            // <section> of a page -> Page
    let generation = 0, busy = false, waiting = false, broken = false;

    box.innerHTML = html`<div class="end" data-end="top"></div><div class="pages"></div><div class="end" data-end="bottom"></div>`;
    const [top, list, bottom] = box.children;
    const watch = new IntersectionObserver(entries => entries.some(entry => entry.isIntersecting) && grow(), { rootMargin: `${NEAR}px` });
    [top, bottom].forEach(end => watch.observe(end));
    const pageOf = node => pages.get(node.closest("section.page"));
    const ahead = openAhead(store, plan);
    const folds = openUnfolding(box, store, { pageOf, onDraw });
    addEventListener("scroll", moved, { passive: true });
    addEventListener("resize", moved, { passive: true });

    const firstPage = () => pages.get(list.firstElementChild);
    const lastPage = () => pages.get(list.lastElementChild);
    const total = () => plan().facts.total;

    /** Make the page of [from, to); null where everything was drawn anew meanwhile. */
    async function makePage(from, to) {
        const mine = generation;
        const pieces = plan().between(from, to), needed = neededBy(pieces);
        if (!store.has(needed)) await store.need(needed);
        return mine === generation && box.isConnected ? new Page(pieces, store.at, { from, to }) : null;
    }

    function add(page, where) {
        const section = element(html`<section class="page">${page.markup}</section>`);
        pages.set(section, page);
        list[where](section);
        onDraw(section);
    }

    /** Where something is missing at an end in sight: the [from, to, where] of the page to draw next. */
    function lacking() {
        if (!pages.size || broken) return null;
        const { from } = firstPage(), { to } = lastPage();
        const lines = end => isWithin(end, 0) ? SIGHT : SLICE;
        if (to < total() && isWithin(bottom, NEAR)) return [to, plan().pageEnd(to, lines(bottom)), "append"];
        if (from > 0 && isWithin(top, NEAR)) return [plan().pageStart(from, lines(top)), from, "prepend"];
        return null;
    }

    /** Draw what is missing at the ends in sight, one page a frame; then what is far away at the other end goes. */
    async function grow() {
        if (busy) return;
        busy = true;
        const mine = generation;
        try {
            for (let next = lacking(); next && box.isConnected && mine === generation; next = lacking()) {
                await extend(...next);
                await nextFrame();
                if (shed(next[2] === "append")) await nextFrame();
            }
        } catch (error) {
            failed(error);
        }
        busy = false;
        if (mine !== generation) return grow();
        drawEnds();
    }

    async function extend(from, to, where) {
        ahead.ask(where === "append" ? to : from, where === "append");
        const page = await makePage(from, to);
        if (!page) return;
        if (where === "append") add(page, where);
        else keepPlace(list, () => add(page, where));
        store.keepOnly(firstPage().from, lastPage().to);
    }

    /** Let go of what is far away, where that is much; whether it was. */
    function shed(downwards) {
        if (!pages.size || isWithin(downwards ? list.firstElementChild : list.lastElementChild, FAR + SPARE)) return false;
        const far = farAway(list, FAR, downwards);
        keepPlace(list, () => far.forEach(section => { pages.delete(section); section.remove(); }));
        return far.length > 0;
    }

    function failed(error) {
        broken = true;
        showRetry(bottom, error, () => { broken = false; grow(); });
    }

    function drawEnds() {
        const atEnd = pages.size > 0 && lastPage().to >= total();
        // Room below what is drawn lets the page scroll to its place before the rest is there.
        bottom.classList.toggle("more", !atEnd);
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
            if (lacking()) grow();
            const first = Number(firstInSight(list)?.dataset.at ?? 0), last = lastInSight(list);
            onMove(first, Math.max(first, Number(last?.dataset.to ?? last?.dataset.at ?? first)));
        });
    }

    /** Begin anew with the page that starts at an ordinal, and so many lines before and behind it. */
    async function show(ordinal, before = 0, behind = SIGHT) {
        generation += 1;
        broken = false;
        const place = Math.min(plan().facts.callOf(ordinal), startOf(ordinal));
        const from = before && place ? plan().pageStart(place, before) : place, to = plan().pageEnd(place, behind);
        ahead.begin(from, to);
        const page = await makePage(from, pages.size ? to : plan().readyEnd(from, to, store.has));
        if (!page) return false;
        list.replaceChildren();
        pages.clear();
        add(page, "append");
        drawEnds();
        return true;
    }

    /** A page begins with a whole line: the fold that an ordinal lies in, else the event itself. */
    function startOf(ordinal) {
        const piece = plan().holder(ordinal);
        return piece && piece.type !== "events" ? piece.from : ordinal;
    }

    /** The row that shows an ordinal, or the fold that it lies in. */
    function rowOf(ordinal) {
        const exact = document.getElementById(`e-${ordinal}`);
        if (exact) return exact;
        const piece = plan().holder(ordinal);
        return piece?.key && document.getElementById(`f-${piece.key}`)
            || [...list.querySelectorAll(".page > [data-at]")].findLast(row => Number(row.dataset.at) <= ordinal) || null;
    }

    /** Draw everything anew after the plan has changed; what the reader looks at, or `focus`, stays where it is. */
    async function replan(focus) {
        if (!pages.size) return;
        const anchor = (focus && document.getElementById(focus)) ?? firstInSight(list);
        const ordinal = Number(anchor?.dataset.at ?? 0), before = anchor?.getBoundingClientRect().top ?? 0;
        const id = anchor?.id;
        const opened = [...list.querySelectorAll("details[open][data-body]")].map(details => details.closest(".event").id);
        if (!await show(ordinal, SCREEN, SCREEN)) return;
        reopen(opened);
        const row = (id && document.getElementById(id)) ?? rowOf(ordinal);
        if (row) scrollBy({ top: row.getBoundingClientRect().top - before, behavior: "instant" });
        (focus && row?.querySelector("[data-fold]") || null)?.focus({ preventScroll: true });
        await grow();
    }

    /** Open again what the reader had opened. */
    function reopen(ids) {
        for (const id of ids) {
            const details = document.querySelector(`#${CSS.escape(id)} > details`);
            if (details) folds.open(details);
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
        grow();
        return target;
    }

    const holds = (page, ordinal) => page.from <= ordinal && ordinal < page.to;
    const isDrawn = ordinal => [...pages.values()].some(page => holds(page, ordinal)) && reveal(ordinal);

    function reveal(ordinal) {
        const found = document.getElementById(`e-${ordinal}`);
        if (found) return found;
        const host = [...pages.values()].map(page => page.places.get(ordinal)).find(place => place !== undefined);
        const details = host !== undefined && document.querySelector(`#e-${host} > details`);
        if (!details) return null;
        folds.open(details);
        return document.getElementById(`e-${ordinal}`) ?? details.parentNode;
    }

    function markOnly(target) {
        box.querySelectorAll(".marked").forEach(old => old.classList.remove("marked"));
        target.classList.add("marked");
        const details = target.querySelector(":scope > details");
        if (details) folds.open(details);
        target.focus?.({ preventScroll: true });
    }

    /** Scroll to an ordinal without marking or opening anything; fast enough to follow a pointer. */
    async function scrollToward(ordinal) {
        if (![...pages.values()].some(page => holds(page, ordinal)) && !await show(ordinal)) return;
        rowOf(ordinal)?.scrollIntoView({ block: "start", behavior: "instant" });
        grow();
    }

    async function last() {
        const end = Math.max(0, total() - 1);
        if (!pages.size || !holds(lastPage(), end)) await show(end, SCREEN);
        scrollTo({ top: document.documentElement.scrollHeight, behavior: "instant" });
        await grow();
        scrollTo({ top: document.documentElement.scrollHeight, behavior: "instant" });
    }

    return {
        show: ordinal => show(ordinal).then(() => { grow(); }),
        replan, jumpTo, scrollToward, last,
        /** The plan has changed and nothing that is drawn counts any more. */
        restart() {
            generation += 1;
            pages.clear();
            list.replaceChildren();
        },
        kept: (node, key) => pageOf(node).hidden.get(key)(),
        reaches: ordinal => Boolean(pages.size) && lastPage().to >= ordinal,
        inSight: () => Number(firstInSight(list)?.dataset.at ?? 0),
        first: () => scrollToward(0).then(() => scrollTo({ top: 0, behavior: "instant" })),
        isAtEnd: () => Boolean(pages.size) && lastPage().to >= total() && bottom.getBoundingClientRect().top < innerHeight + 120,
        close() {
            generation += 1;
            watch.disconnect();
            removeEventListener("scroll", moved);
            removeEventListener("resize", moved);
        },
    };
}
