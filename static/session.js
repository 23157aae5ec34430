// session.js - one session: its facts, its outline and map, then its events as far as they are to be seen
import { openActs, showSplit } from "./acts.js";
import { get, post, put, remove } from "./api.js";
import { colourCode } from "./code.js";
import { sessionAsMarkdown } from "./copying.js";
import { filterOf, openFilters } from "./filters.js";
import { openFind } from "./find.js";
import { isRunning, keepAsking } from "./following.js";
import { number } from "./format.js";
import { go, remember, rename } from "./go.js";
import { bar, header, usageTable } from "./head.js";
import { element, html } from "./html.js";
import { t } from "./i18n.js";
import { useKeys } from "./keys.js";
import { openMap } from "./map.js";
import { chapterAt, chapterTitle, openOutline } from "./outline.js";
import { announce, confirmed, copyText, openDialog, showError, title } from "./parts.js";
import { chaptersOf, Facts, holder, LEVELS, makePlan } from "./plan.js";
import { openReader } from "./reader.js";
import { openStore } from "./store.js";
import { chooseFile } from "./touched.js";

const FIRST = 30;                       // events asked for before the plan is known
const MOST_COPIED = 20000;

export async function show(view, { params: [id], query, back }) {
    const path = `/api/sessions/${encodeURIComponent(id)}`;
    const store = openStore(path, revision => { if (state.session && revision !== state.session.revision) news(); });
    const state = { session: null, facts: null, chapters: [], pieces: [], open: new Set(), only: filterOf(query.get("only")), level: levelOf(query), following: false, at: 0, unseen: 0 };
    const early = location.hash || back ? null : store.need([[0, FIRST]]).catch(() => null);
    take(await Promise.all([get(path), get(`${path}/map`), get(`${path}/outline`), early]));
    title(state.session.title || t("untitled"));
    view.innerHTML = html`
        <div class="reading" data-level="${state.level}">
            <nav class="outline beside" aria-label="${t("outline")}"></nav>
            <div class="middle">
                ${header(state.session, activeSeconds())}
                ${bar(state.session, state.level)}
                <div class="find" hidden></div>
                <div class="only" ${!state.only && "hidden"}></div>
                <section class="reader" id="reader" aria-label="${t("events")}"></section>
            </div>
            <div class="map" role="scrollbar" tabindex="0" aria-label="${t("map")}" aria-controls="reader" aria-orientation="vertical" aria-valuemin="1" aria-valuemax="1" aria-valuenow="1"></div>
        </div>`;
    const part = css => view.querySelector(css);
    const reader = openReader(part(".reader"), store, { plan: () => state, unhide, onMove: moved, onDraw: drawn });
    const outline = openOutline(part(".outline"), chapter => reader.jumpTo(chapter.from, { mark: false }));
    const map = openMap(part(".map"), { onJump: ordinal => reader.scrollToward(ordinal), onStep: stepPrompt });
    const find = openFind(part(".find"), path, { onHits: found => map.draw({ found }), onGo: ordinal => reader.jumpTo(ordinal), here: () => state.at });
    const filters = openFilters(part(".only"), only => { state.only = only; replan(); });
    openActs(part(".reader"), store, ordinal => { const { from, to } = chapterOf(ordinal); return [from, to]; });
    refresh();
    const doing = actions();
    const leaveKeys = useKeys(keys());
    addEventListener("hashchange", follow);
    view.addEventListener("click", clicked);
    const stopAsking = keepAsking(() => state.session, news);
    await begin();
    return () => {
        removeEventListener("hashchange", follow);
        leaveKeys();
        stopAsking();
        map.close();
        reader.close();
        CSS.highlights?.delete("found");
    };

    // What is known of the session

    function take([session, facts, outline]) {
        state.session = session;
        state.facts = new Facts(facts);
        state.chapters = chaptersOf(outline, state.facts);
        state.pieces = makePlan(state.facts, state.chapters, state);
    }

    function activeSeconds() {
        return state.chapters.reduce((sum, chapter) => sum + (chapter.seconds || 0), 0);
    }

    function chapterOf(ordinal) {
        return state.chapters[chapterAt(state.chapters, ordinal)] ?? { from: 0, to: state.facts.total, number: 0 };
    }

    /** Draw what depends on the facts: outline, map, filters. */
    function refresh() {
        outline.draw(state.chapters);
        map.draw({ facts: state.facts, chapters: state.chapters });
        filters.draw(state.facts, state.only);
        part("button.follow").hidden = !isRunning(state.session);
    }

    // Where the reader is

    async function begin() {
        if (query.get("q")) find.search(query.get("q"));
        if (location.hash && await follow()) return;
        const place = back ? history.state?.place : undefined;
        if (place > 0) await reader.jumpTo(place, { mark: false });
        else await reader.show(0);
    }

    /** Go to the event that the address names; false where it names none that is here. */
    async function follow() {
        const eventId = new URLSearchParams(location.hash.slice(1)).get("e");
        if (!eventId) return false;
        try {
            const ordinal = store.ordinalOf(eventId) ?? await store.around(eventId);
            return Boolean(await reader.jumpTo(ordinal));
        } catch (error) {
            if (error.status !== 404) throw error;
            announce(t("event.missing"));
            return false;
        }
    }

    function moved(first, last) {
        state.at = first;
        const { total } = state.facts;
        part(".where").textContent = total ? t("position", { at: number(first + 1), total: number(total) }) : "";
        drawChapter(first);
        outline.at(chapterAt(state.chapters, first));
        map.view(first, last);
        if (reader.isAtEnd()) state.unseen = 0;
        drawUnseen();
        clearTimeout(state.saving);
        state.saving = setTimeout(() => view.isConnected && remember(first), 400);
    }

    /** The chapter in the bar, once its prompt has left the screen. */
    function drawChapter(ordinal) {
        const chapter = chapterOf(ordinal), link = part("a.chapter");
        const prompt = document.getElementById(`e-${chapter.from}`);
        const gone = chapter.text && (!prompt || prompt.getBoundingClientRect().bottom < 60);
        part(".facts-bar").classList.toggle("stuck", Boolean(gone));
        link.textContent = gone ? `${chapter.number + 1}. ${chapterTitle(chapter)}` : "";
        link.href = `#e=${encodeURIComponent(chapter.event_id ?? "")}`;
        link.dataset.ordinal = chapter.from;
    }

    // What is to be seen

    function replan(focus) {
        state.pieces = makePlan(state.facts, state.chapters, state);
        return reader.replan(focus);
    }

    function toggleFold(key) {
        if (!state.open.delete(key)) state.open.add(key);
        const piece = state.pieces.find(each => each.key === key);
        return replan(piece?.kind === "task" ? `e-${piece.from}` : `f-${key}`);
    }

    /** Open the folds round an event, from the outside in; a filter that hides it goes. */
    function unhide(ordinal) {
        const before = state.open.size;
        for (let tries = 0; tries < 12; tries += 1) {
            const piece = holder(state.pieces, ordinal);
            if (!piece || piece.type === "events" || piece.type === "head") break;
            if (piece.type === "nothing" && state.only) { filters.clear(); continue; }
            if (piece.kind === "task" && ordinal === piece.from) break;
            state.open.add(piece.key);
            state.pieces = makePlan(state.facts, state.chapters, state);
        }
        if (state.open.size !== before) reader.restart();
    }

    function setLevel(level) {
        state.level = level;
        state.open.clear();
        localStorage.setItem("level", level);
        rename("view", level);
        part(".reading").dataset.level = level;
        view.querySelectorAll("[data-level]").forEach(button => button.setAttribute("aria-pressed", String(button.dataset.level === level)));
        announce(t(`level.${level}`));
        return replan();
    }

    function drawn(part) {
        colourCode(part);
        find.mark();
    }

    // What can be done

    function clicked(event) {
        const { target } = event;
        const fold = target.closest("button[data-fold]"), level = target.closest("button[data-level]"), beside = target.closest("button[data-beside]");
        if (fold) toggleFold(fold.dataset.fold);
        if (level) setLevel(level.dataset.level);
        if (beside) showSplit(reader.kept(beside, beside.dataset.beside));
        doing[target.closest("button[data-do]")?.dataset.do]?.(target);
        const chapter = target.closest("a.chapter");
        if (chapter) { event.preventDefault(); reader.jumpTo(Number(chapter.dataset.ordinal), { mark: false }); }
        if (!target.closest(".menu summary")) part(".menu").open = false;
    }

    function actions() {
        return {
            first: () => reader.first(),
            last: () => reader.last(),
            contents: () => outline.open(),
            find: () => find.isOpen() ? find.close() : find.open(),
            filter: toggleFilters,
            follow: toggleFollow,
            unseen: () => reader.last(),
            markdown: copySession,
            print: () => import("./printing.js").then(({ print }) => print(part(".middle"), store, state)),
            rename: renameSession,
            usage: () => openDialog(usageTable(state.session)),
            files: filterByFile,
            delete: deleteSession,
            redact: maskSecrets,
        };
    }

    function toggleFilters() {
        const box = part(".only");
        box.hidden = !box.hidden;
        part("button[data-do=filter]").setAttribute("aria-expanded", String(!box.hidden));
        if (box.hidden && state.only) filters.clear();
        if (!box.hidden) box.querySelector("button")?.focus();
    }

    async function filterByFile() {
        const file = await chooseFile(state.facts, store);
        if (file) filters.file(file.path, file.ordinals);
    }

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

    async function maskSecrets() {
        if (!await confirmed(t("secrets.question"), t("secrets.hint"), t("secrets.mask"))) return;
        await post(`${path}/redact`).then(() => location.reload(), error => showError(part(".facts-bar"), error));
    }

    // Keys

    function keys() {
        return {
            n: () => stepPrompt(1),
            p: () => stepPrompt(-1),
            e: () => stepTo(ordinal => state.facts.isError(ordinal), 1),
            "]": () => stepTo(isLastReply, 1),
            "[": () => stepTo(isLastReply, -1),
            f: () => setLevel(LEVELS[(LEVELS.indexOf(state.level) + 1) % LEVELS.length]),
            "/": () => find.open(),
        };
    }

    /** The focused event where it is in sight, else the first one in sight. */
    function here() {
        const row = document.activeElement?.closest?.(".reader [data-at]");
        const box = row?.getBoundingClientRect();
        return box && box.bottom > 0 && box.top < innerHeight ? Number(row.dataset.at) : state.at;
    }

    function stepPrompt(direction) {
        const at = here();
        const chapters = state.chapters.filter(chapter => chapter.text);
        const next = direction > 0 ? chapters.find(chapter => chapter.from > at) : chapters.findLast(chapter => chapter.from < at);
        return next && goTo(next.from);
    }

    function isLastReply(ordinal) {
        if (!state.facts.isReply(ordinal)) return false;
        const { to } = chapterOf(ordinal);
        for (let at = ordinal + 1; at < to; at += 1) if (state.facts.isReply(at)) return false;
        return true;
    }

    function stepTo(wanted, direction) {
        for (let at = here() + direction; at >= 0 && at < state.facts.total; at += direction) if (wanted(at)) return goTo(at);
        announce(t("keys.none"));
        return null;
    }

    async function goTo(ordinal) {
        const row = await reader.jumpTo(ordinal, { mark: false });
        (row?.closest("[data-row]") ?? row)?.focus({ preventScroll: true });
    }

    // A session that grows

    async function news() {
        const session = await get(path);
        if (session.revision === state.session.revision && session.event_count === state.session.event_count) return;
        const [facts, entries] = await Promise.all([get(`${path}/map`), get(`${path}/outline`)]);
        if (!view.isConnected) return;
        const old = state.facts, wasAtEnd = reader.isAtEnd();
        if (!facts.kinds.startsWith(old.kinds)) { staleNotice(); return; }
        take([session, facts, entries]);
        store.forgetFrom(Math.max(0, old.total - 1));
        refresh();
        if (wasAtEnd || reader.reaches(old.total)) await reader.replan();
        if (wasAtEnd && state.following) return reader.last();
        state.unseen += state.facts.total - old.total;
        drawUnseen();
    }

    function toggleFollow() {
        state.following = !state.following;
        part("button.follow").setAttribute("aria-pressed", String(state.following));
        if (state.following) reader.last();
    }

    function drawUnseen() {
        const old = part("button.unseen-events");
        if (!state.unseen) return old?.remove();
        if (!old) part(".reading").append(element(html`<button type="button" class="unseen-events" data-do="unseen"></button>`));
        part("button.unseen-events").textContent = t("unseen", { n: state.unseen });
        return null;
    }

    function staleNotice() {
        if (part(".stale")) return;
        const notice = element(html`<p class="stale" role="status">${t("stale")} <button type="button">${t("reload")}</button></p>`);
        notice.querySelector("button").onclick = () => location.reload();
        part(".reader").before(notice);
    }
}

/** The level of detail: as the address says, else as it was left. */
function levelOf(query) {
    return [query.get("view"), localStorage.getItem("level")].find(level => LEVELS.includes(level)) ?? "conversation";
}
