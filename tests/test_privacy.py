"""What leaves the machine: secrets, home folders and excluded files are taken out of every string.

No text that looks like a real token stands in this file: all of them are made from pieces."""

import io
import json
import time
import unittest

from hypothesis import given, settings, strategies as st

import daemon
from daemon import Privacy, Redactor
from secret_cases import PROBES, noise, own_cases, repeated, scores, specified_cases


def github_token(seed=1):
    return "gh" + "p_" + noise("A", 36, seed)


def event(text="", kind="UserMessage", event_id="e1", **data):
    made = {"type": "event", "event_id": event_id, "timestamp": "2026-02-11T06:00:00.000Z",
            "event_type": {"type": kind}, "content": {"blocks": [{"type": "Text", "text": text}]}}
    if data:
        made["event_type"]["data"] = data
    return made


def text_of(cleaned):
    return cleaned["content"]["blocks"][0]["text"]


# Rule -> a text with such a secret, and the secret.
EXAMPLES = {
    "anthropic": ("key {}.", "sk-" + "ant-oat01-" + noise("W", 86, 2) + "AA"),
    "openai": ("{}", "sk-" + "proj-" + noise("W", 120, 3)),
    "github": ("git clone https://x:{}@github.com/o/r", github_token()),
    "gitlab": ("\x1b[32m{}\x1b[0m", "gl" + "pat-" + noise("W", 20, 4)),
    "aws-key-id": ("id={}", "AK" + "IA" + noise("U", 14, 5) + "Q7"),
    "aws-secret": ("<secretAccessKey>{}</secretAccessKey>", noise("B", 40, 6)),
    "google-api": ("?key={}&q=x", "AI" + "za" + noise("W", 35, 7)),
    "slack": ("토큰은{}입니다", "xo" + "xb-" + noise("D", 12, 8) + "-" + noise("A", 24, 9)),
    "stripe": ("{}", "sk_" + "live_" + noise("A", 24, 10)),
    "jwt": ("eyJhbGciOiJIUzI1NiJ9.{}", "ey" + "J" + noise("A", 60, 11) + "." + noise("W", 43, 12)),
    "private-key": ("x {} y", "-----BEGIN " + "PRIVATE KEY-----\n" + noise("B", 64, 13)
                    + "\n-----END PRIVATE KEY-----"),
    "opensession": ("login --key {}", "os" + "k_" + noise("A", 36, 14)),
    "url-password": ("postgres://app:{}@db:5432/app", noise("A", 16, 15)),
    "auth-header": ("Authorization: token {}", noise("H", 40, 16)),
    "bearer": ("-H 'auth: Bearer {}'", noise("W", 50, 17)),
    "curl-user": ("curl -u admin:{} https://x/y", noise("A", 14, 18)),
    "env-assign": ("export DB_PASSWORD={}\nPORT=80", noise("A", 16, 19)),
    "json-assign": ('{{"apiKey": "{}"}}', noise("A", 32, 20)),
    "plain-assign": ("client_secret: {}\n", noise("A", 32, 21)),
    "query-token": ("https://h/k?X-Amz-Signature={}", noise("H", 64, 22)),
}


