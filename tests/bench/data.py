"""Data sets for `make bench`: seeded, made once, kept in .bench/.

    team_server(sessions)     a data directory with so many sessions of ten events or so, in 50 teams of 200 users
    transcript_tree(count, mb)  Claude Code and Codex transcripts as a developer's disk holds them
    large_transcript(mb)      one long Claude Code session

Texts are drawn from a pool of paragraphs whose words are as unequally frequent as words are, with
identifiers, paths and Korean among them, and something that occurs once in each.
"""

import base64
import datetime
import itertools
import json
import os
import random
import shutil
import sqlite3
import sys
import tempfile
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
KEPT = ROOT / ".bench"
VERSION = 2             # raise it where what is made here changes: what is kept is then made again

ENGLISH = """the to of a and in is that it for on with as this be are can we you not or from by an at will if has have file code
function error test request response server client session message data value type return should need use change fix add remove
update read write check run build when then because which there also first last next new old path line call result list string
number key name field table index query cache token user team upload parse stream chunk event timeline browser render page style
link button form input output log debug trace stack thread lock queue worker task job timeout retry backoff connection socket
header body json schema migration column row commit branch merge diff patch review issue pull deploy config option flag default
environment variable secret permission role policy""".split()
KOREAN = """세션 서버 업로드 검색 사용자 오류 수정 파일 함수 테스트 실행 결과 확인 데이터베이스 인덱스 요청 응답 목록 화면 버튼 공유 권한
메시지 이벤트 추가 삭제 변경 설정 환경 배포 빌드 분석 문제 해결 방법 커밋 브랜치 병합 충돌 성능 개선 속도 메모리""".split()
PARTICLES = ["", "를", "을", "이", "가", "는", "은", "에서", "으로", "하고", "합니다", "해주세요", "했습니다", "의"]
VERBS = "get set load save parse build make find list read write send fetch open close check update insert delete render".split()
NOUNS = "session user team token event body index cache row file path config query page header chunk cursor state task".split()
ENDINGS = "by_id for_team from_disk all once async safe json rows later batch url text key count size hash lock".split()


