// files.js - commands and files: shell, read, create, edit, and what a call returned
import { diffBlock, drawBlock, drawBlocks, eventText, preformatted, wholeButton } from "./blocks.js";
import { diffCounts } from "./diff.js";
import { html } from "./html.js";
import { t } from "./i18n.js";
import { languageOfPath } from "./languages.js";
import { data, isFailed, kindName, step } from "./steps.js";
import { lines, terminalText } from "./text.js";

const OPEN_DIFF_LINES = 40;
const LONGEST_PATH = 62;

/** What a call returned; `path` tells the language of code that does not say its own. */
export function result(page, { results }, path) {
    return results.map(one => html`<section class="result ${data(one).is_error && "bad"}" id="e-${one.ordinal}">${one.content.blocks.map((block, at) =>
        drawBlock(page, one, at, path && block.type === "Code" && !block.language ? { ...block, language: languageOfPath(path) } : block))}${!one.content.blocks.length && html`<p class="none">${t("output.none")}</p>`}</section>`);
}

export function shell(page, item) {
    const command = terminalText(data(item.event).command);
    const purpose = eventText(item.event).trim();
    const repeat = lines(command).length > 1 || command.length > 70;
    return step(page, item, kindName(item.event), command, { className: "shell", body: () => [
        purpose && purpose !== command && html`<p class="purpose">${purpose}</p>`,
        repeat && preformatted(page, command, { className: "wrap command", language: "bash" }),
        result(page, item)] });
}

export function fileStep(page, item, body, options = {}) {
    return step(page, item, kindName(item.event), shortPath(data(item.event).path), { title: data(item.event).path, ...options, body: body || undefined });
}

/** The end of a long path, which is what tells files apart. */
function shortPath(path) {
    if (path.length <= LONGEST_PATH) return path;
    const parts = path.split("/");
    let short = parts.pop();
    while (parts.length && short.length + parts.at(-1).length < LONGEST_PATH) short = `${parts.pop()}/${short}`;
    return `…/${short}`;
}

export const read = (page, item) => fileStep(page, item, () => result(page, item, data(item.event).path));

export function create(page, item) {
    const { path } = data(item.event);
    const failed = isFailed(item.event, item.results);
    const body = () => [item.event.content.blocks.map((block, at) => drawBlock(page, item.event, at,
        block.type === "Code" ? { ...block, language: block.language || languageOfPath(path) } : block)), failed && result(page, item)];
    const code = item.event.content.blocks.find(block => block.type === "Code");
    return fileStep(page, item, body, { className: "create",
        facts: code && !code.truncated ? [html`<span class="added">+${lines(code.code).length}</span> `] : [] });
}

export function edit(page, item) {
    const { diff, path, truncated, full_size: fullSize } = data(item.event);
    if (!diff) return fileStep(page, item, () => [drawBlocks(page, item.event), result(page, item)]);
    const { added, removed } = diffCounts(diff);
    const failed = isFailed(item.event, item.results);
    const body = () => [truncated ? html`<div class="fold">${diffBlock(page, diff, path)}${wholeButton(item.event, "diff", fullSize)}</div>` : diffBlock(page, diff, path),
        failed && result(page, item)];
    return fileStep(page, item, body, { className: "edit", open: !truncated && diff.split("\n").length <= OPEN_DIFF_LINES,
        facts: truncated ? [] : [html`<span class="added">+${added}</span> <span class="removed">−${removed}</span> `] });
}
