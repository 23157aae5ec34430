"""The page's files, headers and errors of every kind of answer, and the server as a process."""

import contextlib
import gzip
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import opensession
from client import (PATIENCE, SERVER, Client, ServerCase, call, exchange, free_port, hail_file, new_event, new_session,
                    running_server, server_process)


class PageCase(ServerCase):
    """A server with a small page of its own: index.html, app.js, vendor/deep.js; beside it a secret."""

    def setUp(self):
        super().setUp()
        self.web = self.folder / "web"
        (self.web / "vendor").mkdir(parents=True)
        for name in ("index.html", "app.js", "vendor/deep.js"):
            (self.web / name).write_text(f"this is {name}")
        (self.folder / "secret.txt").write_text("secret")
        self.restart(OPENSESSION_WEB_DIR=str(self.web))
        self.nobody = Client()


class Files(PageCase):
    def test_files_come_with_their_types(self):
        for url, name, kind in (("/", "index.html", "text/html"), ("/app.js", "app.js", "javascript"),
                                ("/vendor/deep.js?v=1", "vendor/deep.js", "javascript")):
            answer = self.check(self.nobody.get(url), 200)
            self.assertEqual(answer.body.decode(), f"this is {name}")
            self.assertIn(kind, answer.headers["Content-Type"])

    def test_any_other_address_is_the_page(self):
        for url in ("/session/abc", "/team/x/settings", "/vendor", "/vendor/", "/no.js", "/%ED%95%9C", "/" + "x" * 300,
                    "/" + "x/" * 2000, "/apis", "/%ff%fe"):
            self.assertEqual((url, self.nobody.get(url).body), (url, b"this is index.html"))

    def test_below_api_there_is_no_page(self):
        for url in ("/api/", "/api/nothing", "/api/teams/x/y/z", "/api/%2e%2e/app.js", "/%61pi/nothing"):
            answer = self.check(self.nobody.get(url), 404)
            self.assertEqual(answer.headers["Content-Type"], "application/json")

    def test_no_trick_leads_out_of_the_page(self):
        for url in ("/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/vendor/../../secret.txt", "//etc/passwd",
                    "/%2fetc/passwd", "/..%5csecret.txt", "/%5csecret.txt", "/app.js%00", "/%00", "/vendor/%2e%2e/%2e%2e/secret.txt",
                    "//" + str(self.folder / "secret.txt"), "/../web/app.js", "/..", "/../nothing", "//etc/nothing"):
            self.check(self.nobody.get(url), 404, "there is nothing here")

    def test_a_browser_asks_again_and_hears_that_nothing_changed(self):
        first = self.nobody.get("/app.js")
        self.assertEqual(first.headers["Cache-Control"], "no-cache")
        known = {"If-None-Match": first.headers["ETag"]}
        answer = self.nobody.get("/app.js", headers=known)
        self.assertEqual((answer.status, answer.body), (304, b""))
        (self.web / "app.js").write_text("this is another")
        answer = self.nobody.get("/app.js", headers=known)
        self.assertEqual((answer.status, answer.body), (200, b"this is another"))

    def versioned(self, name):
        """The address of a file of the page as it is now."""
        (self.web / "index.html").write_text('<head><link href="/style.css"></head>')
        prefix, = re.findall(r'"(/v/\w+/)style.css"', self.nobody.get("/").body.decode())
        return prefix + name

    def test_what_is_asked_for_by_its_version_is_kept_for_good_and_nothing_else(self):
        for url, wanted in [(self.versioned("app.js"), "max-age=31536000, immutable"), ("/app.js", "no-cache"),
                            (self.versioned("vendor/deep.js"), "max-age=31536000, immutable"),
                            ("/vendor/deep.js", "no-cache"), ("/", "no-cache")]:
            self.assertEqual((url, self.nobody.get(url).headers["Cache-Control"]), (url, wanted))

    def test_a_changed_file_gives_the_page_a_new_version(self):
        (self.web / "team.js").write_text("this is team.js")
        changed, same = self.versioned("team.js"), self.versioned("vendor/deep.js")
        (self.web / "team.js").write_text("this is another team.js")
        self.assertEqual(self.nobody.get(self.versioned("team.js")).body, b"this is another team.js")
        self.assertNotEqual(self.versioned("team.js"), changed)
        self.check(self.nobody.get(changed), 404, "the page has a newer version: load it again")
        self.assertEqual(self.nobody.get(same).body, b"this is vendor/deep.js")

    def test_a_server_that_has_just_started_knows_the_version_it_has(self):
        url = self.versioned("vendor/deep.js")
        opensession.VERSIONS.clear()
        opensession.page_version.cache_clear()
        self.assertEqual(self.nobody.get(url).body, b"this is vendor/deep.js")

    def test_no_version_leads_out_of_the_page(self):
        for name in ("../secret.txt", "%2e%2e/secret.txt", "/etc/passwd", "vendor", "nothing.js"):
            self.check(self.nobody.get(self.versioned(name)), 404)
        self.check(self.nobody.get("/v/000000000000/app.js"), 404)

    def test_a_view_is_asked_for_with_all_that_it_imports(self):
        (self.web / "index.html").write_text("<head></head>")
        (self.web / "app.js").write_text('import { a } from "./a.js";\nconst later = () => import("./later.js");')
        (self.web / "a.js").write_text('import "./vendor/deep.js";')
        (self.web / "session.js").write_text('import { a } from "./a.js";\nimport { b } from "./b.js";')
        for name in ("b.js", "later.js", "reading.css"):
            (self.web / name).write_text(name)
        first = {"list.bundle.js", "vendor/deep.js"}
        for url, wanted in [("/settings", first), ("/session/abc-1", {*first, "session.bundle.js", "reading.css"})]:
            page = self.nobody.get(url).body.decode()
            self.assertEqual(set(re.findall(r'href="/v/\w+/([\w./]+)"', page)), wanted)
            self.assertEqual("/api/sessions/abc-1/map" in page, "abc-1" in url)

    def test_a_module_is_in_one_bundle_and_its_address_leads_there(self):
        (self.web / "app.js").write_text('import { a, b as c } from "./a.js";\nimport "./vendor/deep.js";\n'
                                         'c(() => import("./session.js"));')
        (self.web / "a.js").write_text("export const a = 1;\nexport async function b() {}\nconst own = 2;")
        (self.web / "session.js").write_text('import { a } from "./a.js";\nexport class Session {}')
        texts = {name: self.nobody.get(self.versioned(name)).body.decode()
                 for name in ("list.bundle.js", "session.bundle.js", "a.js", "session.js")}
        self.assertEqual(texts["list.bundle.js"], """\
import "./vendor/deep.js";
const a_js = await (async () => {
const a = 1;
async function b() {}
const own = 2;
return { a, b };
})();

const app_js = await (async () => {
const { a, b: c } = a_js;

c(() => import("./session.bundle.js").then(bundle => bundle.session_js));
return {  };
})();

export { a_js, app_js };""")
        self.assertEqual(texts["session.bundle.js"], """\
import { a_js } from "./list.bundle.js";
const session_js = await (async () => {
const { a } = a_js;
class Session {}
return { Session };
})();

export { session_js };""")
        self.assertEqual(texts["a.js"], 'import { a_js } from "./list.bundle.js";\nexport const { a, b } = a_js;\n')
        self.assertEqual(self.nobody.get("/a.js").body.decode(), (self.web / "a.js").read_text())

    def test_nothing_of_an_address_gets_into_the_page(self):
        (self.web / "index.html").write_text("<head></head>")
        for url in ("/session/%22%3E%3Cscript%3E", "/session/a/b", "/session/a%26b"):
            self.assertEqual(self.nobody.get(url).body, self.nobody.get("/settings").body)

    def test_what_shrinks_comes_zipped_to_those_who_take_it(self):
        (self.web / "app.js").write_text("const word = 1;\n" * 500)
        plain = self.nobody.get("/app.js")
        for accepted, zipped in [("gzip, br", True), ("br;q=1.0, gzip;q=0.5", True), ("gzip;q=0", False), ("gzip;q=0.0, br", False),
                                 ("identity", False)]:
            answer = self.nobody.get("/app.js", headers={"Accept-Encoding": accepted})
            self.assertEqual(answer.headers["Content-Encoding"], "gzip" if zipped else None, accepted)
            self.assertEqual(gzip.decompress(answer.body) if zipped else answer.body, plain.body)
            self.assertEqual((answer.headers["Vary"], int(answer.headers["Content-Length"])), ("Accept-Encoding", len(answer.body)))
            self.assertEqual(answer.headers["ETag"] == plain.headers["ETag"], not zipped)
            again = self.nobody.get("/app.js", headers={"Accept-Encoding": accepted, "If-None-Match": answer.headers["ETag"]})
            self.assertEqual(again.status, 304)
        small = self.nobody.get("/", headers={"Accept-Encoding": "gzip"})
        self.assertIsNone(small.headers["Content-Encoding"])

    def test_the_page_is_zipped_once(self):
        self.nobody.get("/app.js")
        with mock.patch.object(opensession.zlib, "compressobj", side_effect=AssertionError("zipped again")):
            self.check(self.nobody.get("/app.js", headers={"Accept-Encoding": "gzip"}), 200)

    def test_without_a_page_the_api_works(self):
        self.restart(OPENSESSION_WEB_DIR=str(self.folder / "nowhere"))
        self.check(self.nobody.get("/"), 404)
        self.check(self.nobody.get("/api/health"), 200)

    def test_the_real_page_is_beside_the_server(self):
        self.restart()
        answer = self.check(self.nobody.get("/"), 200)
        self.assertIn(b"<!doctype html>", answer.body.lower())


