"""No text makes a rule for secrets slow."""

import unittest

import pytest

from secret_cases import PROBES, seconds_per_megabyte, starts_of_rules

pytestmark = pytest.mark.long


class Probes(unittest.TestCase):
    def test_no_text_takes_a_rule_much_longer_than_others(self):
        size = 300_000
        for probe in (*PROBES, *starts_of_rules()):
            text = (probe * (size // len(probe) + 1))[:size]
            with self.subTest(probe):
                # Generous: text of nothing but names of secrets takes about 2 s, what is quadratic takes minutes.
                self.assertLess(min(seconds_per_megabyte(text) for _ in range(2)), 8)


if __name__ == "__main__":
    unittest.main()
