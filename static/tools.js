// tools.js - the tools by name: how they are called and their mark in lists; a new tool is one line

const TOOLS = {
    "claude-code": ["Claude Code", "CC"],
    codex: ["Codex", "Cx"],
    cursor: ["Cursor", "Cu"],
    gemini: ["Gemini CLI", "Ge"],
    antigravity: ["Antigravity", "Ag"],
    qwen: ["Qwen Code", "Qw"],
    "copilot-cli": ["Copilot CLI", "Co"],
    opencode: ["OpenCode", "Oc"],
    "kilo-cli": ["Kilo CLI", "Kc"],
    "vscode-copilot": ["VS Code Copilot Chat", "VS"],
    droid: ["Droid", "Dr"],
    goose: ["Goose", "Go"],
    kimi: ["Kimi CLI", "Ki"],
    cline: ["Cline", "Cl"],
    "roo-code": ["Roo Code", "Ro"],
    "kilo-code": ["Kilo Code", "Ko"],
    pi: ["Pi", "Pi"],
    openclaw: ["OpenClaw", "Ow"],
    "oh-my-pi": ["oh-my-pi", "Om"],
    aider: ["Aider", "Ai"],
    amp: ["Amp", "Am"],
    grok: ["Grok", "Gr"],
    hermes: ["Hermes", "He"],
    crush: ["Crush", "Cr"],
    chatgpt: ["ChatGPT (export)", "GP"],
    "claude-ai": ["claude.ai (export)", "ca"],
};

export const toolNames = Object.keys(TOOLS);
export const toolTitle = name => TOOLS[name]?.[0] ?? name;
export const toolMark = name => TOOLS[name]?.[1] ?? name.slice(0, 2);
