// choosing.js - several sessions at once: choose rows, then delete or move them
import { put, remove } from "./api.js";
import { html } from "./html.js";
import { t } from "./i18n.js";
import { confirmed, sentence } from "./parts.js";

/** Wire the rows' boxes in `view`.  Returns {toggleFocused} for the keyboard. */
export function openChoosing(view, { sessions, teams, onDone }) {
    const chosen = new Set();
    const bar = view.querySelector(".chosen");
    let last = null;

    view.addEventListener("click", event => {
        const box = event.target.closest("input[data-choose]");
        if (box) choose(box, event.shiftKey);
    });
    bar.addEventListener("click", event => act(event.target.closest("button")?.dataset.all));
    bar.addEventListener("change", event => event.target.name === "move" && event.target.value && all(id => put(`/api/sessions/${id}`, { team_id: event.target.value })));

    /** With Shift everything between the last choice and this one follows it. */
    function choose(box, range) {
        const boxes = [...view.querySelectorAll("input[data-choose]")];
        const [from, to] = [boxes.indexOf(range && last ? last : box), boxes.indexOf(box)].sort((one, other) => one - other);
        for (const each of boxes.slice(Math.max(0, from), to + 1)) {
            each.checked = box.checked;
            chosen[box.checked ? "add" : "delete"](each.dataset.choose);
        }
        last = box;
        draw();
    }

    function draw(problem) {
        bar.hidden = !chosen.size;
        view.classList.toggle("choosing", chosen.size > 0);
        bar.innerHTML = html`<strong role="status">${t("chosen", { n: chosen.size })}</strong>
            ${teams.length > 1 && html`<select name="move" aria-label="${t("chosen.move")}"><option value="">${t("chosen.move")}</option>${teams.map(team => html`<option value="${team.id}">${team.name}</option>`)}</select>`}
            <button type="button" class="danger" data-all="delete">${t("delete")}</button>
            <button type="button" data-all="none">${t("chosen.none")}</button>
            ${problem && html`<span class="error" role="alert">${problem}</span>`}`;
    }

    async function act(name) {
        if (name === "none") {
            chosen.clear();
            view.querySelectorAll("input[data-choose]").forEach(box => { box.checked = false; });
            draw();
        }
        if (name === "delete" && await confirmed(t("chosen.delete", { n: chosen.size }), t("delete.hint"), t("delete"))) all(id => remove(`/api/sessions/${id}`));
    }

    /** One after the other; what fails stays chosen and says why. */
    async function all(change) {
        bar.querySelectorAll("button, select").forEach(part => { part.disabled = true; });
        let problem = null;
        for (const id of [...chosen]) await change(id).then(() => chosen.delete(id), error => { problem = html`${sessions().find(session => session.id === id)?.title ?? id}: ${sentence(error)}`; });
        if (problem) draw(problem);
        else onDone();
    }

    return {
        toggleFocused() {
            const box = document.activeElement.closest(".row")?.querySelector("input[data-choose]");
            if (!box) return;
            box.checked = !box.checked;
            choose(box, false);
        },
    };
}
