"""The first registration of all: however many try at once, one becomes administrator."""

import concurrent.futures
import json
import tempfile
import unittest

from client import call, running_server

ROUNDS, CALLERS = 20, 50


class TheFirstAdmin(unittest.TestCase):
    def results(self, **settings):
        """What fifty who register at once are answered: (status, is_admin) of each."""
        with tempfile.TemporaryDirectory() as folder, running_server(folder, OPENSESSION_RESERVE_MB="0", **settings) as server:
            def register(number):
                answer = call(server.port, "POST", "/api/register", json.dumps({"nickname": f"user {number}"}).encode(),
                              Content_Type="application/json", Host="localhost")
                return answer.status, answer.json.get("is_admin")
            with concurrent.futures.ThreadPoolExecutor(CALLERS) as pool:
                return list(pool.map(register, range(CALLERS)))

    def test_of_fifty_at_once_exactly_one_is_admin_every_time(self):
        for _ in range(ROUNDS):
            results = self.results()
            self.assertEqual(sorted(results), [(201, False)] * (CALLERS - 1) + [(201, True)])

    def test_where_others_need_an_invitation_exactly_one_gets_in(self):
        for _ in range(ROUNDS):
            results = self.results(OPENSESSION_REGISTRATION="invite")
            self.assertEqual(sorted(results, key=str), [(201, True)] + [(403, None)] * (CALLERS - 1))


if __name__ == "__main__":
    unittest.main()
