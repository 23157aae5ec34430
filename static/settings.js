// settings.js - the person's profile and keys, and how the page looks
import { get, post, remove } from "./api.js";
import { auditPart, wireAudit } from "./audit.js";
import { date } from "./format.js";
import { again, go } from "./go.js";
import { element, html } from "./html.js";
import { choose, language, LANGUAGES, t } from "./i18n.js";
import { deleteAccount } from "./leaving.js";
import { confirmed, copyLine, onSubmit, showError, title } from "./parts.js";
import { daemonCommands } from "./start.js";
import { loadUser, signOut, user } from "./who.js";

const SCOPES = ["full", "read", "upload"];
const THEMES = ["", "light", "dark"];

export async function show(view) {
    title(t("nav.settings"));
    const [{ keys }, { logins }, { users }] = await Promise.all([
        user() ? get("/api/keys") : {}, user() ? get("/api/auth/logins") : {}, user()?.is_admin ? get("/api/users") : {}]);
    view.classList.add("narrow");
    view.innerHTML = html`
        <h1>${t("nav.settings")}</h1>
        ${user() && profile(user())}
        ${user() && keyPart(keys)}
        ${user() && loginPart(logins)}
        ${looks()}
        ${users && peoplePart(users)}
        ${users && auditPart({})}`;
    wireLooks(view);
    wireAudit(view);
    if (!user()) return;
    wireKeys(view);
    wireAccounts(view, users ?? []);
}

const profile = person => html`
    <section><h2>${t("profile")}</h2>
        <p><strong>${person.nickname}</strong> ${person.is_admin && html`<span class="tag">${t("admin.server")}</span>`}
            <span class="sub">${t("since", { date: date(person.created_at) })}</span></p>
        <p><button type="button" data-do="sign-out">${t("signout")}</button>
            <button type="button" class="danger" data-account="${person.user_id}">${t("account.delete.own")}</button></p></section>`;

const keyPart = keys => html`
    <section><h2>${t("keys.api")}</h2>
        <p class="quiet">${t("keys.api.hint")}</p>
        <table class="plain"><tbody>${keys.map(key => html`
            <tr><td>${key.name} ${key.current && html`<span class="tag">${t("key.current")}</span>`}</td><td><code>${key.prefix}…</code></td>
                <td>${t(`scope.${key.scope}`)}</td><td class="sub">${key.last_used_on ? t("key.used", { date: date(key.last_used_on) }) : t("key.unused")}</td>
                <td><button type="button" class="danger" data-revoke="${key.id}" data-name="${key.name}">${t("revoke")}</button></td></tr>`)}
        </tbody></table>
        <form class="line" data-form="key">
            <label>${t("name")} <input name="name" required maxlength="64" placeholder="${t("key.name")}" autocomplete="off"></label>
            <label>${t("scope")} <select name="scope">${SCOPES.map(scope => html`<option value="${scope}">${t(`scope.${scope}`)}</option>`)}</select></label>
            <button>${t("key.new")}</button>
        </form></section>`;

const loginPart = logins => html`
    <section><h2>${t("logins")}</h2>
        <ul class="lines">${logins.map(login => html`
            <li><span>${t("since", { date: date(login.created_at) })} ${login.current && html`<span class="tag">${t("logins.here")}</span>`}
                <span class="sub">${t("logins.with", { name: login.key_name })}</span></span>
                <span class="sub">${login.last_used_on && t("logins.used", { date: date(login.last_used_on) })}</span></li>`)}</ul>
        <p><button type="button" data-do="sign-out-everywhere">${t("signout.everywhere")}</button></p></section>`;

const peoplePart = people => html`
    <section><h2>${t("people")}</h2>
        <table class="plain"><tbody>${people.map(person => html`
            <tr><td>${person.nickname} ${person.is_admin && html`<span class="tag">${t("admin.server")}</span>`}</td>
                <td>${t("count.teams", { n: person.teams })}</td>
                <td class="sub">${person.last_used_on ? t("logins.used", { date: date(person.last_used_on) }) : t("key.unused")}</td>
                <td>${person.user_id !== user().user_id && html`<button type="button" class="danger" data-account="${person.user_id}" data-name="${person.nickname}">${t("delete")}</button>`}</td></tr>`)}
        </tbody></table></section>`;

const looks = () => html`
    <section><h2>${t("looks")}</h2>
        <form class="line" data-form="looks">
            <label>${t("language")} <select name="language">${Object.entries(LANGUAGES).map(([code, name]) => html`<option value="${code}" lang="${code}" ${code === language() && "selected"}>${name}</option>`)}</select></label>
            <label>${t("theme")} <select name="theme">${THEMES.map(theme => html`<option value="${theme}" ${theme === (localStorage.getItem("theme") ?? "") && "selected"}>${t(`theme.${theme || "system"}`)}</option>`)}</select></label>
        </form></section>`;

function wireLooks(view) {
    view.querySelector("[data-form=looks]").addEventListener("change", async ({ target }) => {
        if (target.name === "language") await choose(target.value);
        else chooseTheme(target.value);
        again();
    });
}

function chooseTheme(theme) {
    if (theme) {
        localStorage.setItem("theme", theme);
        document.documentElement.dataset.theme = theme;
    } else {
        localStorage.removeItem("theme");
        delete document.documentElement.dataset.theme;
    }
}

function wireAccounts(view, people) {
    view.querySelector("[data-do=sign-out-everywhere]").onclick = ({ target }) =>
        remove("/api/auth/logins").then(loadUser).then(() => go("/login"), error => showError(target.parentNode, error));
    for (const button of view.querySelectorAll("button[data-account]")) {
        const person = [user(), ...people].find(one => one.user_id === button.dataset.account);
        button.onclick = () => deleteAccount(person).then(async done => {
            if (!done) return;
            await (await loadUser() ? again() : go("/login"));
        }, error => showError(button.parentNode, error));
    }
}

function wireKeys(view) {
    view.querySelector("[data-do=sign-out]").onclick = () => signOut().then(() => go("/login"));
    const form = view.querySelector("[data-form=key]");
    onSubmit(form, async values => {
        const key = await post("/api/keys", values);
        form.after(shownOnce(key));
        form.reset();
    });
    view.addEventListener("click", async event => {
        const button = event.target.closest("button[data-revoke]");
        if (!button || !await confirmed(t("key.revoke", { name: button.dataset.name }), t("key.revoke.hint"), t("revoke"))) return;
        await remove(`/api/keys/${button.dataset.revoke}`).then(again, error => showError(button.parentNode, error));
    });
}

/** A new key, which the server will not tell again, with what to do with it. */
const shownOnce = key => element(html`
    <div class="once" role="status"><p>${t("key.once")}</p><p>${copyLine(key.api_key)}</p>${key.scope !== "read" && daemonCommands(key.api_key)}</div>`);
