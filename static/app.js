// app.js - the shell: which view an address shows, moving without reloading
import { get } from "./api.js";
import { drawBar } from "./bar.js";
import { go, isDrawn, noteDrawn, onMove } from "./go.js";
import { html } from "./html.js";
import { t } from "./i18n.js";
import { takeInvitation } from "./invitation.js";
import { listenToKeys } from "./keys.js";
import { announce, isAway, sentence, whenReachable } from "./parts.js";
import { loadUser, user } from "./who.js";

const ROUTES = [
    [/^\/$/, () => import("./sessions.js")],
    [/^\/session\/([^/]+)$/, () => import("./session.js")],
    [/^\/upload$/, () => import("./upload.js")],
    [/^\/teams$/, () => import("./teams.js")],
    [/^\/teams\/([^/]+)$/, () => import("./team.js")],
    [/^\/settings$/, () => import("./settings.js")],
    [/^\/login$/, () => import("./account.js")],
];

const main = document.querySelector("main");
let leave = null;

/** Draw the view of the present address. */
async function show({ back = false } = {}) {
    leave?.();
    leave = null;
    const view = document.createElement("div");
    view.className = "view";
    view.innerHTML = html`<p class="loading">${t("loading")}</p>`;
    main.replaceChildren(view);
    noteDrawn();
    drawBar();
    try {
        const [load, ...params] = route(location.pathname);
        const module = await load();
        const ended = await module.show(view, { params: params.map(decodeURIComponent), query: new URLSearchParams(location.search), back });
        if (view.isConnected) leave = ended;
        else ended?.();
    } catch (error) {
        if (!view.isConnected) return;
        if (error.status === undefined && await isOutdated()) return location.reload();
        if (error.status === 401) return go("/login?next=" + encodeURIComponent(location.pathname + location.search), { replace: true });
        drawError(view, error);
    }
    if (back && history.state?.place === undefined) scrollTo(0, history.state?.scroll ?? 0);
    else if (!back && !location.hash) scrollTo(0, 0);
    announce(document.title);
}

function route(path) {
    for (const [pattern, load] of ROUTES) {
        const match = path.match(pattern);
        if (match) return [load, ...match.slice(1)];
    }
    return [() => Promise.reject(Object.assign(new Error(t("error.page")), { status: 404 }))];
}

/** Whether the server has another version of the page than this one, whose other parts cannot be had any more. */
async function isOutdated() {
    const answer = await fetch("/", { cache: "no-store" }).catch(() => null);
    return Boolean(answer?.ok) && !(await answer.text()).includes(new URL(import.meta.url).pathname);
}

function drawError(view, error) {
    const away = isAway(error);
    if (!error.status && !away) console.error(error);
    document.title = `${t("error.title")} · opensession`;
    view.innerHTML = html`
        <section class="notice">
            <h1>${error.status === 404 ? t("error.missing") : t("error.title")}</h1>
            <p>${error.status === 404 ? t("error.missing.hint") : away ? t("error.offline") : sentence(error)}</p>
            <p><button type="button">${t("retry")}</button> <a class="button" href="/">${t("nav.sessions")}</a>
                ${!user() && html`<a class="button primary" href="/login?next=${encodeURIComponent(location.pathname + location.search)}">${t("nav.login")}</a>`}</p>
        </section>`;
    view.querySelector("button").onclick = () => show();
    // A module that could not be fetched is not asked for twice by every browser; a fresh page is.
    if (away) whenReachable(view, () => location.reload());
}

/** A click on a link of ours changes the view; whatever the browser does better is left to it. */
function follow(event) {
    const link = event.target.closest("a[href]");
    if (!link || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    if (link.origin !== location.origin || link.target || link.hasAttribute("download") || link.pathname.startsWith("/api/")) return;
    if (link.hash && link.pathname === location.pathname) return;
    event.preventDefault();
    go(link.href);
}

function comeBack() {
    if (!isDrawn()) show({ back: true });
}

async function start() {
    history.scrollRestoration = "manual";
    addEventListener("click", follow);
    addEventListener("popstate", comeBack);
    addEventListener("hashchange", () => takeInvitation() && show());
    onMove(show);
    listenToKeys();
    takeInvitation();
    // What the view needs is fetched while the server says who we are.
    route(location.pathname)[0]().catch(() => null);
    await loadUser().catch(() => null);
    if (!user() && location.pathname !== "/login" && await isUnused()) history.replaceState({}, "", "/login");
    await show();
}

/** Whether nobody has ever been registered here. */
const isUnused = () => get("/api/health").then(health => health.first_user, () => false);

start();
