// marks.js - the tool's mark and the facts that a session's row and its page both show
import { compact, duration, number } from "./format.js";
import { html } from "./html.js";
import { t } from "./i18n.js";
import { toolMark, toolTitle } from "./tools.js";

export const mark = tool => html`<span class="mark" data-tool="${tool}" title="${toolTitle(tool)}" aria-hidden="true">${toolMark(tool)}</span><span class="unseen">${toolTitle(tool)}: </span>`;

export const lineCounts = ({ lines_added: added, lines_removed: removed }) => added || removed
    ? html`<span class="added">+${compact(added)}</span> <span class="removed">−${compact(removed)}</span>` : null;

export const tokens = ({ total_input_tokens: input, total_output_tokens: output }) => input || output
    ? html`<span title="${t("tokens.title", { input: number(input), output: number(output) })}">${compact(input + output)}</span>` : null;

/** How long something went on in a session, and how long it was open, as far as they are known; each with both as its title. */
export function times({ active_seconds: counted, duration_seconds: whole }) {
    const wall = duration(whole * 1000), active = duration(Math.min(counted ?? whole, whole) * 1000);
    const both = active === wall ? wall : t("time.active", { active, wall });
    return { both, active: whole > 0 && html`<span title="${both}">${active}</span>`, wall: whole > 0 && html`<span title="${both}">${wall}</span>` };
}

/** The language of a text where its letters tell, for voices and for where lines break: Korean, if a quarter of its beginning is. */
export function spoken(text) {
    const start = (text ?? "").slice(0, 500);
    return 4 * (start.match(/[가-힣]/g) ?? []).length > start.length && html`lang="ko"`;
}

/** What there is of several facts, with dots between. */
export const dotted = facts => facts.filter(fact => fact || fact === 0).map((fact, at) => html`${at > 0 && " · "}<span>${fact}</span>`);

const STEP_KINDS = ["read", "search", "edit", "shell", "web", "agent", "other"];
const MANY = 1000;                      // so many steps fill the bar; few fill less of it, by their logarithm

/** {read: 3, edit: 1} -> a tiny bar of the kinds of steps a session holds; in words for those who listen or point at it. */
export function stepBar(kinds = {}) {
    const held = STEP_KINDS.filter(kind => kinds[kind] > 0);
    const total = held.reduce((sum, kind) => sum + kinds[kind], 0);
    if (!total) return null;
    const words = `${t("count.steps", { n: total })}: ${held.map(kind => `${t(`steps.${kind}`)} ${number(kinds[kind])}`).join(", ")}`;
    const unit = 100 * Math.min(1, Math.log(total + 1) / Math.log(MANY)) / total;
    const parts = [];
    let from = 0;
    for (const kind of held) {
        parts.push(html`<rect data-kind="${kind}" x="${from}" width="${kinds[kind] * unit}" height="6"/>`);
        from += kinds[kind] * unit;
    }
    return html`<svg class="steps-bar" viewBox="0 0 100 6" preserveAspectRatio="none" role="img" aria-label="${words}"><title>${words}</title>${parts}</svg>`;
}
