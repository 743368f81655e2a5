"""The documentation: each public name and each guide is in it, its code runs, and reading it needs no network."""

import ast
import html
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import boto3
import nbclient
import nbformat
import pytest

import skyward as sky
from skyward import errors, events
from skyward.actors import costs
from skyward.providers.provider import Quote
from skyward.telemetry.report import LostTime, NodeUse, Report, import_hint
from skyward.view.progress import Progress
from skyward.view.status_text import going

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
README = ROOT / "README.md"
WORDS = [README, ROOT / "CONTRIBUTING.md", *PAGES]
CODE = re.compile(r"(?:<!-- (runs[^>]*) -->\n)?```python\n(.*?)```", re.DOTALL)
"""A block of code in a page, and where it runs, if it does."""

BLOCKS = [
    pytest.param(where, code, id=f"{page.stem}-{number}")
    for page in (README, *PAGES)
    if page.parent.name != "guides"
    for number, (where, code) in enumerate(CODE.findall(page.read_text()))
]
RUNNING = [block for block in BLOCKS if block.values[0] in ("runs", "runs here and on hosts")]
PIECES = [block for block in BLOCKS if not block.values[0]]
ELSEWHERE = {"runs in a notebook", "runs with S3", "runs here and on hosts", "runs on EC2"}
"""What a block that runs may need; hosts and EC2 are in `tests/lab/test_pages.py`."""

FETCHED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "use": "href"}
"""What a browser fetches by itself, by tag; a link that one may click is none."""

