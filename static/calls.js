// calls.js - calls of tools without a kind of their own: plans, questions, to-do lists, else their input as it is
import { drawBlocks, eventText, todos } from "./blocks.js";
import { html } from "./html.js";
import { t } from "./i18n.js";
import { formatted } from "./formatted.js";
import { result } from "./files.js";
import { terminalText } from "./text.js";

const SUMMARY_KEYS = ["description", "title", "subject", "command", "file_path", "path", "pattern", "query", "url", "name", "prompt", "message", "content", "input", "id"];

const jsonOf = event => event.content.blocks.find(block => block.type === "Json" && !block.truncated)?.data;

/** The most telling short value of a call's input. */
export function callSummary(event) {
    const json = jsonOf(event);
    if (!json || typeof json !== "object") return eventText(event);
    const list = todos(json);
    if (list) return t("todos", { done: list.filter(item => item.status === "completed").length, all: list.length });
    const questions = questionsOf(json);
    if (questions) return questions[0].question;
    const values = [...SUMMARY_KEYS.map(key => json[key]), ...Object.values(json)];
    return values.find(value => typeof value === "string" && value.trim()) ?? "";
}

/** The input of a call and what it returned, each as what it is. */
export function drawCall(page, item) {
    const json = jsonOf(item.event);
    const questions = questionsOf(json);
    if (questions) return [questions.map(question => drawQuestion(question, answerTo(question, item.results))), result(page, item)];
    if (typeof json?.plan === "string") return [html`<div class="prose plan">${formatted(json.plan)}</div>`, result(page, item)];
    return [drawBlocks(page, item.event), result(page, item)];
}

/** Questions to the person, as Claude Code writes them: [{question, options: [{label, description}]}], or null. */
function questionsOf(json) {
    const questions = json?.questions;
    const known = Array.isArray(questions) && questions.length && questions.every(one => typeof one?.question === "string" && Array.isArray(one.options ?? []));
    return known ? questions : null;
}

/** The answer stands in the result's text as "question"="answer". */
function answerTo({ question }, results) {
    const text = results.map(eventText).join("\n");
    const start = text.indexOf(`"${question}"="`);
    if (start < 0) return null;
    const from = start + question.length + 4;
    const end = text.slice(from).search(/"(?:, "|\. |$)/);
    return text.slice(from, end < 0 ? undefined : from + end);
}

function drawQuestion({ question, options = [] }, answer) {
    const labels = options.map(option => String(option?.label ?? option));
    const chosen = labels.filter(label => answer === label || answer?.split(", ").includes(label));
    return html`<div class="question"><p><strong>${terminalText(question)}</strong></p>
        <ul>${options.map((option, at) => html`<li class="${chosen.includes(labels[at]) && "chosen"}">${terminalText(labels[at])}${option?.description && html` <span class="sub">${terminalText(String(option.description))}</span>`}${chosen.includes(labels[at]) && html` <span class="unseen">${t("question.chosen")}</span>`}</li>`)}</ul>
        ${answer && !chosen.length && html`<p class="answer">${terminalText(answer)}</p>`}</div>`;
}
