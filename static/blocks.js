// blocks.js - the blocks of an event: text, code, images, JSON; long ones begin folded
import { diffLines, unified } from "./diff.js";
import { size } from "./format.js";
import { html } from "./html.js";
import { t } from "./i18n.js";
import { grammarOf } from "./languages.js";
import { lines, terminalText } from "./text.js";

const SHOWN_LINES = 24;
const FOLD_ABOVE = 36;
const SHOWN_CHARS = 6000;
const FOLD_CHARS_ABOVE = 10000;
const SAFE_IMAGE = /^data:image\/(?:png|jpeg|jpg|gif|webp|avif|bmp);base64,[A-Za-z0-9+/=\s]+$/;
const SAFE_LINK = /^(?:https?:\/\/|mailto:)/i;

/** Text as a terminal or a file shows it.  `page` keeps what a fold hides, without one nothing is folded;
 *  `start` numbers the lines. */
export function preformatted(page, text, { start, className = "", language } = {}) {
    const all = lines(terminalText(text));
    const whole = () => pre(all, { start, className, language });
    const short = page && shortened(all);
    if (!short) return whole();
    return fold(page, pre(short, { start, className, language }), whole, all.length > FOLD_ABOVE
        ? t("fold.lines", { n: all.length }) : t("fold.text", { size: size(text.length) }));
}

/** A diff, folded like other long text, with a button that lays it side by side. */
export function diffBlock(page, diff, path) {
    const rows = diffLines(diff);
    const beside = page && html`<button type="button" class="to-split" data-beside="${page.keep(() => ({ rows, path }))}">${t("diff.split")}</button>`;
    if (!page || rows.length <= FOLD_ABOVE * 2) return html`<div class="change">${beside}${unified(rows, path)}</div>`;
    return html`<div class="change">${beside}${fold(page, unified(rows.slice(0, SHOWN_LINES * 2), path), () => unified(rows, path), t("fold.lines", { n: rows.length }))}</div>`;
}

function shortened(all) {
    const cut = all.length > FOLD_ABOVE ? all.slice(0, SHOWN_LINES) : all;
    const text = cut.join("\n");
    if (text.length > FOLD_CHARS_ABOVE) return lines(text.slice(0, SHOWN_CHARS) + "…");
    return cut === all ? null : cut;
}

function pre(all, { start, className, language }) {
    const text = all.join("\n");
    const grammar = language && grammarOf(language);
    if (start === undefined) return html`<pre class="${className}" ${grammar && html`data-language="${grammar}"`}>${text}</pre>`;
    const numbers = all.map((line, at) => start + at).join("\n");
    return html`<div class="numbered"><pre aria-hidden="true">${numbers}</pre><pre tabindex="0" ${grammar && html`data-language="${grammar}"`}>${text}</pre></div>`;
}

function fold(page, short, whole, label) {
    return html`<div class="fold">${short}<button type="button" data-more="${page.keep(whole)}">${label}</button></div>`;
}

const json = data => JSON.stringify(data, null, 2) ?? "null";

/** The items of a to-do list or a plan, as the tools write them: [{text, status}], or null. */
export function todos(data) {
    const items = data?.todos ?? data?.plan;
    if (!Array.isArray(items) || !items.length) return null;
    const known = items.map(item => ({ text: item?.content ?? item?.step ?? item?.text, status: item?.status ?? "" }));
    return known.every(item => typeof item.text === "string") ? known : null;
}

const todoList = items => html`<ul class="todos">${items.map(({ text, status }) => html`<li class="${status}">${terminalText(text)}</li>`)}</ul>`;

/** Block kind -> (page, block) -> Markup.  A block of an unknown kind is shown as JSON. */
const BLOCKS = {
    Text: (page, block) => block.text.trim() && preformatted(page, block.text, { className: "wrap" }),
    Code: (page, block) => preformatted(page, block.code, { start: block.start_line ?? (block.language === "bash" ? undefined : 1), language: block.language }),
    Json: (page, block) => todos(block.data) ? todoList(todos(block.data)) : preformatted(page, block.truncated ? block.data : json(block.data), { className: "wrap", language: "json" }),
    Image: (page, block) => SAFE_IMAGE.test(block.url)
        ? html`<button type="button" class="picture" aria-label="${t("image.enlarge")}"><img src="${block.url}" alt="${block.alt ?? t("image")}" loading="lazy"></button>` : link(block.url, block.alt ?? t("image")),
    Video: (page, block) => link(block.url, t("video")),
    Audio: (page, block) => link(block.url, t("audio")),
    File: (page, block) => html`<p class="path">${block.path}</p>${block.content && preformatted(page, block.content, { start: 1 })}`,
    Reference: (page, block) => link(block.uri, block.media_type),
};

/** One block; where the server sent only its beginning, with a button that fetches the rest. */
export function drawBlock(page, event, at, block = event.content.blocks[at]) {
    const known = BLOCKS[block.type] ?? ((page, block) => preformatted(page, json(block), { className: "wrap" }));
    if (!block.truncated) return known(page, block);
    return html`<div class="fold">${block.type !== "Image" && known(page, block)}
        ${wholeButton(event, at, block.full_size)}</div>`;
}

/** What fetches an event whole and puts a block of it, or its diff, in place of the beginning. */
export const wholeButton = (event, block, fullSize) => html`
    <button type="button" data-whole="${event.ordinal}" data-block="${block}">${t("fold.whole", { size: size(fullSize ?? 0) })}</button>`;

export const drawBlocks = (page, event) => event.content.blocks.map((block, at) => drawBlock(page, event, at));

/** A link where it is safe to follow, else the address as text. */
export function link(address, text = address) {
    return SAFE_LINK.test(address)
        ? html`<a href="${address}" rel="noopener noreferrer nofollow" target="_blank">${text}</a>`
        : html`<span class="path">${text}: ${String(address).slice(0, 200)}</span>`;
}

/** The texts of an event, joined. */
export const eventText = event => event.content.blocks.filter(block => block.type === "Text").map(block => block.text).join("\n\n");
