// steps.js - the line of a step: what was done, how it came out, and what unfolds below
import { clock, duration, moment } from "./format.js";
import { html } from "./html.js";
import { has, t } from "./i18n.js";
import { firstLine, terminalText } from "./text.js";

export const data = event => event.event_type.data ?? {};

export const kindName = event => has(`kind.${event.event_type.type}`) ? t(`kind.${event.event_type.type}`) : event.event_type.type;

/** The event's time, which is the link to it. */
const permalink = event => html`<a class="at" href="#e=${encodeURIComponent(event.event_id)}" title="${moment(event.timestamp)}">${clock(event.timestamp)}</a>`;

export function article(page, event, className, content, { rows = true } = {}) {
    return html`<article class="event ${className} ${page.depth > 0 && `inner${page.depth > 1 ? " deeper" : ""}`}" id="e-${event.ordinal}" data-at="${event.ordinal}" ${rows && html`data-row tabindex="-1"`} ${className === "prompt" && html`data-prompt`} ${className.includes("bad") && html`data-bad`}>${permalink(event)}${content}</article>`;
}

/** A line that says what was done, and unfolds what came of it. */
export function step(page, { event, results }, name, what, { facts = [], body, open = false, className = "", title } = {}) {
    const failed = isFailed(event, results);
    const key = body && page.keep(body);
    results.forEach(({ ordinal }) => page.liesIn(ordinal, event.ordinal));
    const came = failed || facts.length || took(event, results);
    const head = html`<b title="${event.attributes?.tool}">${name}</b> <span class="what" ${title && html`title="${title}"`}>${firstLine(terminalText(String(what ?? "")))}</span>${came && html` <span class="came">${failed && html`<span class="failed">${failed}</span> `}${facts}${took(event, results)}</span>`}`;
    return article(page, event, `step ${className} ${failed ? "bad" : ""}`, body
        ? html`<details data-body="${key}" ${open && "open"}><summary>${head}</summary>${open && html`<div class="body">${body()}</div>`}</details>`
        : html`<p class="line">${head}</p>`);
}

export function isFailed(event, results) {
    const code = data(event).exit_code;
    if (code) return t("exit", { code });
    const wrong = [event, ...results].some(one => data(one).is_error);
    return wrong ? t("error") : event.attributes?.error === true && t("error");
}

function took(event, results) {
    const ms = event.duration_ms ?? results.find(one => one.duration_ms)?.duration_ms;
    return ms >= 100 && duration(ms);
}
