"""What a bare machine is sent."""

import importlib.metadata
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

import skyward as sky
from skyward.environment import bundle
from skyward.remote.node_config import Requirements


def wheel(package: bundle.Package) -> bytes:
    file = BytesIO()
    package.write(file)
    return file.getvalue()


def install(site: Path, name: str, kind: str = "dist-info", **told: str) -> None:
    """Have a package in a folder for packages, of which it is told that much."""
    folder = site / f"{name}-1.0.{kind}"
    folder.mkdir(parents=True)
    (folder / ("METADATA" if kind == "dist-info" else "PKG-INFO")).write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: cloudpickle\n"
    )
    for file, text in told.items():
        (folder / file.replace("__", ".")).write_text(text)


def test_a_node_is_sent_itself_and_what_it_needs_at_the_versions_that_are_here() -> None:
    packed = bundle.pack(sky.Image())

    sent = {wheel.name: wheel.version for wheel in packed.recipe.wheels}
    assert sent.keys() == {"skyward", *bundle.NODE_PACKAGES}
    assert sent["casty"] == importlib.metadata.version("casty")
    assert packed.recipe.fetch == ()
    assert packed.requirements(("numpy",)) == Requirements("{}.{}".format(*sys.version_info), sent, ("numpy",))


def test_a_package_that_is_here_comes_with_all_that_it_needs() -> None:
    found, fetch = bundle.needed(["scikit-learn>=1.5"])

    assert {"scikit-learn", "numpy", "scipy", "joblib"} <= set(found)
    assert fetch == ()


def test_a_package_that_is_not_here_or_not_so_is_fetched() -> None:
    assert bundle.needed(["numpy<1", "no-such-package>=2; python_version > '3'", "./a/path"]) == (
        [],
        ("numpy<1", "no-such-package>=2", "./a/path"),
    )
    assert bundle.needed(["no-such-package; python_version < '3'"]) == ([], ())


def test_extras_count_when_they_are_asked_for() -> None:
    assert "asyncssh" not in bundle.needed(["casty"])[0]
    assert bundle.needed(["coverage[toml]", "coverage[toml]"])[0] == ["coverage"]


def test_our_own_wheel_is_what_runs_here() -> None:
    package = bundle.itself()
    content = wheel(package)
    archive = zipfile.ZipFile(BytesIO(content))

    assert (
        archive.read("skyward/remote/node/parent_process.py")
        == (Path(sky.__file__).parent / "remote/node/parent_process.py").read_bytes()
    )
    assert not [name for name in archive.namelist() if "__pycache__" in name]
    assert package.wheel.own
    assert wheel(bundle.itself()) == content


def test_a_wheel_made_of_an_installed_package_can_be_installed_again(tmp_path: Path) -> None:
    package = bundle.installed_package("cloudpickle")
    path = tmp_path / package.wheel.file
    path.write_bytes(wheel(package))
    words = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", str(tmp_path / "to")]
    subprocess.run([*words, str(path)], timeout=150, check=True)

    assert (tmp_path / "to" / "cloudpickle" / "__init__.py").is_file()


def test_a_file_is_made_once_however_often_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"first")
    packed = bundle.pack(sky.Image(files={"a/data": tmp_path / "data"}))
    ((name, digest),) = packed.recipe.files

    assert name == "a/data"
    assert packed.content(digest) is packed.content(digest)
    (tmp_path / "data").write_bytes(b"")
    assert packed.content(digest)[:] == b"first"
    first = packed.recipe.wheels[0]
    names = zipfile.ZipFile(BytesIO(packed.content(first.file)[:])).namelist()
    assert f"skyward-{first.version}.dist-info/METADATA" in names


def test_an_empty_file_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    packed = bundle.pack(sky.Image(files={"data": tmp_path / "data"}))

    assert packed.content(packed.recipe.files[0][1]) == b""


def test_a_package_that_does_not_say_of_what_it_consists_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site-packages"
    install(site, "of_a_distribution")
    install(site, "of_old", "egg-info", installed_files__txt="x\n")
    monkeypatch.syspath_prepend(site)

    assert bundle.needed(["of_a_distribution", "of_old"]) == (
        ["cloudpickle"],
        ("of_a_distribution==1.0", "of_old==1.0"),
    )


@pytest.mark.parametrize("way", ["new", "old"])
def test_of_an_editable_package_what_it_needs_is_sent_and_itself_travels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way == "new":
        told = '{"url": "file:///work", "dir_info": {"editable": true}}'
        install(
            site := tmp_path / "site-packages", "mine", direct_url__json=told, RECORD="mine-1.0.dist-info/METADATA,,\n"
        )
    else:
        install(site := tmp_path / "work", "mine", "egg-info")
    monkeypatch.syspath_prepend(site)

    assert bundle.needed(["mine"]) == (["cloudpickle"], ())


def test_a_package_from_a_folder_is_sent_also_where_others_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site-packages"
    (site / "mine").mkdir(parents=True)
    (site / "mine" / "__init__.py").write_text("")
    record = "mine/__init__.py,,\nmine-1.0.dist-info/METADATA,,\nmine-1.0.dist-info/RECORD,,\n"
    install(site, "mine", direct_url__json='{"url": "file:///work", "dir_info": {}}', RECORD=record)
    monkeypatch.syspath_prepend(site)
    packed = bundle.pack(sky.Image(packages=["mine"], index="https://index.example"))

    assert [each.name for each in packed.recipe.wheels if each.own] == ["skyward", "mine"]


def test_a_file_that_is_not_there_is_said_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(sky.InvalidArgument, match="there is no such file; give the path of a file"):
        bundle.pack(sky.Image(files={"data": tmp_path / "missing"}))
