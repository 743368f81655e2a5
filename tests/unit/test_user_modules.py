"""The user's own modules: found here, bundled, and importable elsewhere."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skyward.environment.user_modules import UserModules, unit_of
from skyward.remote import module_bundles
from skyward.remote.serialization import call_codec
from skyward.remote.serialization.packer import Packer


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Writes modules into a folder of the user's from which they can be imported."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)

    def put(below: str = "", **files: str) -> None:
        for name, text in files.items():
            path = tmp_path / below / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    yield put
    for name in set(sys.modules) - before:
        del sys.modules[name]


def units(*names: str) -> set[str]:
    """The modules that are bundled for whoever imports these."""
    return {name.split(":")[1] for name in UserModules().needed(names)}


def test_what_is_installed_and_what_python_brings_does_not_travel() -> None:
    for name in (
        "json",
        "sys",
        "numpy",
        "numpy.linalg",
        "skyward.remote.serialization.call_codec",
        "__main__",
        "no_such_module",
        "joblib",
    ):
        assert unit_of(name) is None


def test_a_module_of_the_users_travels_with_what_it_imports(write: Callable[..., None]) -> None:
    write(own_a="import own_b, json, numpy", own_b="def f():\n    from own_c import x", own_c="x = 1", own_d="")

    assert units("own_a") == {"own_a", "own_b", "own_c"}
    assert units("own_c") == {"own_c"}


def test_a_package_travels_whole_and_data_stays(write: Callable[..., None], tmp_path: Path) -> None:
    write(own_q="")
    write("own_p", __init__="")
    write("own_p/sub", __init__="from . import leaf", leaf="import own_q, own_p.other")
    (tmp_path / "own_p" / "data.csv").write_text("1")
    unit = unit_of("own_p.sub.leaf")

    assert unit is not None
    names = {path.relative_to(tmp_path).as_posix() for path in unit.files}
    assert (unit.name, names) == ("own_p", {"own_p/__init__.py", "own_p/sub/__init__.py", "own_p/sub/leaf.py"})
    assert units("own_p.sub.leaf") == {"own_p", "own_q"}


def test_of_a_namespace_only_what_is_used_travels(write: Callable[..., None]) -> None:
    write("own_ns", one="import own_ns.two", two="", three="")

    assert units("own_ns.one") == {"own_ns.one", "own_ns.two"}
    assert units("own_ns") == set()


def test_a_module_that_python_cannot_read_travels_as_it_is(write: Callable[..., None]) -> None:
    write(own_broken="def f(:")

    assert units("own_broken") == {"own_broken"}


def test_a_module_that_has_changed_is_another_bundle(write: Callable[..., None]) -> None:
    sources = UserModules()
    write(own_a="x = 1")
    first = sources.needed(["own_a"])
    assert sources.needed(["own_a"]) == first
    write(own_a="x = 12")

    assert sources.needed(["own_a"]) != first


ELSEWHERE = """
import sys
from pathlib import Path
from skyward.remote import module_bundles; from skyward.remote.serialization import call_codec
folder, *names = sys.argv[1:]
others = module_bundles.install(folder, {name: Path(folder, name).read_bytes() for name in names})
others |= module_bundles.install(folder, {name: Path(folder, name).read_bytes() for name in names})
assert not others
payload = Path(folder, "payload").read_bytes()
print(call_codec.open_outcome(*call_codec.execute(payload)))
"""


def test_a_call_of_a_function_of_the_users_runs_where_there_is_none(write: Callable[..., None], tmp_path: Path) -> None:
    write(own_a="import own_b\n\nclass Box:\n    def get(self): return own_b.x", own_b="x = 7")
    import own_a  # type: ignore[import-not-found]

    box = own_a.Box()
    sources = UserModules()
    packed = Packer(share=False, bundles=sources.needed).pack(lambda: box.get(), (), {})
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "payload").write_bytes(packed.payload)
    for name in packed.modules:
        (folder / name).write_bytes(sources.bundles[name])
    ran = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(folder), *packed.modules],
        cwd=folder,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )

    assert ran.stdout == "(7, None)\n", ran.stderr


def test_what_a_function_imports_as_it_runs_is_found_too(write: Callable[..., None]) -> None:
    write(own_late="x = 3", own_deep="x = 4")

    def outer() -> object:
        import own_late  # type: ignore[import-not-found]

        def inner() -> object:
            import own_deep  # type: ignore[import-not-found]

            return own_deep

        return own_late, inner

    sources = UserModules()
    for share in (True, False):
        packed = Packer(share=share, bundles=sources.needed).pack(outer, (), {})
        assert {"own_late", "own_deep"} <= {name.split(":")[1] for name in packed.modules}


def test_a_module_as_an_argument_is_found_too(write: Callable[..., None]) -> None:
    write(own_arg="x = 3")
    import own_arg  # type: ignore[import-not-found]

    packed = Packer(bundles=UserModules().needed).pack(getattr, (own_arg, "x"), {})
    assert [name.split(":")[1] for name in packed.modules] == ["own_arg"]


def test_where_nodes_have_what_is_here_nothing_is_bundled() -> None:
    assert Packer().pack(units, (), {}).modules == ()


def test_a_changed_module_is_imported_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(module_bundles, "_numbers", {})
    values = []
    for number, text in enumerate(("x = 1", "x = 2", "x = 1")):
        name = module_bundles.bundle_name("own_changing", number + 1, f"{len(text)}{text[-1]}")
        bundle = {name: _zip("own_changing.py", text)}
        assert module_bundles.install(str(tmp_path), bundle | {"function": b""}) == {"function": b""}
        values.append(__import__("own_changing").x)
        assert number < 3
    del sys.modules["own_changing"]

    assert values == [1, 2, 1]
    assert not [path for path in (tmp_path / "modules" / "own_changing").iterdir() if path.name.startswith("tmp")]


def _zip(name: str, text: str) -> bytes:
    import io
    import zipfile

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, text)
    return file.getvalue()


def test_of_two_versions_the_newer_one_counts_in_whatever_order_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(module_bundles, "_numbers", {})
    for number, text in ((2, "x = 2"), (1, "x = 1")):
        bundle = {module_bundles.bundle_name("own_ordered", number, str(number)): _zip("own_ordered.py", text)}
        module_bundles.install(str(tmp_path), bundle)
    value = __import__("own_ordered").x
    del sys.modules["own_ordered"]

    assert value == 2


def test_a_change_of_a_module_drops_those_that_took_something_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(module_bundles, "_numbers", {})
    user = {module_bundles.bundle_name("own_user", 1, "a"): _zip("own_user.py", "from own_used import x")}
    values = []
    for number in (1, 2):
        used = {module_bundles.bundle_name("own_used", number, str(number)): _zip("own_used.py", f"x = {number}")}
        module_bundles.install(str(tmp_path), used | user)
        values.append(__import__("own_user").x)
    del sys.modules["own_user"], sys.modules["own_used"]

    assert values == [1, 2]


def test_a_module_that_is_as_it_was_before_is_a_newer_version_all_the_same(write: Callable[..., None]) -> None:
    sources = UserModules()
    names: list[str] = []
    for text in ("x = 1", "x = 22", "x = 1"):
        write(own_back=text)
        names += sources.needed(["own_back"])

    numbers = [int(name.split(":")[2]) for name in names]
    assert numbers == sorted(set(numbers))


def test_what_is_reloaded_is_told_until_the_watch_ends(write: Callable[..., None]) -> None:
    write(own_r="x = 1")
    sources = UserModules()
    sources.watch()
    import own_r  # type: ignore[import-not-found]

    assert sources.reloaded() == ()
    importlib.reload(own_r)
    first = sources.reloaded()
    assert first == sources.reloaded() != ()
    del sys.modules["own_r"]
    assert sources.reloaded() == first
    import own_r

    assert sources.reloaded() != first
    sources.close()
    sources.close()
    last = sources.reloaded()
    importlib.reload(own_r)
    importlib.reload(json)
    assert sources.reloaded() == last
    assert module_bundles.RELOAD in last[0]


def test_two_processes_may_unpack_at_once(tmp_path: Path) -> None:
    place = tmp_path / "home" / "digest"
    for _ in range(2):
        module_bundles._extract(str(place.parent), str(place), _zip("a.py", ""))

    assert [path.name for path in place.parent.iterdir()] == ["digest"]
    assert call_codec is not None
