// parts.js - small things that several views need: dialogs, copying, announcements, form errors
import { element, html } from "./html.js";
import { t } from "./i18n.js";
import { visible } from "./text.js";

/** Say a sentence to those who listen instead of look. */
export function announce(sentence) {
    document.querySelector("#live").textContent = sentence;
}

export function title(...names) {
    document.title = visible([...names, "opensession"].filter(Boolean).join(" · "));
}

/** Show a modal dialog; resolves to the value of the button that closed it. */
export function openDialog(content, className = "") {
    const dialog = element(html`<dialog class="${className}">${content}</dialog>`);
    document.body.append(dialog);
    dialog.addEventListener("click", event => {
        const button = event.target.closest("button[value]");
        if (button || event.target === dialog) dialog.close(button?.value ?? "");
    });
    dialog.showModal();
    return new Promise(resolve => dialog.addEventListener("close", () => {
        dialog.remove();
        resolve(dialog.returnValue);
    }));
}

/** Ask before something that cannot be taken back. */
export async function confirmed(question, hint, action) {
    return await openDialog(html`
        <h2>${question}</h2>
        <p>${hint}</p>
        <p class="actions">
            <button type="button" value="" autofocus>${t("cancel")}</button>
            <button type="button" value="yes" class="danger">${action}</button>
        </p>`) === "yes";
}

/** A line to copy, with its button; copying is wired once for the whole page below. */
export const copyLine = (text, label) => html`
    <span class="copy"><code tabindex="0">${text}</code><button type="button" data-copy="${text}" aria-label="${label ?? t("copy")}">${t("copy")}</button></span>`;

addEventListener("click", async event => {
    const button = event.target.closest?.("button[data-copy]");
    if (!button) return;
    const done = await copyText(button.dataset.copy);
    const label = button.textContent;
    button.textContent = done ? t("copied") : t("copy.failed");
    announce(button.textContent);
    setTimeout(() => { button.textContent = label; }, 1500);
});

/** Without https there is no clipboard interface; the selection's copy still works. */
export async function copyText(text) {
    if (navigator.clipboard) return navigator.clipboard.writeText(text).then(() => true, () => false);
    const area = element(html`<textarea class="unseen"></textarea>`);
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
}

/** Run a form's action on submit: its button waits meanwhile, an error stands below as a sentence. */
export function onSubmit(form, action) {
    form.addEventListener("submit", async event => {
        event.preventDefault();
        form.querySelector(":scope > .error")?.remove();
        const button = form.querySelector("[type=submit], button:not([type])");
        if (button) button.disabled = true;
        await action(Object.fromEntries(new FormData(form))).catch(error => formError(form, error));
        if (button) button.disabled = false;
    });
}

function formError(form, error) {
    showError(form, error);
    const named = error.field && form.elements[error.field];
    if (named instanceof HTMLElement) named.focus();
}

/** What an error says, and behind it what the server said of it in its own language. */
export const sentence = error => html`${error.message}${error.detail && html` <span class="sub" lang="en">${error.detail}</span>`}`;

/** An error's sentence at the end of a part of the page, in place of an earlier one. */
export function showError(part, error) {
    part.querySelector(":scope > .error")?.remove();
    part.append(element(html`<p class="error" role="alert">${sentence(error)}</p>`));
}

/** An error alone in a part of the page, with a button that tries again; so does the page once the server can be reached. */
export function showRetry(part, error, again) {
    const note = element(html`<p class="error" role="alert">${sentence(error)} <button type="button">${t("retry")}</button></p>`);
    const retry = () => { note.remove(); again(); };
    note.querySelector("button").onclick = retry;
    part.replaceChildren(note);
    if (isAway(error)) whenReachable(note, retry);
}

/** Whether a failure means that the server cannot be reached. */
export const isAway = error => error.status === 0 || error instanceof TypeError && /import|fetch|load/i.test(error.message);

const FIRST_WAIT = 1000, LONGEST_WAIT = 15000;      // milliseconds

/** Ask for the server again and again, ever less often, as long as `part` stands in the page; `again` once it answers. */
export function whenReachable(part, again) {
    let wait = FIRST_WAIT, timer = setTimeout(ask, wait);
    addEventListener("online", ask);

    async function ask() {
        clearTimeout(timer);
        const answers = part.isConnected && await fetch("/api/health").then(answer => answer.ok, () => false);
        if (part.isConnected && !answers) {
            wait = Math.min(2 * wait, LONGEST_WAIT);
            timer = setTimeout(ask, wait);
            return;
        }
        removeEventListener("online", ask);
        if (answers) again();
    }
}
