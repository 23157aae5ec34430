// bar.js - the bar on top: the places, and who is signed in
import { html } from "./html.js";
import { t } from "./i18n.js";
import { user } from "./who.js";

export function drawBar() {
    const path = location.pathname;
    const place = (address, text) => html`<a href="${address}" ${current(address, path)}>${text}</a>`;
    document.querySelector(".skip").textContent = t("skip");
    document.querySelector("header.top").innerHTML = html`
        <a class="name" href="/">opensession</a>
        <nav aria-label="${t("nav.label")}">
            ${place("/", t("nav.sessions"))}
            ${user() && place("/teams", t("nav.teams"))}
            ${user() && place("/upload", t("nav.upload"))}
        </nav>
        <nav class="me" aria-label="${t("nav.account")}">
            ${place("/settings", user() ? user().nickname : t("nav.settings"))}
            ${!user() && place("/login", t("nav.login"))}
        </nav>`;
}

function current(address, path) {
    const here = address === "/" ? path === "/" || path.startsWith("/session/") : path.startsWith(address);
    return here && html`aria-current="page"`;
}
