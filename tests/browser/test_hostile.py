"""Hostile text is the normal case: nothing of it may run, load or leave the page.

PageCase looks after each test: no dialog, no report of the Content-Security-Policy, no
script error, no line in the browser's console, no request to another host.

Run as a program (`make xss`) it says how many payloads stood in how many places.
"""

import json
import sys
import tempfile
import unittest
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent.parent), str(Path(__file__).resolve().parent.parent)]

import pytest                                   # noqa: E402 (behind the path)
from client import new_event, new_session       # noqa: E402
from page import PageCase, call                 # noqa: E402

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
    # Elements and handlers
    "<body onload=alert(1)><frameset onload=alert(1)>",
    "<input autofocus onfocus=alert(1)><select autofocus onfocus=alert(1)><textarea autofocus onfocus=alert(1)>",
    "<marquee onstart=alert(1)><audio src onerror=alert(1)><img src=x:x onerror=alert(1)//",
    "<img srcset='https://evil.example/1.png 1x, https://evil.example/2.png 2x'><picture><source srcset=https://evil.example/3.png><img></picture>",
    "<input type=image src=https://evil.example/i.png><video poster=https://evil.example/p.png><track src=https://evil.example/t.vtt>",
    "<table background=https://evil.example/b.png><td style='background: url(https://evil.example/c.png)'>cell</table>",
    "<a href=x ping=https://evil.example/ping download>x</a><area href=javascript:alert(1)>",
    "<embed src=https://evil.example/e.swf><applet code=x><portal src=https://evil.example/></portal><fencedframe src=https://evil.example/>",
    "<button popovertarget=x formaction=javascript:alert(1)>x</button><div popover id=x onbeforetoggle=alert(1)>",
    "<div style='animation: x' onanimationstart=alert(1) ontransitionend=alert(1) oncontentvisibilityautostatechange=alert(1)>x</div>",
    "<dialog open onclose=alert(1)><form method=dialog><button>x</button></form></dialog>",
    "<object data='data:text/html,<script>alert(1)</script>' type=text/html></object>",
    "<iframe src='data:text/html,<script>parent.alert(1)</script>' sandbox=allow-scripts></iframe>",
    # Parsers that change their mind
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<svg></p><style><a id='</style><img src=1 onerror=alert(1)>'>",
    "<svg><foreignObject><iframe srcdoc='&lt;script&gt;parent.alert(1)&lt;/script&gt;'></iframe></foreignObject></svg>",
    "<svg><use href='data:image/svg+xml,<svg id=x onload=alert(1)>#x'></svg><svg><a xlink:href=javascript:alert(1)><text>x</text></a></svg>",
    "<svg><set attributeName=href to=javascript:alert(1)><image href=https://evil.example/i.svg>",
    "<math href=javascript:alert(1)>x</math><math><mi//xlink:href='javascript:alert(1)'>",
    "<form><math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
    "<template shadowrootmode=open><script>alert(1)</script></template><slot onslotchange=alert(1)>",
    "<xmp><img src=x onerror=alert(1)></xmp><plaintext><img src=x onerror=alert(1)>",
    "<!--><img src=x onerror=alert(1)>--> <![CDATA[<img src=x onerror=alert(1)>]]> <?xml-stylesheet href='https://evil.example/x.css'?>",
    "<scr<script>ipt>alert(1)</scr</script>ipt> <sCrIpT/src=https://evil.example/x.js>",
    "<a href=\"jav&#x09;ascript:alert(1)\">x</a><a href=\"&#106;avascript&colon;alert(1)\">y</a><a href='\x01javascript:alert(1)'>z</a>",
    "&lt;script&gt;alert(1)&lt;/script&gt; &#60;img src=x onerror=alert(1)&#62;",
    # Markdown
    "[a](<javascript:alert(1)>) [b](vbscript:msgbox(1)) [c](JaVaScRiPt:alert(1)) [d](data:image/svg+xml;base64,PHN2Zz4=)",
    "[ref]\n\n[ref]: javascript:alert(1) \"title\" onmouseover=alert(1)\n\n[^1]\n\n[^1]: <img src=x onerror=alert(1)>",
    "![](data:image/svg+xml,<svg onload=alert(1)>) ![a][b]\n\n[b]: https://evil.example/ref.png",
    "<https://evil.example/\"onmouseover=\"alert(1)> https://evil.example/<img/src=x/onerror=alert(1)> www.evil.example",
    "| a | b |\n|---|---|\n| <img src=x onerror=alert(1)> | [x](javascript:alert(1)) |",
    "- [ ] <input onfocus=alert(1) autofocus>\n- [x] <details ontoggle=alert(1) open>\n\n> <script>alert(1)</script>\n\n# <img src=x onerror=alert(1)>",
    "```\"><img src=x onerror=alert(1)>\ncode\n```\n\n~~~<script>\nalert(1)\n~~~",
    "```js\nconst a = '</span></code></pre><script>alert(1)</script>';\n```",
    "    <img src=x onerror=alert(1)>\n\n``<script>alert(1)</script>``\n\n\\<img src=x onerror=alert(1)\\>",
    # Names that a page might trip over
    "<img name=cookie><img name=getElementById><form name=body><input name=attributes></form><a id=trustedTypes>",
    "__proto__", "constructor", "toString",
    "javascript:alert(1)", "//evil.example/x", "https://evil.example/%22%3E%3Cscript%3Ealert(1)%3C/script%3E?q=<script>alert(1)</script>#\"><img>",
    "../../../../etc/passwd\\..\\..\\windows", "%00%3Cscript%3Ealert(1)%3C/script%3E",
    # Terminals and directions
    "\x1b[2J\x1b[1;1H\x1b]0;title\x07\x1bP+q\x1b\\ \x9b31m \x07\x08\x7f",
    "\u2067\u2066hidden\u2069\u2069 \u202d forwards \u202b backwards \u202a again",
    "\u200b\u200d\u2060\ufeff\u00ad\u180e zero width \u034f" + "\u0301" * 60,
    "مرحبا <b>\u202e</b> שלום 한글 " + "W" * 100,
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