class Answers(PageCase):
    def every_kind(self):
        """One answer of each kind, by name."""
        ada = self.register("ada")
        session = self.upload(ada)
        url = f"/api/sessions/{session}"
        tag = ada.get(url).headers["ETag"]
        answers = {
            "list": ada.get("/api/sessions"), "detail": ada.get(url), "raw": ada.get(url + "/raw"),
            "window": ada.get(url + "/events"), "event": ada.get(url + "/events/0"),
            "unchanged": ada.get(url, headers={"If-None-Match": tag}), "created": ada.post("/api/keys", {"name": "x"}),
            "page": self.nobody.get("/"), "script": self.nobody.get("/app.js"), "no key": self.nobody.get("/api/teams"),
            "unknown": ada.get("/api/nothing"), "no method": ada.delete("/api/health"), "mistyped": ada.post("/api/keys", {}),
            "foreign name": Client(host="evil.example").get("/api/health"), "gone": ada.delete(url),
            "login": self.nobody.post("/api/auth/login", {"api_key": ada.key}),
        }
        self.change("DROP TABLE audit")
        answers["failure"] = ada.post("/api/teams", {"name": "x"})
        return answers

    def test_security_headers_are_on_every_kind_of_answer(self):
        answers = self.every_kind()
        statuses = {answer.status for answer in answers.values()}
        self.assertEqual(statuses, {200, 201, 204, 304, 401, 404, 405, 421, 422, 500})
        for name, answer in answers.items():
            with self.subTest(name):
                for header, value in opensession.HEADERS.items():
                    self.assertEqual(answer.headers.get_all(header), [value])
                self.assertIsNone(answer.headers["Strict-Transport-Security"])
                self.assertIsNone(answer.headers["Server"])

    def test_nothing_inline_and_nothing_foreign_is_allowed_to_run(self):
        policy = self.nobody.get("/").headers["Content-Security-Policy"]
        for part in ("default-src 'none'", "script-src 'self';", "frame-ancestors 'none'", "base-uri 'none'"):
            self.assertIn(part, policy)
        self.assertNotIn("unsafe", policy)

    def test_what_is_private_is_not_kept_by_caches(self):
        for name, answer in self.every_kind().items():
            wanted = "private, no-cache" if answer.headers["ETag"] else "no-store"
            if name in ("page", "script"):
                wanted = "no-cache"
            self.assertEqual(answer.headers["Cache-Control"], wanted, name)

    def test_every_error_is_a_sentence_in_json(self):
        for name, answer in self.every_kind().items():
            if answer.status >= 400:
                self.assertEqual(answer.headers["Content-Type"], "application/json", name)
                self.assertIsInstance(answer.json["error"], str)

    def test_a_failure_tells_the_log_and_not_the_caller(self):
        with self.assertLogs("opensession", "ERROR") as log:
            failure = self.every_kind()["failure"]
        self.assertIn("no such table", log.output[0])
        self.assertNotIn(b"table", failure.body)

    def test_behind_https_browsers_are_told_to_stay_there(self):
        self.restart(OPENSESSION_BASE_URL="https://sessions.example.org")
        self.assertEqual(self.nobody.get("/").headers["Strict-Transport-Security"], "max-age=31536000")

    def test_a_wrong_method_is_405_and_says_which_are_right(self):
        for method, url, allowed in (("DELETE", "/api/health", {"GET"}), ("OPTIONS", "/api/sessions", {"GET", "POST"}),
                                     ("PATCH", "/api/teams/x", {"GET", "PUT", "DELETE"}), ("POST", "/", {"GET"}),
                                     ("BREW", "/api/health", {"GET"})):
            answer = self.check(self.nobody.request(method, url), 405, "this method is not allowed here")
            self.assertEqual(set(answer.headers["Allow"].split(",")), allowed)

    def test_a_long_answer_comes_zipped_from_afar_to_those_who_take_it(self):
        ada, session_id = self.far_away()
        takes = {"Accept-Encoding": "br, gzip"}
        for url in (f"/api/sessions/{session_id}/events", f"/api/sessions/{session_id}/outline", "/api"):
            with self.subTest(url):
                plain, zipped = ada.get(url), ada.get(url, headers=takes)
                self.assertEqual((zipped.headers["Content-Encoding"], zipped.headers["Vary"]), ("gzip", "Accept-Encoding"))
                self.assertEqual(gzip.decompress(zipped.body), plain.body)
                self.assertLess(len(zipped.body), len(plain.body) / 2)
                self.assertEqual(zipped.headers["Content-Length"], str(len(zipped.body)))
                if tag := zipped.headers["ETag"]:
                    self.assertEqual(tag, f"W/{plain.headers['ETag']}")
                    self.check(ada.get(url, headers={**takes, "If-None-Match": tag}), 304)
        self.assertIsNone(ada.get("/api/auth/me", headers=takes).headers["Content-Encoding"])       # short
        near = Client(ada.key).get(f"/api/sessions/{session_id}/events", headers=takes)
        self.assertIsNone(near.headers["Content-Encoding"])

    def test_what_shows_something_of_the_request_or_a_key_is_not_zipped(self):
        ada, session_id = self.far_away()
        ada.headers["Accept-Encoding"] = "gzip"
        self.index()
        for url in ("/api/search?q=word", "/api/sessions?search=word", f"/api/sessions/{session_id}/events?q=word"):
            answer = self.check(ada.get(url), 200)
            self.assertEqual((answer.headers["Content-Encoding"], len(answer.body) > 1000), (None, True), url)
        answer = self.check(ada.post("/api/keys", {"name": "x" * 64, "scope": "read"}), 201)
        self.assertIsNone(answer.headers["Content-Encoding"])

    def far_away(self):
        """(a Client at another machine, the id of a session of hers)"""
        ada = self.register("ada")
        ada.address = "203.0.113.9"
        return ada, self.upload(ada, new_session(events=[new_event(text="a word " * 20, at=number) for number in range(40)]))

    def test_an_answer_says_how_long_it_took(self):
        self.assertRegex(self.nobody.get("/api/health").headers["Server-Timing"], r"^app;dur=\d+\.\d\d$")

    def test_head_is_get_without_a_body(self):
        ada = self.register("ada")
        session = self.upload(ada)
        for url in ("/", "/app.js", "/api/health", "/api/sessions", f"/api/sessions/{session}/raw", "/api/nothing"):
            get, head = ada.get(url), ada.request("HEAD", url)
            self.assertEqual((head.status, head.body), (get.status, b""))
            self.assertEqual(head.headers["Content-Length"], get.headers["Content-Length"])

    def test_headers_may_hold_any_bytes(self):
        ada = self.register("ada")
        for name in ("Host", "Origin", "Authorization", "Cookie", "If-None-Match", "Content-Encoding", "Sec-Fetch-Site",
                     "If-Modified-Since", "Range", "X-Forwarded-For", "Accept"):
            for url in ("/api/sessions", "/app.js"):
                for caller in (ada, self.nobody):
                    self.assertLess(caller.get(url, headers={name: "\xff\xe9"}).status, 500, name)
            self.assertLess(self.nobody.post("/api/auth/login", {}, headers={name: "\xff\xe9"}).status, 500, name)
        self.check(ada.post("/api/keys", body=b"{}", type="\xff"), 415)

    def test_forwarded_headers_are_not_believed(self):
        far = Client(address="203.0.113.9")
        far.headers = {"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1", "X-Real-Ip": "127.0.0.1"}
        self.check(far.post("/api/register", {"nickname": "mallory"}), 403)
        self.check(Client(host="evil.example").get("/api/health", headers={"X-Forwarded-Host": "localhost"}), 421)


