"""Accounts, teams, keys, uploads and the look of the page, in the browser."""

import tempfile
from pathlib import Path

from client import hail_file, new_session
from demo import SAMPLES
from page import TIDES, PageCase, SampleCase, call


class TheFirstPerson(PageCase):
    def test_registers_reads_the_key_once_and_signs_out_and_in_again(self):
        self.go("/")
        self.fill("[data-form=register]", nickname="ada")
        self.see(".door h1", "ada")
        key = self.see(".copy code").text
        self.assertRegex(key, r"^osk_\w{30,}$")
        self.see(".commands code", f"daemon.py login {self.address} --key {key}")
        self.click(".door a.primary")
        self.see(".notice .commands")           # no session yet: what to do about it
        self.assertNotIn(key, self.driver.page_source)

        self.go("/settings")
        self.click("button[data-do=sign-out]")
        self.see("[data-form=login]")
        self.fill("[data-form=login]", api_key=key[:-1] + ("a" if key[-1] != "a" else "b"))
        self.see("[data-form=login] .error")
        self.fill("[data-form=login]", api_key=key)
        self.see("nav.me a", "ada")

    def test_a_name_that_is_taken_is_refused_in_a_sentence(self):
        self.new_person("grace")
        self.go("/login")
        self.fill("[data-form=register]", nickname="grace")
        self.see("[data-form=register] .error", "already taken")


class TheSetUp(PageCase):
    SETTINGS = {"HOST": "0.0.0.0"}

    def test_the_printed_link_makes_the_administrator_and_then_invitations_are_needed(self):
        token = (Path(self.folder) / "data" / "setup-token").read_text().strip()
        self.go("/")
        self.see("[data-form=register] [name=invite]")
        self.fill("[data-form=register]", nickname="ada", invite="wrong")
        self.see("[data-form=register] .error")

        self.go(f"/#setup={token}")
        self.fill("[data-form=register]", nickname="ada")
        self.see(".door h1", "ada")
        self.go("/settings")
        self.see(".tag", "server admin")

        self.forget()
        self.go("/login")
        self.see("[data-form=register] [name=invite]")


