// folding.js - the pieces of one chapter: what of it is drawn, and what a fold stands for
import { GROUPS } from "./kinds.js";

const SMALL = 4;                        // so few bookkeeping events are fetched: one may say that the turn was interrupted

/** The pieces of a chapter; see plan.js for their shapes. */
export function piecesOf(facts, chapter, { level, only, open }) {
    const pieces = [];
    const add = piece => piece.to > piece.from && pieces.push(piece);

    if (only) addMatching();
    else if (level === "everything") addBody(chapter.from, chapter.to);
    else if (level === "prompts") addPromptOnly();
    else addConversation();
    return pieces;

    function addPromptOnly() {
        const start = addPrompt();
        addFold(start > chapter.from ? "rest" : "before", start, chapter.to, chapter);
    }

    function addConversation() {
        const start = addPrompt();
        const last = lastReply(start, chapter.to);
        if (last === null) return addSteps(start > chapter.from ? "steps" : "before", start, chapter.to, chapter);
        addSteps("steps", start, last[0], chapter);
        add({ type: "events", from: last[0], to: last[1] });
        addSteps("steps", last[1], chapter.to, null);
    }

    /** What is folded of a turn; where the context was compacted or somebody broke in, a line between two folds says so. */
    function addSteps(kind, from, to, told) {
        for (const at of facts.breaks(from, to)) {
            addFold(kind, from, at, told);
            add({ type: "events", from: at, to: at + 1 });
            [from, told] = [at + 1, null];
        }
        addFold(kind, from, to, told);
    }

    function addPrompt() {
        let end = chapter.from;
        while (end < chapter.to && facts.isPrompt(end)) end += 1;
        add({ type: "events", from: chapter.from, to: end });
        return end;
    }

    /** [from, to) of the last words of a turn: its last replies, where nothing stands between them. */
    function lastReply(from, to) {
        let end = to;
        while (end > from && !facts.isReply(end - 1)) end -= 1;
        if (end === from) return null;
        let start = end - 1;
        while (start > from && facts.isReply(start - 1)) start -= 1;
        return [start, end];
    }

    function addFold(kind, from, to, chapter) {
        if (from >= to) return;
        const counts = facts.counts(from, to);
        if (!counts.events) return addQuiet(from, to, kind === "gap");
        if (counts.events === 1 && kind !== "gap") return addBody(from, to);
        const fold = { type: "fold", kind, from, to, counts, chapter, key: kind[0] + from };
        if (!open.has(fold.key)) return add(fold);
        pieces.push({ ...fold, type: "head", to: from, end: to });
        addBody(from, to);
    }

    function addQuiet(from, to, hidden) {
        const shown = open.has("n" + from) || to - from <= SMALL && !hidden;
        add({ type: shown ? "events" : "nothing", from, to, key: "n" + from });
    }

    /** Everything, with each run of a sub-agent folded. */
    function addBody(from, to, task = null) {
        let start = from;
        for (let at = from; at < to; at += 1) {
            if (!facts.inTask(at) || task && at === task.from) continue;
            const end = taskEnd(at, to, Boolean(task));
            if (end) {
                add({ type: "events", from: start, to: at, task });
                addTask(at, end, task);
                start = end;
                at = end - 1;
            }
        }
        add({ type: "events", from: start, to, task });
    }

    /** Where the run of a sub-agent that begins here ends; 0 where none does.  Inside a run only a start begins another. */
    function taskEnd(from, to, inside) {
        const begins = facts.kind(from) === "TaskStart";
        if (inside && !begins) return 0;
        let depth = 0, work = false, at = from;
        for (; at < to && facts.inTask(at); at += 1) {
            const kind = facts.kind(at);
            if (kind === "TaskStart" && !begins) break;
            if (kind === "TaskStart") depth += 1;
            else if (kind === "TaskEnd") depth -= 1;
            else work = true;
            if (begins && depth === 0) { at += 1; break; }
        }
        return work ? at : 0;
    }

    function addTask(from, to, parent) {
        const fold = { type: "fold", kind: "task", from, to, counts: facts.counts(from, to), key: "t" + from, task: parent };
        if (!open.has(fold.key)) return add(fold);
        const begins = facts.kind(from) === "TaskStart" ? 1 : 0;
        pieces.push({ ...fold, type: "head", to: from + begins, end: to });
        addBody(from + begins, to, { from, parent });
    }

    /** Only what is looked for, with its prompt; the rest of the chapter as gaps. */
    function addMatching() {
        const runs = matchingRuns();
        if (!runs.length) return addQuiet(chapter.from, chapter.to, true);
        let at = addPrompt();
        for (const [from, to] of runs.filter(([, to]) => to > at)) {
            addFold("gap", at, Math.max(at, from), null);
            add({ type: "events", from: Math.max(at, from), to });
            at = to;
        }
        addFold("gap", at, chapter.to, null);
    }

    function matchingRuns() {
        const runs = [];
        for (let at = chapter.from; at < chapter.to; at += 1) {
            if (!matches(at)) continue;
            const from = facts.callOf(at, chapter.from), to = resultsEnd(at + 1, chapter.to);
            if (runs.length && from <= runs.at(-1)[1]) runs.at(-1)[1] = to;
            else runs.push([from, to]);
            at = to - 1;
        }
        return runs;
    }

    function matches(at) {
        if (only.file && !only.file.ordinals.includes(at)) return false;
        if (only.errors && !facts.isError(at)) return false;
        return !only.groups.size || only.groups.has(GROUPS[facts.kind(at)]) || only.errors && facts.isResult(at) && only.groups.has(GROUPS[facts.kind(facts.callOf(at))]);
    }

    function resultsEnd(at, end) {
        while (at < end && facts.isResult(at)) at += 1;
        return at;
    }
}
