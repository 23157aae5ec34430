"""Backups: made while the server runs, restored whole or not at all, and never half."""

import json
import os
import shutil
import sqlite3
import unittest
from hashlib import sha256
from pathlib import Path

import opensession
from client import ServerCase, command, new_event, new_session
from test_storage import small_disk


class BackupCase(ServerCase):
    """ada has three sessions; backups go to `backups`, and what is restored to the server of `elsewhere`."""

    def setUp(self):
        super().setUp()
        self.ada = self.register("ada")
        self.sessions = [self.upload(self.ada, new_session(f"s-{number}")) for number in range(3)]
        self.data, self.backups, self.elsewhere = self.folder / "data", self.folder / "backups", self.folder / "elsewhere"
        self.elsewhere.mkdir()

    def run_command(self, *arguments, code=0, folder=None):
        """What a command said, or complained where it is to fail."""
        done = command(folder or self.folder, *arguments)
        self.assertEqual(done.code, code, done)
        self.assertNotIn("Traceback", done.complained)
        return done.complained if code > 1 else done.said + done.complained

    def back_up(self, *arguments, **more):
        self.run_command("backup", self.backups, *arguments, **more)
        return self.found()[-1]

    def found(self):
        return sorted(self.backups.glob("backup-*"))

    def raws(self):
        return [self.ada.get(f"/api/sessions/{session_id}/raw").body for session_id in self.sessions]

    def move_to_elsewhere(self):
        """Serve what was restored there."""
        self._stop()
        self.folder = self.elsewhere
        self.restart()

    def grow(self, text="More."):
        self.check(self.ada.post(f"/api/sessions/{self.sessions[0]}/events", {"events": [new_event(text=text)]}), 200)


class Backups(BackupCase):
    def test_what_a_backup_has_is_there_again_after_a_restore(self):
        raws = self.raws()
        self.back_up()
        self.run_command("restore", self.backups, folder=self.elsewhere)
        self.assertIn("all is well", self.run_command("check", "--read-data", folder=self.elsewhere))
        self.move_to_elsewhere()
        self.assertEqual(self.raws(), raws)
        self.index()
        self.assertEqual(len(self.ada.get("/api/search?q=spoon").json["hits"]), 3)

    def test_sessions_that_go_on_leave_a_backup_as_it_was(self):
        raws = self.raws()
        self.back_up()
        self.grow()
        self.check(self.ada.post(f"/api/sessions/{self.sessions[1]}/events", {"events": [new_event()], "from": 1}), 200)
        self.check(self.ada.delete(f"/api/sessions/{self.sessions[2]}"), 204)
        self.index()
        self.run_command("restore", self.backups, folder=self.elsewhere)
        self.move_to_elsewhere()
        self.assertEqual(self.raws(), raws)

    def test_bodies_are_the_same_files_under_a_second_name(self):
        backup = self.back_up()
        for path in (self.data / "bodies").glob("*/*"):
            self.assertTrue(path.samefile(backup / path.relative_to(self.data)))

    def test_bodies_are_copied_to_another_disk_without_what_was_never_committed(self):
        body = opensession.body_path(self.rows("SELECT body FROM sessions")[0]["body"])
        committed = body.read_bytes()
        with open(body, "ab") as file:
            file.write(b"an append that never ended")
        with small_disk("8m") as disk:
            self.backups = disk / "backups"
            backup = self.back_up()
            self.assertEqual((backup / body.relative_to(self.data)).read_bytes(), committed)
            self.run_command("restore", backup, folder=self.elsewhere)
        self.assertEqual((self.elsewhere / body.relative_to(self.folder)).read_bytes(), committed)

    def test_the_manifest_has_the_hash_of_what_counts_of_each_file(self):
        backup = self.back_up()
        self.grow()
        files = json.loads((backup / "manifest.json").read_text())["files"]
        self.assertEqual(set(files), {str(path.relative_to(backup)) for path in backup.rglob("*") if path.is_file()} - {"manifest.json"})
        for name, facts in files.items():
            self.assertEqual(sha256((backup / name).read_bytes()[:facts["bytes"]]).hexdigest(), facts["sha256"], name)

    def test_nobody_else_can_read_a_backup(self):
        backup = self.back_up()
        for path in [backup.parent, backup, *backup.rglob("*")]:
            self.assertEqual(path.stat().st_mode & 0o077, 0, path)

    def test_only_the_newest_are_kept(self):
        first = self.back_up()
        self.assertEqual(len([self.back_up(), self.back_up()]), 2)
        self.back_up("--keep", 2)
        self.assertEqual(len(self.found()), 2)
        self.assertFalse(first.exists())
        self.assertEqual({path.name for path in self.backups.iterdir()}, {path.name for path in self.found()} | {"lock"})
        self.run_command("backup", self.backups, "--keep", 0, code=2)

    def test_a_missing_body_is_named_and_the_rest_is_there(self):
        body = opensession.body_path(self.rows("SELECT body FROM sessions WHERE id = ?", self.sessions[1])[0]["body"])
        body.unlink()
        self.assertIn(body.name, self.run_command("backup", self.backups, code=1))
        self.run_command("restore", self.backups, folder=self.elsewhere)
        self.assertEqual(len(list((self.elsewhere / "data/bodies").glob("*/*"))), 2)

    def test_there_is_nothing_to_back_up_where_no_server_ran(self):
        self.assertIn("no database", self.run_command("backup", self.backups, code=4, folder=self.elsewhere))
        self.assertFalse((self.elsewhere / "data").exists())

    def test_no_server_writes_into_a_backup(self):
        backup = self.back_up()
        self.elsewhere.rmdir()
        self.elsewhere.mkdir()
        backup.rename(self.elsewhere / "data")
        self.assertIn("is a backup", self.run_command("serve", code=4, folder=self.elsewhere))