class Texts:
    """Prose, code and names, from one seed."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.rare = ["".join(self.random.choice("bcdfghjklmnpqrstvwz") + self.random.choice("aeiou")
                             for _ in range(self.random.randint(3, 5))) for _ in range(20_000)]
        self.frequency = [1 / (place + 8) ** 0.9 for place in range(len(ENGLISH))]
        self.names = [self.name() for _ in range(5000)]
        self.paths = [f"src/{self.pick(NOUNS)}/{self.pick(VERBS)}_{self.pick(NOUNS)}.{self.pick(['py', 'rs', 'ts', 'sql', 'md'])}"
                      for _ in range(1500)]
        self.english = [self.paragraph() for _ in range(3000)]
        self.korean = [" ".join(self.pick(KOREAN) + self.pick(PARTICLES) for _ in range(self.random.randint(6, 40))) + "."
                       for _ in range(800)]
        self.code = ["\n".join(self.code_line() for _ in range(self.random.randint(4, 60))) for _ in range(1500)]

    def pick(self, values):
        return values[int(self.random.random() * len(values))]

    def name(self):
        verb, noun, ending = self.pick(VERBS), self.pick(NOUNS), self.pick(ENDINGS)
        return self.pick([f"{verb}_{noun}_{ending}", f"{verb}{noun.title()}{ending.title().replace('_', '')}",
                          f"{noun}.{verb}.{self.pick(self.rare)}", f"{self.pick(self.rare)}_{noun}"])

    def paragraph(self):
        words = self.random.choices(ENGLISH, self.frequency, k=self.random.randint(12, 90))
        for place in range(0, len(words), 7):
            words[place] = self.pick(self.names if place % 3 else self.rare)
        return " ".join(words).capitalize() + "."

    def code_line(self):
        left, right = self.pick(self.names).replace(".", "_"), self.pick(self.names)
        return "    " * int(self.random.random() * 4) + self.pick(
            [f"def {left}({right.split('.')[0]}=None):", f"{left} = {right}({self.random.randint(0, 9999)})",
             f'return {{"{left}": {right}}}', f"if {left} is not None and {right}:", f"# {self.pick(ENGLISH)} {left}"])

    def prose(self, paragraphs=1):
        """Some paragraphs, every fifth in Korean, and a word that is nowhere else."""
        return "\n\n".join([self.pick(self.korean if self.random.random() < 0.2 else self.english) for _ in range(paragraphs)]
                           + [f"{self.pick(self.names)} {self.random.randrange(10**9)}"])

    def listing(self, size):
        """Code of a size."""
        pieces, length = [], 0
        while length < size:
            pieces.append(f"{self.pick(self.code)}\n# {self.random.randrange(10**9)}\n")
            length += len(pieces[-1])
        return "".join(pieces)[:int(size)]

    def size(self, middle, spread, largest):
        """A log-normal size: many small ones, few large ones."""
        return min(largest, middle * self.random.lognormvariate(0, spread))

    def id(self):
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))


def kept(name, make):
    """The folder of a data set; made by `make(folder)` where it is not there yet."""
    folder = KEPT / f"{name}.{VERSION}"
    if not folder.exists():
        print(f"making {folder.relative_to(ROOT)} …", file=sys.stderr, flush=True)
        KEPT.mkdir(exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=KEPT))
        make(draft)
        draft.rename(folder)
    return folder


def compact(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


# ---------------------------------------------------------------------------
# A server with sessions in it
# ---------------------------------------------------------------------------

TEAMS, USERS = 50, 200
BIG, SMALL, TINY = 0.6, 0.0085, 0.0001          # shares of all sessions: the first three teams
TOOLS = [("claude-code", 60), ("codex", 20), ("cursor", 10), ("gemini", 4), ("opencode", 3), ("cline", 2), ("amp", 1), ("aider", 0.08)]
MODELS = [("claude-opus-4-6", 30), ("claude-sonnet-4-6", 30), ("gpt-5.2-codex", 20), ("gemini-3-pro", 10), ("claude-haiku-4-5", 9), ("o3", 1)]
PROJECTS, BRANCHES = 300, 500
LAST = datetime.datetime(2026, 11, 1, tzinfo=datetime.timezone.utc)


def team_server(sessions):
    """The folder of a data directory (`data`) and of what opens it (`facts.json`)."""
    return kept(f"server-{sessions}", lambda folder: make_team_server(folder, sessions))


def make_team_server(folder, sessions):
    import opensession
    from client import Client
    opensession.configure({"OPENSESSION_DATA_DIR": str(folder / "data"), "OPENSESSION_REGISTRATION": "open"})
    lock, plain = opensession.open_data_dir(), sqlite3.connect(folder / "plain.db")
    plain.execute("CREATE TABLE texts (text TEXT)")         # what LIKE is to look through
    fsync, os.fsync = os.fsync, lambda file: None           # a power cut would only cost the bench its data
    try:
        opensession.db.execute("PRAGMA synchronous = OFF")
        people, teams = accounts(Client())
        texts = Texts(1)
        for number in range(sessions):
            user, team = owner(texts, people, teams, number, sessions)
            body = hail_session(texts)
            plain.executemany("INSERT INTO texts VALUES (?)", [[line.decode()] for line in body.splitlines()[1:]])
            answer = user.request("POST", f"/api/sessions?team_id={team}", body=body, type="application/jsonl")
            if answer.status != 201:
                raise RuntimeError(answer)
        # A server that has run for a day has looked for secrets in what it holds; this one would be at it while it is measured.
        opensession.db.batch([("UPDATE blocks SET secrets = 0", []),
                              ("INSERT INTO meta (key, value) VALUES ('secret_rules', ?)", [str(opensession.secret_rules())])])
        opensession.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        plain.commit()
    finally:
        os.fsync = fsync
        opensession.db._connection().close()
        plain.close()
        lock.close()
        tempfile.tempdir = None
    (folder / "facts.json").write_text(json.dumps({"key": people[0].key, "user": people[1].key, "teams": teams}))


def accounts(nobody):
    """(clients, team ids): the first user is in every team, the others in the big one and one more."""
    people = []
    for number in range(USERS):
        answer = nobody.post("/api/register", {"nickname": f"user {number}"})
        people.append(type(nobody)(answer.json["api_key"]))
        people[-1].nickname = f"user {number}"
    teams = [people[0].post("/api/teams", {"name": f"team {number}"}).json["id"] for number in range(TEAMS)]
    for number, person in enumerate(people[1:], 1):
        for team in {teams[0], teams[1], teams[number % TEAMS]}:
            people[0].post(f"/api/teams/{team}/members", {"nickname": person.nickname})
    return people, teams


def owner(texts, people, teams, number, sessions):
    """Who uploads a session, and to which team."""
    place = number / sessions
    share = texts.random.random()
    if number < max(10, TINY * sessions):
        return people[2], teams[2]
    if share < BIG:
        return people[int(USERS * texts.random.random() ** 2)], teams[0]
    if share < BIG + SMALL:
        return people[3], teams[1]
    member = 3 + int((USERS - 3) * texts.random.random())
    return people[member], teams[member % TEAMS if member % TEAMS > 2 else 0]


def hail_session(texts):
    """A session of about ten events as a HAIL file."""
    at = LAST - datetime.timedelta(days=730 * texts.random.random() ** 1.5)
    header = {
        "type": "header", "version": "hail-1.0.0", "session_id": texts.id(),
        "agent": {"provider": "anthropic", "model": weighted(texts, MODELS), "tool": weighted(texts, TOOLS), "tool_version": "1.0"},
        "context": {"title": texts.pick(texts.english)[:60] if texts.random.random() < 0.7 else None, "tags": [],
                    "created_at": at.isoformat(), "updated_at": at.isoformat(),
                    "attributes": {"project": f"project-{int(PROJECTS * texts.random.random() ** 3)}",
                                   "git_branch": f"branch-{int(BRANCHES * texts.random.random() ** 4)}"}}}
    lines, turns = [header], texts.pick([1, 1, 2, 2, 3, 5])
    for _ in range(turns):
        for kind, data, text, more in hail_turn(texts):
            at += datetime.timedelta(seconds=texts.random.expovariate(1 / 20))
            lines.append({"type": "event", "event_id": texts.id(), "timestamp": at.isoformat(timespec="milliseconds"),
                          "event_type": {"type": kind, **({"data": data} if data else {})},
                          "content": {"blocks": [{"type": "Text", "text": text}] if text else []}, "attributes": more})
    return "".join(compact(line) + "\n" for line in lines).encode()


def hail_turn(texts):
    """The events of one prompt: (kind, data, text, attributes)."""
    yield "UserMessage", None, texts.prose(), {}
    for _ in range(texts.pick([0, 0, 1, 1, 1, 2])):
        call, failed = texts.id(), texts.random.random() < 0.05
        if texts.random.random() < 0.5:
            yield "ShellCommand", {"command": f"pytest -q {texts.pick(texts.paths)} -k {texts.pick(texts.names)}"}, "", {}
            yield ("ToolResult", {"name": "Bash", "call_id": call, "is_error": failed},
                   texts.listing(texts.size(250, 1, 4000)), {})
        else:
            yield ("FileEdit", {"path": texts.pick(texts.paths), "diff": f"-{texts.pick(texts.code)[:200]}\n+{texts.pick(texts.names)}"},
                   "", {})
    yield "AgentMessage", None, texts.prose(texts.pick([1, 1, 2])), {"input_tokens": 1000, "output_tokens": 200}


def weighted(texts, choices):
    return texts.random.choices([name for name, _ in choices], [weight for _, weight in choices])[0]


# ---------------------------------------------------------------------------
# Transcripts on a developer's disk
# ---------------------------------------------------------------------------

def transcript_tree(sessions, megabytes):
    """A home folder with Claude Code sessions, and Codex ones for each fourth; sizes are log-normal."""
    return kept(f"tree-{sessions}-{megabytes}", lambda folder: make_tree(folder, sessions, megabytes))


def large_transcript(megabytes):
    """A home folder with one Claude Code session."""
    def make(folder):
        texts = Texts(2)
        write_transcript(texts, folder, claude_records(texts, texts.id(), "/home/dev/work/large"), megabytes * 1e6, LAST)
    return kept(f"large-{megabytes}", make)


def make_tree(folder, sessions, megabytes):
    texts = Texts(3)
    sizes = [texts.random.lognormvariate(0, 1.6) for _ in range(sessions)]
    scale = megabytes * 1e6 / sum(sizes)
    for number, size in enumerate(sizes):
        at = LAST - datetime.timedelta(hours=number)
        cwd, records = f"/home/dev/work/project-{number % 20:02}", codex_records if number % 4 == 3 else claude_records
        write_transcript(texts, folder, records(texts, texts.id(), cwd), max(1500, size * scale), at)


def write_transcript(texts, folder, records, size, at):
    """Write records until the file is large enough; each is a moment later."""
    path, first = next(records)(at)
    path = folder / path
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        for record in itertools.chain(first, records):
            at += datetime.timedelta(seconds=texts.random.expovariate(1 / 5))
            file.write(compact({**record, "timestamp": at.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"}) + "\n")
            if file.tell() >= size:
                break
    os.utime(path, (at.timestamp(), at.timestamp()))


def claude_records(texts, session_id, cwd):
    """First the place of the file, then Claude Code's records for ever, as version 2 writes them."""
    yield lambda at: (Path(".claude/projects") / cwd.replace("/", "-") / f"{session_id}.jsonl", [])
    parent = None

    def record(kind, message, **more):
        nonlocal parent
        before, parent = parent, texts.id()
        return {"parentUuid": before, "isSidechain": False, "userType": "external", "cwd": cwd, "sessionId": session_id,
                "version": "2.1.41", "gitBranch": "main", "type": kind, "message": {"role": kind, **message}, "uuid": parent, **more}

    def reply(*blocks):
        usage = {"input_tokens": 9, "cache_creation_input_tokens": 900, "cache_read_input_tokens": 40_000, "output_tokens": 250}
        return record("assistant", {"model": "claude-opus-4-6", "id": f"msg_{texts.id()}", "type": "message", "content": blocks,
                                    "usage": usage}, requestId=f"req_{texts.id()}")

    while True:
        yield record("user", {"content": texts.prose()})
        if texts.random.random() < 0.5:
            signature = base64.b64encode(texts.random.randbytes(400)).decode()
            yield reply({"type": "thinking", "thinking": texts.prose(), "signature": signature})
        for _ in range(min(40, 1 + int(texts.random.expovariate(1 / 5)))):
            call = f"toolu_{texts.id()}"
            name, given, output, result = claude_call(texts, cwd)
            yield reply({"type": "text", "text": texts.prose()}, {"type": "tool_use", "id": call, "name": name, "input": given})
            answer = {"tool_use_id": call, "type": "tool_result", "content": output, "is_error": texts.random.random() < 0.05}
            yield record("user", {"content": [answer]}, toolUseResult=result)
        yield reply({"type": "text", "text": texts.prose(2)})


