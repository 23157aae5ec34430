// formatted.js - Markdown as soon as its parser is here; the first events of a session do not wait for it
import { html } from "./html.js";
import { keepPlace } from "./sight.js";
import { terminalText } from "./text.js";

let markdown = null;

/** Markdown -> Markup; until the parser is here, the text as it was written. */
export const formatted = text => markdown ? markdown(text) : html`<div class="unformatted">${terminalText(text)}</div>`;

/** Fetch the parser, and format what was drawn in a list of pages without it. */
export async function format(list) {
    ({ markdown } = await import("./markdown.js"));
    keepPlace(list, () => list.querySelectorAll(".unformatted").forEach(node => { node.outerHTML = markdown(node.textContent); }));
}
