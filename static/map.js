// map.js - the whole session as a thin strip: a tick for each event, where we are, what was found
import { chapterAt } from "./facts.js";
import { element, html } from "./html.js";
import { number } from "./format.js";
import { has, t } from "./i18n.js";
import { GROUPS } from "./kinds.js";
import { chapterTitle } from "./outline.js";
import { visible } from "./text.js";

const WIDTHS = { prompt: 1, reply: 0.72, thinking: 0.3, read: 0.42, edit: 0.6, shell: 0.5, web: 0.5, tool: 0.42, task: 0.6, other: 0.2 };
const NAMES = [...Object.keys(WIDTHS), "error", "found", "break"];
const SHARED = Object.keys(WIDTHS);
const TALLEST = 7;                      // pixels of a tick in a short session

/** A strip in `box`.  Returns {draw({facts, chapters, found}), view(first, last), close()}; `onJump(ordinal)` follows the pointer,
 *  `onStep(±1)` goes by prompts. */
export function openMap(box, { onJump, onStep }) {
    box.innerHTML = html`<canvas aria-hidden="true"></canvas><div class="here"></div>${NAMES.map(name => html`<i data-group="${name}"></i>`)}`;
    const [canvas, here] = box.children, tip = element(html`<div class="map-tip" hidden></div>`);
    let facts = null, chapters = [], found = [], colours = {}, view = [0, 0], height = 0, used = 0, pending = null, jumping = false;
    document.body.append(tip);
    const resized = new ResizeObserver(() => paint());
    resized.observe(box);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", paint);
    box.addEventListener("pointerdown", event => { box.setPointerCapture(event.pointerId); toPointer(event); });
    box.addEventListener("pointermove", event => { label(event); if (event.buttons & 1) toPointer(event); });
    box.addEventListener("pointerleave", () => { tip.hidden = true; });
    box.addEventListener("keydown", keyed);

    const ordinalAt = event => Math.max(0, Math.min(facts.total - 1, Math.floor((event.clientY - box.getBoundingClientRect().top) / used * facts.total)));

    /** Jumps follow the pointer, one at a time: while one is on its way only the newest wish waits. */
    async function toPointer(event) {
        if (!facts?.total) return;
        pending = ordinalAt(event);
        if (jumping) return;
        jumping = true;
        while (pending !== null) {
            const ordinal = pending;
            pending = null;
            await onJump(ordinal).catch(() => null);
        }
        jumping = false;
    }

    function keyed(event) {
        const steps = { ArrowUp: () => onStep(-1), ArrowDown: () => onStep(1), Home: () => onJump(0), End: () => onJump(facts.total - 1) };
        if (!steps[event.key]) return;
        event.preventDefault();
        steps[event.key]();
    }

    function label(event) {
        if (!facts?.total || event.pointerType === "touch") return;
        const ordinal = ordinalAt(event), chapter = chapters[chapterAt(chapters, ordinal)];
        tip.textContent = "";
        tip.append(...[chapter && visible(chapterTitle(chapter)), `${nameOf(ordinal)}${facts.isError(ordinal) ? ` · ${t("error")}` : ""} · ${number(ordinal + 1)}`]
            .filter(Boolean).map(line => Object.assign(document.createElement("p"), { textContent: line })));
        tip.hidden = false;
        tip.style.top = `${Math.max(8, Math.min(innerHeight - tip.offsetHeight - 8, event.clientY - tip.offsetHeight / 2))}px`;
    }

    function nameOf(ordinal) {
        const kind = facts.kind(ordinal);
        if (facts.isBreak(ordinal)) return t("break");
        return has(`kind.${kind}`) ? t(`kind.${kind}`) : t(`group.${GROUPS[kind] ?? "other"}`);
    }

    function readColours() {
        colours = Object.fromEntries([...box.querySelectorAll("[data-group]")].map(probe => [probe.dataset.group, getComputedStyle(probe).color]));
    }

    /** Paint the ticks once; the box of where we are is laid over them and moves. */
    function paint() {
        if (!facts || !box.clientHeight) return;
        readColours();
        const scale = devicePixelRatio || 1;
        height = box.clientHeight;
        used = Math.min(height, Math.max(1, facts.total) * TALLEST);
        canvas.width = Math.round(box.clientWidth * scale);
        canvas.height = Math.round(height * scale);
        const pen = canvas.getContext("2d");
        pen.scale(scale, scale);
        const wide = box.clientWidth - 8;
        if (facts.total <= used) paintTicks(pen, wide);
        else paintDense(pen, wide);
        pen.fillStyle = colours.break;
        for (const ordinal of facts.breaks()) pen.fillRect(0, Math.round(ordinal / facts.total * used), box.clientWidth, 2);
        pen.fillStyle = colours.found;
        for (const ordinal of found) pen.fillRect(0, Math.round(ordinal / facts.total * used), 4, 2);
        drawHere();
    }

    function paintTicks(pen, wide) {
        const tall = used / facts.total, gap = tall >= 3 ? 1 : 0;
        for (let at = 0; at < facts.total; at += 1) {
            const group = GROUPS[facts.kind(at)] ?? "other";
            if (group === "result" && !facts.isError(at)) continue;
            pen.fillStyle = facts.isError(at) ? colours.error : colours[group] ?? colours.tool;
            const indent = facts.inTask(at) ? 3 : 0;
            pen.fillRect(5 + indent, at * tall, Math.max(3, wide * (WIDTHS[group] ?? 0.42) - indent), tall - gap);
        }
    }

    /** Many events to a line: their kinds side by side, each as wide as its share; prompts and errors always show. */
    function paintDense(pen, wide) {
        const lines = Math.floor(used), { shares, all, errors, prompts } = countLines(lines);
        const left = new Float64Array(lines).fill(5);
        SHARED.forEach((group, number) => {
            pen.fillStyle = colours[group];
            for (let line = 0; line < lines; line += 1) {
                const width = wide * 0.7 * shares[number][line] / (all[line] || 1);
                if (width) pen.fillRect(left[line], line, width, 1);
                left[line] += width;
            }
        });
        pen.fillStyle = colours.prompt;
        prompts.forEach((count, line) => count && pen.fillRect(5, line, wide * 0.3, 1));
        pen.fillStyle = colours.error;
        errors.forEach((count, line) => count && pen.fillRect(5 + wide * 0.75, line, wide * 0.25, 1));
    }

    /** How many events of each group, errors and prompts each line stands for; results are no events of their own. */
    function countLines(lines) {
        const numbers = () => new Uint32Array(lines);
        const shares = SHARED.map(numbers), all = numbers(), errors = numbers(), prompts = numbers();
        const ofKind = facts.names.map(kind => shares[SHARED.indexOf(GROUPS[kind] ?? "other")]);
        for (let at = 0; at < facts.total; at += 1) {
            const line = Math.floor(at * lines / facts.total), share = ofKind[facts.kindNumber(at)];
            if (share) { share[line] += 1; all[line] += 1; }
            if (facts.isError(at)) errors[line] += 1;
        }
        for (let at = facts.promptFrom(0); at >= 0; at = facts.promptFrom(at + 1)) prompts[Math.floor(at * lines / facts.total)] += 1;
        return { shares, all, errors, prompts };
    }

    /** Runs with every frame of a scroll: an element that moves costs less than a canvas that is painted. */
    function drawHere() {
        if (!facts?.total || !used) return;
        const top = view[0] / facts.total * used, bottom = Math.max(top + 6, (view[1] + 1) / facts.total * used);
        here.style.transform = `translateY(${Math.min(top, height - 7)}px)`;
        here.style.height = `${Math.min(bottom, height) - top}px`;
    }

    return {
        draw(next) {
            ({ facts, chapters, found } = { facts, chapters, found, ...next });
            if (next.facts || next.found) paint();
        },
        view(first, last) {
            view = [first, last];
            box.setAttribute("aria-valuenow", first + 1);
            box.setAttribute("aria-valuemax", facts?.total ?? 1);
            drawHere();
        },
        close() {
            resized.disconnect();
            dark.removeEventListener("change", paint);
            tip.remove();
        },
    };
}
