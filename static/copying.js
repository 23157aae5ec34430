// copying.js - events as Markdown: one, a turn, or a whole session
import { moment } from "./format.js";
import { t } from "./i18n.js";
import { pair } from "./pages.js";
import { data, kindName } from "./steps.js";
import { terminalText } from "./text.js";

/** A fence that its content cannot close. */
function fenced(text, language = "") {
    const longest = Math.max(2, ...(text.match(/`+/g) ?? []).map(run => run.length));
    const fence = "`".repeat(longest + 1);
    return `${fence}${language}\n${text.replace(/\n$/, "")}\n${fence}`;
}

const BLOCKS = {
    Text: block => block.text,
    Code: block => fenced(terminalText(block.code), block.language ?? ""),
    Json: block => fenced(JSON.stringify(block.data, null, 2), "json"),
    File: block => `${block.path}\n\n${fenced(block.content ?? "")}`,
};

const blocks = event => event.content.blocks.map(block => BLOCKS[block.type]?.(block) ?? `[${block.type}]`).filter(text => text.trim()).join("\n\n");

function step(event) {
    const { command, path, query, pattern, url, name, diff } = data(event);
    const what = path ?? query ?? pattern ?? url ?? name ?? "";
    const head = `**${name ?? kindName(event)}**${what && what !== name ? ` \`${what.replaceAll("`", "'")}\`` : ""}`;
    return [head, command && fenced(command, "bash"), diff && fenced(diff, "diff"), !command && blocks(event)].filter(Boolean).join("\n\n");
}

const KINDS = {
    UserMessage: event => `## ${t("copy.prompt")}\n\n${blocks(event)}`,
    AgentMessage: blocks,
    Thinking: event => blocks(event).split("\n").map(line => `> ${line}`).join("\n"),
    TaskEnd: () => "", TaskStart: event => `**${t("subagent")}** ${data(event).title ?? ""}`,
    Custom: event => ["compaction", "interrupt"].includes(data(event).kind) ? `*${t(`boundary.${data(event).kind}`)}*` : "",
};

const RESULT_LIMIT = 4000;

function result(event) {
    const text = terminalText(event.content.blocks.map(block => block.text ?? block.code ?? "").join("\n")).trim();
    return text && fenced(text.length > RESULT_LIMIT ? `${text.slice(0, RESULT_LIMIT)}\n…` : text);
}

/** Events -> Markdown; calls with the beginning of what they returned. */
export function asMarkdown(events) {
    return pair(events).flatMap(({ event, results }) => [(KINDS[event.event_type.type] ?? step)(event), ...results.map(result)])
        .filter(text => text?.trim()).join("\n\n") + "\n";
}

/** A session's Markdown with its title on top. */
export const sessionAsMarkdown = (session, events) =>
    `# ${session.title || t("untitled")}\n\n${[session.tool, session.agent_model, session.project, moment(session.created_at)].filter(Boolean).join(" · ")}\n\n${asMarkdown(events)}`;
