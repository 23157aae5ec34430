// touched.js - the files that a session changed, from its edits
import { diffCounts } from "./diff.js";
import { html } from "./html.js";
import { number } from "./format.js";
import { t } from "./i18n.js";
import { EDITS } from "./kinds.js";
import { openDialog } from "./parts.js";

const MOST_EDITS = 600;

/** [{path, ordinals, added, removed}] in the order of their first change. */
async function touchedFiles(facts, store) {
    const ordinals = [];
    for (let at = 0; at < facts.total && ordinals.length < MOST_EDITS; at += 1) if (EDITS.has(facts.kind(at))) ordinals.push(at);
    await store.need(ordinals.map(at => [at, at + 1]));
    const files = new Map();
    for (const at of ordinals) {
        const { path, diff } = store.at(at)?.event_type.data ?? {};
        if (typeof path !== "string") continue;
        const file = files.get(path) ?? { path, ordinals: [], added: 0, removed: 0 };
        const { added, removed } = diff ? diffCounts(diff) : { added: store.at(at).attributes?.diff_lines_added ?? 0, removed: 0 };
        files.set(path, { ...file, ordinals: [...file.ordinals, at], added: file.added + added, removed: file.removed + removed });
    }
    return [...files.values()];
}

/** Show them; resolves to the file that was chosen to filter by, or undefined. */
export async function chooseFile(facts, store) {
    const files = await touchedFiles(facts, store);
    const chosen = await openDialog(html`
        <h2>${t("count.files", { n: files.length })}</h2>
        <ul class="touched">${files.map(({ path, ordinals, added, removed }, at) => html`
            <li><button type="button" value="${at}" class="plain path">${path}</button>
                <span class="came">${t("count.edits", { n: ordinals.length })} <span class="added">+${number(added)}</span> <span class="removed">−${number(removed)}</span></span></li>`)}</ul>
        <p class="actions"><button type="button" value="" autofocus>${t("close")}</button></p>`);
    return files[chosen === "" ? -1 : Number(chosen)];
}
