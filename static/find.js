// find.js - searching inside one session: how many hits, next and previous, marks in the text
import { get } from "./api.js";
import { html } from "./html.js";
import { number } from "./format.js";
import { t } from "./i18n.js";
import { rename } from "./go.js";
import { announce } from "./parts.js";

/** The search bar in `box`.  Returns {open(), search(words), step(±1), mark(root), close()};
 *  `onHits(ordinals)` after a search, `onGo(ordinal)` for the hit to show, `here()` the ordinal in sight. */
export function openFind(box, path, { onHits, onGo, here }) {
    let ordinals = [], at = -1, asked = "";
    const snippets = new Map();
    box.innerHTML = html`<form role="search"><input type="search" name="q" placeholder="${t("find.hint")}" aria-label="${t("find.hint")}" autocomplete="off" data-search>
        <span class="count" role="status"></span>
        <button type="button" data-step="-1" aria-label="${t("find.previous")}" title="${t("find.previous")}">↑</button>
        <button type="button" data-step="1" aria-label="${t("find.next")}" title="${t("find.next")}">↓</button>
        <button type="button" data-close aria-label="${t("close")}">✕</button></form>
        <p class="snippet"></p>`;
    const form = box.querySelector("form"), field = form.elements.q, count = box.querySelector(".count"), snippet = box.querySelector(".snippet");
    form.addEventListener("submit", event => { event.preventDefault(); field.value === asked ? step(1) : search(field.value); });
    box.addEventListener("click", event => {
        const button = event.target.closest("button");
        if (button?.dataset.step) step(Number(button.dataset.step));
        if (button?.dataset.close !== undefined) close();
    });
    box.addEventListener("keydown", event => {
        if (event.key === "Escape") { event.stopPropagation(); close(); }
        if (event.key === "Enter" && event.shiftKey) { event.preventDefault(); step(-1); }
    });

    async function search(words) {
        asked = field.value = words.trim();
        rename("q", asked);
        ordinals = [];
        snippets.clear();
        at = -1;
        if (!asked) return drawn();
        count.textContent = "…";
        try {
            const answer = await get(`${path}/events`, { q: asked, from: here(), limit: 20 });
            ordinals = answer.ordinals;
            keep(answer.hits);
            // The nearest hit from where the reader is, so that they do not lose their place.
            at = Math.max(0, ordinals.findIndex(ordinal => ordinal >= here()));
            drawn();
            if (ordinals.length) await Promise.all([showHit(), tell()]);
        } catch (error) {
            count.textContent = error.message;
        }
    }

    const keep = hits => hits.forEach(hit => snippets.set(hit.ordinal, hit.snippet));

    function drawn() {
        const some = ordinals.length > 0;
        count.textContent = !asked ? "" : some ? t("position", { at: number(at + 1), total: number(ordinals.length) }) : t("find.nothing");
        box.querySelectorAll("[data-step]").forEach(button => { button.disabled = !some; });
        snippet.innerHTML = html`${snippets.get(ordinals[at])?.map(([text, found]) => found ? html`<mark>${text}</mark>` : text)}`;
        onHits(ordinals);
        mark(document.querySelector(".reader"));
        if (asked) announce(count.textContent);
    }

    /** The words around the hit; they come with those of its neighbours. */
    async function tell() {
        if (snippets.has(ordinals[at])) return;
        const around = { q: asked, from: ordinals[Math.max(0, at - 10)], limit: 20 };
        const { hits } = await get(`${path}/events`, around).catch(() => ({ hits: [] }));
        if (around.q !== asked) return;
        keep(hits);
        drawn();
    }

    async function step(direction) {
        if (!ordinals.length) return;
        at = (at + direction + ordinals.length) % ordinals.length;
        drawn();
        await Promise.all([showHit(), tell()]);
    }

    /** Go to the event, and in it to the words, which a fold may still hide. */
    async function showHit() {
        const target = await onGo(ordinals[at]);
        if (!target) return;
        const more = !firstIn(target) && target.querySelector("button[data-more]");
        if (more) { more.click(); mark(); }
        const range = firstIn(target);
        if (!range) return;
        const place = document.createRange();
        place.setStart(range.startContainer, range.startOffset);
        const { top } = place.getBoundingClientRect();
        if (top < 150 || top > innerHeight - 60) scrollBy({ top: top - innerHeight / 3, behavior: "instant" });
    }

    const firstIn = target => [...CSS.highlights?.get("found") ?? []].find(range => target.contains(range.startContainer));

    /** Paint the words where they stand in the text below `root`; needs no element. */
    function mark() {
        if (!("highlights" in CSS)) return;
        const words = asked.replace(/\b\w+:\S+/g, "").toLowerCase().match(/"[^"]+"|\S+/g)?.map(word => word.replace(/^"|"$|\*$/g, "")).filter(word => word.length > 1) ?? [];
        if (!words.length) return CSS.highlights.delete("found");
        const found = new Highlight();
        const walker = document.createTreeWalker(document.querySelector(".reader") ?? document.body, NodeFilter.SHOW_TEXT);
        for (let node = walker.nextNode(); node; node = walker.nextNode()) paint(found, node, words);
        CSS.highlights.set("found", found);
    }

    function paint(found, node, words) {
        const text = node.data.toLowerCase();
        if (text.length !== node.length) return;
        for (const word of words) {
            for (let from = text.indexOf(word); from >= 0; from = text.indexOf(word, from + word.length)) {
                found.add(new StaticRange({ startContainer: node, startOffset: from, endContainer: node, endOffset: from + word.length }));
            }
        }
    }

    function open() {
        box.hidden = false;
        field.focus();
        field.select();
    }

    function close() {
        box.hidden = true;
        search("");
        document.querySelector("button[data-do=find]")?.focus({ preventScroll: true });
    }

    return { open, close, step, mark, search: words => { box.hidden = false; return search(words); }, isOpen: () => !box.hidden };
}