class TheListOfRoutes(ServerCase):
    def test_it_is_what_the_server_answers_to(self):
        found = self.check(Client().get("/api"), 200).json
        self.assertEqual((found["name"], found["version"]), ("opensession", opensession.VERSION))
        listed = {(route["method"], re.sub(r"\{\w+\}", "*", route["path"])) for route in found["routes"]}
        routes = {(route.method, re.sub("<[^>]+>", "*", route.rule)) for route in opensession.app.routes
                  if route.rule.startswith("/api")}
        self.assertEqual(listed, routes)
        self.assertGreaterEqual(len(listed), 30)

    def test_each_says_in_a_sentence_what_it_does_and_for_whom(self):
        for route in Client().get("/api").json["routes"]:
            self.assertRegex(route["about"], r"^[A-Z].*\.$", route)
            self.assertTrue(route["who"])


class Settings(unittest.TestCase):
    def configured(self, **settings):
        opensession.configure(settings)
        return opensession.settings

    def test_the_defaults_stay_on_this_machine(self):
        found = self.configured()
        self.assertEqual((found.host, found.port, found.base_url), ("127.0.0.1", 3000, "http://localhost:3000"))
        self.assertEqual((found.registration, found.setup, found.team_creation, found.max_body), ("", "", "admin", 256 << 20))

    def test_an_empty_setting_is_none(self):
        self.assertEqual(self.configured(PORT="", HOST=" ", OPENSESSION_MAX_BODY_MB="").port, 3000)

    def test_a_base_url_loses_its_last_slash(self):
        self.assertEqual(self.configured(OPENSESSION_BASE_URL="https://a.example/").base_url, "https://a.example")

    def test_the_log_level_has_its_old_name_too(self):
        self.assertEqual(self.configured(RUST_LOG="debug").log_level, 10)
        self.assertEqual(self.configured(RUST_LOG="debug", OPENSESSION_LOG="error").log_level, 40)

    def test_a_wrong_setting_is_named_in_a_sentence(self):
        for name, value in (("PORT", "http"), ("PORT", "70000"), ("PORT", "-1"), ("OPENSESSION_MAX_BODY_MB", "0"),
                            ("OPENSESSION_MAX_BODY_MB", "1e3"), ("OPENSESSION_REGISTRATION", "maybe"),
                            ("OPENSESSION_SETUP", "yes"), ("OPENSESSION_TEAM_CREATION", "all"),
                            ("OPENSESSION_BASE_URL", "sessions.example.org"), ("OPENSESSION_BASE_URL", "https://")):
            with self.subTest(name, value=value), self.assertRaisesRegex(opensession.BadSetting, f"^{name} must .*{value}"):
                self.configured(**{name: value})


