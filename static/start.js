// start.js - the first steps of a new person: the daemon's commands, ready to copy
import { html } from "./html.js";
import { t } from "./i18n.js";
import { copyLine } from "./parts.js";
import { user } from "./who.js";

/** The two commands that bring a laptop's sessions here; with a new key where one is at hand. */
export const daemonCommands = (apiKey = "osk_…") => html`
    <ol class="commands">
        <li>${copyLine(`python daemon.py login ${location.origin} --key ${apiKey}`)}</li>
        <li>${copyLine("python daemon.py")}</li>
    </ol>`;

/** What the empty list says. */
export const nothingYet = () => html`
    <section class="notice">
        <h2>${t("start.title")}</h2>
        <p>${t("start.hint")}</p>
        ${daemonCommands()}
        ${user() && html`<p>${t("start.or")} <a href="/settings">${t("start.key")}</a> · <a href="/upload">${t("start.upload")}</a></p>`}
    </section>`;