HIDDEN = {
    "skyward.remote": "skyward.remote.function.remote",
    "skyward.plugins.joblib": "skyward.plugins.joblib.joblib",
}
"""Where functions are that a module of the same name hides from the reader of docstrings."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site once."""
    if find_spec("mkdocs") is None or find_spec("mkdocstrings") is None or find_spec("material") is None:
        pytest.skip("the site is not built: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    ran = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        env={"PATH": "/usr/bin:/bin", "NO_MKDOCS_2_WARNING": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    return folder


class Page(HTMLParser):
    """What a page fetches, and the ids in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids.add(given.get("id") or "")
        if (url := given.get(FETCHED.get(tag, ""))) is not None:
            self.fetched.append(url)


def elsewhere(url: str) -> bool:
    return re.match(r"(\w+:)?//", url) is not None


def test_a_page_fetches_nothing_from_elsewhere(site: Path) -> None:
    pages = {path: Page(path.read_text()) for path in site.rglob("*.html")}
    fetched = {(path.name, url) for path, page in pages.items() for url in page.fetched}
    styles = {
        (path.name, url)
        for path in site.rglob("*.css")
        for url in re.findall(r"(?:url\(|@import )[\"']?([^\"')]+)", path.read_text())
    }

    assert len(pages) > len(PAGES)
    assert any(name == "index.html" for name, _ in fetched)
    assert [each for each in sorted(fetched | styles) if elsewhere(each[1])] == []


def test_what_could_fetch_from_elsewhere_is_seen() -> None:
    page = Page('<script src="https://cdn.test/x.js"></script><link href="//cdn.test/x.css"><a href="https://ok.test">')

    assert [url for url in page.fetched if elsewhere(url)] == ["https://cdn.test/x.js", "//cdn.test/x.css"]
    assert not elsewhere("assets/x.css")


def test_no_page_has_a_diagram_that_the_theme_would_fetch_a_library_for() -> None:
    assert [page.name for page in PAGES if "```mermaid" in page.read_text()] == []


def test_each_public_name_is_in_the_reference(site: Path) -> None:
    ids = Page((site / "api.html").read_text()).ids
    names = {f"skyward.{name}" for name in sky.__all__} | {f"skyward.plugins.{name}" for name in sky.plugins.__all__}

    assert names - {"skyward.plugins"} - HIDDEN.keys() - ids == set()
    assert set(HIDDEN.values()) - ids == set()


def test_a_constructor_is_shown_with_its_arguments_only(site: Path) -> None:
    text = html.unescape(re.sub("<[^>]+>", "", (site / "api.html").read_text()))

    assert re.search(r"\bWorker\(\s*\*,\s*concurrency=None,\s*executor='process',?\s*\)", text)
    assert re.search(r"\bImage\(\s*\*,\s*packages=\(\),\s*preload=\(\),", text)


def test_each_event_is_in_the_reference(site: Path) -> None:
    ids = Page((site / "events.html").read_text()).ids

    assert {f"skyward.events.{kind.__name__}" for kind in events.Event.__value__.__args__} - ids == set()


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.stem)
def test_what_is_to_be_installed_goes_into_the_environment_in_any_shell(page: Path) -> None:
    assert re.findall(r"(?<!bin/)(?<!-m )(?<!uv )\bpip3? install ['\"-].*", page.read_text()) == []


def test_each_guide_has_a_page_that_includes_it() -> None:
    pages = {page.stem: page.read_text() for page in (ROOT / "docs/guides").glob("*.md")}
    guides = [guide.stem for guide in sorted((ROOT / "guides").glob("[0-9]*.py"))]

    assert sorted(pages) == guides
    assert [name for name in guides if f'--8<-- "guides/{name}.py"' not in pages[name]] == []


def test_a_block_that_runs_names_a_place_that_a_test_has() -> None:
    assert {block.values[0] for block in BLOCKS} - {"", "runs"} == ELSEWHERE


def run(code: str, folder: Path, **environment: str) -> str:
    """Run a program in a folder, and return what it prints."""
    (folder / "program.py").write_text(code)
    ran = subprocess.run(
        [sys.executable, "-W", "error", "program.py"],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "TMPDIR": str(folder), "HOME": str(folder)}
        | environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize(("where", "code"), RUNNING)
def test_code_that_is_marked_so_runs_as_it_stands(where: str, code: str, tmp_path: Path) -> None:
    assert run(code, tmp_path)


def test_the_first_example_is_code_that_runs() -> None:
    where, code = CODE.findall(README.read_text())[0]

    assert (where, "Parallel(n_jobs=-1)" in code) == ("runs", True)


def only(where: str) -> str:
    """Return the one block that runs there."""
    (block,) = (block for block in BLOCKS if block.values[0] == where)
    return str(block.values[1])


def test_tasks_read_from_an_object_store_as_the_page_shows(tmp_path: Path) -> None:
    nothing = {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    from moto.server import ThreadedMotoServer  # not before: the lab's EC2 sets what moto reads when it is imported

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        store = boto3.client("s3", endpoint_url=url, **keys)
        store.create_bucket(Bucket="my-data")
        store.put_object(Bucket="my-data", Key="words.txt", Body=b"one\ntwo\nthree\n")
        given = {name.upper(): value for name, value in keys.items() if name != "region_name"}
        assert run(only("runs with S3"), tmp_path, AWS_ENDPOINT_URL=url, **given, **nothing) == f"{[3] * 10}\n"
    finally:
        server.stop()


@pytest.mark.filterwarnings("ignore")  # of the client of notebooks
def test_one_pool_serves_many_cells_of_a_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    v4: Any = nbformat.v4  # whose functions have no types
    cells = re.split("^(?=# %%)", only("runs in a notebook"), flags=re.MULTILINE)[1:]
    book = v4.new_notebook(cells=[v4.new_code_cell(cell.strip()) for cell in cells])
    nbclient.NotebookClient(book, timeout=150, kernel_name="python3").execute()

    printed = [each["text"] for cell in book.cells for each in cell.outputs if each["output_type"] == "stream"]
    assert printed[:2] == ["328350\n", "328450\n"]
    assert printed[2].startswith("Tasks: 200\nNodes: 2\n")


@pytest.mark.parametrize(("where", "code"), PIECES)
def test_code_that_does_not_run_alone_names_what_there_is(where: str, code: str) -> None:
    for call in ast.walk(ast.parse(code)):
        name = ast.unparse(call.func) if isinstance(call, ast.Call) else ""
        if isinstance(call, ast.Call) and name.startswith("sky."):
            found: object = sky
            for part in name.split(".")[1:]:
                found = getattr(found, part)
            given = {word.arg: None for word in call.keywords if word.arg is not None}
            assert callable(found)
            inspect.signature(found).bind_partial(*call.args, **given)


# ---------------------------------------------------------------- what else the pages say


def allowed() -> set[str]:
    """Return the actions that the policy on the page of Amazon EC2 allows."""
    (policy,) = re.findall(r"```json\n(.*?)```", (ROOT / "docs/aws.md").read_text(), re.DOTALL)
    actions = [statement["Action"] for statement in json.loads(policy)["Statement"]]
    return {name for each in actions for name in ([each] if isinstance(each, str) else each)}


def test_the_policy_is_of_the_calls_that_are_made() -> None:
    text = "\n".join(path.read_text() for path in sorted((ROOT / "skyward").rglob("*.py")))
    calls = re.findall(r'\.(?:call|pages)\(\s*"(ec2|ssm|pricing|iam|sts)",\s*"(\w+)"', text)
    made = {f"{service}:{action.title().replace('_', '')}" for service, action in calls}
    made.discard("sts:GetCallerIdentity")  # which everybody may

    assert made | {"ec2:CreateTags"} == allowed()  # tags are given with what is created


def test_links_of_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", README.read_text())

    assert [link for link in links if not (ROOT / link).exists()] == []
    assert (ROOT / "docs/run.png").stat().st_size < 200_000


def test_ci_runs_the_test_command_of_the_readme() -> None:
    job, tests = re.findall(r"```sh\n(python3 -m venv .*)\n```", README.read_text())

    assert job.endswith("guides/10_joblib_concurrency.py")
    assert tests in (ROOT / ".ci/run").read_text()


def resolved(name: str) -> object:
    """Return what a dotted name in a page stands for."""
    path, *parts = name.replace("sky.", "skyward.", 1).replace("compute.", "skyward.Compute.", 1).split(".")
    found: object = sky
    for part in parts:
        path += f".{part}"
        found = getattr(found, part) if hasattr(found, part) else importlib.import_module(path)
    return found


@pytest.mark.parametrize("page", WORDS, ids=lambda page: page.stem)
def test_names_arguments_and_targets_in_the_text_exist(page: Path) -> None:
    text = page.read_text()
    for name in re.findall(r"`(?:await )?((?:sky|skyward|compute)(?:\.[A-Za-z_]+)+)[`(\[]", text):
        if not name.endswith(".git"):
            assert resolved(name) is not None
    for kind, argument in re.findall(r"\b(Options|Image|Worker|Nodes|AWS|SSH|Local|Compute)\(([a-z_]+)=", text):
        inspect.signature(getattr(sky, kind)).bind_partial(**{argument: None})
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"`make ([a-z]+)`", text)) <= set(targets)
    for path in re.findall(r"`((?:skyward|tests|guides|bench|docs)/[\w/.*-]+)`", text):
        assert list(ROOT.glob(path.rstrip("/"))), path


def printed() -> list[tuple[str, str]]:
    """Return lines that pages show as output, as the code prints them, each with its page."""
    nothing = Report(0, 0, 0, 0, 0, {}, 0, {}, 0.0, 0.0, 0.0, LostTime())
    node = NodeUse(4, 0, (), 0, 0, 72_000_000)
    steps = {1: (("launching", 0.0), ("reaching", 0.0), ("booting", 0.354), ("joining", 0.003)), 0: (("booting", 0.3),)}
    explained = replace(nothing, nodes={0: node, 1: node}, starts=steps).explain().splitlines()
    slow = replace(nothing, imports={"slowmod": 6.0})
    quote = costs.line(Quote("t4g.micro", "eu-central-1a", 10, 0.01428, "address and disk"))
    return [
        ("see", explained[-2]),
        ("waiting", explained[-1]),
        ("waiting", str(slow).splitlines()[-1]),
        ("see", import_hint({"sklearn.svm": 10.0}, 0.0)),
        ("money", quote),
        ("aws", quote),
        ("see", shown_progress(-1)),
        ("see", shown_progress(2000)),
    ]


def shown_progress(tasks: int) -> str:
    """Return how far a run is shown to be in which 1300 of so many tasks have arrived, and 1100 are done."""
    progress, many = Progress(), 1100
    ended = (0,) * many, (0,) * many, (1.0,) * many, ("returned",) * many, (1,) * many, 1
    progress.add([events.TasksCounted(0.0, 0, tasks, final=tasks > 0), events.BatchesArrived(0.0, 1300, 1300)])
    progress.add([events.BatchesEnded(1.0, 0, *ended)])
    return going(progress, 1.0)[0][0]


@pytest.mark.parametrize(("page", "line"), printed())
def test_what_a_page_shows_as_output_is_what_is_printed(page: str, line: str) -> None:
    assert line in " ".join((ROOT / f"docs/{page}.md").read_text().split())


def test_the_tree_of_errors_is_that_of_the_code() -> None:
    page = (ROOT / "docs/failure.md").read_text().partition("SkywardError\n")[2].partition("```")[0]
    tree = (errors.__doc__ or "").partition("SkywardError\n")[2].partition("\n\n")[0]

    def branches(text: str) -> list[str]:
        return [re.match(r"[│├└─ ]+\w+", line)[0] for line in text.strip().splitlines()]  # type: ignore[index]

    assert branches(page) == branches(tree)


def test_every_file_and_name_in_the_architecture_exists() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"`((?:[a-z0-9_]+/)*[a-z0-9_]+\.py)(?:: (\w+))?`", text)
    assert len(named) > 40
    for path, name in named:
        source = (ROOT / "skyward" / path).read_text()
        assert not name or re.search(rf"^(class|def|async def) {name}\b", source, re.MULTILINE), f"{path}: {name}"
