// heat.js - a month as a strip of days, each as dark as it was busy; a day filters the list
import { get } from "./api.js";
import { monthName, shortDay } from "./format.js";
import { html } from "./html.js";
import { t } from "./i18n.js";

/** Draw into `box` the month of `day`, else of the `newest` session; `asked` are the list's filters. */
export async function openHeat(box, { asked, day, newest, onDay }) {
    let month = (day ?? localDay(newest ? new Date(newest) : new Date())).slice(0, 7);
    box.addEventListener("click", event => {
        const button = event.target.closest("button");
        if (button?.dataset.day) onDay(button.dataset.day);
        if (button?.dataset.step) { month = beside(month, Number(button.dataset.step)); draw(button.dataset.step); }
    });
    await draw();

    async function draw(step) {
        const { search, day: ownDay, time_range: time, sort, ...filters } = asked;
        // A help that may fail in silence: the list stands without it.
        const answer = await get("/api/activity", { ...filters, month, tz: -new Date(`${month}-15T12:00`).getTimezoneOffset() }).catch(() => null);
        if (!answer) return;
        const most = Math.max(1, ...Object.values(answer.days));
        box.innerHTML = html`
            <button type="button" data-step="-1" aria-label="${t("month.previous")}">‹</button>
            <span class="month">${monthName(`${month}-15`)}</span>
            <button type="button" data-step="1" aria-label="${t("month.next")}" ${month >= localDay(new Date()).slice(0, 7) && "disabled"}>›</button>
            <span class="days" role="group" aria-label="${monthName(`${month}-15`)}">${daysOf(month).map(each => cell(each, answer.days[each] ?? 0, most))}</span>`;
        if (step) box.querySelector(`[data-step="${step}"]`).focus();
    }

    function cell(each, n, most) {
        return html`<button type="button" data-day="${each}" data-heat="${n && Math.ceil(n / most * 4)}" aria-pressed="${String(each === day)}" ${!n && each !== day && "disabled"}
        aria-label="${Number(each.slice(8))} · ${shortDay(each)}: ${t("count.sessions", { n })}" title="${shortDay(each)}: ${t("count.sessions", { n })}">${Number(each.slice(8))}</button>`;
    }
}

/** A date as YYYY-MM-DD on the reader's clock. */
const localDay = date => [date.getFullYear(), date.getMonth() + 1, date.getDate()].map(part => String(part).padStart(2, "0")).join("-");

function beside(month, step) {
    const [year, number] = month.split("-").map(Number);
    return localDay(new Date(year, number - 1 + step, 1)).slice(0, 7);
}

function daysOf(month) {
    const [year, number] = month.split("-").map(Number);
    return Array.from({ length: new Date(year, number, 0).getDate() }, (none, at) => `${month}-${String(at + 1).padStart(2, "0")}`);
}
