"""The tables of tools in the two READMEs, made from the registry in daemon.py.

    python tests/readme_tools.py        writes them anew, between two comments in each README
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))
import daemon  # noqa: E402

BEGIN, END = "<!-- tools: written by `make readme` -->\n", "<!-- end of tools -->\n"
HEADS = {"README.md": ("Tool", "Name", "Where its sessions lie", "Seen"),
         "README.ko.md": ("도구", "이름", "세션이 있는 곳", "확인한 버전")}
# The words of `where` and `seen` in Korean, whole texts before parts of them.
KOREAN = {
    "by import": "`import` 명령으로",
    "as OpenCode": "OpenCode와 같음",
    "as Pi": "Pi와 같음",
    "flat files of 2025": "2025년의 단순 파일",
    "plain text transcripts": "일반 텍스트 기록",
    "JSON files before": "그전의 JSON 파일",
    "JSON lines before": "그전의 JSON 줄 파일",
    "Kimi CLI before": "그전의 Kimi CLI",
    "the first format": "첫 형식",
    "exports of 2025 and 2026": "2025~2026년 내보내기 파일",
    "task folders": "작업 폴더",
    "databases of 2026": "2026년의 데이터베이스",
    "transcripts of 2026": "2026년의 기록 파일",
    "threads of 2026": "2026년의 스레드",
    "files of 2026": "2026년의 파일",
    "databases of ": "데이터베이스 ",
    "databases ": "데이터베이스 ",
    "logs since 1.109": "1.109부터의 로그",
    "protocol ": "프로토콜 ",
    " of every editor": "(모든 편집기)",
    " of projects": "(프로젝트마다)",
    " to ": " ~ ",
    ", or ": ", 또는 ",
}
# Places and environment variables.
CODE = re.compile(r"[^\s,`]*/[^\s,`]+|\.[\w.]+\.md|\b[A-Z]+_[A-Z_]+\b")


def cell(text, korean):
    if korean:
        for phrase, words in KOREAN.items():
            text = text.replace(phrase, words)
    # What is in backticks already stays.
    return "".join(part if part.startswith("`") else CODE.sub(code_span, part) for part in re.split("(`[^`]*`)", text))


def code_span(match):
    """A place in backticks, without the Korean remark that may stand behind it."""
    place, remark, rest = match[0].partition("(")
    return f"`{place}`{remark}{rest}"


def table(name):
    """The table of one README, as lines."""
    head, korean = HEADS[name], name.endswith(".ko.md")
    rows = [(tool.title, f"`{tool.name}`", cell(tool.where, korean), cell(tool.seen, korean)) for tool in daemon.TOOLS.values()]
    lines = [f"| {' | '.join(row)} |\n" for row in (head, *rows)]
    return "".join([lines[0], "|---" * len(head) + "|\n", *lines[1:]])


def with_table(name):
    """A README's text with the table as it should be."""
    text = (ROOT / name).read_text("utf-8")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}{table(name)}{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    for readme in HEADS:
        (ROOT / readme).write_text(with_table(readme), "utf-8")
