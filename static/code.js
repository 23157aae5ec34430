// code.js - colours for code that is in sight.
// The highlighter only says where words of a kind stand; the browser paints them over the text that is
// already there (CSS highlights).  So code stays one text node: no markup of ours, no further elements.
import { grammarOf } from "./languages.js";

const LONGEST = 40000;                  // characters; what is longer stays plain
const SWEEP_AFTER = 4000;

const KINDS = {
    keyword: "keyword", built_in: "type", type: "type", literal: "number", number: "number", string: "string", regexp: "string", subst: "plain",
    comment: "comment", quote: "comment", doctag: "comment", meta: "meta", title: "title", name: "keyword", tag: "plain", attr: "attr", attribute: "attr",
    property: "attr", variable: "attr", symbol: "string", section: "title", selector: "keyword", addition: "addition", deletion: "deletion", bullet: "keyword",
    code: "string", link: "string", "template-variable": "attr", "selector-class": "type", "selector-id": "type", "selector-tag": "keyword", "char": "string",
};

const isSupported = "highlights" in CSS;
const seen = isSupported && new IntersectionObserver(entries => entries.forEach(entry => {
    if (!entry.isIntersecting) return;
    seen.unobserve(entry.target);
    if (waiting.push(entry.target) === 1) whenIdle(paintWaiting);
}), { rootMargin: "200px" });
const waiting = [];                     // code in sight that is plain yet
const painted = new Map();              // kind -> Highlight
const grammars = new Map();             // name -> promise of the highlighter that knows it
let sincePurge = 0;

/** Colour the code below `root` once it comes into sight. */
export function colourCode(root) {
    if (!isSupported) return;
    for (const code of root.querySelectorAll("pre[data-language]:not([data-language='']), .split[data-language]:not([data-language='']), .prose pre > code[class]")) seen.observe(code);
}

/** Code is coloured when there is nothing else to do, so that scrolling never waits for it; what has gone meanwhile stays plain. */
function whenIdle(work) {
    if ("requestIdleCallback" in window) requestIdleCallback(work);
    else setTimeout(() => work({ timeRemaining: () => 0 }), 50);
}

async function paintWaiting(deadline) {
    do {
        await paint(waiting[0]).catch(() => null);      // colours are a help, never a reason to fail
        waiting.shift();
    } while (waiting.length && deadline.timeRemaining() > 8);
    if (waiting.length) whenIdle(paintWaiting);
}

const languageOf = node => grammarOf(node.dataset.language ?? node.className.replace(/^language-/, ""));

async function paint(node) {
    const language = languageOf(node);
    if (!language || !node.isConnected || node.textContent.length > LONGEST) return;
    const highlighter = await highlighterFor(language);
    if (!node.isConnected) return;
    const { texts, whole } = textsOf(node);
    const { _emitter: { rootNode } } = highlighter.highlight(whole, { language, ignoreIllegals: true });
    const places = walk(rootNode);
    spread(texts, places);
    if (sincePurge > SWEEP_AFTER) sweep();
}

function highlighterFor(language) {
    if (!grammars.has(language)) grammars.set(language, Promise.all([import("./vendor/highlight/core.min.js"), import(`./vendor/highlight/${language}.min.js`)])
        .then(([{ default: highlighter }, { default: grammar }]) => { highlighter.registerLanguage(language, grammar); return highlighter; }));
    return grammars.get(language);
}

/** The text nodes of code without the signs of a diff: [{node, start}], and their text joined. */
function textsOf(root) {
    const texts = [];
    let whole = "";
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT, node => node.parentNode.tagName === "I" || node.parentNode.className === "n" ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        texts.push({ node, start: whole.length });
        whole += node.data;
    }
    return { texts, whole };
}

/** The highlighter's tree -> [[kind, from, to], …] */
function walk(node, places = [], at = { now: 0 }) {
    for (const child of node.children) {
        if (typeof child === "string") { at.now += child.length; continue; }
        const from = at.now;
        walk(child, places, at);
        const kind = KINDS[child.scope] ?? KINDS[child.scope?.split(".")[0]];
        if (kind && kind !== "plain") places.push([kind, from, at.now]);
    }
    return places;
}

/** Give each place to the text nodes that it covers. */
function spread(texts, places) {
    places.sort((first, second) => first[1] - second[1]);
    let first = 0;
    for (const [kind, from, to] of places) {
        while (first + 1 < texts.length && texts[first + 1].start <= from) first += 1;
        for (let at = first; at < texts.length && texts[at].start < to; at += 1) {
            const { node, start } = texts[at];
            const begin = Math.max(0, from - start), end = Math.min(node.length, to - start);
            if (begin < end) add(kind, node, begin, end);
        }
    }
}

function add(kind, node, begin, end) {
    if (!painted.has(kind)) {
        painted.set(kind, new Highlight());
        CSS.highlights.set(`code-${kind}`, painted.get(kind));
    }
    painted.get(kind).add(new StaticRange({ startContainer: node, startOffset: begin, endContainer: node, endOffset: end }));
    sincePurge += 1;
}

/** Let go of what has left the page. */
function sweep() {
    sincePurge = 0;
    for (const highlight of painted.values()) {
        for (const range of highlight) if (!range.startContainer.isConnected) highlight.delete(range);
    }
}