class Restores(BackupCase):
    def setUp(self):
        super().setUp()
        self.backup = self.back_up()

    def test_a_running_server_is_left_alone(self):
        raws = self.raws()
        self.run_command("restore", self.backup, "--force", code=3)
        self.assertEqual(self.raws(), raws)

    def test_what_is_there_stays_unless_told_and_is_put_aside_then(self):
        raws = self.raws()
        self.grow()
        self._stop()
        self.assertIn("--force", self.run_command("restore", self.backup, code=1))
        self.restart()
        self.assertNotEqual(self.raws(), raws)
        grown = self.raws()
        self._stop()
        self.run_command("restore", self.backup, "--force")
        aside, = self.data.glob("before-restore-*")
        self.restart()
        self.assertEqual(self.raws(), raws)
        self._stop()
        shutil.move(aside, self.elsewhere / "data")
        self.move_to_elsewhere()
        self.assertEqual(self.raws(), grown)

    def test_a_log_that_belongs_to_the_old_database_never_meets_the_new_one(self):
        connection = sqlite3.connect(self.data / "opensession.db")
        self.addCleanup(connection.close)
        connection.execute("UPDATE teams SET name = 'not in the backup'")
        connection.commit()
        self._stop()
        self.assertTrue((self.data / "opensession.db-wal").stat().st_size)
        self.run_command("restore", self.backup, "--force")
        self.assertEqual({path.name.partition("-2")[0] for path in self.data.iterdir()},
                         {"opensession.db", "bodies", "tmp", "lock", "before-restore"})
        self.restart()
        self.assertEqual(self.rows("SELECT name FROM teams"), [{"name": "ada's team"}])

    def test_a_damaged_backup_is_refused_and_nothing_is_touched(self):
        body = next((self.backup / "bodies").glob("*/*")).relative_to(self.backup)
        damages = {"a flipped byte in a body": lambda path: flip(path / body), "a flipped byte in the database": lambda path: flip(path / "opensession.db"),
                   "a lost body": lambda path: (path / body).unlink(), "half a manifest": lambda path: os.truncate(path / "manifest.json", 99),
                   "a file elsewhere": lambda path: elsewhere(path / "manifest.json"),
                   "a lost body without a hash": lambda path: lose(path, path / "manifest.json")}
        for name, damage in damages.items():
            with self.subTest(name):
                copy = self.folder / "copy"
                shutil.copytree(self.backup, copy)
                damage(copy)
                self.assertRegex(self.run_command("restore", copy, code=1, folder=self.elsewhere), "damaged")
                self.assertEqual({path.name for path in (self.elsewhere / "data").glob("*")} - {"lock"}, set())
                shutil.rmtree(copy)

    def test_a_backup_of_a_newer_server_is_refused(self):
        manifest = json.loads((self.backup / "manifest.json").read_text())
        (self.backup / "manifest.json").write_text(json.dumps({**manifest, "schema": 99}))
        self.assertIn("newer", self.run_command("restore", self.backup, code=4, folder=self.elsewhere))

    def test_the_restored_server_does_not_write_into_the_backup(self):
        self.run_command("restore", self.backup, folder=self.elsewhere)
        before = {path: path.read_bytes() for path in self.backup.rglob("*") if path.is_file()}
        self.move_to_elsewhere()
        self.grow()
        self.assertEqual({path: path.read_bytes() for path in self.backup.rglob("*") if path.is_file()}, before)

def flip(path):
    """Change one byte in the middle of a file that may have other names."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)


def lose(folder, path):
    """Lose a body of a backup, and its hash in the manifest with it."""
    manifest = json.loads(path.read_text())
    name = next(name for name in manifest["files"] if name.startswith("bodies"))
    manifest["files"][name]["sha256"] = None
    path.write_text(json.dumps(manifest))
    (folder / name).unlink()


def elsewhere(path):
    """Let a manifest name a file outside of its backup."""
    manifest = json.loads(path.read_text())
    name = next(name for name in manifest["files"] if name.startswith("bodies"))
    manifest["files"][f"bodies/../../{name}"] = manifest["files"].pop(name)
    path.write_text(json.dumps(manifest))


if __name__ == "__main__":
    unittest.main()
