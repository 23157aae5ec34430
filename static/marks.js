// marks.js - the tool's mark and the facts that a session's row and its page both show
import { compact, number } from "./format.js";
import { html } from "./html.js";
import { t } from "./i18n.js";
import { toolMark, toolTitle } from "./tools.js";

export const mark = tool => html`<span class="mark" data-tool="${tool}" title="${toolTitle(tool)}" aria-hidden="true">${toolMark(tool)}</span><span class="unseen">${toolTitle(tool)}: </span>`;

export const lineCounts = ({ lines_added: added, lines_removed: removed }) => added || removed
    ? html`<span class="added">+${compact(added)}</span> <span class="removed">−${compact(removed)}</span>` : null;

export const tokens = ({ total_input_tokens: input, total_output_tokens: output }) => input || output
    ? html`<span title="${t("tokens.title", { input: number(input), output: number(output) })}">${compact(input + output)}</span>` : null;

/** What there is of several facts, with dots between. */
export const dotted = facts => facts.filter(fact => fact || fact === 0).map((fact, at) => html`${at > 0 && " · "}<span>${fact}</span>`);