class Secrets(unittest.TestCase):
    def test_every_kind_of_secret_is_masked_and_the_text_around_it_stays(self):
        for rule, (template, secret) in EXAMPLES.items():
            with self.subTest(rule):
                redactor = Redactor()
                self.assertEqual(text_of(redactor.clean_event(event(template.format(secret)))),
                                 template.format(f"[REDACTED:{rule}#1]"))
                self.assertEqual(redactor.counts, {rule: 1})

    def test_a_secret_is_found_in_json_inside_json_inside_json(self):
        for rule, (template, secret) in EXAMPLES.items():
            with self.subTest(rule):
                nested = json.dumps({"out": json.dumps([template.format(secret)])})
                cleaned = text_of(Redactor().clean_event(event(nested)))
                self.assertNotIn(secret[-20:], cleaned)
                self.assertIn("REDACTED", cleaned)

    def test_examples_and_source_code_are_no_secrets(self):
        for text in ("gh" + "p_" + "x" * 36, "AK" + "IAIOSFODNN7EXAMPLE", "password: string;", "TOKEN=<your-token>",
                     "const token = process.env.GITHUB_TOKEN2;", "https://user:password@host/",
                     "max_tokens: 4096000000", "docker run -u 1000:1000000 x", 'secret_name = "NEXUS-GPT4-API-KEY"',
                     "commit " + noise("H", 40, 1), "apiKey: config.keys[2].value", "toolu_01" + noise("A", 22, 2),
                     "token=550e8400-e29b-41d4-a716-446655440000", "API_KEY=your_api_key_number_1",
                     "Authorization: Bearer $TOKEN", "password = sys.argv[1]"):
            self.assertEqual(Redactor().redact_text(text), text)

    def test_a_field_is_secret_by_its_name(self):
        secret = noise("A", 24, 1)
        made = event()
        made["content"]["blocks"] = [{"type": "Json", "data": {
            "env": {"DB_PASSWORD": secret}, "headers": [{"Authorization": "Bearer " + secret}], "name": secret}}]
        data = Redactor().clean_event(made)["content"]["blocks"][0]["data"]
        self.assertEqual(data["env"], {"DB_PASSWORD": "[REDACTED:json-assign#1]"})
        self.assertEqual(data["headers"], [{"Authorization": "Bearer [REDACTED:auth-header#1]"}])
        self.assertEqual(data["name"], secret)

    def test_the_environment_of_the_daemon_is_secret_wherever_it_occurs(self):
        env = {"MY_SERVICE_TOKEN": 'correct "horse" battery', "HOME": "/srv/ada", "SSH_AUTH_SOCK": "/run/user/1/x",
               "PWD": "/srv/ada/work", "GIT_PASSWORD": "short", "LONG_SECRET_2": "correct horse"}
        privacy = Privacy(env_values=daemon.secret_values(env))
        self.assertEqual(set(privacy.env_values), {'correct "horse" battery', "correct horse"})
        cleaned = text_of(Redactor(privacy).clean_event(event('say correct "horse" battery, correct horse')))
        self.assertEqual(cleaned, "say [REDACTED:env-value#1], [REDACTED:env-value#2]")
        nested = json.dumps(['correct "horse" battery'])
        self.assertEqual(text_of(Redactor(privacy).clean_event(event(nested))), '["[REDACTED:env-value#1]"]')

    def test_environment_values_can_be_kept(self):
        text = f"DB_PASSWORD={noise('A', 16, 19)}\ncorrect horse"
        kept = Redactor(Privacy(strip_env_vars=False, env_values=("correct horse",)))
        self.assertEqual(kept.redact_text(text), text)

    def test_a_text_that_is_mostly_secrets_is_one(self):
        for text in ("\n".join(github_token(number) for number in range(200)), ("LT" + "AIa1B2c3D4") * 100,
                     "\n".join(f"password: {noise('A', 16, number)}" for number in range(200))):
            redactor = Redactor()
            self.assertEqual(text_of(redactor.clean_event(event(text))), "[REDACTED:mostly-secrets#1]")
            self.assertEqual(redactor.redact_text("[REDACTED:mostly-secrets#1]"), "[REDACTED:mostly-secrets#1]")

    def test_many_secrets_in_much_text_are_many(self):
        tokens = [github_token(number) for number in range(60)]
        text = "\n".join(f"{number} {'of much text ' * 30}{token}" for number, token in enumerate(tokens))
        cleaned = text_of(Redactor().clean_event(event(text)))
        self.assertEqual(cleaned.count("[REDACTED:github#"), 60)
        self.assertIn("59 of much text", cleaned)

    def test_every_value_of_a_cookie_header_is_masked(self):
        values = [noise("A", 24, number) for number in range(20)]
        cleaned = Redactor().redact_text("Cookie: " + "; ".join(f"c{number}={value}" for number, value in enumerate(values)))
        self.assertFalse([value for value in values if value in cleaned])
        self.assertIn("c19=[REDACTED:cookie#20]", cleaned)

    def test_a_secret_of_several_lines_in_a_numbered_listing_is_masked(self):
        key = EXAMPLES["private-key"][1]
        listing = "\n".join(f"{number:6}→{line}" for number, line in enumerate(key.splitlines(), 1))
        self.assertNotIn(noise("B", 64, 13), Redactor().redact_text(listing))


