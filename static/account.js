// account.js - coming in: set-up, registration, signing in, accepting an invitation
import { get, post } from "./api.js";
import { drawBar } from "./bar.js";
import { again, go } from "./go.js";
import { html } from "./html.js";
import { t } from "./i18n.js";
import { forgetInvitation, invitation } from "./invitation.js";
import { copyLine, onSubmit, title } from "./parts.js";
import { daemonCommands } from "./start.js";
import { forgetTeams, signIn, user } from "./who.js";

export async function show(view, { query }) {
    const { key, invite, setup } = invitation();
    const next = safeNext(query.get("next"));
    title(t("nav.login"));
    if (key) return showKey(view, key, next);
    if (invite && user()) return showInvitation(view, invite);
    const health = await get("/api/health");
    if (health.first_user) return showRegistration(view, { health, token: setup, first: true });
    if (user() && !invite) return go(next, { replace: true });
    return showBoth(view, health, invite, next);
}

/** Only addresses of ours are returned to. */
const safeNext = address => /^\/(?![/\\])/.test(address ?? "") && !address.startsWith("/login") ? address : "/";

async function showKey(view, key, next) {
    const { nickname } = await post("/api/auth/verify", {}, { Authorization: `Bearer ${key}` }).catch(error => {
        forgetInvitation();
        throw error.status === 401 ? Object.assign(new Error(t("login.bad")), { status: 400 }) : error;
    });
    view.innerHTML = html`
        <form class="door"><h1>${t("login.as", { name: nickname })}</h1>
            <p>${t("login.as.hint", { host: location.host })}</p><button autofocus>${t("login.as", { name: nickname })}</button></form>`;
    onSubmit(view.querySelector("form"), async () => {
        await signIn(key);
        forgetInvitation();
        await go(next, { replace: true });
    });
}

function showInvitation(view, code) {
    view.innerHTML = html`
        <form class="door"><h1>${t("invited")}</h1><p>${t("invited.as", { name: user().nickname })}</p><button>${t("invited.accept")}</button></form>`;
    onSubmit(view.querySelector("form"), async () => {
        const team = await post("/api/invitations/accept", { code });
        forgetInvitation();
        forgetTeams();
        await go(`/teams/${team.id}`, { replace: true });
    });
}

function showBoth(view, health, invite, next) {
    const open = invite || health.registration !== "closed";
    view.innerHTML = html`<div class="doors">${!invite && loginForm()}${open && registerForm({ health, token: invite })}${invite && loginForm()}</div>`;
    wireLogin(view.querySelector("[data-form=login]"), invite, next);
    if (open) wireRegistration(view);
}

function showRegistration(view, options) {
    view.innerHTML = registerForm(options);
    wireRegistration(view);
}

const loginForm = () => html`
    <form class="door" data-form="login"><h2>${t("nav.login")}</h2>
        <input name="username" autocomplete="username" value="opensession" hidden>
        <label>${t("key")} <input name="api_key" type="password" required autocomplete="current-password" placeholder="osk_…" spellcheck="false" autofocus></label>
        <p class="quiet">${t("login.hint")}</p>
        <button>${t("nav.login")}</button></form>`;

function registerForm({ health, token, first }) {
    const asksToken = token || (first ? health.setup_required : health.registration !== "open");
    return html`
        <form class="door" data-form="register"><h1>${first ? t("setup") : token ? t("invited") : t("register")}</h1>
            <p class="quiet">${first ? t("setup.hint") : t("register.hint")}</p>
            <label>${t("nickname")} <input name="nickname" required maxlength="64" autocomplete="username" ${(first || token) && "autofocus"}></label>
            ${asksToken && html`<label>${first ? t("setup.token") : t("invitation.code")} <input name="invite" value="${token}" required autocomplete="off" spellcheck="false"></label>`}
            ${asksToken && first && html`<p class="quiet">${t("setup.token.hint")}</p>`}
            <button>${first ? t("setup.go") : t("register.go")}</button></form>`;
}

function wireLogin(form, invite, next) {
    onSubmit(form, async ({ api_key: apiKey }) => {
        await signIn(apiKey.trim());
        if (invite) await again();
        else await go(next, { replace: true });
    });
}

function wireRegistration(view) {
    onSubmit(view.querySelector("[data-form=register]"), async ({ nickname, invite }) => {
        const person = await post("/api/register", { nickname, ...invite && { invite: invite.trim() } });
        forgetInvitation();
        await signIn(person.api_key);
        welcome(view, person);
    });
}

/** The key is told once, here. */
function welcome(view, person) {
    drawBar();
    view.innerHTML = html`
        <section class="door wide"><h1>${t("welcome", { name: person.nickname })}</h1>
            <p>${t("key.once")}</p><p>${copyLine(person.api_key)}</p>
            <h2>${t("welcome.daemon")}</h2>${daemonCommands(person.api_key)}
            <p><a class="button primary" href="/">${t("welcome.go")}</a></p></section>`;
}
