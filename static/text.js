// text.js - hostile text made harmless to look at: no escape codes, nothing invisible that reorders a line

const ESCAPE_CODES = /\x1b(?:\[[0-9;:<=>?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]*[0-~])/g;
const CONTROLS = /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]/g;
const BIDI = /[\u202a-\u202e\u2066-\u2069]/g;

/** Output of a terminal as plain text: without colours and cursor moves, a carriage return ends a line. */
export function terminalText(text) {
    return text.replace(ESCAPE_CODES, "").replace(/\r\n?/g, "\n").replace(CONTROLS, picture);
}

/** The same text with direction overrides written out, so that what is read is what is there. */
export function visible(text) {
    return text.replace(BIDI, codePoint);
}

export function lines(text) {
    return text.replace(/\n$/, "").split("\n");
}

export function firstLine(text, limit = 200) {
    const line = text.trimStart().split("\n", 1)[0].trimEnd();
    return line.length > limit ? line.slice(0, limit) + "…" : line;
}

// The pictures of control characters stand at U+2400 in their order; DEL has one of its own.
const picture = char => String.fromCharCode(char === "\x7f" ? 0x2421 : 0x2400 + char.charCodeAt(0));

const codePoint = char => `⟦U+${char.charCodeAt(0).toString(16).toUpperCase()}⟧`;