class Numbers(unittest.TestCase):
    def test_masks_are_numbered_by_first_appearance_and_the_same_secret_has_the_same_number(self):
        first, second = github_token(1), github_token(2)
        redactor = Redactor()
        texts = [text_of(cleaned) for cleaned, _ in redactor.clean([event(second), event(first), event(second)])]
        self.assertEqual(texts, [f"[REDACTED:github#{number}]" for number in (1, 2, 1)])

    def test_the_numbers_survive_a_restart_without_the_secret(self):
        before = Redactor(Privacy(salt=b"salt"))
        before.redact_text(f"{github_token(1)} {github_token(2)}")
        rows = before.new_masks
        self.assertNotIn(github_token(1)[5:], repr(rows))
        after = Redactor(Privacy(salt=b"salt"), {(rule, mark): number for rule, mark, number in rows})
        self.assertEqual(after.redact_text(f"{github_token(3)} {github_token(2)}"),
                         "[REDACTED:github#3] [REDACTED:github#2]")
        self.assertEqual([number for _, _, number in after.new_masks], [3])

    def test_another_machine_has_other_fingerprints(self):
        marks = set()
        for salt in (b"one", b"two"):
            redactor = Redactor(Privacy(salt=salt))
            redactor.redact_text(github_token())
            marks.add(redactor.new_masks[0][1])
        self.assertEqual(len(marks), 2)


HOME_PATHS = {
    "/home/ada/work/x.py": "~/work/x.py", "cd /Users/ada.lovelace && ls": "cd ~ && ls", "/home/adam": "~",
    "file:///home/ada/x": "file://~/x", "PATH=/home/ada/bin:/home/bob/bin": "PATH=~/bin:~/bin", "/home/ada.": "~.",
    "-I/home/ada/include": "-I~/include", "a\n/home/ada/b": "a\n~/b", '"out": "a\\n/home/ada/b"': '"out": "a\\n~/b"',
    r"C:\Users\ada\x.py": r"~\x.py", r"c:\\Users\\ada\\x": r"~\\x", "D:/Users/ada/x": "~/x",
    "/mnt/c/Users/ada/x": "~/x",
    "/c/Users/ada/x": "~/x", r"C:\Users\Ada Lovelace\x": r"~\x", "/home/이수/문서": "~/문서",
    "~/.claude/projects/-home-ada-work-x/1.jsonl": "~/.claude/projects/~-work-x/1.jsonl",
    "projects/C--Users-ada-x": "projects/~-x",
    "/srv/people/ada/x": "~/x", "/srv/people/adam/x": "/srv/people/adam/x", "-srv-people-ada-x": "~-x",
    "D:\\Profiles\\ada\\x": "~\\x", "/root/x": "~/x", "vendor/root/x": "vendor/root/x", "/rooted": "/rooted",
    "src/home/page.tsx": "src/home/page.tsx", "https://example.com/home/about": "https://example.com/home/about",
    "/home": "/home", "grep -r /home/*/x": "grep -r /home/*/x",
    "file:///Users/ada/x": "file://~/x", "C:\\/Users\\/ada\\/x": "~\\/x", "D:/Users\\ada\\x": "~\\x",
}


class HomeFolders(unittest.TestCase):
    privacy = Privacy(homes=("/srv/people/ada", "/root", "D:\\Profiles\\ada", "/"))

    def test_home_folders_of_every_shape_become_a_tilde(self):
        for text, expected in HOME_PATHS.items():
            with self.subTest(text):
                self.assertEqual(Redactor(self.privacy).redact_text(text), expected)
                self.assertEqual(text_of(Redactor(self.privacy).clean_event(event(text))), expected)

    def test_they_stay_where_they_are_wanted(self):
        self.assertEqual(Redactor(Privacy(strip_paths=False)).redact_text("/home/ada/x"), "/home/ada/x")

    def test_two_keys_that_become_one_lose_nothing(self):
        made = event()
        made["content"]["blocks"] = [{"type": "Json", "data": {"/home/ada/x": 1, "/home/bob/x": 2}}]
        self.assertEqual(Redactor().clean_event(made)["content"]["blocks"][0]["data"], {"~/x": 1, "~/x'": 2})