# Elements and attributes that no text may make, wherever it stands.
FORGED = """
    const parts = ['main', 'header.top', 'dialog'].flatMap(part => [...document.querySelectorAll(part)]);
    const wrong = `:is(script, style, iframe, object, embed, link, meta, base, svg:not(.steps-bar), math, video, audio, textarea, template,
                       [onerror], [onload], [onclick], [style], [srcdoc], [srcset], [ping], [formaction], [popover])`;
    return parts.flatMap(part => [...part.querySelectorAll(wrong)]).map(element => element.outerHTML);"""
# Links that lead elsewhere than to a page, and pictures that are none of the session's own.
LED_ASTRAY = """
    return [...[...document.querySelectorAll('a[href]')].map(a => a.href).filter(href => !/^(https?|mailto):/.test(href)),
            ...[...document.images].map(image => image.getAttribute('src')).filter(src => !src.startsWith('data:image/png;'))];"""
# Characters that turn the direction of a line, unmarked: in texts, labels, fields and the title.
TURNED = """
    const found = [], turning = /[\\u202a-\\u202e\\u2066-\\u2069]/;
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT | NodeFilter.SHOW_ELEMENT);
    for (let node = walker.currentNode; node; node = walker.nextNode())
        for (const text of [node.data, node.value, ...[...node.attributes ?? []].map(attribute => attribute.value)])
            if (turning.test(text ?? "")) found.push(text);
    return turning.test(document.title) ? [...found, document.title] : found;"""


class HostileCase(PageCase):
    placed = 0                          # how often a payload was put somewhere

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        ada = call(cls.address, "POST", "/api/register", {"nickname": "ada"})
        cls.key, cls.team = ada["api_key"], ada["team_id"]

    @classmethod
    def upload(cls, payload, events):
        session = new_session(events=events, tool=payload, title=payload, description=payload, tags=[payload],
                              attributes={"git_branch": payload, "project": payload, "cwd": payload, "git": {"commit_hash": payload},
                                          "unknown_types": {payload: 3}, "redactions": {payload: 2}, "bad_lines": 1})
        session["agent"].update(model=payload, provider=payload, tool_version=payload)
        HostileCase.placed += sum(json.dumps(session).count(json.dumps(each)[1:-1]) for each in PAYLOADS if len(each) > 4)
        return call(cls.address, "POST", "/api/sessions", {"session": session, "team_id": cls.team}, key=cls.key)["id"]

    def move(self, path):
        """To another view of the same page, as the back button does: sooner than loading all anew."""
        self.run_js("history.pushState({}, '', arguments[0]); dispatchEvent(new PopStateEvent('popstate'));", path)

    def open_all(self):
        """Unfold whatever can be unfolded."""
        for _ in range(4):
            self.run_js("for (const details of document.querySelectorAll('details:not([open])')) details.open = true;"
                        "for (const button of document.querySelectorAll('button[data-more]')) button.click();")

    def assertOnlyText(self):
        """What is in the page now is ours, but for its texts; nothing has happened."""
        self.assertEqual(self.run_js(FORGED), [])
        self.assertEqual(self.run_js(LED_ASTRAY), [])
        self.assertEqual(self.run_js(TURNED), [])
        self.note_problems()
        self.assertEqual(self.problems, [])


