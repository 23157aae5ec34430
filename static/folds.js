// folds.js - the one line that stands for many events, and opens them
import { duration } from "./format.js";
import { html } from "./html.js";
import { t } from "./i18n.js";
import { dotted } from "./marks.js";

/** "7 steps · 3 edits · 1 error · 42 s" */
export function foldLine(fold) {
    const open = fold.type === "head";
    return html`<div class="event steps" id="f-${fold.key}" data-at="${fold.from}" data-row tabindex="-1">
        <button type="button" data-fold="${fold.key}" aria-expanded="${String(open)}"><span>${fold.kind === "before" && `${t("fold.before")} `}${dotted(foldFacts(fold))}</span></button></div>`;
}

function foldFacts({ kind, counts, chapter }) {
    const { steps, edits, errors, events } = counts;
    if (kind === "gap") return [t("fold.gap", { n: events })];
    const seconds = kind !== "before" && chapter?.seconds;
    return [
        steps > 0 ? t("count.steps", { n: steps }) : t("count.events", { n: events }),
        edits > 0 && t("count.edits", { n: edits }),
        errors > 0 && html`<span class="failed">${t("count.errors", { n: errors })}</span>`,
        seconds > 0 && duration(seconds * 1000),
    ];
}

/** A sub-agent: what it was asked, and what it took. */
export function taskLine(fold, eventAt) {
    const first = eventAt(fold.from), last = eventAt((fold.end ?? fold.to) - 1);
    const { steps, errors, events } = fold.counts;
    const { title } = first?.event_type.data ?? {};
    const ms = last?.event_type.type === "TaskEnd" && last.duration_ms;
    return html`<article class="event task ${fold.task && "inner"}" id="e-${fold.from}" data-at="${fold.from}" data-row tabindex="-1">
        <button type="button" data-fold="${fold.key}" aria-expanded="${String(fold.type === "head")}"><b>${t("subagent")}</b> <span class="what">${title}</span>
        <span class="came">${errors > 0 && html`<span class="failed">${t("count.errors", { n: errors })}</span> `}${steps > 0 ? t("count.steps", { n: steps }) : t("count.events", { n: events })}${ms > 0 && html` · ${duration(ms)}`}</span></button></article>`;
}