class Places(unittest.TestCase):
    def test_every_string_of_an_event_is_treated(self):
        secret = github_token()
        made = event("", "FileEdit", path=f"/tmp/{secret}", diff=f"+{secret}")
        made["content"]["blocks"] = [
            {"type": "Code", "code": secret}, {"type": "File", "path": secret, "content": secret},
            {"type": "Json", "data": {"a": [{secret: {"b": secret}}]}},
            {"type": "Image", "url": "https://h/?k=" + secret, "mime": "image/png", "alt": secret}]
        made["attributes"] = {"note": [secret], secret: 1}
        self.assertNotIn(secret, json.dumps(Redactor().clean_event(made)))

    def test_every_string_of_a_header_is_treated(self):
        secret = github_token()
        header = {"type": "header", "version": "hail-1.0.0", "session_id": "s",
                  "agent": {"provider": "p", "model": "m", "tool": "t"},
 
          "context": {"title": secret, "description": secret, "tags": [secret], "related_session_ids": ["r"],
                              "attributes": {"cwd": "/home/ada/x",
                                             "git": {"repository_url": f"https://x:{secret}@h/r"}}}}
        cleaned = Redactor().clean_header(header)
        self.assertNotIn(secret, json.dumps(cleaned))
        self.assertEqual(cleaned["context"]["attributes"]["cwd"], "~/x")

    def test_ids_times_and_images_are_untouched(self):
        token = github_token()
        made = event("x", "ToolResult", event_id=token, name="Read", call_id=token)
        made["task_id"] = token
        made["content"]["blocks"] = [
            {"type": "Image", "url": "data:image/png;base64," + token.replace("_", "+"), "mime": "image/png"}]
        made["attributes"] = {"signature": token, "parent_session_id": token}
        self.assertIs(Redactor().clean_event(made), made)

    def test_nothing_hides_behind_a_data_url(self):
        for secret in (github_token(), EXAMPLES["aws-key-id"][1]):
            self.assertNotIn(secret, Redactor().redact_text("data:image/png;base64,AAAA " + secret))

    def test_the_line_is_the_event_encoded_and_the_given_event_is_left_alone(self):
        events = [event("plain"), event(github_token()), event(r"C:\Users\ada"), event('"quoted" é 漢 \n')]
        before = json.dumps(events)
        for cleaned, line in Redactor().clean(events):
            self.assertEqual(json.loads(line), cleaned)
        self.assertEqual(json.dumps(events), before)

    def test_blocks_of_lines_do_not_change_what_is_found(self):
        texts = [github_token(number) if number % 7 == 0 else "word " * 4000 for number in range(60)]
        cleaned = [text_of(one) for one, _ in Redactor().clean(map(event, texts))]
        self.assertEqual([text == "word " * 4000 for text in cleaned], [number % 7 != 0 for number in range(60)])


class Withheld(unittest.TestCase):
    def test_the_content_of_an_excluded_file_stays_here_and_the_event_says_so(self):
        for kind in daemon.FILE_KINDS:
            made = event("A=1", kind, path="/home/ada/app/.ENV", diff="+A=1")
            cleaned = Redactor().clean_event(made)
            self.assertEqual(cleaned["event_type"]["data"], {"path": "~/app/.ENV"})
            self.assertEqual(text_of(cleaned), "[withheld: path matches *.env]")

    def test_so_does_the_result_of_the_call(self):
        redactor = Redactor()
        events = [event("x", "FileRead", "call1", path="x/.env"),
                  event("A=1", "ToolResult", "r1", name="Read", call_id="call1"),
                  event("A=1", "ToolResult", "r2", name="Read", call_id="call2")]
        self.assertEqual([text_of(cleaned) for cleaned, _ in redactor.clean(events)],
                         ["[withheld: path matches *.env]"] * 2 + ["A=1"])
        self.assertEqual(redactor.counts, {"withheld": 2})

    def test_an_attached_file_keeps_its_place_without_its_content(self):
        made = event()
        made["content"]["blocks"] = [{"type": "File", "path": "my-credentials.json", "content": "x"}]
        self.assertEqual(Redactor().clean_event(made)["content"]["blocks"][0]["content"],
                         "[withheld: path matches *credential*]")

    def test_shell_commands_and_other_files_are_not_withheld(self):
        for made in (event("x", "ShellCommand", command="cat .env"),
                     event("x", "FileRead", path="environment.py")):
            self.assertIs(Redactor().clean_event(made), made)


PIECES = ["/home/", "/Users/", "C:\\Users\\", "ada", "/", "\\", "\n", " ", '"', "'", ":", "=", "@", "://", "-u ",
          "Bearer ",
          "Authorization: ", "password", "API_KEY", "token=", "?sig=", "eyJhbGciOi", ".", "~", "[", "]", "-home-",
          "{", "}",
          "한글", "\x1b[32m", "data:", "<secret>", "-----BEGIN " + "PRIVATE KEY-----", "-----END PRIVATE KEY-----",
          *(secret for _, secret in EXAMPLES.values())]


