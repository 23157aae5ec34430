// pages.js - pieces of a plan as a page: results beside their calls, folds as lines, days marked
import { day, dayKey } from "./format.js";
import { html } from "./html.js";
import { drawEvent } from "./events.js";
import { foldLine, taskLine } from "./folds.js";
import { STEPS } from "./kinds.js";

let lastKey = 0;

/** A page keeps what its folds hide, and knows in which event's fold a result lies. */
export class Page {
    constructor(pieces, eventAt, { from, to }) {
        Object.assign(this, { from, to, eventAt });
        this.hidden = new Map();        // key of a fold -> function that draws its inside
        this.places = new Map();        // ordinal of a result -> ordinal of its call
        this.lastReply = null;
        const items = pair(pieces.filter(piece => piece.type === "events").flatMap(piece => this.eventsOf(piece)));
        this.markup = html`${pieces.map(piece => this.drawPiece(piece, items))}`;
    }

    eventsOf({ from, to }) {
        return Array.from({ length: to - from }, (none, at) => this.eventAt(from + at)).filter(Boolean);
    }

    drawPiece(piece, items) {
        if (piece.type === "events") return items.filter(({ event: { ordinal } }) => ordinal >= piece.from && ordinal < piece.to).map(item => this.drawItem(item, piece));
        return piece.kind === "task" ? taskLine(piece, this.eventAt) : foldLine(piece);
    }

    drawItem(item, { task }) {
        const { event } = item;
        const previous = this.eventAt(event.ordinal - 1);
        const newDay = previous && dayKey(previous.timestamp) !== dayKey(event.timestamp);
        this.depth = depth(task);
        const drawn = drawEvent(this, item);
        if (event.event_type.type === "AgentMessage") this.lastReply = event.content.blocks[0]?.text?.trim();
        return newDay ? html`<h2 class="day">${day(event.timestamp)}</h2>${drawn}` : drawn;
    }

    /** Remember how to draw what is folded; returns its key. */
    keep(draw) {
        lastKey += 1;
        this.hidden.set(String(lastKey), draw);
        return lastKey;
    }

    liesIn(ordinal, host) {
        this.places.set(ordinal, host);
    }
}

const depth = task => task ? 1 + depth(task.parent) : 0;

/** Put each result to its call: by the call's id, or where none is given by standing right behind it. */
export function pair(events) {
    const items = [], calls = new Map();
    let last = null;
    for (const event of events) {
        const { type, data = {} } = event.event_type;
        const call = type === "ToolResult" && (calls.get(data.call_id) ?? calls.get(event.attributes?.["semantic.call_id"]) ?? (!data.call_id && last));
        if (call) {
            call.results.push(event);
            last = null;
            continue;
        }
        const item = { event, results: [] };
        items.push(item);
        last = STEPS.has(type) ? item : null;
        if (last) [event.event_id, event.attributes?.["semantic.call_id"]].forEach(id => id && calls.set(id, item));
    }
    return items;
}
