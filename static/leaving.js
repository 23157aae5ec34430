// leaving.js - what cannot be taken back, asked for by typing a name: deleting an account or a team
import { remove } from "./api.js";
import { html } from "./html.js";
import { t } from "./i18n.js";
import { openDialog } from "./parts.js";

/** Ask for a name to be typed; resolves to the dialog when it was, to null when the person thought again. */
async function named({ question, hint, label, name, action, more }) {
    const answer = openDialog(html`
        <h2>${question}</h2>
        <p>${hint}</p>
        <div class="stack">${more}<label>${label} <input name="typed" autocomplete="off" spellcheck="false" autofocus></label></div>
        <p class="actions">
            <button type="button" value="">${t("cancel")}</button>
            <button type="button" value="yes" class="danger" disabled>${action}</button>
        </p>`);
    const dialog = document.querySelector("dialog[open]");
    const button = dialog.querySelector("button[value=yes]");
    dialog.querySelector("[name=typed]").oninput = ({ target }) => { button.disabled = target.value.trim().normalize() !== name; };
    return await answer === "yes" ? dialog : null;
}

const SESSIONS = ["keep", "delete"];

/** Delete an account, if the person means it; resolves to whether it is gone. */
export async function deleteAccount(person) {
    const dialog = await named({
        question: t("account.delete.question", { name: person.nickname }), hint: t("account.delete.hint"),
        label: t("nickname"), name: person.nickname, action: t("account.delete"),
        more: html`<label>${t("account.sessions")} <select name="sessions">${SESSIONS.map(choice => html`
            <option value="${choice}">${t(`uploads.${choice}`)}</option>`)}</select></label>` });
    if (!dialog) return false;
    await remove(`/api/users/${person.user_id}?sessions=${dialog.querySelector("[name=sessions]").value}`);
    return true;
}

/** The same for a team. */
export async function deleteTeam(team) {
    const dialog = await named({
        question: t("team.delete.question", { name: team.name }), hint: t("team.delete.hint"),
        label: t("name"), name: team.name, action: t("team.delete") });
    if (!dialog) return false;
    await remove(`/api/teams/${team.id}`);
    return true;
}
