// diff.js - a unified diff as a table of lines with both line numbers
import { html } from "./html.js";
import { terminalText } from "./text.js";

const HUNK = /^@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@(.*)/;
const FILE_LINE = /^(?:diff |index |--- |\+\+\+ |new file|deleted file|similarity|rename )/;

/** Unified diff text -> [{sign, old, now, text}]; sign is "+", "-", " " or "@" for where a hunk begins. */
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

const CLASSES = { "+": "added", "-": "removed", "@": "hunk", " ": "" };

export const diffTable = rows => html`
    <div class="scroll" tabindex="0"><table class="diff"><tbody>${rows.map(({ sign, old, now, text }) => html`<tr class="${CLASSES[sign]}"><td>${old}</td><td>${now}</td><td>${sign === "@" ? "⋯ " : sign}${text}</td></tr>`)}</tbody></table></div>`;
