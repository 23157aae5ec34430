// pages.js - a window of events as a page: results beside their calls, sub-agents folded, days marked
import { day, dayKey, duration } from "./format.js";
import { html } from "./html.js";
import { t } from "./i18n.js";
import { drawEvent, permalink } from "./events.js";

const CALLS = ["ToolCall", "FileRead", "FileEdit", "FileCreate", "FileDelete", "ShellCommand", "CodeSearch", "FileSearch",
    "WebSearch", "WebFetch", "ImageGenerate", "VideoGenerate", "AudioGenerate"];

let lastKey = 0;

/** A page keeps what its folds hide, and knows in which folds an event lies. */
export class Page {
    constructor(events, taskTitles) {
        this.events = new Map(events.map(event => [event.ordinal, event]));
        this.from = events[0]?.ordinal ?? 0;
        this.to = this.from + events.length;
        this.taskTitles = taskTitles;   // task id -> title, of all pages: a run may begin on an earlier one
        this.hidden = new Map();        // key of a fold -> function that draws its inside
        this.places = new Map();        // ordinal -> ordinal of the event that it is folded into
        this.lastReply = null;
        this.markup = html`${runs(pair(events)).map(run => this.draw(run))}`;
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

    draw(run) {
        return run.task ? subAgent(this, run) : this.drawItem(run.item, run.previous);
    }

    drawItem(item, previous) {
        const newDay = previous && dayKey(previous.timestamp) !== dayKey(item.event.timestamp);
        const drawn = drawEvent(this, item);
        if (item.event.event_type.type === "AgentMessage") this.lastReply = item.event.content.blocks[0]?.text?.trim();
        return newDay ? html`<h2 class="day">${day(item.event.timestamp)}</h2>${drawn}` : drawn;
    }
}

/** Put each result to its call: by the call's id, or where none is given by standing right behind it. */
function pair(events) {
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
        last = CALLS.includes(type) ? item : null;
        if (last) [event.event_id, event.attributes?.["semantic.call_id"]].forEach(id => id && calls.set(id, item));
    }
    return items;
}

/** Neighbours with one task id are one run, if they are more than its start and end. */
function runs(items) {
    const all = [];
    let previous = null;
    for (const item of items) {
        const task = item.event.task_id, run = all.at(-1);
        if (task && run?.task === task) run.items.push(item);
        else if (task) all.push({ task, items: [item], previous });
        else all.push({ item, previous });
        previous = item.event;
    }
    return all.flatMap(run => run.task && !run.items.some(isWork) ? run.items.map(item => ({ item, previous: run.previous })) : [run]);
}

const isWork = ({ event }) => !["TaskStart", "TaskEnd"].includes(event.event_type.type);

function subAgent(page, { items }) {
    const start = items.find(({ event }) => event.event_type.type === "TaskStart")?.event;
    const end = items.find(({ event }) => event.event_type.type === "TaskEnd")?.event;
    const first = items[0].event;
    const inside = items.filter(isWork);
    const errors = inside.filter(({ event, results }) => [event, ...results].some(one => one.event_type.data?.is_error || one.event_type.data?.exit_code)).length;
    const steps = inside.reduce((sum, { results }) => sum + 1 + results.length, 0);
    if (start) page.taskTitles.set(first.task_id, start.event_type.data?.title);
    const title = [page.taskTitles.get(first.task_id), !start && t("continued")].filter(Boolean).join(" ");
    const key = page.keep(() => inside.map(item => page.drawItem(item)));
    items.forEach(({ event, results }) => [event, ...results].forEach(one => one !== first && !page.places.has(one.ordinal) && page.liesIn(one.ordinal, first.ordinal)));
    return html`<article class="event task" id="e-${first.ordinal}" data-row tabindex="-1">${permalink(first)}
        <details data-body="${key}"><summary><b>${t("subagent")}</b> <span class="what">${title}</span>
        <span class="came">${errors > 0 && html`<span class="failed">${t("count.errors", { n: errors })}</span> `}<span>${t("count.events", { n: steps })}</span>${end?.duration_ms && html` <span class="took">${duration(end.duration_ms)}</span>`}</span></summary></details></article>`;
}
