// stepping.js - going through a session by key: from prompt to prompt, error to error, reply to reply
import { t } from "./i18n.js";
import { announce } from "./parts.js";
import { LEVELS } from "./plan.js";

/** Returns {keys, stepPrompt(±1)}.  `state` is what session.js knows, `chapterOf(ordinal)` the turn round an event. */
export function openStepping(state, { reader, chapterOf, setLevel, find }) {
    const keys = {
        n: () => stepPrompt(1),
        p: () => stepPrompt(-1),
        e: () => stepTo(ordinal => state.facts.isError(ordinal), 1),
        "]": () => stepTo(isLastReply, 1),
        "[": () => stepTo(isLastReply, -1),
        f: () => setLevel(LEVELS[(LEVELS.indexOf(state.level) + 1) % LEVELS.length]),
        "/": () => find.open(),
    };

    /** The focused event where it is in sight, else the first one in sight. */
    function here() {
        const row = document.activeElement?.closest?.(".reader [data-at]");
        const box = row?.getBoundingClientRect();
        return box && box.bottom > 0 && box.top < innerHeight ? Number(row.dataset.at) : state.at;
    }

    function stepPrompt(direction) {
        const at = here();
        const chapters = state.chapters.filter(chapter => chapter.text);
        const next = direction > 0 ? chapters.find(chapter => chapter.from > at) : chapters.findLast(chapter => chapter.from < at);
        return next && goTo(next.from);
    }

    function isLastReply(ordinal) {
        if (!state.facts.isReply(ordinal)) return false;
        const { to } = chapterOf(ordinal);
        for (let at = ordinal + 1; at < to; at += 1) if (state.facts.isReply(at)) return false;
        return true;
    }

    function stepTo(wanted, direction) {
        for (let at = here() + direction; at >= 0 && at < state.facts.total; at += direction) if (wanted(at)) return goTo(at);
        announce(t("keys.none"));
        return null;
    }

    async function goTo(ordinal) {
        const row = await reader.jumpTo(ordinal, { mark: false });
        (row?.closest("[data-row]") ?? row)?.focus({ preventScroll: true });
    }

    return { keys, stepPrompt };
}
