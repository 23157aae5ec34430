// plan.js - what of a session is to be seen: from one character an event, chapters with their folds
//
// A plan is a list of pieces in the order of the events, without gaps, made chapter by chapter as they are looked at:
//   {type: "events", from, to}           every event of it is drawn
//   {type: "fold", kind, from, to, …}    one line; kind is "steps", "rest", "task", "before" or "gap"
//   {type: "head", …}                    the line of a fold that is open; its inside follows as pieces
//   {type: "nothing", from, to}          bookkeeping that nobody needs to see
import { chapterAt } from "./facts.js";
import { piecesOf } from "./folding.js";

export const LEVELS = ["prompts", "conversation", "everything"];

/** The pieces to draw.  `only` is {groups: Set, errors, file: {name, ordinals} or null}, or null, `open` holds the keys of open folds. */
export class Plan {
    #made = [];                         // number of a chapter -> its pieces

    constructor(facts, chapters, { level, only, open }) {
        this.chapters = chapters.length ? chapters : [{ from: 0, to: facts.total }];
        this.facts = facts;
        this.choice = { level, only, open };
    }

    /** The pieces of a chapter. */
    of(number) {
        return this.#made[number] ??= piecesOf(this.facts, this.chapters[number], this.choice);
    }

    /** The piece that an ordinal lies in; undefined in an empty plan. */
    holder(ordinal) {
        return this.of(chapterAt(this.chapters, ordinal)).findLast(piece => piece.from <= ordinal);
    }

    /** The fold with a key, which ends in the ordinal where it begins. */
    fold(key) {
        return this.of(chapterAt(this.chapters, Number(key.slice(1)))).find(piece => piece.key === key);
    }

    /** The pieces from an ordinal on: heads begin where their inside does, and stand before it. */
    *after(ordinal) {
        const number = chapterAt(this.chapters, ordinal), pieces = this.of(number);
        yield* pieces.slice(firstAt(pieces, ordinal));
        for (let next = number + 1; next < this.chapters.length; next += 1) yield* this.of(next);
    }

    /** The pieces back from the one that an ordinal lies in to the first. */
    *before(ordinal) {
        const number = chapterAt(this.chapters, ordinal), pieces = this.of(number);
        yield* pieces.slice(0, firstAt(pieces, ordinal) + 1).reverse();
        for (let next = number - 1; next >= 0; next -= 1) yield* [...this.of(next)].reverse();
    }

    /** Where a page that begins at `from` ends, so that it shows about `weight` lines. */
    pageEnd(from, weight) {
        const { facts } = this;
        let left = weight, end = from;
        for (const piece of this.after(from)) {
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
    pageStart(to, weight) {
        const { facts } = this;
        let left = weight, start = to;
        for (const piece of this.before(to - 1)) {
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

    /** Where that part of [from, to) ends of which `has(ranges)` says that it is here; `to` where not even its beginning is. */
    readyEnd(from, to, has) {
        const missing = this.between(from, to).find(piece => !has(neededBy([piece])));
        return missing && missing.from > from ? missing.from : to;
    }

    /** The pieces of [from, to), cut to it. */
    between(from, to) {
        const found = [];
        for (const piece of this.after(from)) {
            if (piece.from >= to) break;
            if (piece.type === "events" && piece.to > from) found.push({ ...piece, from: Math.max(from, piece.from), to: Math.min(to, piece.to) });
            else if (piece.from >= from && piece.type !== "nothing") found.push(piece);
        }
        return found;
    }
}

/** The place of the first piece that a page from an ordinal shows. */
function firstAt(pieces, ordinal) {
    let at = pieces.findLastIndex(piece => piece.from <= ordinal);
    while (at > 0 && pieces[at].from === ordinal && pieces[at - 1].from === ordinal) at -= 1;
    return Math.max(0, at);
}

/** Lines that an event takes, about: one for a step, more for what is open from the start. */
function weightOf(facts, at) {
    if (facts.isResult(at)) return 0;
    if (facts.isQuiet(at)) return 0.25;
    return facts.isReply(at) || facts.isPrompt(at) || facts.isEdit(at) ? 2 : 1;
}

/** The [from, to) of the events that drawing these pieces takes. */
export function neededBy(pieces) {
    return pieces.flatMap(piece => piece.type === "events" ? [[piece.from, piece.to]]
        : piece.kind === "task" ? [[piece.from, piece.from + 1], [(piece.end ?? piece.to) - 1, piece.end ?? piece.to]] : []);
}
