// whole.js - what can be done with a session as a whole: copy it, print it, rename it, mask secrets in it, delete it
import { post, put, remove } from "./api.js";
import { sessionAsMarkdown } from "./copying.js";
import { go } from "./go.js";
import { retitle } from "./head.js";
import { element, html } from "./html.js";
import { t } from "./i18n.js";
import { announce, confirmed, copyText, showError } from "./parts.js";

const MOST_COPIED = 20000;

/** The acts of a session's page: {markdown, print, rename, redact, delete}.  `part(css)` is an element of the page. */
export function openWhole(part, path, store, state) {
    async function copySession() {
        const { total } = state.facts;
        announce(t("loading"));
        await store.need([[0, Math.min(total, MOST_COPIED)]]);
        const events = Array.from({ length: total }, (none, at) => store.at(at)).filter(Boolean);
        announce(await copyText(sessionAsMarkdown(state.session, events)) ? t("copied") : t("copy.failed"));
        part(".menu summary").focus();
    }

    async function renameSession() {
        const { title: old } = state.session;
        const box = part(".titled");
        const form = element(html`<form class="line rename"><h1 class="unseen">${old}</h1><input name="title" value="${old}" aria-label="${t("title")}" maxlength="300"><button>${t("save")}</button><button type="button" data-cancel>${t("cancel")}</button></form>`);
        box.hidden = true;
        box.after(form);
        form.elements.title.select();
        const close = () => { form.remove(); box.hidden = false; box.querySelector("button").focus(); };
        form.querySelector("[data-cancel]").onclick = close;
        form.onkeydown = event => { if (event.key === "Escape") { event.stopPropagation(); close(); } };
        form.onsubmit = event => {
            event.preventDefault();
            put(path, { title: form.elements.title.value.trim() || null }).then(answer => {
                state.session = { ...state.session, title: answer.title };
                retitle(part, state.session);
                close();
            }, error => showError(form, error));
        };
    }

    async function maskSecrets() {
        if (!await confirmed(t("secrets.question"), t("secrets.hint"), t("secrets.mask"))) return;
        await post(`${path}/redact`).then(() => location.reload(), error => showError(part(".facts-bar"), error));
    }

    async function deleteSession() {
        if (!await confirmed(t("delete.question", { name: state.session.title || t("untitled") }), t("delete.hint"), t("delete"))) return;
        await remove(path).then(() => go("/", { replace: true }), error => showError(part(".facts-bar"), error));
    }

    const printSession = () => import("./printing.js").then(({ print }) => print(part(".middle"), store, state));

    return { markdown: copySession, print: printSession, rename: renameSession, redact: maskSecrets, delete: deleteSession };
}