class InTheEventsOfASession(HostileCase):
    TOGETHER = 8                        # payloads in one session: fewer pages to load

    def test_it_stays_text_at_every_level(self):
        self.sign_in(self.key)
        for at in range(0, len(PAYLOADS), self.TOGETHER):
            some = PAYLOADS[at:at + self.TOGETHER]
            session = self.upload("several", [event for payload in some for event in events_with(payload)])
            for level in ("everything", "conversation")[:2 if at < 2 * self.TOGETHER else 1]:
                with self.subTest(some[0], level=level):
                    self.move(f"/session/{session}?view={level}")
                    self.see(".reader article")
                    self.all_drawn()
                    self.open_all()
                    self.assertOnlyText()
                    self.assertLessEqual(len(self.all("#e-0")), 1)

    def all_drawn(self):
        """Scroll to the end, so that everything was in the page once."""
        self.until(lambda: self.run_js("scrollTo(0, document.documentElement.scrollHeight)") or self.all(".reader .over"), "the end")
        self.gone(".unformatted")

    def test_its_raw_form_its_files_and_its_copies_stay_text(self):
        self.sign_in(self.key)
        session = self.upload("several", [event for payload in PAYLOADS[:4] for event in events_with(payload)])
        self.go(f"/session/{session}?view=everything")
        self.click("button[data-do=files]")
        self.see("dialog[open]")
        self.assertOnlyText()
        self.click("dialog .actions button")
        self.run_js("arguments[0].focus()", self.see(".prompt"))
        self.click(".prompt .acts [data-act=raw]")
        self.see("dialog pre")
        self.assertOnlyText()


@pytest.mark.long
class InTheHeadOfASession(HostileCase):
    def test_it_stays_text(self):
        self.sign_in(self.key)
        for payload in PAYLOADS:
            with self.subTest(payload):
                self.move(f"/session/{self.upload(payload, list(events_with(payload))[:2])}")
                self.see(".reader article")
                self.gone(".unformatted")
                self.open_all()
                self.assertOnlyText()


class InTheList(HostileCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for payload in PAYLOADS:
            cls.upload(payload, list(events_with(payload))[:3])

    def test_it_stays_text_in_rows_and_filters(self):
        self.sign_in(self.key)
        self.click(".more button")
        self.until(lambda: len(self.all(".sessions tbody tr.row")) >= len(PAYLOADS), "all rows")
        self.open_all()
        self.assertOnlyText()
        for css in (".facets button[data-facet=project]", ".facets button[data-facet=tool]"):
            self.go("/")
            self.see(".sessions")
            self.click(css)
            self.see(".facets [aria-pressed=true]")
            self.see(".sessions")
            self.assertOnlyText()

    def test_it_stays_text_where_it_was_found(self):
        self.sign_in(self.key)
        self.until(lambda: call(self.address, "GET", "/api/search?q=alert", key=self.key)["indexing"] == 0, "the index")
        for words in ("alert", "script", "evil", "hidden", "<img src=x onerror=alert(1)>"):
            self.go("/?" + "q=" + words.replace("<", "%3C").replace(" ", "+"))
            self.see(".found .hits, .found .quiet")
            self.see(".list")
            self.assertOnlyText()
        self.go("/?q=alert")
        self.click(".hits a.place")
        self.see(".find .count", "1")
        self.assertOnlyText()

    def test_it_stays_text_in_the_question_before_deleting(self):
        self.sign_in(self.key)
        self.run_js("arguments[0].click()", self.see(".sessions input"))
        self.click(".chosen .danger")
        self.see("dialog h2")
        self.assertOnlyText()
        self.click("dialog button[value='']")
        self.click(".sessions a[data-open]")
        self.see("header.session")
        self.click(".menu summary")
        self.click(".menu .danger")
        self.see("dialog h2")
        self.assertOnlyText()


class InNames(HostileCase):
    def test_in_names_of_people_and_teams_it_stays_text(self):
        self.sign_in(self.key)
        for number, payload in enumerate(PAYLOADS):
            name = "".join(char for char in payload if char.isprintable())
            person = call(self.address, "POST", "/api/register", {"nickname": name[:60] + str(number)})["nickname"]
            team = call(self.address, "POST", "/api/teams", {"name": name[:120], "description": payload}, key=self.key)["id"]
            call(self.address, "POST", f"/api/teams/{team}/members", {"nickname": person}, key=self.key)
            HostileCase.placed += 3
        self.go("/teams")
        self.until(lambda: len(self.all("ul.lines li")) >= len(PAYLOADS), "all teams")
        self.assertOnlyText()
        self.go(f"/teams/{team}")
        self.see("tr[data-member] button[data-remove]")
        self.click("tr[data-member]:last-child button[data-remove]")
        self.see("dialog")
        self.assertOnlyText()
        for path, css in (("/upload", "select[name=team]"), ("/", "select[name=team]"), ("/settings", "[data-form=key]")):
            self.go(path)
            self.see(css)
            self.assertOnlyText()

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


def main():
    """Run the tests; the last line says what was tried."""
    outcome = unittest.TextTestRunner(verbosity=1).run(unittest.defaultTestLoader.loadTestsFromModule(sys.modules[__name__]))
    failed = len(outcome.failures) + len(outcome.errors)
    print(f"{len(PAYLOADS)} payloads in {HostileCase.placed} places: {failed} failed, {outcome.testsRun - failed} passed"
          + (": 0 dialogs, 0 reports of the policy, 0 requests to others, 0 lines in the console" if not failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
