# `make quick` as you write; `make check` is what must hold before a commit, and CI runs the same.

PYTHON ?= $(or $(wildcard .venv/bin/python),python3)

.PHONY: quick check formatted lint types contracts test slow browser lab kills coverage conformance docs picture format \
	install clean

quick: formatted lint types coverage

check: quick contracts test conformance

formatted:
	$(PYTHON) -m ruff format --check .

lint:
	$(PYTHON) -m ruff check .

types:
	$(PYTHON) -m mypy

contracts:
	$(PYTHON) -c "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_logo=True))"

# all but those that take their time
test:
	$(PYTHON) -m pytest -m "not slow and not long"

slow:
	$(PYTHON) -m pytest -n 0 -m "(slow or long) and not lab" -o faulthandler_timeout=600

# the page in a real browser; `make test` has it too where there is one
browser:
	$(PYTHON) -m pytest -n 0 tests/browser

# on hosts with a real sshd: Linux, root and a few packages; what cannot run says why
lab:
	$(PYTHON) -m pytest -m "lab and not slow" -n 2 tests/lab

# drivers of a pool on the lab's EC2, killed at every call and in every state: half an hour
kills:
	$(PYTHON) -m pytest -n 0 -m "lab and slow" -o faulthandler_timeout=600 tests/lab

# the tests of the pure modules; every branch of such a module is taken by its own tests alone
coverage:
	$(PYTHON) -m tests.covered

# joblib's own tests of the version that is installed, on a pool; not under the settings of our tests
conformance:
	$(PYTHON) -m pytest -q -ra -c /dev/null --rootdir . -p no:cacheprovider --disable-warnings --timeout 60 \
		-p tests.conformance.joblib_suite --pyargs joblib.test.test_parallel

# the documentation, into site/; a link to nothing is an error
docs:
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict --quiet

# docs/run.png: the page of a run, in Chromium
picture:
	$(PYTHON) docs/picture.py

format:
	$(PYTHON) -m ruff check --fix-only .
	$(PYTHON) -m ruff format .

install:
	python3 -m venv .venv
	.venv/bin/pip install -q -e '.[dev]'

clean:
	rm -rf .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist htmlcov site
