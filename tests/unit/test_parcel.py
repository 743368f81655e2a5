"""What a bare machine is sent."""

import importlib.metadata
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

import skyward as sky
from skyward import parcel


def names(content: bytes) -> set[str]:
    return set(zipfile.ZipFile(BytesIO(content)).namelist())


def test_a_node_is_sent_itself_and_what_it_needs_at_the_versions_that_are_here() -> None:
    packed = parcel.pack(sky.Image())

    sent = {wheel.name: wheel.version for wheel in packed.recipe.wheels}
    assert sent.keys() == {"skyward", *parcel.NODE}
    assert sent["casty"] == importlib.metadata.version("casty")
    assert packed.recipe.fetch == ()
    assert packed.expects() == {"python": "{}.{}".format(*sys.version_info), "packages": sent}


def test_a_package_that_is_here_comes_with_all_that_it_needs() -> None:
    found, fetch = parcel.needed(["scikit-learn>=1.5"])

    assert {"scikit-learn", "numpy", "scipy", "joblib"} <= set(found)
    assert fetch == ()


def test_a_package_that_is_not_here_or_not_so_is_fetched() -> None:
    assert parcel.needed(["numpy<1", "no-such-package>=2; python_version > '3'", "./a/path"]) == (
        [],
        ("numpy<1", "no-such-package>=2", "./a/path"),
    )
    assert parcel.needed(["no-such-package; python_version < '3'"]) == ([], ())


def test_extras_count_when_they_are_asked_for() -> None:
    assert "asyncssh" not in parcel.needed(["casty"])[0]
    assert parcel.needed(["coverage[toml]", "coverage[toml]"])[0] == ["coverage"]


def test_our_own_wheel_is_what_runs_here() -> None:
    package = parcel.itself()
    content = package.content()
    archive = zipfile.ZipFile(BytesIO(content))

    assert archive.read("skyward/remote/node.py") == (Path(sky.__file__).parent / "remote" / "node.py").read_bytes()
    assert not [name for name in archive.namelist() if "__pycache__" in name]
    assert package.wheel.own
    assert parcel.itself().content() == content


def test_a_wheel_made_of_an_installed_package_can_be_installed_again(tmp_path: Path) -> None:
    package = parcel.installed("cloudpickle")
    path = tmp_path / package.wheel.file
    path.write_bytes(package.content())
    words = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", str(tmp_path / "to")]
    subprocess.run([*words, str(path)], timeout=50, check=True)

    assert (tmp_path / "to" / "cloudpickle" / "__init__.py").is_file()


def test_a_file_is_made_once_however_often_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"first")
    packed = parcel.pack(sky.Image(files={"a/data": tmp_path / "data"}))
    ((name, digest),) = packed.recipe.files

    assert name == "a/data"
    assert packed.content(digest) is packed.content(digest)
    assert packed.content(digest) == b"first"
    wheel = packed.recipe.wheels[0]
    assert f"skyward-{wheel.version}.dist-info/METADATA" in names(packed.content(wheel.file))


def test_a_file_that_is_not_there_is_said_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(sky.InvalidArgument, match="cannot be read: No such file or directory; give a file"):
        parcel.pack(sky.Image(files={"data": tmp_path / "missing"}))
