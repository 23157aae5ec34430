// format.js - numbers, times and sizes as people of the chosen language write them
import { formatter } from "./i18n.js";

const dateFormat = options => formatter(Intl.DateTimeFormat, options);
const numberFormat = options => formatter(Intl.NumberFormat, options);

export const number = value => numberFormat({}).format(value ?? 0);
export const compact = value => numberFormat({ notation: "compact", maximumSignificantDigits: 3 }).format(value ?? 0);

export const clock = time => dateFormat({ hour: "2-digit", minute: "2-digit", hourCycle: "h23" }).format(new Date(time));
export const day = time => dateFormat({ weekday: "long", day: "numeric", month: "long", year: "numeric" }).format(new Date(time));
export const date = time => dateFormat({ dateStyle: "medium" }).format(new Date(time));
export const moment = time => dateFormat({ dateStyle: "medium", timeStyle: "medium" }).format(new Date(time));
export const monthName = time => dateFormat({ month: "long", year: "numeric" }).format(new Date(time));
export const shortDay = day => dateFormat({ weekday: "short", day: "numeric", month: "short" }).format(new Date(`${day}T12:00`));
export const dayKey = time => new Date(time).toDateString();

const STEPS = [["year", 31536000], ["month", 2592000], ["day", 86400], ["hour", 3600], ["minute", 60]];

/** "5 min ago", from a time to now. */
export function age(time) {
    const seconds = Math.max(0, (Date.now() - new Date(time)) / 1000);
    const [unit, size] = STEPS.find(([, size]) => seconds >= size) ?? ["second", 1];
    return formatter(Intl.RelativeTimeFormat, { style: "narrow", numeric: "always" }).format(-Math.floor(seconds / size), unit);
}

/** Milliseconds as their two largest units: "1h 5m", "42s", "0.3s". */
export function duration(ms) {
    const seconds = ms / 1000;
    if (seconds < 10) return unit(Math.round(seconds * 10) / 10, "second");
    const parts = [["day", 86400, Infinity], ["hour", 3600, 24], ["minute", 60, 60], ["second", 1, 60]]
        .map(([name, size, wrap]) => [Math.floor(seconds / size) % wrap, name]);
    const first = parts.findIndex(([value]) => value > 0);
    return parts.slice(first, first + 2).filter(([value]) => value > 0).map(part => unit(...part)).join(" ");
}

export function size(bytes) {
    const at = Math.min(3, Math.floor(Math.log10(Math.max(bytes, 1)) / 3));
    return unit(Math.round(bytes / 1000 ** at * 10) / 10, ["byte", "kilobyte", "megabyte", "gigabyte"][at]);
}

const unit = (value, name) => numberFormat({ style: "unit", unit: name, unitDisplay: "narrow" }).format(value);
