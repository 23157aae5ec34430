// languages.js - which grammar of the highlighter a name or a file's ending stands for

const GRAMMARS = {
    bash: "bash sh shell zsh console", c: "c h", cpp: "cpp cc cxx hpp hh c++", csharp: "csharp cs", css: "css", diff: "diff patch",
    dockerfile: "dockerfile docker", elixir: "elixir ex exs", go: "go golang", ini: "ini toml cfg conf env properties", java: "java",
    javascript: "javascript js mjs cjs jsx", json: "json jsonl jsonc webmanifest", kotlin: "kotlin kt kts", lua: "lua", markdown: "markdown md mdx mkd",
    php: "php", python: "python py pyi py3", ruby: "ruby rb gemspec rakefile", rust: "rust rs", scss: "scss sass", sql: "sql",
    swift: "swift", typescript: "typescript ts tsx mts cts", xml: "xml html htm svg xhtml vue svelte heex eex plist", yaml: "yaml yml",
};

const BY_NAME = new Map(Object.entries(GRAMMARS).flatMap(([grammar, names]) => names.split(" ").map(name => [name, grammar])));

/** "py" -> "python"; undefined where no grammar is there. */
export const grammarOf = name => BY_NAME.get(String(name ?? "").toLowerCase());

/** "a/b.py" -> "python" */
export function languageOfPath(path) {
    const name = String(path ?? "").split(/[/\\]/).pop().toLowerCase();
    return grammarOf(name.split(".").pop());
}
