// plan.js - what of a session is to be seen: from one character an event, chapters with their folds
//
// A plan is a list of pieces in the order of the events, without gaps:
//   {type: "events", from, to}           every event of it is drawn
//   {type: "fold", kind, from, to, …}    one line; kind is "steps", "rest", "task", "before" or "gap"
//   {type: "head", …}                    the line of a fold that is open; its inside follows as pieces
//   {type: "nothing", from, to}          bookkeeping that nobody needs to see
import { EDITS, GROUPS, STEPS } from "./kinds.js";

const ERROR = 1, IN_TASK = 2;
const SMALL = 4;                        // so few bookkeeping events are fetched: one may say that the turn was interrupted

export const LEVELS = ["prompts", "conversation", "everything"];

/** The facts of every event: {total, kind(at), isError(at), inTask(at)} of what /map answers. */
export class Facts {
    constructor({ kinds, flags, names, total }) {
        Object.assign(this, { kinds, flags, names, total: Math.min(total, kinds.length) });
    }

    kind(at) { return this.names[this.kinds.charCodeAt(at) - 65]; }
    isError(at) { return Boolean(this.flags.charCodeAt(at) & ERROR); }
    inTask(at) { return Boolean(this.flags.charCodeAt(at) & IN_TASK); }
    isPrompt(at) { return this.kind(at) === "UserMessage" && !this.inTask(at); }
    isReply(at) { return this.kind(at) === "AgentMessage" && !this.inTask(at); }
    isResult(at) { return this.kind(at) === "ToolResult"; }
    isQuiet(at) { return ["Custom", "TaskStart", "TaskEnd"].includes(this.kind(at)); }

    /** Where a result's calls begin: those made together stand together, and their results behind them. */
    callOf(at, start = 0) {
        if (!this.isResult(at)) return at;
        let calls = at, results = 0;
        for (; calls > start && this.isResult(calls - 1); results += 1) calls -= 1;
        let call = calls;
        while (call > start && call >= calls - results && STEPS.has(this.kind(call - 1))) call -= 1;
        return call < calls ? call : at;
    }

    /** {steps, edits, errors, events} of a part; an error that a call and its result both carry is one. */
    counts(from, to) {
        const counts = { steps: 0, edits: 0, errors: 0, events: 0 };
        let results = 0;
        for (let at = from; at < to; at += 1) {
            const kind = this.kind(at);
            if (!this.isResult(at) && !this.isQuiet(at)) counts.events += 1;
            if (STEPS.has(kind)) counts.steps += 1;
            if (EDITS.has(kind)) counts.edits += 1;
            if (this.isError(at)) this.isResult(at) ? results += 1 : counts.errors += 1;
        }
        counts.errors = Math.max(counts.errors, results);
        return counts;
    }
}

/** Chapters are [from, to) from prompt to prompt, as the outline has them; what an outline leaves out for its length is numbered. */
export function chaptersOf({ entries, is_capped: capped }, facts) {
    const known = entries.filter(entry => entry.ordinal < facts.total);
    for (let at = capped ? known.at(-1).ordinal + 1 : facts.total; at < facts.total; at += 1) {
        if (facts.isPrompt(at)) known.push({ ordinal: at, text: `#${known.length + 1}`, seconds: 0 });
    }
    return known.map((entry, at) => ({ ...entry, number: at, from: entry.ordinal, to: known[at + 1]?.ordinal ?? facts.total }));
}