class SigningIn(PageCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.key = call(cls.address, "POST", "/api/register", {"nickname": "ada"})["api_key"]

    def test_a_link_signs_in_and_leaves_no_key_behind(self):
        self.sign_in(self.key)
        self.assertEqual(self.path, "/")
        kept = self.run_js("return JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, history.state])")
        self.assertNotIn(self.key, kept + self.driver.page_source)
        self.driver.refresh()
        self.see("nav.me a", "ada")

    def test_a_link_with_a_dead_key_says_so(self):
        self.go("/#key=osk_nothing")
        self.see(".notice", "not valid")

    def test_keys_are_made_shown_once_and_revoked(self):
        self.sign_in(self.key)
        self.go("/settings")
        self.fill("[data-form=key]", name="laptop", scope="upload")
        key = self.see(".once .copy code").text
        self.assertEqual(call(self.address, "POST", "/api/auth/verify", {}, key=key)["nickname"], "ada")
        self.go("/settings")
        self.see("table.plain tr", "laptop")
        self.assertNotIn(key, self.driver.page_source)
        self.click("button[data-revoke][data-name=laptop]")
        self.click("dialog button.danger")
        self.until(lambda: "laptop" not in self.see("table.plain").text, "the key gone")
        with self.assertRaisesRegex(OSError, "401"):
            call(self.address, "POST", "/api/auth/verify", {}, key=key)

    def test_a_dialog_is_left_with_escape(self):
        call(self.address, "POST", "/api/keys", {"name": "spare"}, key=self.key)
        self.sign_in(self.key)
        self.go("/settings")
        self.click("button[data-revoke][data-name=spare]")
        self.see("dialog[open]").send_keys("\ue00c")
        self.gone("dialog")
        self.see("table.plain tr", "spare")


class Teams(PageCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.ada = call(cls.address, "POST", "/api/register", {"nickname": "ada"})["api_key"]

    def new_team(self, name):
        """Make a team on the page, as ada; its page is open then."""
        self.sign_in(self.ada)
        self.go("/teams")
        self.fill("form.line", name=name, description="What we build together")
        self.see("h1", name)
        return self.path

    def invitation(self, role="member"):
        """The address of a new invitation from the open team page."""
        self.fill("[data-form=invite]", role=role)
        return self.see(".once .copy code").text.removeprefix(self.address)

    def test_a_new_person_comes_in_by_invitation(self):
        team = self.new_team("Compilers")
        invitation = self.invitation()
        self.forget()
        self.go(invitation)
        self.fill("[data-form=register]", nickname="grace")
        self.see(".door h1", "grace")
        self.go(team)
        self.see("tr[data-member]", "grace")
        self.assertFalse(self.all("[data-form=invite]"))        # a member makes no invitations

        self.forget()
        self.go(invitation)                                     # used up
        self.fill("[data-form=register]", nickname="eve")
        self.see("[data-form=register] .error")

    def test_somebody_with_an_account_accepts_an_invitation(self):
        barbara = self.new_person("barbara")
        team = self.new_team("Abstractions")
        invitation = self.invitation("viewer")
        self.forget()
        self.sign_in(barbara)
        self.go(invitation)
        self.click("form.door button")
        self.see("h1", "Abstractions")
        self.assertEqual(self.path, team)
        self.see("tr[data-member]", "barbara")

    def test_members_are_added_given_roles_and_removed(self):
        self.new_person("mary")
        self.new_team("Looms")
        self.fill("[data-form=add]", nickname="nobody")
        self.see("[data-form=add] .error", "User not found.")
        self.fill("[data-form=add]", nickname="mary", role="member")
        self.see("tr[data-member]", "mary")
        row = "tr[data-member]:has(button[data-remove=mary])"
        self.choose(f"{row} select", "viewer")
        self.driver.refresh()
        self.until(lambda: self.one(f"{row} select").get_attribute("value") == "viewer", "the new role")
        self.click(f"{row} button[data-remove]")
        self.click("dialog button.danger")
        self.gone(row)

    def test_a_team_is_renamed_and_opened_to_the_public(self):
        team = self.new_team("Secret garden")
        self.see("[data-form=settings] [name=name]").clear()
        self.click("[data-form=settings] [name=is_public]")
        self.fill("[data-form=settings]", name="Public garden")
        self.see("h1", "Public garden")
        self.see("h1 .tag", "public")
        self.forget()
        self.go(team)
        self.see("h1", "Public garden")
        self.assertNotIn("ada", self.text)                      # members are not for everybody

    def test_a_team_says_how_long_it_keeps_sessions_after_a_question_and_how_much_room_they_take(self):
        self.new_team("Tidy kitchen")
        self.see("#quota-hint", "in use")
        self.fill("[data-form=settings]", retain_days="90", quota_mb="500")
        self.see("dialog", "90 days")
        self.click("dialog button.danger")
        self.until(lambda: not self.all("dialog"), "no dialog")
        self.until(lambda: self.one("[name=retain_days]").get_attribute("value") == "90", "the new limit")
        self.assertEqual(self.one("[name=quota_mb]").get_attribute("value"), "500")
        self.fill("[data-form=settings]", name="Tidy cellar")           # nothing is asked where nothing gets shorter
        self.see("h1", "Tidy cellar")


class Leaving(PageCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.ada = call(cls.address, "POST", "/api/register", {"nickname": "ada"})["api_key"]

    def team(self, name, *members):
        made = call(self.address, "POST", "/api/teams", {"name": name}, key=self.ada)["id"]
        for nickname in members:
            call(self.address, "POST", f"/api/teams/{made}/members", {"nickname": nickname}, key=self.ada)
        return f"/teams/{made}"

    def test_a_member_leaves_a_team(self):
        grace = self.new_person("grace")
        team = self.team("Compilers", "grace")
        self.sign_in(grace)
        self.go(team)
        self.click("button[data-do=leave]")
        self.click("dialog button.danger")
        self.until(lambda: self.path == "/teams", "the list of teams")
        self.assertNotIn("Compilers", self.see("main").text)
        self.go(team)
        self.see(".notice h1")

    def test_the_last_admin_is_told_why_not(self):
        emmy = self.new_person("emmy")
        team = self.team("Fields", "emmy")
        path = f"/api{team}/members"
        people = {one["nickname"]: one["user_id"] for one in call(self.address, "GET", path, key=self.ada)["members"]}
        call(self.address, "PUT", f"{path}/{people['emmy']}", {"role": "admin"}, key=self.ada)
        call(self.address, "DELETE", f"{path}/{people['ada']}", key=self.ada)
        self.sign_in(emmy)
        self.go(team)
        self.click("button[data-do=leave]")
        self.click("dialog button.danger")
        self.see("main .error", "A team needs an admin")

    def test_a_team_is_deleted_by_typing_its_name(self):
        self.sign_in(self.ada)
        team = self.team("Old plans")
        self.go(team)
        self.click("button[data-do=delete]")
        self.assertFalse(self.see("dialog button.danger").is_enabled())
        self.see("dialog [name=typed]").send_keys("Old plan")
        self.assertFalse(self.see("dialog button.danger").is_enabled())
        self.see("dialog [name=typed]").send_keys("s")
        self.click("dialog button.danger")
        self.until(lambda: self.path == "/teams", "the list of teams")
        self.go(team)
        self.see(".notice h1")

    def test_an_account_is_deleted_by_typing_its_name(self):
        barbara = self.new_person("barbara")
        self.sign_in(barbara)
        self.go("/settings")
        self.click("section button[data-account]")
        self.choose("dialog [name=sessions]", "delete")
        self.see("dialog [name=typed]").send_keys("barbara")
        self.click("dialog button.danger")
        self.see("[data-form=login]")
        with self.assertRaisesRegex(OSError, "401"):
            call(self.address, "POST", "/api/auth/verify", {}, key=barbara)

    def test_the_last_server_admin_is_told_why_not(self):
        self.sign_in(self.ada)
        self.go("/settings")
        self.click("section button[data-account]")
        self.see("dialog [name=typed]").send_keys("ada")
        self.click("dialog button.danger")
        self.see("section .error", "last administrator")

    def test_a_server_admin_deletes_somebody_s_account(self):
        self.new_person("mary")
        self.sign_in(self.ada)
        self.go("/settings")
        self.click("button[data-account][data-name=mary]")
        self.see("dialog [name=typed]").send_keys("mary")
        self.click("dialog button.danger")
        self.until(lambda: "mary" not in self.see("main").text, "mary gone")

    def test_one_signs_out_everywhere(self):
        lin = self.new_person("lin")
        self.sign_in(lin)
        self.go("/settings")
        self.see("ul.lines li .tag", "this browser")
        self.click("button[data-do=sign-out-everywhere]")
        self.see("[data-form=login]")
        self.go("/settings")
        self.assertFalse(self.all("button[data-do=sign-out]"))

    def test_admins_read_the_audit_page_by_page(self):
        for number in range(60):
            call(self.address, "POST", "/api/keys", {"name": f"key {number}"}, key=self.ada)
        self.sign_in(self.ada)
        self.go("/settings")
        self.click("[data-audit] [data-more]")
        self.until(lambda: len(self.all("[data-audit] tbody tr")) == 50, "fifty acts")
        self.see("[data-audit] tbody tr", "signed in")
        self.assertIn("made a key", self.see("[data-audit] tbody").text)
        self.click("[data-audit] [data-more]")
        self.until(lambda: len(self.all("[data-audit] tbody tr")) > 60, "more acts")

    def test_a_team_s_admin_reads_of_the_team(self):
        self.new_person("noether")
        team = self.team("Rings", "noether")
        self.sign_in(self.ada)
        self.go(team)
        self.click("[data-audit] [data-more]")
        rows = self.until(lambda: self.all("[data-audit] tbody tr"), "acts")
        self.assertEqual(len(rows), 2)
        self.assertIn("noether", rows[0].text)


class Uploading(SampleCase):
    SAMPLE = next(SAMPLES.glob("claude/projects/*jun*/*.jsonl"))

    def upload(self, name, data):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(data)
            self.one("input[type=file]").send_keys(str(path))
            line = self.see(".files li", name)
            self.until(lambda: not line.find_elements("css selector", "progress"), "an answer")
            return line

    def test_a_transcript_of_a_tool_and_a_hail_file_are_taken(self):
        self.sign_in(self.key)
        self.go("/upload")
        data = self.SAMPLE.read_bytes().replace(self.SAMPLE.stem.encode(), b"d9e0a1b2-0c3d-4e5f-8a6b-7c8d9e0f1a2b")
        self.upload("d9e0a1b2-0c3d-4e5f-8a6b-7c8d9e0f1a2b.jsonl", data)
        self.upload("spoon.hail.jsonl", hail_file(new_session(title="Where is the spoon?")))
        self.click(".files li a")
        self.see("header.session h1", "한강")

    def test_the_same_file_again_is_already_here(self):
        self.sign_in(self.key)
        self.go("/upload")
        data = hail_file(new_session(title="Twice"))
        self.assertIn("Uploaded", self.upload("once.hail.jsonl", data).text)
        self.assertIn("Already here", self.upload("again.hail.jsonl", data).text)

    def test_files_can_be_dropped_on_the_page(self):
        self.sign_in(self.key)
        self.go("/upload")
        self.see(".drop")
        self.run_js("""
            const carried = new DataTransfer();
            carried.items.add(new File([arguments[0]], "dropped.hail.jsonl"));
            document.querySelector(".drop").dispatchEvent(new DragEvent("drop", {bubbles: true, cancelable: true, dataTransfer: carried}));
        """, hail_file(new_session(title="Dropped")).decode())
        self.click(".files li a")
        self.see("header.session h1", "Dropped")

    def test_a_file_that_is_none_is_refused_in_a_sentence(self):
        self.sign_in(self.key)
        self.go("/upload")
        self.upload("holiday.jpg", b"\xff\xd8\xff\xe0 no transcript")
        self.see(".files .error")


class Looks(SampleCase):
    PAGES = ("/", "/teams", "/upload", "/settings")

    def test_a_phone_needs_no_sideways_scrolling(self):
        self.sign_in(self.key)
        session = call(self.address, "GET", "/api/sessions", key=self.key)["sessions"][1]
        team = session["team_id"]
        self.screen(390, 844, mobile=True)
        for path in (*self.PAGES, f"/session/{session['id']}", f"/teams/{team}"):
            with self.subTest(path):
                self.go(path)
                self.drawn()
                self.run_js("document.querySelectorAll('details').forEach(details => { details.open = true; })")
                self.assertLessEqual(self.run_js("return document.documentElement.scrollWidth"), 390)

    def test_the_page_speaks_korean(self):
        self.sign_in(self.key)
        self.go("/settings")
        self.choose("select[name=language]", "ko")
        self.see("h1", "설정")
        self.go("/")
        self.see("nav a", "세션")
        self.assertEqual(self.run_js("return document.documentElement.lang"), "ko")
        self.click(".sessions a[data-open]", TIDES)
        self.click("button[data-level=everything]", "전체")
        self.see(".shell b", "실행")
        self.see(".over", "세션 끝")

    def test_no_text_is_missing_in_either_language(self):
        self.sign_in(self.key)
        for language in ("en", "ko"):
            self.run_js("localStorage.setItem('language', arguments[0])", language)
            for path in (*self.PAGES, "/nowhere"):
                with self.subTest(language=language, path=path):
                    self.go(path)
                    self.drawn()
                    self.assertNotRegex(self.text, r"(?m)^(nav|error|count|keys?|team|upload|list|start)\.\w+$")

    def test_dark_is_dark_whether_chosen_or_the_system_s(self):
        self.sign_in(self.key)
        light = self.brightness()
        self.go("/settings")
        self.choose("select[name=theme]", "dark")
        self.assertGreater(light, 200)
        self.assertLess(self.brightness(), 60)
        self.run_js("localStorage.clear()")
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia",
                                    {"features": [{"name": "prefers-color-scheme", "value": "dark"}]})
        self.addCleanup(self.driver.execute_cdp_cmd, "Emulation.setEmulatedMedia", {"features": []})
        self.go("/")
        self.assertLess(self.brightness(), 60)

    def brightness(self):
        """Of the page's ground, 0 to 255."""
        self.see("nav.me")
        return self.run_js("""
            const canvas = new OffscreenCanvas(1, 1).getContext("2d");
            canvas.fillStyle = getComputedStyle(document.body).backgroundColor;
            canvas.fillRect(0, 0, 1, 1);
            return canvas.getImageData(0, 0, 1, 1).data[1];""")

    def test_the_keyboard_help_opens_and_closes(self):
        self.sign_in(self.key)
        self.see(".sessions")
        self.one("body").send_keys("?")
        self.see("dialog[open] dl.keys")
        self.click("dialog button")
        self.gone("dialog")
