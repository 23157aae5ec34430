// audit.js - who did what: a table of acts, the newest first, for admins
import { get } from "./api.js";
import { moment } from "./format.js";
import { element, html } from "./html.js";
import { has, t } from "./i18n.js";
import { showError } from "./parts.js";

const COLUMNS = ["time", "who", "act", "object", "address"];

/** The part of a page that shows the audit; `query` says whose.  Nothing is asked for before it is unfolded. */
export const auditPart = query => html`
    <section><h2>${t("audit")}</h2>
        <p class="quiet">${t("audit.hint")}</p>
        <div class="scroll" data-audit="${new URLSearchParams(query)}">
            <button type="button" data-more>${t("audit.show")}</button></div></section>`;

/** Wire the part in `view`, where there is one. */
export function wireAudit(view) {
    const box = view.querySelector("[data-audit]");
    const query = Object.fromEntries(new URLSearchParams(box?.dataset.audit));
    let cursor = null;
    box?.addEventListener("click", async ({ target }) => {
        const button = target.closest("button[data-more]");
        if (!button) return;
        button.disabled = true;
        try {
            const answer = await get("/api/audit", { ...query, cursor });
            cursor = answer.next_cursor;
            add(box, answer.acts, button);
            button.textContent = t("more");
            button.hidden = !cursor;
        } catch (error) {
            showError(box, error);
        }
        button.disabled = false;
    });
}

function add(box, acts, button) {
    if (!box.querySelector("table")) button.before(element(html`
        <table class="plain acts-table"><thead><tr>${COLUMNS.map(name => html`<th scope="col">${t(`audit.${name}`)}</th>`)}</tr></thead><tbody></tbody></table>`));
    for (const act of acts) box.querySelector("tbody").append(row(act));
}

/** A row is made inside a table: anywhere else, HTML drops its cells. */
const row = act => element(html`<table><tbody><tr>
    <td><time datetime="${act.at}">${moment(act.at)}</time></td>
    <td>${act.nickname ?? (act.user_id ? t("audit.gone") : t("audit.nobody"))}</td>
    <td>${has(`act.${act.action}`) ? t(`act.${act.action}`) : act.action} ${act.team_name && html`<span class="sub">${act.team_name}</span>`}</td>
    <td>${object(act)}</td><td class="sub">${act.address}</td></tr></tbody></table>`).querySelector("tr");

function object(act) {
    if (act.object === act.user_id) return "";
    if (act.object_nickname) return act.object_nickname;
    if (act.action.startsWith("session.") && !["session.delete", "session.expire"].includes(act.action)) return html`<a href="/session/${act.object}"><code>${act.object?.slice(0, 8)}</code></a>`;
    return act.object && act.object !== act.team_id ? html`<code>${act.object.slice(0, 8)}</code>` : "";
}
