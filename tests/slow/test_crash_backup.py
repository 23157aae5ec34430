"""Killed at any moment, a backup or a restore leaves the old, the new, or what says that it is neither."""

import shutil
import tempfile
import unittest

import opensession
from client import killed_command
from test_backup import BackupCase


class KilledBackups(BackupCase):
    def test_a_killed_backup_leaves_nothing_that_looks_like_one(self):
        self.back_up()
        moments = [("os.link", 1), ("os.link", 3), ("os.fsync", 1), ("os.fsync", 2), ("os.rename", 1)]
        for function, at in moments:
            with self.subTest(f"{function} {at}"):
                self.assertTrue(killed_command(self.folder, function, at, "backup", self.backups))
                self.assertEqual(len(self.found()), 1)
                self.assertEqual(len(list(self.backups.glob("partial-*"))), 1)
        self.assertTrue(killed_command(self.folder, "shutil.rmtree", 2, "backup", self.backups, "--keep", "1"))
        self.assertEqual(len(self.found()), 1)
        self.back_up()
        self.assertEqual(list(self.backups.glob("partial-*")), [])
        self.assertEqual(self.run_command("check", "--read-data"), self.run_command("check", "--read-data"))


class KilledRestores(BackupCase):
    def test_a_killed_restore_is_the_old_or_the_new_or_refused_until_repeated(self):
        self.backup = self.back_up()
        self.grow()
        old = self.raws()
        self._stop()
        outcomes = set()
        for function, calls in (("os.rename", 6), ("os.fsync", 4), ("os.rmdir", 1)):
            for at in range(1, calls + 1):
                with self.subTest(f"{function} {at}"):
                    folder = self.folder / f"{function}{at}"
                    shutil.copytree(self.data, folder / "data")
                    if killed_command(folder, function, at, "restore", self.backup, "--force"):
                        outcomes.add(self.outcome(folder, old))
                    self.run_command("restore", self.backup, "--force", folder=folder)
                    self.assertEqual(self.outcome(folder, old), "new")
        self.assertEqual(outcomes, {"old", "refused"})

    def outcome(self, folder, old):
        """What a server makes of a data directory: the old sessions, the new ones, or nothing."""
        opensession.configure({"OPENSESSION_DATA_DIR": str(folder / "data")})
        try:
            lock = opensession.open_data_dir()
        except opensession.Unusable:
            return "refused"
        raws = self.raws()
        opensession.db._connection().close()
        lock.close()
        tempfile.tempdir = None
        return "old" if raws == old else "new"


if __name__ == "__main__":
    unittest.main()
