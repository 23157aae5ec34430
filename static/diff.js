// diff.js - a unified diff as lines with both numbers, what changed inside a line marked
import { html } from "./html.js";
import { languageOfPath } from "./languages.js";
import { changedParts } from "./words.js";
import { terminalText } from "./text.js";

const HUNK = /^@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@(.*)/;
const FILE_LINE = /^(?:diff |index |--- |\+\+\+ |new file|deleted file|similarity|rename )/;

/** Unified diff text -> [{sign, old, now, text, parts?}]; sign is "+", "-", " " or "@" for where a hunk begins. */
export function diffLines(diff) {
    const rows = [];
    let old = null, now = null, inHunk = false;
    for (const line of terminalText(diff).replace(/\n$/, "").split("\n")) {
        const hunk = line.match(HUNK);
        if (hunk) {
            [old, now, inHunk] = [Number(hunk[1]), Number(hunk[2]), true];
            rows.push({ sign: "@", text: hunk[3].trim() });
        } else if (!inHunk && FILE_LINE.test(line) || line.startsWith("\\")) {
            continue;
        } else {
            const sign = "+-".includes(line[0] || " ") ? line[0] : " ";
            rows.push({ sign, old: sign === "+" ? null : old, now: sign === "-" ? null : now, text: line.slice(1) });
            if (old !== null && sign !== "+") old += 1;
            if (now !== null && sign !== "-") now += 1;
        }
    }
    return rows[0]?.sign === "@" && !rows[0].text ? rows.slice(1) : rows;
}

/** {added, removed} of a diff. */
export function diffCounts(diff) {
    const counts = { added: 0, removed: 0 };
    for (const { sign } of diffLines(diff)) {
        if (sign === "+") counts.added += 1;
        if (sign === "-") counts.removed += 1;
    }
    return counts;
}

/** Pairs of [removed row or null, added row or null], and [row, row] for what stayed; the n-th removed line of a change meets its n-th added. */
export function sideBySide(rows) {
    const pairs = [];
    for (let at = 0; at < rows.length;) {
        const removed = run(rows, at, "-"), added = run(rows, at + removed.length, "+");
        for (let line = 0; line < Math.max(removed.length, added.length); line += 1) pairs.push([removed[line] ?? null, added[line] ?? null]);
        at += removed.length + added.length;
        if (!removed.length && !added.length) { pairs.push([rows[at], rows[at]]); at += 1; }
    }
    return pairs;
}

function run(rows, from, sign) {
    let to = from;
    while (rows[to]?.sign === sign) to += 1;
    return rows.slice(from, to);
}

/** Note in the rows of a change which parts of a line are new. */
function withParts(rows) {
    for (const [old, now] of sideBySide(rows)) {
        if (!old || !now || old === now) continue;
        [old.parts, now.parts] = changedParts(old.text, now.text) ?? [];
    }
    return rows;
}

const CLASSES = { "+": "added", "-": "removed", "@": "hunk", " ": "same" };
const lineText = ({ text, parts }) => parts ? parts.map(([part, changed]) => changed ? html`<b>${part}</b>` : part) : text;
const numbers = (rows, side) => html`<pre class="n" aria-hidden="true">${rows.map(row => `${row[side] ?? ""}\n`)}</pre>`;

/** One column: old and new numbers, then the lines. */
export const unified = (rows, path) => html`
    <div class="diff">${numbers(rows, "old")}${numbers(rows, "now")}<pre class="t" tabindex="0" data-language="${languageOfPath(path)}">${withParts(rows).map(row => html`<span class="${CLASSES[row.sign]}"><i>${row.sign === "@" ? "⋯" : row.sign}</i>${lineText(row)}\n</span>`)}</pre></div>`;

/** Two columns, as wide as there is room; long lines wrap. */
export const split = (rows, path) => html`
    <div class="split" data-language="${languageOfPath(path)}">${sideBySide(withParts(rows)).map(([old, now]) => html`
        <span class="n">${old?.old}</span><code class="${old ? old === now ? CLASSES[old.sign] : "removed" : "empty"}">${old && lineText(old)}</code>
        <span class="n">${now?.now}</span><code class="${now ? old === now ? CLASSES[now.sign] : "added" : "empty"}">${now && lineText(now)}</code>`)}</div>`;
