// tools.js - the tools by name: how they are called and their mark in lists; a new tool is one line

const TOOLS = {
    "claude-code": ["Claude Code", "CC"],
    codex: ["Codex", "Cx"],
    cursor: ["Cursor", "Cu"],
    gemini: ["Gemini CLI", "Ge"],
    opencode: ["OpenCode", "Oc"],
    cline: ["Cline", "Cl"],
    amp: ["Amp", "Am"],
    goose: ["Goose", "Go"],
    aider: ["Aider", "Ai"],
    "copilot-cli": ["Copilot CLI", "Co"],
    qwen: ["Qwen Code", "Qw"],
    kimi: ["Kimi CLI", "Ki"],
    droid: ["Droid", "Dr"],
    grok: ["Grok CLI", "Gr"],
    hermes: ["Hermes", "He"],
    openclaw: ["OpenClaw", "Ow"],
    antigravity: ["Antigravity", "Ag"],
    pi: ["Pi", "Pi"],
};

export const toolNames = Object.keys(TOOLS);
export const toolTitle = name => TOOLS[name]?.[0] ?? name;
export const toolMark = name => TOOLS[name]?.[1] ?? name.slice(0, 2);
