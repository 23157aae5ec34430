// upload.js - transcripts dropped on the page: sent as they are, one after the other
import { queryString, sendFile } from "./api.js";
import { size } from "./format.js";
import { element, html } from "./html.js";
import { t } from "./i18n.js";
import { announce, sentence, title } from "./parts.js";
import { daemonCommands } from "./start.js";
import { teams, user } from "./who.js";

export async function show(view) {
    if (!user()) throw Object.assign(new Error(), { status: 401 });
    title(t("nav.upload"));
    const ownTeams = await teams();
    view.classList.add("narrow");
    view.innerHTML = html`
        <h1>${t("nav.upload")}</h1>
        <form class="upload">
            ${ownTeams.length > 1 && html`<label>${t("team")} <select name="team">${ownTeams.map(team => html`<option value="${team.id}">${team.name}</option>`)}</select></label>`}
            <label class="drop"><strong>${t("upload.drop")}</strong><span>${t("upload.hint")}</span>
                <input type="file" class="unseen" multiple></label>
        </form>
        <ul class="files" aria-live="polite"></ul>
        <section class="aside"><h2>${t("upload.daemon")}</h2>${daemonCommands()}</section>`;
    wire(view);
}

function wire(view) {
    const drop = view.querySelector(".drop"), input = view.querySelector("[type=file]");
    const list = view.querySelector(".files");
    const team = () => view.querySelector("[name=team]")?.value;
    let queue = Promise.resolve();
    const take = files => [...files].forEach(file => {
        const line = list.appendChild(element(html`<li><span class="path">${file.name}</span> <span class="sub">${size(file.size)}</span> <progress max="1" value="0"></progress> <span class="state"></span></li>`));
        queue = queue.then(() => send(file, team(), line));
    });
    input.onchange = () => { take(input.files); input.value = ""; };
    view.addEventListener("dragover", event => { event.preventDefault(); drop.classList.add("over"); });
    view.addEventListener("dragleave", () => drop.classList.remove("over"));
    view.addEventListener("drop", event => {
        event.preventDefault();
        drop.classList.remove("over");
        take(event.dataTransfer.files);
    });
}

async function send(file, team, line) {
    const progress = line.querySelector("progress"), state = line.querySelector(".state");
    try {
        const path = "/api/sessions" + queryString({ filename: file.name, team_id: team });
        const answer = await sendFile(path, file, await contentType(file), done => {
            progress.value = done;
            if (done === 1) state.textContent = t("upload.reading");
        });
        state.innerHTML = results(answer);
    } catch (error) {
        state.innerHTML = html`<span class="error">${sentence(error)}</span>`;
    }
    progress.remove();
    announce(`${file.name}: ${state.textContent}`);
}

function results(answer) {
    const all = answer.sessions ?? [answer];
    return html`${all.map(({ id, status, event_count: count }) => html`
        <a href="/session/${id}">${t(`upload.${status ?? "created"}`)}</a> <span class="sub">${count !== undefined && t("count.events", { n: count })}</span> `)}`;
}

/** One JSON value is application/json, lines of JSON are x-ndjson, anything else is left to the server to recognise. */
async function contentType(file) {
    const head = (await file.slice(0, 65536).text()).replace(/^\ufeff/, "").trimStart();
    if (!/^[[{]/.test(head)) return "text/plain";
    const end = head.indexOf("\n");
    if (end < 0) return /\.(jsonl|ndjson)$/i.test(file.name) || file.size > 65536 && !/\.json$/i.test(file.name) ? "application/x-ndjson" : "application/json";
    return isJson(head.slice(0, end)) ? "application/x-ndjson" : "application/json";
}

function isJson(text) {
    try {
        return typeof JSON.parse(text) === "object";
    } catch {
        return false;
    }
}
