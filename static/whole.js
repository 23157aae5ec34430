// whole.js - what can be done with a session as a whole: copy it, rename it, delete it
import { put, remove } from "./api.js";
import { sessionAsMarkdown } from "./copying.js";
import { go } from "./go.js";
import { element, html } from "./html.js";
import { t } from "./i18n.js";
import { announce, confirmed, copyText, showError, title } from "./parts.js";

const MOST_COPIED = 20000;

/** The acts of a session's page: {markdown, rename, delete}.  `part(css)` is an element of the page. */
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
        const form = element(html`<form class="line rename"><input name="title" value="${old}" aria-label="${t("title")}" maxlength="300"><button>${t("save")}</button><button type="button" data-cancel>${t("cancel")}</button></form>`);
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
                box.querySelector("h1").lastChild.textContent = answer.title || t("untitled");
                title(answer.title || t("untitled"));
                close();
            }, error => showError(form, error));
        };
    }

    async function deleteSession() {
        if (!await confirmed(t("delete.question", { name: state.session.title || t("untitled") }), t("delete.hint"), t("delete"))) return;
        await remove(path).then(() => go("/", { replace: true }), error => showError(part(".facts-bar"), error));
    }

    return { markdown: copySession, rename: renameSession, delete: deleteSession };
}
