// filters.js - what of a session is shown: kinds of steps, errors only, one file
import { html } from "./html.js";
import { number } from "./format.js";
import { t } from "./i18n.js";
import { rename } from "./go.js";
import { CHOICES, GROUPS } from "./kinds.js";

/** How many events of each group there are, and how many errors. */
function census(facts) {
    const counts = {};
    for (let at = 0; at < facts.total; at += 1) {
        const group = GROUPS[facts.kind(at)] ?? "other";
        counts[group] = (counts[group] ?? 0) + 1;
        if (facts.isError(at)) counts.error = (counts.error ?? 0) + 1;
    }
    return counts;
}

/** "edit,error" -> {groups, errors}; null where nothing is chosen. */
export function filterOf(text) {
    const names = (text ?? "").split(",");
    const groups = new Set(CHOICES.filter(name => names.includes(name)));
    const errors = names.includes("error");
    return groups.size || errors ? { groups, errors, file: null } : null;
}

/** The chips in `box`.  Returns {draw(facts, only), file(name, ordinals)}; `onChange(only)` with the new choice. */
export function openFilters(box, onChange) {
    let only = null, facts = null;

    box.addEventListener("click", event => {
        const button = event.target.closest("button");
        if (button?.dataset.group) change(toggled(button.dataset.group));
        if (button?.dataset.clear !== undefined) change(null);
    });

    function toggled(name) {
        const groups = new Set(only?.groups);
        let errors = Boolean(only?.errors);
        if (name === "error") errors = !errors;
        else if (!groups.delete(name)) groups.add(name);
        return groups.size || errors || only?.file ? { groups, errors, file: only?.file ?? null } : null;
    }

    function change(next) {
        only = next;
        rename("only", only && [...only.groups, only.errors && "error"].filter(Boolean).join(","));
        draw();
        onChange(only);
    }

    function draw(newFacts = facts, newOnly = only) {
        [facts, only] = [newFacts, newOnly];
        const counts = census(facts);
        const chip = (name, pressed) => counts[name] > 0 && html`<button type="button" class="chip" data-group="${name}" aria-pressed="${String(pressed)}"><i></i>${t(`group.${name}`)} <span class="n">${number(counts[name])}</span></button>`;
        box.innerHTML = html`<div role="group" aria-label="${t("filter")}">${chip("error", Boolean(only?.errors))}${CHOICES.map(name => chip(name, Boolean(only?.groups.has(name))))}
            ${only?.file && html`<span class="chip set"><span class="path">${only.file.name}</span></span>`}
            ${only && html`<button type="button" class="chip" data-clear>${t("filter.clear")}</button>`}</div>`;
    }

    return { draw, file: (name, ordinals) => { box.hidden = false; change({ groups: new Set(), errors: false, file: { name, ordinals } }); }, clear: () => change(null) };
}
