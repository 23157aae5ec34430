// html.js - markup from templates: every value is escaped unless it is markup already
import { visible } from "./text.js";

const policy = globalThis.trustedTypes?.createPolicy("opensession-html", { createHTML: text => text });

/** What may stand in a page unescaped: TrustedHTML, or its like where browsers have none. */
export const Markup = globalThis.TrustedHTML ?? class Markup {
    constructor(text) { this.text = text; }
    toString() { return this.text; }
};

/** html`<p>${text}</p>` -> Markup.  Arrays are joined; null, undefined, true and false are nothing. */
export function html(parts, ...values) {
    const text = parts.reduce((whole, part, at) => whole + escaped(values[at - 1]) + part);
    return policy ? policy.createHTML(text) : new Markup(text);
}

/** The one element that a piece of markup makes. */
export function element(markup) {
    const template = document.createElement("template");
    template.innerHTML = markup;
    return template.content.firstElementChild;
}

function escaped(value) {
    if (value === null || value === undefined || typeof value === "boolean") return "";
    if (Array.isArray(value)) return value.map(escaped).join("");
    if (value instanceof Markup) return String(value);
    return visible(String(value)).replace(/[&<>"'`]/g, char => `&#${char.charCodeAt(0)};`);
}
