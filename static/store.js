// store.js - the events of a session as they are needed: fetched in few windows, kept while near
import { get } from "./api.js";
import { t } from "./i18n.js";

const NEIGHBOURS = 60;                  // a gap so small is cheaper to fetch than to ask twice
const LONGEST = 300;
const KEPT = 2500;

/** {need(ranges), at(ordinal), around(eventId), whole(ordinal), keepOnly(from, to)} of a session's events. */
export function openStore(path, onRevision) {
    const events = new Map();

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

    function missing(ranges) {
        const wanted = [];
        for (const [from, to] of ranges) {
            for (let at = from; at < to; at += 1) {
                if (events.has(at)) continue;
                const last = wanted.at(-1);
                if (last && at - last[1] <= NEIGHBOURS && at - last[0] < LONGEST) last[1] = at + 1;
                else wanted.push([at, at + 1]);
            }
        }
        return wanted;
    }

    return {
        need: ranges => Promise.all(missing(ranges).map(fetchRange)),
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