class Properties(unittest.TestCase):
    privacy = Privacy(homes=("/srv/ada", "/root"), env_values=("hunter2hunter2",))

    @settings(max_examples=400, deadline=None)
    @given(st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=12).map("".join))
    def test_a_second_run_changes_nothing(self, text):
        once = Redactor(self.privacy).redact_text(text)
        self.assertEqual(Redactor(self.privacy).redact_text(once), once)

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=12).map("".join))
    def test_the_search_for_hints_misses_nothing(self, text):
        try:
            text.encode()
        except UnicodeEncodeError:
            return
        self.assertEqual(text_of(Redactor(self.privacy).clean_event(event(text))),
                         Redactor(self.privacy).redact_text(text))

    @settings(max_examples=100, deadline=None)
    @given(st.recursive(st.none() | st.integers() | st.sampled_from(PIECES),
                        lambda inner: st.lists(inner, max_size=4)
                        | st.dictionaries(st.sampled_from(PIECES), inner, max_size=4)))
    def test_whatever_the_data_the_shape_stays(self, data):
        made = event()
        made["content"]["blocks"] = [{"type": "Json", "data": data}]
        (cleaned, line), = Redactor(self.privacy).clean([made])
        self.assertEqual(json.loads(line), cleaned)
        self.assertEqual(shape(cleaned["content"]["blocks"][0]["data"]), shape(data))


def shape(value):
    if isinstance(value, dict):
        return [shape(item) for item in value.values()]
    return [shape(item) for item in value] if isinstance(value, list) else type(value)


class Streams(unittest.TestCase):
    def test_a_stream_is_redacted_line_by_line(self):
        out = io.StringIO()
        counts = daemon.redact_stream([f"a {github_token()}\n", "b\n", "/home/ada/c"], out)
        self.assertEqual(out.getvalue(), "a [REDACTED:github#1]\nb\n~/c")
        self.assertEqual(counts, {"github": 1, "home": 1})

    def test_a_private_key_over_several_lines_is_one_secret(self):
        out = io.StringIO()
        daemon.redact_stream(f"x\n{EXAMPLES['private-key'][1]}\ny\n".splitlines(keepends=True), out)
        self.assertEqual(out.getvalue(), "x\n[REDACTED:private-key#1]\ny\n")


class Cases(unittest.TestCase):
    def test_cases_that_rules_were_written_from(self):
        self.hold(scores(own_cases("secrets-written-from")), prefix=0.99, generic=0.88, none=0.98)

    def test_cases_about_the_command_line_that_were_set_aside(self):
        self.hold(scores(own_cases("secrets-held-out-2")), generic=0.75, none=0.98)

    def test_wherever_a_case_stands_its_hints_find_what_all_rules_find(self):
        cases = [case for name in ("secrets-written-from", "secrets-held-out", "secrets-held-out-2") for case in own_cases(name)]
        for case in cases + specified_cases():
            for text in placed(case.text):
                hinted, tried = Redactor(), Redactor()
                self.assertEqual(text_of(hinted.clean_event(event(text))), tried.redact_text(text), text)
                self.assertEqual(hinted.counts, tried.counts)

    def test_cases_that_were_set_aside(self):
        self.hold(scores(own_cases("secrets-held-out")), prefix=0.99, generic=0.8, none=0.97)

    @unittest.skipUnless(specified_cases(), "no secret-cases.tsv beside the checkout")
    def test_the_cases_of_the_specification(self):
        self.hold(scores(specified_cases()), prefix=0.99, generic=0.88, none=0.98)

    def hold(self, found, **bounds):
        self.assertLessEqual(bounds.keys(), found.keys())
        for group, bound in bounds.items():
            self.assertGreaterEqual(found[group].share, bound, (group, found[group].wrong))


def placed(text):
    """A text where transcripts have such: alone, between lines, behind a Korean word, and as JSON inside JSON (inside JSON)."""
    inside = json.dumps({"out": text}, ensure_ascii=False)
    return (text, f"first line\n{text}\nlast line", f"값은{text}입니다", f"\x1b[32m{text}\x1b[0m", inside, json.dumps([inside]))


class Speed(unittest.TestCase):
    def test_no_input_takes_much_longer_than_ordinary_text(self):
        size = 200_000
        words = "".join(f"word{number} says {number * 7}, " for number in range(size // 20))[:size]
        ordinary = min(self.seconds(words) for _ in range(3))
        for probe in PROBES:
            text = repeated(probe, size)
            taken = self.seconds(text)
            if taken > 25 * ordinary:
                taken = min(taken, self.seconds(text), self.seconds(text))
            with self.subTest(probe):
                self.assertLess(taken, 25 * ordinary)

    @staticmethod
    def seconds(text):
        started = time.thread_time()
        Redactor().redact_text(text)        # that tries every rule
        return time.thread_time() - started


if __name__ == "__main__":
    unittest.main()
