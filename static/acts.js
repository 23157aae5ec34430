// acts.js - what can be done with one event: copy it, copy its turn, its link, its raw form.  One row of buttons moves to the event in use.
import { element, html } from "./html.js";
import { t } from "./i18n.js";
import { preformatted } from "./blocks.js";
import { colourCode } from "./code.js";
import { asMarkdown } from "./copying.js";
import { split } from "./diff.js";
import { announce, copyText, openDialog } from "./parts.js";

/** Wire the events in `box`.  `turnOf(ordinal)` gives [from, to) of its turn. */
export function openActs(box, store, turnOf) {
    const row = element(html`<span class="acts" role="group" aria-label="${t("acts")}">
        <button type="button" data-act="copy">${t("copy")}</button><button type="button" data-act="turn">${t("copy.turn")}</button><button
        type="button" data-act="link">${t("copy.link.short")}</button><button type="button" data-act="raw">${t("raw")}</button></span>`);

    function moveTo(target) {
        const event = target.closest?.(".reader .event[data-row]:not(.steps)");
        if (!event || row.parentNode === event || row.contains(document.activeElement)) return;
        row.querySelector("[data-act=turn]").hidden = !event.matches(".prompt");
        event.append(row);
    }

    const ACTS = {
        copy: async ordinal => copyText(asMarkdown(await withResults(ordinal))),
        turn: async ordinal => copyText(asMarkdown(await between(...turnOf(ordinal)))),
        link: async ordinal => copyText(`${location.origin}${location.pathname}#e=${encodeURIComponent(store.at(ordinal).event_id)}`),
        raw: showRaw,
    };

    async function between(from, to) {
        await store.need([[from, to]]);
        return Array.from({ length: to - from }, (none, at) => store.at(from + at)).filter(Boolean);
    }

    /** An event as it is stored, with its results, which stand somewhere behind it. */
    async function withResults(ordinal) {
        const event = await store.whole(ordinal);
        const results = [...box.querySelectorAll(`#e-${ordinal} .result`)].map(one => Number(one.id.slice(2)));
        return [event, ...await Promise.all(results.map(at => store.whole(at)))];
    }

    async function showRaw(ordinal) {
        const event = await store.whole(ordinal);
        const text = JSON.stringify(event, null, 2);
        openDialog(html`<h2>${t("raw")} · ${ordinal + 1}</h2>${preformatted(null, text, { className: "wrap", language: "json" })}
            <p class="actions"><button type="button" data-copy="${text}">${t("copy")}</button><button type="button" value="close" autofocus>${t("close")}</button></p>`, "wide");
        colourCode(document.querySelector("dialog[open]"));
        return null;
    }

    async function act(button) {
        const ordinal = Number(button.closest(".event").dataset.at);
        const done = await ACTS[button.dataset.act](ordinal).catch(error => { announce(error.message); return false; });
        if (done === null) return;
        const label = button.textContent;
        button.textContent = done ? t("copied") : t("copy.failed");
        announce(button.textContent);
        setTimeout(() => { button.textContent = label; }, 1500);
    }

    box.addEventListener("pointerover", event => moveTo(event.target));
    box.addEventListener("focusin", event => moveTo(event.target));
    box.addEventListener("click", event => {
        const button = event.target.closest("button");
        if (button?.dataset.act) act(button);
        const picture = event.target.closest("button.picture");
        if (picture) enlarge(picture.firstElementChild);
    });
}

function enlarge(image) {
    openDialog(html`<button type="button" value="close" class="picture" aria-label="${t("close")}" autofocus><img src="${image.getAttribute("src")}" alt="${image.alt}"></button>`, "wide image");
}

/** A diff in two columns, in a dialog as wide as the screen. */
export function showSplit({ rows, path }) {
    openDialog(html`<h2>${t("diff.split")}</h2><p class="path">${path}</p>${split(rows, path)}
        <p class="actions"><button type="button" value="close" autofocus>${t("close")}</button></p>`, "wide");
    colourCode(document.querySelector("dialog[open]"));
}
