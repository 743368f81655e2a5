"""The documentation: each public name and each guide is in it, its code runs, and reading it needs no network."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pytest

import skyward as sky
from skyward import events

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
CODE = re.compile(r"<!-- runs -->\n```python\n(.*?)```", re.DOTALL)
RUNNING = [
    pytest.param(code, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, code in enumerate(CODE.findall(page.read_text()))
]
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
        timeout=50,
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


def test_each_event_is_in_the_reference(site: Path) -> None:
    ids = Page((site / "events.html").read_text()).ids

    assert {f"skyward.events.{kind.__name__}" for kind in events.Event.__value__.__args__} - ids == set()


def test_each_guide_has_a_page_that_includes_it() -> None:
    pages = {page.stem: page.read_text() for page in (ROOT / "docs/guides").glob("*.md")}
    guides = [guide.stem for guide in sorted((ROOT / "guides").glob("[0-9]*.py"))]

    assert sorted(pages) == guides
    assert [name for name in guides if f'--8<-- "guides/{name}.py"' not in pages[name]] == []


@pytest.mark.parametrize("code", RUNNING)
def test_code_that_is_marked_so_runs_as_it_stands(code: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(code)

    ran = subprocess.run(
        [sys.executable, "-W", "error", "program.py"],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout
