"""An image is checked against where its nodes will run, before anything is launched."""

import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import pytest

import skyward as sky
from skyward.environment import preflight
from skyward.errors import InvalidArgument

SSH = sky.SSH(hosts=["a"])
NUMPY = importlib.metadata.version("numpy")


def refused(image: sky.Image, provider: Any) -> str:
    with pytest.raises(InvalidArgument) as raised:
        preflight.check(image, provider)
    return str(raised.value)


@pytest.mark.parametrize("provider", [sky.Local(), SSH, sky.AWS(region="eu-central-1")], ids=lambda each: each.name)
def test_a_file_that_cannot_be_sent_is_refused_when_the_pool_is_made(
    provider: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data.csv").write_text("1,2")
    (tmp_path / "secret").touch(0o000)
    for path, problem in (("no.csv", "there is no such file; give the path"), ("data", "is a folder; name each file")):
        with pytest.raises(InvalidArgument) as raised:
            sky.Compute(provider=provider, image=sky.Image(files={"data.csv": path}))
        assert str(raised.value).startswith(f"files={{'data.csv': '{path}'}}: {problem}")
        assert str(raised.value).endswith(f"relative paths begin at {tmp_path}")
    assert "is not a regular file" in refused(sky.Image(files={"x": "/dev/null"}), provider)
    assert "cannot be read: file name too long; give" in refused(sky.Image(files={"x": "x" * 5000}), provider)
    preflight.check(sky.Image(files={"data.csv": "data.csv", "b": tmp_path / "data.csv"}), provider)


def test_a_file_is_looked_for_again_when_the_block_is_entered(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.touch()
    compute = sky.Compute(image=sky.Image(files={"data.csv": path}))
    path.unlink()

    with pytest.raises(InvalidArgument, match="there is no such file"):
        compute.__enter__()


@pytest.mark.parametrize(
    ("packages", "missing"),
    [
        (["numpy", "scikit-learn>=1", "joblib[extra]; python_version > '3'"], {}),
        (["no-such-package>=2"], {"no-such-package>=2": ""}),
        (["no-such-package; python_version < '3'"], {}),
        (["numpy<1", "NumPy>=1"], {"numpy<1": NUMPY}),
        (["coverage[toml]"], {}),
        (["git+https://host/x.git", "/wheels/x.whl"], {}),
        (["numpy @ https://host/numpy.whl"], {}),
    ],
)
def test_packages_are_compared_with_what_is_installed(packages: list[str], missing: dict[str, str]) -> None:
    assert preflight.unmet(packages) == missing


def test_what_an_extra_brings_is_compared_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mine-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: mine\nVersion: 1.0\nProvides-Extra: fast\nRequires-Dist: no-such-base\n"
        "Requires-Dist: no-such-package>=2; extra == 'fast'\nRequires-Dist: of old (>dev); extra == 'fast'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    assert preflight.unmet(["mine"]) == {}
    assert preflight.unmet(["mine[fast]"]) == {"no-such-package>=2": ""}


def test_what_is_not_installed_is_refused_where_nothing_is_installed() -> None:
    image = sky.Image(packages=["numpy<1", "no-such-package"])

    assert refused(image, sky.Local()) == (
        "packages=['numpy<1', 'no-such-package']: nodes of 'local' run in this program's environment, which does not "
        f"have numpy<1 ({NUMPY} is installed), no-such-package; "
        f"install what is missing: {sys.executable} -m pip install 'numpy<1' no-such-package"
    )
    preflight.check(image, SSH)


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("no_such_module", "give the name by which it is imported"),
        ("skleran.svm", "did you mean 'sklearn'?"),
        ("numpyy", "did you mean 'numpy'?"),
        ("jsn", "did you mean 'json'?"),
    ],
)
def test_a_module_to_preload_that_nobody_has_is_named_when_the_pool_is_made(name: str, fix: str) -> None:
    top = name.partition(".")[0]
    with pytest.raises(InvalidArgument) as raised:
        sky.Compute(image=sky.Image(preload=["json", name]))
    assert str(raised.value) == f"preload=['json', '{name}']: there is no module {top!r}; {fix}"


def test_a_module_that_a_machine_may_come_to_have_is_left_to_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").touch()
    preload = ["no_such_module"]
    assert "name its package: Image(packages=[...])" in refused(sky.Image(preload=preload), SSH)
    preflight.check(sky.Image(preload=preload, packages=["no-such-package"]), SSH)
    preflight.check(sky.Image(preload=preload, shell=["true"]), SSH)
    preflight.check(sky.Image(preload=preload, env={"PYTHONPATH": "/there"}), sky.Local())
    preflight.check(sky.Image(preload=["mine"], files={"mine.py": tmp_path / "mine.py"}), sky.Local())


def test_a_module_that_was_written_just_now_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    refused(sky.Image(preload=["written_just_now"]), sky.Local())
    (tmp_path / "written_just_now.py").touch()
    preflight.check(sky.Image(preload=["written_just_now.part", "os.path", "skyward.config.spec"]), sky.Local())


def test_what_has_no_effect_is_named_with_what_to_do() -> None:
    image = sky.Image(
        packages=["git+https://host/x.git"],
        index="https://index.example",
        python="no-python",
        apt=["libgomp1"],
        shell=["true"],
        env={"A": "b"},
        preload=["json"],
    )
    notice = preflight.ignored(image, sky.Local())

    assert "Image(index=, python=, apt=, shell=) and the version of git+https://host/x.git" in notice
    assert "Set up here what they need" in notice
    assert preflight.ignored(image, SSH) == ""


@pytest.mark.parametrize("python", [None, sys.executable])
def test_what_is_so_already_is_not_named(python: str | None) -> None:
    image = sky.Image(packages=["numpy"], python=python, env={"A": "b"}, preload=["json"])

    assert preflight.ignored(image, sky.Local()) == ""


def test_a_file_below_a_home_that_is_not_there_is_refused() -> None:
    said = refused(sky.Image(files={"a": "~nobody-at-all/x"}), SSH)
    assert said == (
        "files={'a': '~nobody-at-all/x'}: ~nobody-at-all names no folder: there is no such user, or it has no home "
        "(HOME is not set); give the whole path"
    )
