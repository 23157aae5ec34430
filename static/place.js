// place.js - where in a session the reader is: said in the bar, and remembered for when they come back
import { number } from "./format.js";
import { remember } from "./go.js";
import { t } from "./i18n.js";
import { chapterTitle } from "./outline.js";

/** Returns {draw(chapter)}; `part(css)` is an element of the page, `state.at` the first event in sight. */
export function openPlace(part, state) {
    let saving = null;

    /** The chapter stands in the bar once its prompt has left the screen. */
    function draw(chapter) {
        const prompt = document.getElementById(`e-${chapter.from}`), link = part("a.chapter"), { total } = state.facts;
        const gone = chapter.text && (!prompt || prompt.getBoundingClientRect().bottom < 60);
        part(".facts-bar").classList.toggle("stuck", Boolean(gone));
        write(link, gone ? `${chapter.number + 1}. ${chapterTitle(chapter)}` : "");
        link.href = `#e=${encodeURIComponent(chapter.event_id ?? "")}`;
        link.dataset.ordinal = chapter.from;
        write(part(".where"), total ? t("position", { at: number(state.at + 1), total: number(total) }) : "");
        saving ??= setTimeout(save, 400);
    }

    function save() {
        saving = null;
        if (part("a.chapter")?.isConnected) remember(state.at);
    }

    return { draw };
}

/** Change a text only where it is another: this runs with every frame of a scroll. */
function write(node, text) {
    if (node.textContent !== text) node.textContent = text;
}
