// keys.js - the keyboard: rows carry data-row, the search box data-search; a view adds keys of its own
import { go } from "./go.js";
import { html } from "./html.js";
import { t } from "./i18n.js";
import { openDialog } from "./parts.js";

let waitingForPlace = false;
let ofView = {};

/** Keys of the view that is shown, before those of every view; returns what takes them back. */
export function useKeys(keys) {
    ofView = keys;
    return () => { if (ofView === keys) ofView = {}; };
}

export function listenToKeys() {
    addEventListener("keydown", event => {
        if (event.key === "Escape") return escape();
        if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
        const action = waitingForPlace ? PLACES[event.key] : ofView[event.key] ?? ACTIONS[event.key];
        waitingForPlace = !waitingForPlace && event.key === "g";
        if (action && action() !== false) event.preventDefault();
    });
}

const ACTIONS = {
    j: () => step("[data-row]", 1),
    k: () => step("[data-row]", -1),
    "/": search,
    "?": help,
    Enter: openRow,
};

const PLACES = {
    s: () => go("/"),
    t: () => go("/teams"),
    u: () => go("/upload"),
};

const HELP = [["j k", "keys.rows"], ["n p", "keys.prompts"], ["[ ]", "keys.replies"], ["e", "keys.errors"], ["f", "keys.level"], ["Enter", "keys.open"], ["/", "keys.search"],
    ["x", "keys.select"], ["Esc", "keys.escape"], ["g s", "nav.sessions"], ["g t", "nav.teams"], ["g u", "nav.upload"], ["?", "keys.help"]];

function isTyping(target) {
    return target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName) || target.closest("dialog");
}

/** Focus the next row in a direction: from the focused one, else from the first in sight. */
function step(selector, direction) {
    const rows = [...document.querySelectorAll(selector)];
    const here = document.activeElement.closest("[data-row]");
    const next = here ? beside(rows, here, direction) : rows.find(row => row.getBoundingClientRect().bottom > 120);
    if (!next) return true;
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: next.offsetHeight > innerHeight * 0.6 ? "start" : "nearest" });
    return true;
}

function beside(rows, here, direction) {
    const order = Node[direction > 0 ? "DOCUMENT_POSITION_FOLLOWING" : "DOCUMENT_POSITION_PRECEDING"];
    const candidates = rows.filter(row => here.compareDocumentPosition(row) & order && !here.contains(row));
    return candidates.at(direction > 0 ? 0 : -1);
}

function openRow() {
    const row = document.activeElement.closest("[data-row]");
    if (row !== document.activeElement) return false;
    const target = row.querySelector("button[data-fold], a[data-open], summary");
    target?.click();
    return Boolean(target);
}

function search() {
    const box = document.querySelector("[data-search]");
    if (box) box.focus();
    else go("/").then(() => document.querySelector("[data-search]")?.focus());
    return true;
}

function escape() {
    waitingForPlace = false;
    if (!document.querySelector("dialog[open]")) document.activeElement.blur();
}

function help() {
    openDialog(html`
        <h2>${t("keys.title")}</h2>
        <dl class="keys">${HELP.map(([keys, text]) => html`
            <div><dt>${keys.split(" ").map(key => html`<kbd>${key}</kbd> `)}</dt><dd>${t(text)}</dd></div>`)}
        </dl>
        <p class="actions"><button type="button" value="close">${t("close")}</button></p>`);
    return true;
}
