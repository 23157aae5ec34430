// unfolding.js - the insides of an event's folds: drawn when they are opened, fetched where they are long
import { diffBlock, drawBlock } from "./blocks.js";
import { element, html } from "./html.js";
import { showError } from "./parts.js";

/** Wire the folds in `box`.  `pageOf(node)` is the page that keeps what they hide; returns {open(details)}. */
export function openUnfolding(box, store, { pageOf, onDraw }) {
    box.addEventListener("toggle", event => unfold(event.target), true);
    box.addEventListener("click", clicked);

    /** Draw the inside of an event's fold when it is opened for the first time. */
    function unfold(details) {
        const key = details.dataset?.body;
        if (!key || !details.open || details.querySelector(":scope > .body")) return;
        details.append(element(html`<div class="body">${pageOf(details).hidden.get(key)()}</div>`));
        onDraw(details);
    }

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

    /** Open a fold at once, without waiting for its event. */
    function open(details) {
        details.open = true;
        unfold(details);
    }

    return { open };
}
