"""What deploys the server says what it should.  No container engine is needed: the Dockerfile's own steps are run in a clean
folder, as a user without rights where that can be done; tests/slow has that part."""

import json
import plistlib
import re
import shlex
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import opensession

ROOT = Path(__file__).resolve().parent.parent
UNITS = ROOT / "deploy"


def dockerfile():
    """The Dockerfile as [(instruction, rest), …]."""
    text = re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text("utf-8"))
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip() and not line.startswith("#")]


def rest_of(instruction):
    """What stands behind the only instruction of a kind."""
    rest, = (rest for name, rest in dockerfile() if name == instruction)
    return rest


def directives(path):
    """[(name, value), …] of a systemd unit."""
    lines = [line for line in path.read_text("utf-8").splitlines() if "=" in line and not line.startswith("#")]
    return [tuple(line.split("=", 1)) for line in lines]


class TheImage(unittest.TestCase):
    def test_its_base_is_pinned_to_a_python_that_we_support(self):
        version = re.fullmatch(r"python:3\.(\d+)-slim", rest_of("FROM"))
        self.assertGreaterEqual(int(version[1]), 11)

    def test_it_runs_as_a_user_by_number_and_keeps_its_data_on_a_volume(self):
        self.assertRegex(rest_of("USER"), r"^[1-9]\d{3,}:[1-9]\d{3,}$")
        self.assertEqual(rest_of("VOLUME"), "/data")
        self.assertEqual(rest_of("EXPOSE"), "3000")
        settings = dict(pair.split("=", 1) for pair in shlex.split(rest_of("ENV")))
        self.assertEqual((settings["OPENSESSION_DATA_DIR"], settings["HOST"], settings["PORT"]), ("/data", "0.0.0.0", "3000"))

    def test_it_asks_for_its_health_every_half_minute_with_what_it_has(self):
        health = rest_of("HEALTHCHECK")
        self.assertIn("--interval=30s", health)
        self.assertEqual(json.loads(health.partition("CMD ")[2])[0], "python")
        self.assertNotRegex(health, "curl|wget")

    def test_what_is_copied_is_there_and_passes_the_ignore_file(self):
        passed = {line[1:].rstrip("/") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        copied = {name.rstrip("/") for instruction, rest in dockerfile() if instruction == "COPY" for name in rest.split()[:-1]}
        self.assertEqual(copied, passed)
        for name in copied:
            self.assertTrue((ROOT / name).exists(), name)
        self.assertLessEqual({"opensession.py", "schema.sql", "static", "requirements.txt"}, copied)

    def test_it_has_every_step_that_the_run_of_its_steps_knows(self):
        self.assertLessEqual({instruction for instruction, _ in dockerfile()},
                             {"FROM", "ENV", "WORKDIR", "COPY", "RUN", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "CMD"})


class TheComposeFile(unittest.TestCase):
    def setUp(self):
        lines = (ROOT / "docker-compose.yml").read_text("utf-8").splitlines()
        self.lines = [line.strip().removeprefix("- ").strip('"') for line in lines if not line.strip().startswith("#")]

    def test_only_this_machine_reaches_the_server(self):
        self.assertEqual([line for line in self.lines if line.endswith(":3000")], ["127.0.0.1:3000:3000"])

    def test_it_is_as_the_readme_promises(self):
        for line in ("OPENSESSION_SETUP: open", "opensession-data:/data", "restart: unless-stopped", "read_only: true", "/tmp", "ALL",
                     "no-new-privileges:true"):
            self.assertIn(line, self.lines)

    def test_every_setting_in_it_exists(self):
        named = set(re.findall(r"\b(OPENSESSION_\w+):", (ROOT / "docker-compose.yml").read_text()))
        self.assertLessEqual(named, set(opensession.SETTINGS))


class TheUnits(unittest.TestCase):
    def test_systemd_understands_them(self):
        if not shutil.which("systemd-analyze"):
            self.skipTest("no systemd here")
        with tempfile.TemporaryDirectory() as folder:
            for unit in [*UNITS.glob("*.service"), *UNITS.glob("*.timer")]:
                text = re.sub(r"(?m)^ExecStart=.*", "ExecStart=/bin/true", unit.read_text("utf-8"))
                (Path(folder) / unit.name).write_text(text)
            for user, names in ((["--user"], ["opensession-daemon.service"]),
                                ([], ["opensession.service", "opensession-backup.service", "opensession-backup.timer"])):
                done = subprocess.run(["systemd-analyze", *user, "verify", *(f"./{name}" for name in names)], cwd=folder, text=True,
                                      env={"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": folder}, capture_output=True)
                if "Failed to initialize manager" in done.stderr:
                    self.skipTest("systemd-analyze cannot work here")
                self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_the_server_is_shut_in(self):
        if not shutil.which("systemd-analyze"):
            self.skipTest("no systemd here")
        done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=15", str(UNITS / "opensession.service")],
                              text=True, capture_output=True)
        if "Overall exposure" not in done.stdout:
            self.skipTest("this systemd-analyze cannot look at a file")
        self.assertEqual(done.returncode, 0, done.stdout[-300:])    # 1.5 of 10 at most

    def test_commands_in_them_are_commands(self):
        for unit in UNITS.glob("*.service"):
            for name, value in directives(unit):
                if name == "ExecStart" and "opensession.py" in value:
                    arguments = value.partition("opensession.py")[2].split()
                    opensession.argument_parser().parse_args(arguments)

    def test_the_mac_understands_its_list(self):
        with open(UNITS / "opensession-daemon.plist", "rb") as file:
            job = plistlib.load(file)
        self.assertEqual(job["ProgramArguments"][-1].rpartition("/")[2], "daemon.py")
        self.assertEqual((job["RunAtLoad"], job["Umask"]), (True, 0o077))


if __name__ == "__main__":
    unittest.main()
