// kinds.js - the kinds of events in the groups that filters and the map show

/** Kind -> group.  A kind that is not here is "other". */
export const GROUPS = {
    UserMessage: "prompt", AgentMessage: "reply", Thinking: "thinking", SystemMessage: "other",
    ToolCall: "tool", ToolResult: "result", FileRead: "read", CodeSearch: "read", FileSearch: "read",
    FileEdit: "edit", FileCreate: "edit", FileDelete: "edit", ShellCommand: "shell",
    ImageGenerate: "tool", VideoGenerate: "tool", AudioGenerate: "tool", WebSearch: "web", WebFetch: "web",
    TaskStart: "task", TaskEnd: "task", Custom: "other",
};

export const STEPS = new Set(["ToolCall", "FileRead", "CodeSearch", "FileSearch", "FileEdit", "FileCreate", "FileDelete", "ShellCommand",
    "ImageGenerate", "VideoGenerate", "AudioGenerate", "WebSearch", "WebFetch"]);

export const EDITS = new Set(["FileEdit", "FileCreate", "FileDelete"]);

/** The groups that can be chosen, in the order of the chips. */
export const CHOICES = ["reply", "thinking", "read", "edit", "shell", "web", "tool", "task", "other"];
