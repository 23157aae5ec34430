// facts.js - what is known of every event of a session: one character each for its kind and its flags
import { EDITS, STEPS } from "./kinds.js";

const ERROR = 1, IN_TASK = 2, BREAK = 4;

/** The facts of every event: {total, kind(at), isError(at), inTask(at)} of what /map answers. */
export class Facts {
    constructor({ kinds, flags, names, total }) {
        Object.assign(this, { kinds, flags, names, total: Math.min(total, kinds.length) });
    }

    kindNumber(at) { return this.kinds.charCodeAt(at) - 65; }
    kind(at) { return this.names[this.kindNumber(at)]; }
    isError(at) { return Boolean(this.flags.charCodeAt(at) & ERROR); }
    inTask(at) { return Boolean(this.flags.charCodeAt(at) & IN_TASK); }
    /** Whether the context was compacted here, or somebody broke in. */
    isBreak(at) { return Boolean(this.flags.charCodeAt(at) & BREAK) && !this.inTask(at); }
    isPrompt(at) { return this.kind(at) === "UserMessage" && !this.inTask(at); }
    isReply(at) { return this.kind(at) === "AgentMessage" && !this.inTask(at); }
    isResult(at) { return this.kind(at) === "ToolResult"; }
    isEdit(at) { return EDITS.has(this.kind(at)); }
    isQuiet(at) { return ["Custom", "TaskStart", "TaskEnd"].includes(this.kind(at)); }

    /** The first prompt at or behind an ordinal; -1 where there is none. */
    promptFrom(at) {
        const letter = String.fromCharCode(65 + this.names.indexOf("UserMessage"));
        let found = this.kinds.indexOf(letter, at);
        while (found >= 0 && this.inTask(found)) found = this.kinds.indexOf(letter, found + 1);
        return found < this.total ? found : -1;
    }

    *breaks(from = 0, to = this.total) {
        for (let at = from; at < to; at += 1) if (this.isBreak(at)) yield at;
    }

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
            if (this.isEdit(at)) counts.edits += 1;
            if (this.isError(at)) this.isResult(at) ? results += 1 : counts.errors += 1;
        }
        counts.errors = Math.max(counts.errors, results);
        return counts;
    }
}

/** Chapters are [from, to) from prompt to prompt, as the outline has them; those that it leaves out are numbered. */
export function chaptersOf({ entries, is_capped: capped }, facts) {
    const known = entries.filter(entry => entry.ordinal < facts.total);
    for (let at = capped ? facts.promptFrom(known.at(-1).ordinal + 1) : -1; at >= 0; at = facts.promptFrom(at + 1)) {
        known.push({ ordinal: at, text: `#${known.length + 1}`, seconds: 0 });
    }
    return known.map((entry, at) => ({ ...entry, number: at, from: entry.ordinal, to: known[at + 1]?.ordinal ?? facts.total }));
}

/** The number of the chapter that an ordinal lies in. */
export function chapterAt(chapters, ordinal) {
    let low = 0, high = chapters.length - 1;
    while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (chapters[middle].from <= ordinal) low = middle;
        else high = middle - 1;
    }
    return low;
}
