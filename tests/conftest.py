"""Makes the two files importable, behind whatever PYTHONPATH names."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))
sys.path.append(str(Path(__file__).resolve().parent))


def pytest_configure(config):
    config.addinivalue_line("markers", "long: takes long; `make slow` runs it, `make test` does not")


def pytest_collection_modifyitems(items):
    for item in items:
        if "slow" in item.path.parts:
            item.add_marker("long")