/** The pieces to draw.  `only` is {groups: Set, errors, file: {name, ordinals} or null}, or null, `open` holds the keys of open folds. */
export function makePlan(facts, chapters, { level, only, open }) {
    const pieces = [];
    const add = piece => piece.to > piece.from && pieces.push(piece);

    for (const chapter of chapters.length ? chapters : [{ from: 0, to: facts.total }]) {
        if (only) addMatching(chapter);
        else if (level === "everything") addBody(chapter.from, chapter.to);
        else if (level === "prompts") addPromptOnly(chapter);
        else addConversation(chapter);
    }
    return pieces;

    function addPromptOnly(chapter) {
        const start = addPrompt(chapter);
        addFold(start > chapter.from ? "rest" : "before", start, chapter.to, chapter);
    }

    function addConversation(chapter) {
        const start = addPrompt(chapter);
        const last = lastReply(start, chapter.to);
        if (last === null) return addFold(start > chapter.from ? "steps" : "before", start, chapter.to, chapter);
        addFold("steps", start, last[0], chapter);
        add({ type: "events", from: last[0], to: last[1] });
        addFold("steps", last[1], chapter.to, null);
    }

    function addPrompt({ from, to }) {
        let end = from;
        while (end < to && facts.isPrompt(end)) end += 1;
        add({ type: "events", from, to: end });
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
    function addMatching(chapter) {
        const runs = matchingRuns(chapter);
        if (!runs.length) return addQuiet(chapter.from, chapter.to, true);
        let at = addPrompt(chapter);
        for (const [from, to] of runs.filter(([, to]) => to > at)) {
            addFold("gap", at, Math.max(at, from), null);
            add({ type: "events", from: Math.max(at, from), to });
            at = to;
        }
        addFold("gap", at, chapter.to, null);
    }

    function matchingRuns(chapter) {
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

/** The place of the piece that an ordinal lies in; -1 in an empty plan. */
function holderAt(pieces, ordinal) {
    let low = 0, high = pieces.length - 1;
    while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (pieces[middle].from <= ordinal) low = middle;
        else high = middle - 1;
    }
    return high;
}

export const holder = (pieces, ordinal) => pieces[holderAt(pieces, ordinal)];

/** The place of the first piece that a page from an ordinal shows: heads begin where their inside does, and stand before it. */
function pieceAt(pieces, ordinal) {
    let at = holderAt(pieces, ordinal);
    while (at > 0 && pieces[at].from === ordinal && pieces[at - 1].from === ordinal) at -= 1;
    return Math.max(0, at);
}

/** Where a page that begins at `from` ends, so that it shows about `weight` lines. */
export function pageEnd(facts, pieces, from, weight) {
    let left = weight, end = from;
    for (let at = pieceAt(pieces, from); at < pieces.length; at += 1) {
        const piece = pieces[at];
        if (piece.type === "events") {
            for (end = Math.max(end, piece.from); end < piece.to && left > 0; end += 1) left -= weightOf(facts, end);
            while (end < piece.to && facts.isResult(end)) end += 1;
            if (end < piece.to) return end;
        } else {
            end = Math.max(end, piece.to);
            left -= piece.type !== "nothing";
        }
        // A head stays with what it opens, or the next page would begin where this one did.
        if (left <= 0 && piece.type !== "head") return end;
    }
    return facts.total;
}

/** Where a page that ends at `to` begins. */
export function pageStart(facts, pieces, to, weight) {
    let left = weight, start = to;
    for (let at = pieceAt(pieces, to - 1); at >= 0; at -= 1) {
        const piece = pieces[at];
        if (piece.type === "events") {
            for (start = Math.min(start, piece.to); start > piece.from && left > 0; start -= 1) left -= weightOf(facts, start - 1);
            while (start > piece.from && facts.isResult(start)) start -= 1;
            if (start > piece.from) return start;
        } else {
            start = Math.min(start, piece.from);
            left -= piece.type !== "nothing";
        }
        if (left <= 0) return start;
    }
    return 0;
}

const weightOf = (facts, at) => facts.isResult(at) ? 0 : facts.isQuiet(at) ? 0.25 : facts.isReply(at) || facts.isPrompt(at) ? 2 : 1;

/** The pieces of [from, to), cut to it. */
export function piecesBetween(pieces, from, to) {
    const found = [];
    for (let at = pieceAt(pieces, from); at < pieces.length && pieces[at].from < to; at += 1) {
        const piece = pieces[at];
        if (piece.type === "events" && piece.to > from) found.push({ ...piece, from: Math.max(from, piece.from), to: Math.min(to, piece.to) });
        else if (piece.from >= from && piece.type !== "nothing") found.push(piece);
    }
    return found;
}

/** The [from, to) of the events that drawing these pieces takes. */
export function neededBy(pieces) {
    return pieces.flatMap(piece => piece.type === "events" ? [[piece.from, piece.to]]
        : piece.kind === "task" ? [[piece.from, piece.from + 1], [(piece.end ?? piece.to) - 1, piece.end ?? piece.to]] : []);
}
