// outline.js - the prompts of a session with what each caused: beside the text, or in a dialog where there is no room
import { duration } from "./format.js";
import { element, html } from "./html.js";
import { t } from "./i18n.js";
import { dotted } from "./marks.js";
import { openDialog } from "./parts.js";
import { firstLine, visible } from "./text.js";

const SHOWN = 80;                       // entries around the present one; more would only weigh the page down

/** Draw into `box`.  Returns {draw(chapters), at(number), open()}; `onChoose(chapter)` when one is chosen. */
export function openOutline(box, onChoose) {
    let chapters = [], present = -1, from = 0;
    box.addEventListener("click", choose);

    function choose(event) {
        const link = event.target.closest("a[data-chapter]");
        if (!link) return;
        event.preventDefault();
        link.closest("dialog")?.close();
        onChoose(chapters[Number(link.dataset.chapter)]);
    }

    function draw(list = chapters) {
        chapters = list;
        from = Math.max(0, Math.min(present - SHOWN / 2, chapters.length - SHOWN));
        box.innerHTML = html`<h2 class="unseen">${t("outline")}</h2>${entries(from, from + SHOWN)}`;
        box.hidden = chapters.length < 2;
        mark();
    }

    const entries = (start, end) => html`<ol start="${start + 1}">${chapters.slice(start, end).map(entry)}</ol>`;

    const entry = chapter => html`<li><a href="#e=${encodeURIComponent(chapter.event_id ?? "")}" data-chapter="${chapter.number}" class="${!chapter.text && "before"}"><span>${chapterTitle(chapter)}</span>
        <span class="sub">${dotted(caused(chapter))}</span></a></li>`;

    function mark() {
        box.querySelector("[aria-current]")?.removeAttribute("aria-current");
        const link = box.querySelector(`[data-chapter="${present}"]`);
        if (!link || box.hidden) return;
        link.setAttribute("aria-current", "true");
        // Only the list scrolls to show it, never the page.
        const { top, bottom } = link.getBoundingClientRect(), frame = box.getBoundingClientRect();
        if (top < frame.top) box.scrollTop += top - frame.top - 8;
        else if (bottom > frame.bottom) box.scrollTop += bottom - frame.bottom + 8;
    }

    return {
        draw,
        at(number) {
            if (number === present) return;
            present = number;
            if (number < from || number >= from + SHOWN) draw();
            else mark();
        },
        open() {
            openDialog(html`<h2>${t("outline")}</h2><nav class="outline" aria-label="${t("outline")}">${entries(Math.max(0, present - 200), present + 200)}</nav>
                <p class="actions"><button type="button" value="close" autofocus>${t("close")}</button></p>`);
            const dialog = document.querySelector("dialog[open]");
            dialog.addEventListener("click", choose);
            const link = dialog.querySelector(`[data-chapter="${present}"]`);
            link?.setAttribute("aria-current", "true");
            link?.scrollIntoView({ block: "center" });
        },
    };
}

/** What a chapter is called, fit to be set as text too. */
export const chapterTitle = chapter => chapter.text ? visible(firstLine(chapter.text, 140)) : t("outline.before");

const caused = ({ steps, edits, errors, seconds }) => [
    steps > 0 && t("count.steps", { n: steps }),
    edits > 0 && t("count.edits", { n: edits }),
    errors > 0 && html`<span class="failed">${t("count.errors", { n: errors })}</span>`,
    seconds > 0 && duration(seconds * 1000),
];
