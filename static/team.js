// team.js - one team: settings, members and their roles, invitations
import { get, post, put, remove } from "./api.js";
import { auditPart, wireAudit } from "./audit.js";
import { date, size } from "./format.js";
import { again, go } from "./go.js";
import { element, html } from "./html.js";
import { t } from "./i18n.js";
import { deleteTeam } from "./leaving.js";
import { confirmed, copyLine, onSubmit, showError, title } from "./parts.js";
import { forgetTeams, user } from "./who.js";

const ROLES = ["member", "admin", "viewer"];

export async function show(view, { params: [id] }) {
    const path = `/api/teams/${encodeURIComponent(id)}`;
    const [team, members, invitations] = await Promise.all([get(path), readable(`${path}/members`), readable("/api/invitations")]);
    title(team.name);
    const rules = team.role === "admin" || user()?.is_admin;
    view.classList.add("narrow");
    view.innerHTML = html`
        <h1>${team.name} ${team.is_public && html`<span class="tag">${t("public")}</span>`}</h1>
        ${team.description && html`<p class="lead">${team.description}</p>`}
        <p><a class="button" href="/?team=${team.id}">${t("team.sessions")}</a></p>
        ${members && memberTable(members.members, rules)}
        ${rules && addForm()}
        ${rules && invitationPart((invitations?.invitations ?? []).filter(one => one.team_id === team.id))}
        ${rules && settingsForm(team)}
        ${rules && auditPart({ team_id: team.id })}
        <p>${team.role && html`<button type="button" class="danger" data-do="leave">${t("team.leave")}</button>`}
            ${rules && html`<button type="button" class="danger" data-do="delete">${t("team.delete")}</button>`}</p>`;
    wireMembers(view, path);
    wireAudit(view);
    wireLeaving(view, path, team);
    if (rules) wireRules(view, path, team);
}

const readable = path => get(path).catch(error => {
    if ([401, 403, 404].includes(error.status)) return null;
    throw error;
});

const roleOptions = chosen => ROLES.map(role => html`<option value="${role}" ${role === chosen && "selected"}>${t(`role.${role}`)}</option>`);

const memberTable = (members, rules) => html`
    <h2>${t("members")}</h2>
    <table class="plain"><tbody>${members.map(member => html`
        <tr data-member="${member.user_id}"><td>${member.nickname}${member.user_id === user()?.user_id && html` <span class="tag">${t("you")}</span>`}</td>
            <td>${rules ? html`<select data-role aria-label="${t("role.of", { name: member.nickname })}">${roleOptions(member.role)}</select>` : t(`role.${member.role}`)}</td>
            <td class="sub">${t("since", { date: date(member.joined_at) })}</td>
            <td>${rules && html`<button type="button" class="danger" data-remove="${member.nickname}">${t("remove")}</button>`}</td></tr>`)}
    </tbody></table>`;

const addForm = () => html`
    <form class="line" data-form="add">
        <label>${t("nickname")} <input name="nickname" required maxlength="64" autocomplete="off"></label>
        <label>${t("role")} <select name="role">${roleOptions("member")}</select></label>
        <button>${t("members.add")}</button>
    </form>`;

const invitationPart = open => html`
    <h2>${t("invitations")}</h2>
    <p class="quiet">${t("invitations.hint")}</p>
    <ul class="lines">${open.filter(one => !one.used_at).map(one => html`
        <li><span>${t(`role.${one.role}`)} <span class="sub">${t("until", { date: date(one.expires_at) })}</span></span>
            <button type="button" class="danger" data-revoke="${one.id}">${t("revoke")}</button></li>`)}</ul>
    <form class="line" data-form="invite">
        <label>${t("role")} <select name="role">${roleOptions("member")}</select></label>
        <button>${t("invitations.new")}</button>
    </form>`;

const settingsForm = team => html`
    <h2>${t("team.settings")}</h2>
    <form class="stack" data-form="settings">
        <label>${t("name")} <input name="name" value="${team.name}" required maxlength="128"></label>
        <label>${t("description")} <input name="description" value="${team.description}" maxlength="500"></label>
        <label class="check"><input type="checkbox" name="is_public" ${team.is_public && "checked"}> <span>${t("team.public")}</span></label>
        <label>${t("team.retain")} <input name="retain_days" type="number" min="0" max="36500" value="${team.retain_days ?? ""}" aria-describedby="retain-hint">
            <span class="sub" id="retain-hint">${t("team.retain.hint")}</span></label>
        <label>${t("team.quota")} <input name="quota_mb" type="number" min="0" value="${team.quota_mb ?? ""}" ${!user()?.is_admin && "disabled"} aria-describedby="quota-hint">
            <span class="sub" id="quota-hint">${t("team.stored", { size: size(team.stored_bytes) })}${!user()?.is_admin && ` ${t("team.quota.hint")}`}</span></label>
        <button>${t("save")}</button>
    </form>`;

// What a field for a number says: 0 for an empty one, nothing where it is not ours to fill in.
const whole = text => text === undefined ? null : Number(text);

const shortens = (team, days) => days > 0 && !(team.retain_days && team.retain_days <= days);

function wireMembers(view, path) {
    view.addEventListener("change", async event => {
        if (!event.target.matches("[data-role]")) return;
        const member = event.target.closest("[data-member]").dataset.member;
        await put(`${path}/members/${member}`, { role: event.target.value }).then(again, error => failed(event.target, error));
    });
    view.addEventListener("click", async event => {
        const button = event.target.closest("button[data-remove]");
        if (!button || !await confirmed(t("members.remove", { name: button.dataset.remove }), t("members.remove.hint"), t("remove"))) return;
        await remove(`${path}/members/${button.closest("[data-member]").dataset.member}`).then(again, error => failed(button, error));
    });
}

function wireLeaving(view, path, team) {
    const acts = {
        leave: async () => await confirmed(t("team.leave.question", { name: team.name }), t("team.leave.hint"), t("team.leave"))
            && remove(`${path}/members/${user().user_id}`).then(() => true),
        delete: () => deleteTeam(team),
    };
    for (const button of view.querySelectorAll("button[data-do]")) {
        button.onclick = () => acts[button.dataset.do]().then(async done => {
            if (!done) return;
            forgetTeams();
            await go("/teams");
        }, error => failed(button, error));
    }
}

function wireRules(view, path, team) {
    const form = name => view.querySelector(`[data-form=${name}]`);
    onSubmit(form("add"), values => post(`${path}/members`, values).then(again));
    onSubmit(form("settings"), async ({ name, description, is_public: open, retain_days: retain, quota_mb: quota }) => {
        if (shortens(team, whole(retain)) && !await confirmed(t("team.retain.sure", { days: retain }), t("team.retain.hint"), t("save"))) return;
        await put(path, { name, description, is_public: open === "on", retain_days: whole(retain), quota_mb: whole(quota) });
        forgetTeams();
        await again();
    });
    onSubmit(form("invite"), async ({ role }) => {
        const made = await post("/api/invitations", { team_id: team.id, role });
        form("invite").after(element(html`<p class="once">${t("invitations.once")}<br>${copyLine(made.url)}</p>`));
    });
    view.addEventListener("click", async event => {
        const button = event.target.closest("button[data-revoke]");
        if (button) await remove(`/api/invitations/${button.dataset.revoke}`).then(again, error => failed(button, error));
    });
}

const failed = (control, error) => showError(control.parentNode, error);
