// words.js - which parts of a changed line are different

const WORDS = /[\p{L}\p{N}_]+|\s+|[^\p{L}\p{N}_\s]/gu;
const MOST_WORDS = 300;
const ALIKE = 0.5;                      // of the shorter line; with less in common two lines are simply different

/** Two lines -> their parts as [[[text, changed], …], [[text, changed], …]], or null where marking would not help. */
export function changedParts(old, now) {
    const before = old.match(WORDS) ?? [], after = now.match(WORDS) ?? [];
    if (!before.length || !after.length || before.length > MOST_WORDS || after.length > MOST_WORDS) return null;
    const [keptBefore, keptAfter] = common(before, after);
    const kept = before.filter((word, at) => keptBefore[at] && word.trim()).join("").length;
    const shorter = Math.min(old.replace(/\s/g, "").length, now.replace(/\s/g, "").length);
    if (kept < ALIKE * shorter) return null;
    return [joined(before, keptBefore), joined(after, keptAfter)];
}

/** For each word of both lists whether it is in their longest common subsequence. */
function common(before, after) {
    const lengths = Array.from({ length: before.length + 1 }, () => new Uint16Array(after.length + 1));
    for (let a = before.length - 1; a >= 0; a -= 1) {
        for (let b = after.length - 1; b >= 0; b -= 1) {
            lengths[a][b] = before[a] === after[b] ? lengths[a + 1][b + 1] + 1 : Math.max(lengths[a + 1][b], lengths[a][b + 1]);
        }
    }
    const keptBefore = [], keptAfter = [];
    for (let a = 0, b = 0; a < before.length && b < after.length;) {
        if (before[a] === after[b]) { keptBefore[a++] = true; keptAfter[b++] = true; }
        else if (lengths[a + 1][b] >= lengths[a][b + 1]) a += 1;
        else b += 1;
    }
    return [keptBefore, keptAfter];
}

/** Neighbours that are alike as one part; a space between two changed words belongs to them. */
function joined(words, kept) {
    const parts = [];
    words.forEach((word, at) => {
        const changed = !kept[at] || !word.trim() && at > 0 && !kept[at - 1] && at + 1 < words.length && !kept[at + 1];
        if (parts.length && parts.at(-1)[1] === changed) parts.at(-1)[0] += word;
        else parts.push([word, changed]);
    });
    return parts;
}
