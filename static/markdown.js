// markdown.js - Markdown of strangers as markup: a parser, then a sanitiser that has the last word
import "./vendor/purify.min.js";
import { Marked } from "./vendor/marked.esm.js";
import { html, Markup } from "./html.js";
import { terminalText, visible } from "./text.js";

const purify = globalThis.DOMPurify;
const policy = globalThis.trustedTypes?.createPolicy("opensession-markdown", {
    createHTML: text => text,
    createScriptURL: () => { throw new TypeError("no scripts"); },
});

const ALLOWED = {
    ALLOWED_TAGS: ["p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "em", "strong", "del", "code", "pre", "blockquote",
        "ul", "ol", "li", "a", "span", "table", "thead", "tbody", "tr", "th", "td", "div"],
    ALLOWED_ATTR: ["href", "title", "class", "start", "align", "rel", "target", "tabindex"],
    ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    RETURN_TRUSTED_TYPE: Boolean(policy),
    ...policy && { TRUSTED_TYPES_POLICY: policy },
};

// The page has its own h1, so headings start below it, and none is deeper than one below its predecessor.
let level = 1;

// Tags in the text are shown as they were written; pictures become links, so that nothing is loaded.
const parser = new Marked({
    gfm: true,
    renderer: {
        html: ({ text }) => String(html`${text}`),
        image: ({ href, text }) => String(html`<a href="${href}">${text || href}</a>`),
        checkbox: ({ checked }) => `<span class="box">${checked ? "☑" : "☐"}</span>`,
        heading({ tokens, depth }) {
            level = Math.min(6, depth + 1, level + 1);
            return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
        },
    },
});

purify.addHook("afterSanitizeAttributes", node => {
    if (node.tagName === "A" && node.hasAttribute("href")) {
        node.setAttribute("rel", "noopener noreferrer nofollow");
        node.setAttribute("target", "_blank");
    }
    if (node.tagName === "TABLE") wrapTable(node);
});

/** Markdown -> Markup. */
export function markdown(text) {
    level = 1;
    const parsed = parser.parse(visible(terminalText(text)));
    const clean = purify.sanitize(parsed, ALLOWED);
    return policy ? clean : new Markup(clean);
}

/** A wide table scrolls in a box of its own. */
function wrapTable(table) {
    if (table.parentNode?.className === "scroll") return;
    const box = table.ownerDocument.createElement("div");
    box.className = "scroll";
    box.tabIndex = 0;
    table.replaceWith(box);
    box.append(table);
}
