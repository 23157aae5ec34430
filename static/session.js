// session.js - one session: its facts, its outline and map, then its events as far as they are to be seen
import { openActs, showSplit } from "./acts.js";
import { get } from "./api.js";
import { colourCode } from "./code.js";
import { chapterAt, chaptersOf, Facts } from "./facts.js";
import { filterOf, openFilters } from "./filters.js";
import { format } from "./formatted.js";
import { openFind } from "./find.js";
import { isRunning } from "./following.js";
import { again, rename } from "./go.js";
import { openGrowing } from "./growing.js";
import { bar, header, usageTable } from "./head.js";
import { element, html } from "./html.js";
import { t } from "./i18n.js";
import { useKeys } from "./keys.js";
import { openMap } from "./map.js";
import { openOutline } from "./outline.js";
import { announce, openDialog, title } from "./parts.js";
import { openPlace } from "./place.js";
import { LEVELS, Plan } from "./plan.js";
import { openReader } from "./reader.js";
import { openStepping } from "./stepping.js";
import { nextFrame } from "./sight.js";
import { openStore } from "./store.js";
import { styled } from "./styled.js";
import { onChange } from "./tabs.js";
import { chooseFile } from "./touched.js";
import { openWhole } from "./whole.js";

// The server's page asks for just these ahead: see AHEAD there.
const FIRST = { events: 30, turns: 50 };

export async function show(view, { params: [id], query, back }) {
    const path = `/api/sessions/${encodeURIComponent(id)}`;
    const state = { session: null, facts: null, chapters: [], plan: null, open: new Set(), only: filterOf(query.get("only")), level: levelOf(query), following: false, at: 0, unseen: 0 };
    const store = openStore(path, revision => { if (state.session && revision !== state.session.revision) growing.news(); });
    const atStart = !location.hash && !back;
    const early = atStart && store.need([[0, FIRST.events]]).catch(() => null);
    const [session, facts, turns] = await Promise.all([get(path), get(`${path}/map`), get(`${path}/outline`, atStart ? { limit: FIRST.turns } : {}), early, styled("reading.css")]);
    know([session, facts, turns]);
    title(session.title || t("untitled"));
    view.innerHTML = html`
        <div class="reading" data-level="${state.level}">
            <nav class="outline beside" aria-label="${t("outline")}"></nav>
            <div class="middle">
                ${header(session)}
                ${bar(session, state.level)}
                <div class="find" hidden></div>
                <div class="only" ${!state.only && "hidden"}></div>
                <section class="reader" id="reader" aria-label="${t("events")}"></section>
            </div>
            <div class="map" role="scrollbar" tabindex="0" aria-label="${t("map")}" aria-controls="reader" aria-orientation="vertical" aria-valuemin="1" aria-valuemax="1" aria-valuenow="1"></div>
        </div>`;
    const part = css => view.querySelector(css);
    const place = openPlace(part, state);
    const reader = openReader(part(".reader"), store, { plan: () => state.plan, unhide, onMove: moved, onDraw: drawn });
    const outline = openOutline(part(".outline"), chapter => reader.jumpTo(chapter.from, { mark: false }));
    const find = openFind(part(".find"), path, { onHits: found => map.draw({ found }), onGo: ordinal => reader.jumpTo(ordinal), here: () => state.at });
    const filters = openFilters(part(".only"), only => { state.only = only; replan(); });
    const stepping = openStepping(state, { reader, chapterOf, setLevel, find });
    const map = openMap(part(".map"), { onJump: ordinal => reader.scrollToward(ordinal), onStep: stepping.stepPrompt });
    const growing = openGrowing(part, path, state, { reader, store, take });
    openActs(part(".reader"), store, ordinal => { const { from, to } = chapterOf(ordinal); return [from, to]; });
    const doing = actions();
    const leaveKeys = useKeys(stepping.keys);
    const leaveTabs = onChange((changed, here) => !here && changed.startsWith(path) && growing.news().catch(error => error.status === 404 && again()));
    addEventListener("hashchange", follow);
    view.addEventListener("click", clicked);
    await begin();
    // The events are on the screen before they are formatted, and before what stands beside them and looks at all of them.
    await nextFrame();
    await format(part(".pages")).catch(() => null);     // as they were written they can be read too
    drawn(part(".pages"));
    if (view.isConnected) setTimeout(refresh);
    knowAllTurns(turns);
    return () => {
        removeEventListener("hashchange", follow);
        leaveKeys();
        leaveTabs();
        growing.close();
        map.close();
        reader.close();
        CSS.highlights?.delete("found");
    };

    // What is known of the session

    function know([session, facts, turns]) {
        state.session = session;
        state.facts = new Facts(facts);
        state.chapters = chaptersOf(turns, state.facts);
        state.plan = new Plan(state.facts, state.chapters, state);
    }

    /** The session has grown. */
    function take(answers) {
        know(answers);
        refresh();
        part("header.session .numbers").replaceWith(element(header(state.session)).querySelector(".numbers"));
    }

    /** A long session begins with its first turns; what the others are about comes behind. */
    async function knowAllTurns({ is_capped: capped, revision, entries }) {
        if (!capped || entries.length > FIRST.turns) return;
        const turns = await get(`${path}/outline`).catch(() => null);
        if (turns?.revision !== revision || revision !== state.session.revision || !view.isConnected) return;
        know([state.session, state.facts, turns]);
        outline.draw(state.chapters);
        map.draw({ chapters: state.chapters });
        place.draw(chapterOf(state.at));
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
        if (reader.isAtEnd()) state.unseen = 0;
        place.draw(chapterOf(first));
        outline.at(chapterAt(state.chapters, first));
        map.view(first, last);
        growing.drawUnseen();
    }

    // What is to be seen

    function replan(focus) {
        state.plan = new Plan(state.facts, state.chapters, state);
        return reader.replan(focus);
    }

    function toggleFold(key) {
        if (!state.open.delete(key)) state.open.add(key);
        const piece = state.plan.fold(key);
        return replan(piece?.kind === "task" ? `e-${piece.from}` : `f-${key}`);
    }

    /** Open the folds round an event, from the outside in; a filter that hides it goes. */
    function unhide(ordinal) {
        const before = state.open.size;
        for (let tries = 0; tries < 12; tries += 1) {
            const piece = state.plan.holder(ordinal);
            if (!piece || piece.type === "events" || piece.type === "head") break;
            if (piece.type === "nothing" && state.only) { filters.clear(); continue; }
            if (piece.kind === "task" && ordinal === piece.from) break;
            state.open.add(piece.key);
            state.plan = new Plan(state.facts, state.chapters, state);
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
            follow: growing.toggle,
            unseen: () => reader.last(),
            ...openWhole(part, path, store, state),
            usage: () => openDialog(usageTable(state.session)),
            files: filterByFile,
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
}

/** The level of detail: as the address says, else as it was left. */
function levelOf(query) {
    return [query.get("view"), localStorage.getItem("level")].find(level => LEVELS.includes(level)) ?? "conversation";
}