class ProcessCase(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def ends(self, *arguments, **settings):
        """(exit code, output, errors) of a server that ends by itself."""
        process = server_process(self.folder, *arguments, **settings)
        output, errors = process.communicate(timeout=PATIENCE)
        return process.returncode, output, errors

    def contents(self):
        return {str(path): path.is_file() and path.read_bytes() for path in self.folder.rglob("*")}


class Starting(ProcessCase):
    def test_help_prints_every_setting_and_its_default(self):
        code, output, _ = self.ends("--help")
        self.assertEqual(code, 0)
        for name, (default, _) in opensession.SETTINGS.items():
            self.assertRegex(output, rf"(?m)^  {name} .*{re.escape(default)}")
        self.assertEqual(self.contents(), {})

    def test_a_wrong_setting_ends_with_2_and_a_sentence(self):
        code, _, errors = self.ends(PORT="http")
        self.assertEqual((code, errors), (2, "opensession: PORT must be a whole number from 0 to 65535, not 'http'\n"))
        self.assertEqual(self.contents(), {})

    def test_a_second_server_on_the_same_data_ends_with_3(self):
        with running_server(self.folder) as server:
            code, _, errors = self.ends(PORT=str(free_port()))
            self.assertEqual(code, 3)
            self.assertRegex(errors, "^opensession: another opensession already serves .*data\n$")
            self.assertIn(b'"ok"', server.exchange(b"GET /api/health HTTP/1.0\r\nHost: localhost\r\n\r\n"))

    def test_a_port_that_is_taken_is_said_so(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            code, _, errors = self.ends(PORT=str(taken.getsockname()[1]))
        self.assertEqual(code, 4)
        self.assertRegex(errors, r"^opensession: cannot listen on 127\.0\.0\.1:\d+: .*in use\n$")

    def database(self, script):
        (self.folder / "data").mkdir()
        connection = sqlite3.connect(self.folder / "data" / "opensession.db")
        connection.executescript(script)
        return connection

    def test_the_originals_data_is_refused_without_a_write(self):
        original = """PRAGMA journal_mode = WAL; CREATE TABLE _migrations (id INTEGER PRIMARY KEY, name TEXT UNIQUE);
                      CREATE TABLE users (id TEXT PRIMARY KEY, nickname TEXT, api_key TEXT)"""
        self.database(original).close()
        before = self.contents()
        code, _, errors = self.ends()
        self.assertEqual(code, 4)
        self.assertRegex(errors, "^opensession: .* belongs to the original opensession; .*import-original.*\n$")
        self.assertEqual(self.contents(), before)

    def test_the_originals_data_is_recognised_after_a_crash_too(self):
        connection = self.database("PRAGMA journal_mode = WAL; CREATE TABLE _migrations (id INTEGER PRIMARY KEY)")
        self.addCleanup(connection.close)       # what it wrote lies in the -wal file only
        before = self.contents()
        code, _, errors = self.ends()
        self.assertEqual(code, 4)
        self.assertIn("belongs to the original opensession", errors)
        after = self.contents()
        self.assertEqual(set(after), set(before))
        for name in ("opensession.db", "opensession.db-wal"):
            self.assertEqual(after[str(self.folder / "data" / name)], before[str(self.folder / "data" / name)])

    def test_a_newer_database_is_refused_without_a_write(self):
        self.database("""PRAGMA journal_mode = WAL; CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT);
                         INSERT INTO meta VALUES ('schema', '999')""").close()
        for folder in ("bodies", "tmp"):
            (self.folder / "data" / folder).mkdir()
        (self.folder / "data" / "lock").touch()
        before = self.contents()
        code, _, errors = self.ends()
        self.assertEqual(code, 4)
        self.assertIn("was written by a newer opensession (schema 999", errors)
        self.assertEqual(self.contents(), before)

    def test_what_is_no_database_of_ours_is_refused_without_a_write(self):
        self.database("CREATE TABLE recipes (name TEXT)").close()
        before = self.contents()
        self.assertEqual(self.ends()[0], 4)
        (self.folder / "data" / "opensession.db").write_bytes(b"not a database at all" * 99)
        self.assertEqual(self.ends()[0], 4)
        self.assertEqual(set(self.contents()), set(before))

    def test_nothing_happens_when_the_module_is_imported(self):
        script = """
import os, sys
import bottle, waitress, sqlite3, uuid, tempfile, secrets
class Untouchable(dict):
    def touched(self, *_, **__): raise SystemExit("the environment was read")
    __getitem__ = get = __contains__ = __iter__ = touched
os.environ = Untouchable()
def watch(event, arguments):
    written = event == "open" and isinstance(arguments[1], str) and set("wax+") & set(arguments[1]) and ".pyc" not in str(arguments[0])
    if written or event.split(".")[0] in ("sqlite3", "socket", "subprocess") or event == "os.mkdir":
        raise SystemExit(f"{event} {arguments}")
os.urandom = secrets.token_bytes = uuid.uuid4 = lambda *_: sys.exit("randomness was used")
sys.addaudithook(watch)
sys.dont_write_bytecode = True
import opensession
assert opensession.db is None
"""
        done = subprocess.run([sys.executable, "-c", script], cwd=self.folder, capture_output=True, text=True,
                              env={"PYTHONPATH": str(SERVER.parent), "PATH": os.environ["PATH"]})
        self.assertEqual((done.returncode, done.stderr, self.contents()), (0, "", {}))

    def test_the_server_alone_is_its_module_the_schema_and_the_page(self):
        for name in ("opensession.py", "schema.sql"):
            shutil.copy(SERVER.with_name(name), self.folder)
        shutil.copytree(SERVER.with_name("static"), self.folder / "static")
        with running_server(self.folder, server=self.folder / "opensession.py") as server:
            self.assertIn(b"<!doctype html>", server.exchange(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n").lower())
            self.assertIn(b"no daemon.py beside it", server.exchange(upload(server, b'{"foreign": 1}\n')))
            self.assertIn(b'"checks_secrets":false', server.exchange(b"GET /api/health HTTP/1.0\r\nHost: localhost\r\n\r\n"))
            key = call(server.port, "POST", "/api/register", b'{"nickname": "bob"}', Content_Type="application/json").json["api_key"]
            self.assertEqual(call(server.port, "POST", "/api/sessions/x/redact", key=key).status, 501)


def upload(server, body):
    """A request that registers somebody, and the request that uploads `body` with their key."""
    request = b'POST /api/register HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 18\r\n\r\n'
    key = json.loads(server.exchange(request + b'{"nickname":"ada"}').partition(b"\r\n\r\n")[2])["api_key"]
    return (b"POST /api/sessions HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/jsonl\r\n"
            + f"Authorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


class Serving(ProcessCase):
    """One real server, asked with raw bytes."""

    @classmethod
    def setUpClass(cls):
        cls.stack = contextlib.ExitStack()
        folder = cls.stack.enter_context(tempfile.TemporaryDirectory())
        cls.server = cls.stack.enter_context(running_server(folder, OPENSESSION_MAX_BODY_MB="1", OPENSESSION_LOG="error"))
        cls.addClassCleanup(cls.stack.close)

    def ask(self, data, seconds=30):
        """(status, headers, body) of what comes back for these bytes."""
        head, _, body = exchange(self.server.port, data, seconds).partition(b"\r\n\r\n")
        return int(head.split()[1]), head.decode("latin-1"), body

    def refused(self, status, data):
        found, head, body = self.ask(data)
        self.assertEqual(found, status, head)
        self.assertRegex(head, r"(?i)content-type: application/json")
        self.assertIsInstance(json.loads(body)["error"], str)

    def still_answers(self):
        self.assertEqual(self.ask(b"GET /api/health HTTP/1.0\r\nHost: localhost\r\n\r\n")[0], 200)

    def test_waitress_refuses_in_json(self):
        self.refused(413, b"POST /api/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\n\r\n")
        self.refused(413, b"POST /api/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1" + b"0" * 30 + b"\r\n\r\n")
        self.refused(431, b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 70000 + b"\r\n\r\n")
        self.refused(400, b"nonsense\r\n\r\n")
        self.refused(400, b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n")
        self.refused(400, b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n")
        self.refused(501, b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n")
        self.still_answers()

    def test_a_body_whose_length_is_given_twice_is_refused_and_hides_no_request(self):
        hidden = b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for head in (b"HTTP/1.1\r\nContent-Length: %d\r\n" % (5 + len(hidden)), b"HTTP/1.0\r\nConnection: keep-alive\r\n"):
            answer = exchange(self.server.port, b"POST /api/teams " + head + b"Host: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden)
            self.assertEqual(re.findall(rb"HTTP/1.[01] (\d+)", answer), [b"400"], answer)
        self.still_answers()

    def test_headers_of_any_bytes_are_no_failure(self):
        for line in (b"Host: \xff", b"Host: localhost\r\nAuthorization: Bearer \xe9", b"Host: localhost\r\nCookie: opensession=\xe9"):
            status, _, body = self.ask(b"GET /api/auth/me HTTP/1.0\r\n" + line + b"\r\n\r\n")
            self.assertIn(status, (401, 421))
            self.assertIsInstance(json.loads(body)["error"], str)

    def test_a_chunk_size_line_without_an_end_is_cut(self):
        head = b"POST /api/sessions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        for endless in (b"1" * 900_000, b"1;" + b"x" * 900_000, b"0\r\n" + b"x" * 900_000):
            answer = exchange(self.server.port, head + endless)
            if answer:      # the rest of what we send may reset the connection before we read the answer
                self.assertTrue(answer.startswith(b"HTTP/1.1 400"), answer[:200])
        self.still_answers()

    def test_a_chunked_body_is_read_whole(self):
        body = b'{"api_key": "' + b"x" * 5000 + b'"}'
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[at:at + 700]), body[at:at + 700]) for at in range(0, len(body), 700))
        status, _, answer = self.ask(b"POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                                     b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
        self.assertEqual((status, json.loads(answer)["error"]), (401, "invalid API key"))

    def test_a_connection_serves_many_requests_and_files(self):
        one = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n"
        last = b"GET /api/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        answer = exchange(self.server.port, one % b"api" + one % b"style.css" + one % b"%2e%2e/schema.sql" + last)
        self.assertEqual(re.findall(rb"HTTP/1.1 (\d+)", answer), [b"200", b"200", b"404", b"200"])
        self.assertNotIn(b"CREATE TABLE", answer)

    def test_many_idle_connections_keep_nobody_out(self):
        with contextlib.ExitStack() as stack:
            for _ in range(150):
                stack.enter_context(socket.create_connection(("127.0.0.1", self.server.port)))
            self.still_answers()


def received(connection):
    """All that comes until the other side closes."""
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


class Stopping(ProcessCase):
    def test_sigterm_ends_with_0_and_leaves_one_whole_database(self):
        with running_server(self.folder) as server:
            server.exchange(upload(server, b""))
            server.send_signal(signal.SIGTERM)
            output, errors = server.communicate(timeout=PATIENCE)
            self.assertEqual(server.returncode, 0)
        self.assertNotIn("Traceback", errors)
        self.assertIn(f"http://localhost:{server.port} (data in ", output)
        with contextlib.closing(sqlite3.connect(self.folder / "data" / "opensession.db")) as connection:
            self.assertEqual(connection.execute("SELECT nickname FROM users").fetchall(), [("ada",)])
            self.assertEqual(connection.execute("PRAGMA integrity_check").fetchone(), ("ok",))

    def test_told_to_stop_it_answers_what_has_come_in_and_lets_nobody_else_in(self):
        with running_server(self.folder) as server, contextlib.ExitStack() as stack:
            key = call(server.port, "POST", "/api/register", b'{"nickname": "ada"}', Content_Type="application/json").json["api_key"]
            head = f"Host: localhost\r\nAuthorization: Bearer {key}\r\n"
            events = [new_event(text="a word " * 200, at=number) for number in range(300)]
            uploads = [gzip.compress(hail_file(new_session(f"s{number}", events=events))) for number in range(4)]
            requests = [f"POST /api/sessions HTTP/1.1\r\n{head}Content-Type: application/jsonl\r\nContent-Encoding: gzip\r\n"
                        f"Content-Length: {len(body)}\r\n\r\n".encode() + body for body in uploads]
            requests += [f"GET /api/sessions HTTP/1.1\r\n{head}\r\n".encode()] * 36     # there are four threads: these wait
            connections = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 60)) for _ in requests]
            for connection, request in zip(connections, requests):
                connection.sendall(request)
            server.send_signal(signal.SIGTERM)
            answers = [received(connection) for connection in connections]
            self.assertEqual([answer[:12] for answer in answers], [b"HTTP/1.1 201"] * 4 + [b"HTTP/1.1 200"] * 36)
            self.assertTrue(all(answer.endswith(b"}") for answer in answers))
            server.communicate(timeout=60)
            self.assertEqual(server.returncode, 0)
            with self.assertRaises(OSError):
                socket.create_connection(("127.0.0.1", server.port), 60)

    def test_a_killed_server_leaves_no_lock(self):
        with running_server(self.folder) as server:
            server.kill()
            server.wait()
        with running_server(self.folder) as server:
            self.assertIn(b"200 OK", server.exchange(b"GET /api/health HTTP/1.0\r\nHost: localhost\r\n\r\n"))

    def test_the_data_is_for_its_owner_only(self):
        with running_server(self.folder):
            modes = {path.name: path.stat().st_mode & 0o077 for path in (self.folder / "data", self.folder / "data/opensession.db")}
        self.assertEqual(modes, {"data": 0, "opensession.db": 0})


if __name__ == "__main__":
    unittest.main()