def claude_call(texts, cwd):
    """(name, input, output, what Claude Code keeps beside it) of a tool call; the last repeats the output, as there."""
    path, chance = f"{cwd}/{texts.pick(texts.paths)}", texts.random.random()
    if chance < 0.4:
        body = texts.listing(texts.size(3000, 1.1, 100_000))
        numbered = "\n".join(f"{number:6}\u2192{line}" for number, line in enumerate(body.split("\n"), 1))
        return "Read", {"file_path": path}, numbered, {"type": "text", "file": {"filePath": path, "content": body}}
    if chance < 0.7:
        output = texts.listing(texts.size(550, 1.4, 30_000))
        return ("Bash", {"command": f"python -m pytest -q {texts.pick(texts.paths)}", "description": "Run the tests"}, output,
                {"stdout": output, "stderr": "", "interrupted": False})
    old, new = texts.listing(texts.random.randint(60, 900)), texts.listing(texts.random.randint(60, 1400))
    return ("Edit", {"file_path": path, "old_string": old, "new_string": new}, f"The file {path} has been updated.\n{new}",
            {"filePath": path, "oldString": old, "newString": new, "originalFile": texts.listing(texts.size(3000, 1, 60_000)),
             "structuredPatch": [{"oldStart": 3, "oldLines": 4, "newStart": 3, "newLines": 6,
                                  "lines": [f"-{line}" for line in old.split("\n")] + [f"+{line}" for line in new.split("\n")]}]})


