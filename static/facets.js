// facets.js - filters of the list as chips, each with how many sessions it would leave
import { number } from "./format.js";
import { html } from "./html.js";
import { t } from "./i18n.js";
import { toolTitle } from "./tools.js";

const SHOWN = { tool: 6, project: 7, user: 6, model: 4 };

/** The chips of an answer's facets: {tool: [[value, n], …], project, user: [[id, name, n], …], model}; and one for sessions that hold secrets. */
export function facetChips({ facets, with_secrets: withSecrets }, query) {
    const groups = Object.keys(SHOWN).map(name => ({ name, all: valuesOf(name, facets?.[name] ?? [], query) })).filter(group => group.all.length);
    const first = groups.filter(({ name }) => name !== "model");
    const more = groups.flatMap(group => group.name === "model" ? [group] : group.all.length > SHOWN[group.name] ? [{ ...group, all: group.all.slice(SHOWN[group.name]) }] : []);
    return html`${["day", "branch"].map(name => query.get(name) && chip(name, { value: query.get(name), label: query.get(name), chosen: true }))}
        ${(withSecrets || query.get("secrets")) && chip("secrets", { value: "1", label: t("secrets.row"), chosen: query.get("secrets") === "1" })}
        ${first.map(({ name, all }) => html`<span role="group" aria-label="${t(`facet.${name}`)}">${all.slice(0, SHOWN[name]).map(each => chip(name, each))}</span>`)}
        ${more.length > 0 && html`<details class="more-facets"><summary>${t("more")}</summary>${more.map(({ name, all }) => html`
            <p role="group" aria-label="${t(`facet.${name}`)}"><span class="sub">${t(`facet.${name}`)}</span> ${all.map(each => chip(name, each))}</p>`)}</details>`}`;
}

/** The chosen value stands first, and is there even where nothing is left; one value alone chooses nothing. */
function valuesOf(name, counted, query) {
    const chosen = query.get(name);
    const values = counted.map(([value, ...rest]) => ({ value, n: rest.at(-1), label: name === "tool" ? toolTitle(value) : rest.length > 1 ? rest[0] ?? value : value }))
        .filter(each => each.value).map(each => ({ ...each, chosen: each.value === chosen }));
    if (chosen && !values.some(each => each.chosen)) values.push({ value: chosen, label: name === "tool" ? toolTitle(chosen) : chosen, chosen: true });
    if (values.length < 2 && !chosen) return [];
    return values.sort((one, other) => Number(other.chosen) - Number(one.chosen));
}

const chip = (name, { value, label, n, chosen }) => html`<button type="button" class="chip" data-facet="${name}" data-value="${value}" aria-pressed="${String(Boolean(chosen))}" ${chosen && html`aria-label="${t("filter.drop", { name: label })}"`}>${label}${n !== undefined && !chosen && html` <span class="n">${number(n)}</span>`}${chosen && " ×"}</button>`;
