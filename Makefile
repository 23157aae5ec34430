# What there is to do here; `make` alone lists it.  Needs Python 3.11 or newer:
#     apt install make python3-venv

PYTHON ?= python3
CORPUS ?= tests/fixtures/samples
SCALE  ?= 1
PY     := .venv/bin/python
PYTEST := $(PY) -m pytest -q -rs -p no:cacheprovider -n 4

help:
	@awk -F ': .*## ' '/^[a-z-]+:.* ## / { printf "make %-13s%s\n", $$1, $$2 }' Makefile

run: .venv/server             ## serve ./data; the settings are environment variables, see README.md
	$(PY) opensession.py

demo: .venv/server            ## a throw-away server with sample sessions, or with those of CORPUS=dir
	$(PY) tests/demo.py "$(CORPUS)"

test: .venv/tests             ## every fast test
	$(PYTEST) -m "not long" --ignore tests/browser tests

slow: .venv/tests             ## the tests that take minutes: large files, kill -9, many clients
	$(PYTEST) -m long --ignore tests/browser tests

# What the project claims of itself; tests/slow/figures.py says what each of these counts.
FIGURES := fuzz fuzz-search crash sigterm faults syscalls durability diskfull slowclients bombs concurrent firstadmin clock \
           daemon-crash troubles backlog authz headers backup-test migrate-test
figures: .venv/tests          ## every figure in its long form, and one table of them; `make crash N=20` is one of them
	$(PY) tests/slow/figures.py

$(FIGURES): .venv/tests
	$(PY) tests/slow/figures.py $@

browser: .venv/tests          ## the page in Chromium, but for axe and xss: apt install chromium-driver fonts-noto-cjk
	$(PYTEST) --dist loadscope --ignore tests/browser/test_axe.py --ignore tests/browser/test_hostile.py tests/browser

axe: .venv/tests              ## what axe-core finds wrong on every page and state, in both languages and themes
	$(PYTEST) --dist loadscope tests/browser/test_axe.py

xss: .venv/tests              ## hostile texts in every field, in Chromium: how many, in how many places
	$(PY) tests/browser/test_hostile.py

screenshots: .venv/tests      ## the page's main states into screenshots/, three of them for the README
	$(PY) tests/browser/screenshots.py screenshots
	for name in list session phone; do cp "screenshots/readme-$$name.png" "docs/$$name.png"; done

golden:                       ## write the HAIL of the small homes in tests/fixtures/homes anew; read the difference
	$(PYTHON) tests/homes.py

readme:                       ## write the READMEs' tables of tools anew
	$(PYTHON) tests/readme_tools.py

bench: .venv/tests            ## how fast and how large, as one table: SCALE=0.1, ROWS="lists search"
	$(PY) tests/bench/bench.py --scale $(SCALE) $(ROWS)

secrets: .venv/tests          ## how well secrets are found, and how fast: CORPUS=dir for false alarms in real transcripts
	$(PY) tests/bench/leaks.py "$(CORPUS)"

bench-web: .venv/tests        ## how heavy and how fast the page is, in Chromium: ROWS="first jump"
	$(PY) tests/bench/bench_web.py $(ROWS)

clean:                        ## remove what the targets above made, except ./data
	rm -rf .venv .hypothesis .pytest_cache .bench screenshots
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One virtual environment; each stamp in it is as old as the requirements that it holds.
.venv/server: requirements.txt
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/tests: requirements-dev.txt .venv/server
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

.PHONY: help run demo test slow figures $(FIGURES) browser axe xss screenshots bench bench-web golden readme secrets clean
