// ahead.js - asks for events before they are needed, in windows larger than a page
import { neededBy } from "./plan.js";

const LINES = 80;                       // about so many are here before the reader comes to them

/** {begin(from, to), ask(at, downwards)} of a reader that goes through a plan. */
export function openAhead(store, plan) {
    let low = 0, high = 0;              // all between was asked for

    function ask(at, downwards) {
        const end = lines => downwards ? plan().pageEnd(at, lines) : plan().pageStart(at, lines);
        const near = end(LINES / 2);
        if (low <= near && near <= high) return;
        const far = end(LINES), from = Math.min(at, far), to = Math.max(at, far);
        [low, high] = [Math.min(low, from), Math.max(high, to)];
        // What fails here fails again, and is reported, when it is needed.
        store.need(neededBy(plan().between(from, to))).catch(() => null);
    }

    return { ask, begin(from, to) { [low, high] = [from, to]; } };
}
