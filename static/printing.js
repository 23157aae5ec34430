// printing.js - a session on paper: all of it at its level of detail, where the screen draws only what is near
import { colourCode } from "./code.js";
import { element, html } from "./html.js";
import { t } from "./i18n.js";
import { Page } from "./pages.js";
import { announce } from "./parts.js";
import { neededBy } from "./plan.js";

const MOST = 5000;                      // events; a longer session is a book that nobody prints
const AT_ONCE = 500;

/** Draw what the session's plan shows behind the reader, print, and take them away again. */
export async function print(middle, store, { plan, facts }) {
    announce(t("loading"));
    const paper = element(html`<section class="paper"></section>`);
    const end = Math.min(facts.total, MOST);
    for (let from = 0; from < end; from += AT_ONCE) {
        const to = Math.min(from + AT_ONCE, end);
        const some = plan.between(from, to);
        await store.need(neededBy(some));
        paper.insertAdjacentHTML("beforeend", new Page(some, store.at, { from, to }).markup);
    }
    if (end < facts.total) paper.append(element(html`<p class="over">${t("print.end", { n: end, total: facts.total })}</p>`));
    middle.append(paper);
    colourCode(paper);
    addEventListener("afterprint", () => paper.remove(), { once: true });
    window.print();
}
