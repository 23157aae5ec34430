// store.js - the events of a session as they are needed: fetched in few windows, kept while near
import { get } from "./api.js";
import { t } from "./i18n.js";

const NEIGHBOURS = 60;                  // a gap so small is cheaper to fetch than to ask twice
const LONGEST = 300;
const KEPT = 2500;

/** {need(ranges), has(ranges), at(ordinal), around(eventId), whole(ordinal), keepOnly(from, to)} of a session's events. */
export function openStore(path, onRevision) {
    const events = new Map();
    const coming = new Map();           // ordinal -> promise of the window that brings it

    async function ask(query) {
        const answer = await get(`${path}/events`, query);
        onRevision(answer.revision, answer.total);
        for (const event of answer.events) events.set(event.ordinal, event);
        return answer;
    }

    /** A window may hold fewer events than asked for: ask on until it is full. */
    async function fetchRange([from, to]) {
        for (let at = from; at < to;) {
            const answer = await ask({ from: at, limit: to - at });
            if (!answer.events.length) throw new Error(t("error.window"));
            at += answer.events.length;
        }
    }

    /** Fetch a range and let whoever needs a part of it meanwhile wait for the same answer. */
    function begin(range) {
        const [from, to] = range, fetching = fetchRange(range);
        const done = () => { for (let at = from; at < to; at += 1) if (coming.get(at) === fetching) coming.delete(at); };
        for (let at = from; at < to; at += 1) coming.set(at, fetching);
        fetching.then(done, done);
        return fetching;
    }

    function* absent(ranges) {
        for (const [from, to] of ranges) for (let at = from; at < to; at += 1) if (!events.has(at)) yield at;
    }

    /** Resolves when all of it is here; what is on its way already is not asked for again. */
    function need(ranges) {
        const wanted = [], waiting = new Set();
        for (const at of absent(ranges)) {
            const last = wanted.at(-1);
            if (coming.has(at)) waiting.add(coming.get(at));
            else if (last && at - last[1] <= NEIGHBOURS && at - last[0] < LONGEST) last[1] = at + 1;
            else wanted.push([at, at + 1]);
        }
        return Promise.all([...waiting, ...wanted.map(begin)]);
    }

    return {
        need,
        has: ranges => absent(ranges).next().done,
        at: ordinal => events.get(ordinal),
        around: eventId => ask({ around: eventId, limit: 20 }).then(answer => answer.found),
        whole: ordinal => get(`${path}/events/${ordinal}`),
        forgetFrom(first) {
            for (const ordinal of events.keys()) if (ordinal >= first) events.delete(ordinal);
        },
        ordinalOf(eventId) {
            for (const event of events.values()) if (event.event_id === eventId) return event.ordinal;
            return undefined;
        },
        keepOnly(from, to) {
            if (events.size <= KEPT) return;
            for (const ordinal of events.keys()) if (ordinal < from - LONGEST || ordinal > to + LONGEST) events.delete(ordinal);
        },
    };
}