def codex_records(texts, session_id, cwd):
    """First the place of the file, then Codex's records for ever, as version 0.98 writes them."""
    meta = {"id": session_id, "timestamp": LAST.isoformat(), "cwd": cwd, "originator": "codex_cli_rs", "cli_version": "0.98.0",
            "source": "cli", "model_provider": "openai", "git": {"commit_hash": "0" * 40, "branch": "main"}}
    yield lambda at: (Path(".codex/sessions") / f"{at:%Y/%m/%d}" / f"rollout-{at:%Y-%m-%dT%H-%M-%S}-{session_id}.jsonl",
                      [{"type": "session_meta", "payload": meta}])

    def record(kind, **payload):
        return {"type": kind, "payload": payload}

    while True:
        prompt = texts.prose()
        yield record("turn_context", cwd=cwd, approval_policy="on-request", model="gpt-5.2-codex", effort="high")
        yield record("response_item", type="message", role="user", content=[{"type": "input_text", "text": prompt}])
        yield record("event_msg", type="user_message", message=prompt, images=[])
        for _ in range(min(30, 1 + int(texts.random.expovariate(1 / 4)))):
            call = f"call_{texts.id()}"
            yield record("response_item", type="reasoning", summary=[{"type": "summary_text", "text": "**Looking**"}], content=None,
                         encrypted_content=base64.b64encode(texts.random.randbytes(900)).decode())
            yield record("response_item", type="function_call", name="exec_command", call_id=call,
                         arguments=compact({"cmd": f"sed -n 1,200p {texts.pick(texts.paths)}", "workdir": cwd}))
            output = texts.listing(texts.size(1600, 1.2, 40_000))
            yield record("response_item", type="function_call_output", call_id=call, output=f"Exit code: 0\nOutput:\n{output}")
        answer = texts.prose(2)
        yield record("event_msg", type="agent_message", message=answer)
        yield record("response_item", type="message", role="assistant", content=[{"type": "output_text", "text": answer}])


def copy_home(folder):
    """A throw-away copy of a home folder, to be collected from and appended to."""
    target = Path(tempfile.mkdtemp(prefix="bench-home-"))
    shutil.copytree(folder, target, dirs_exist_ok=True)
    return target
