"""The script that makes a node of a bare machine."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from skyward.remote import bootstrap
from skyward.remote.bootstrap import Recipe, Wheel
from skyward.remote.node_messages import WaitingForFiles, encode
from tests import kit

OURS = Wheel("skyward", "1.0", "aa", own=True)
PURE = Wheel("cloudpickle", "3.1", "bb")
BOUND = Wheel("typing-things", "0.30", "cc", "cp312-abi3-manylinux_2_17_x86_64")
RECIPE = Recipe("3.12", ".so", (OURS, PURE, BOUND))


def values(recipe: Recipe) -> dict[str, str]:
    """The variables that the script begins with, as its shell has them."""
    text = bootstrap.script(recipe).decode()
    head = text[text.index("python=") : text.index('env="$cache')]
    names = [line.partition("=")[0] for line in head.splitlines() if line.partition("=")[0].isidentifier()]
    show = "".join(f'printf "%s\\0" {name}="${name}";' for name in names)
    shown = subprocess.run(["sh", "-c", head + show], capture_output=True, text=True, timeout=150, check=True).stdout
    return dict(each.split("=", 1) for each in shown.split("\0") if each)


def test_the_script_is_one_that_a_shell_can_read() -> None:
    recipe = replace(RECIPE, apt=("a b",), shell=("echo 'it''s'",), files=(("a b/c", "ff"),), fetch=("numpy>=2",))
    for shell in filter(shutil.which, ("sh", "dash", "bash")):
        subprocess.run([shell, "-n"], input=bootstrap.script(recipe), timeout=150, check=True)


def test_packages_are_sent_and_those_of_another_kind_of_machine_are_fetched() -> None:
    told = values(RECIPE)

    assert told["sends"].split() == [OURS.file, PURE.file, BOUND.file]
    assert told["fetch"] == ""
    assert told["sends_elsewhere"].split() == [OURS.file, PURE.file]
    assert told["fetch_elsewhere"] == "typing-things==0.30"


def test_with_an_index_all_but_our_own_is_fetched_at_the_versions_that_are_here() -> None:
    told = values(replace(RECIPE, index="https://user:secret@index.example", fetch=("numpy>=2",)))

    assert told["sends"].split() == told["sends_elsewhere"].split() == [OURS.file]
    assert told["fetch"].split("\n") == ["numpy>=2", "cloudpickle==3.1", "typing-things==0.30"]
    assert told["constraints"].split("\n") == ["skyward==1.0", "cloudpickle==3.1", "typing-things==0.30"]
    assert (told["index"], told["trusted"]) == ("https://user:secret@index.example", "")


def test_what_no_index_has_is_sent_but_to_machines_that_it_is_not_for() -> None:
    mine = Wheel("mine", "1.0", "ee", "cp312-cp312-linux_x86_64", own=True)
    told = values(replace(RECIPE, wheels=(OURS, PURE, mine), index="https://index.example"))

    assert told["sends"].split() == [OURS.file, mine.file]
    assert told["sends_elsewhere"].split() == [OURS.file]
    assert told["fetch_elsewhere"].split("\n") == ["cloudpickle==3.1", "mine==1.0"]


def test_an_index_that_the_user_names_with_http_is_trusted() -> None:
    assert values(replace(RECIPE, index="http://me:secret@mirror:8080/simple"))["trusted"] == "mirror:8080"


def test_what_is_not_here_is_fetched_with_the_pip_that_is() -> None:
    told = values(replace(RECIPE, fetch=("numpy>=2 ; python_version > '3'",), pip=Wheel("pip", "26", "dd")))

    assert told["fetch"] == "numpy>=2 ; python_version > '3'"
    assert told["pip_file"] == "pip-26-1dd-py3-none-any.whl"


def test_a_wheel_has_a_name_that_pip_understands_and_that_says_what_is_in_it() -> None:
    assert BOUND.file == "typing_things-0.30-1cc-cp312-abi3-manylinux_2_17_x86_64.whl"
    assert (PURE.anywhere, BOUND.anywhere) == (True, False)


@pytest.mark.parametrize(
    "change",
    [
        {"python": "3.13"},
        {"interpreter": "/opt/python"},
        {"wheels": (OURS, PURE)},
        {"wheels": (replace(OURS, digest="ab"), PURE, BOUND)},
        {"fetch": ("numpy",)},
        {"index": "https://index.example"},
        {"apt": ("libgomp1",)},
        {"shell": ("true",)},
    ],
)
def test_another_recipe_is_another_environment(change: dict[str, object]) -> None:
    assert replace(RECIPE, **change).key != RECIPE.key  # type: ignore[arg-type]


def test_files_of_the_tasks_are_no_part_of_the_environment() -> None:
    recipe = replace(RECIPE, files=(("a b", "ff"), ("c/d", "ee")))
    text = bootstrap.script(recipe).decode()

    assert recipe.key == RECIPE.key
    assert "have files/ff\nhave files/ee\n" in text
    assert "place 'a b' ff\nplace c/d ee\n" in text


def test_each_command_of_the_user_is_a_step_of_its_own() -> None:
    text = bootstrap.script(replace(RECIPE, shell=("mkdir -p 'a b'", "true"))).decode()

    assert "step 'mkdir -p '\"'\"'a b'\"'\"''\n" in text
    assert text.index("step true") > text.index("a b")


def test_a_command_of_several_lines_is_named_by_its_first() -> None:
    text = bootstrap.script(replace(RECIPE, shell=("\nset -e\nfalse\n",))).decode()

    assert "step 'set -e'\n(eval '\nset -e\nfalse\n')" in text


@pytest.mark.parametrize("shell", ["sh", "dash", "bash"])
def test_it_waits_no_longer_for_what_it_lacks_when_its_folder_is_gone(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    folder = tmp_path / "node"
    folder.mkdir()
    (folder / bootstrap.SCRIPT_FILE).write_bytes(bootstrap.script(RECIPE))
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    words = [shell, str(folder / bootstrap.SCRIPT_FILE)]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert encode(WaitingForFiles()).decode() in process.stdout
            shutil.rmtree(folder)
            assert process.wait(kit.SOON) == 1
        finally:
            process.kill()


# ---------------------------------------------------------------- what the cache keeps


@pytest.fixture(params=["sh", "dash", "bash"])
def trimmed(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., set[str]]:
    """Trims the cache of a user's home, as the start of `mine-0-0` does, and returns what is left there."""
    if shutil.which(request.param) is None:
        pytest.skip(f"no {request.param} here")
    cache = tmp_path / ".cache" / "skyward"
    mine = cache / "run" / "here" / "mine-0-0"
    mine.mkdir(parents=True)
    text = bootstrap.script(RECIPE).decode()
    functions = text[: text.index('echo "${env##*/}"')]

    def trim(more: str = "") -> set[str]:
        words = [request.param, "-c", f"{functions}\n{more}\ntrim", str(mine / bootstrap.SCRIPT_FILE)]
        environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
        ran = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=150, check=True)
        assert ran.stderr == ran.stdout == ""
        return {str(path.relative_to(cache)) for name in ("env", "wheels", "files") for path in cache.glob(f"{name}/*")}

    return trim


def kept(home: Path, name: str, days: float) -> None:
    """Put something into the cache that was last used so many days ago."""
    path = home / ".cache" / "skyward" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name == "complete":
        path.mkdir()
    else:
        path.touch()
    os.utime(path, (time.time() - days * 86400,) * 2)


def use(home: Path, node: str, name: str) -> None:
    """Have a node that runs on another machine with this home use an environment."""
    folder = home / ".cache" / "skyward" / "run" / "elsewhere" / node
    folder.mkdir(parents=True)
    (folder / "uses").write_text(f"{name}\n")


def test_what_was_not_used_for_a_month_goes_and_what_is_used_stays(
    trimmed: Callable[..., set[str]], tmp_path: Path
) -> None:
    for name, days in {"env/old": 40, "env/new": 20, "env/held": 400}.items():
        kept(tmp_path, f"{name}/complete", days)
    for name, days in {"wheels/old.whl": 40, "wheels/new.whl": 20, "files/old": 40, "files/new": 1}.items():
        kept(tmp_path, name, days)
    use(tmp_path, "other-0-0", "held")

    assert trimmed() == {"env/new", "env/held", "wheels/new.whl", "files/new"}


def test_what_a_dead_start_left_half_made_goes_and_what_is_being_made_stays(
    trimmed: Callable[..., set[str]], tmp_path: Path
) -> None:
    for node in ("dead-0-0", "other-0-0"):
        kept(tmp_path, f"env/key-x86_64.{node}/bin", 0)
    use(tmp_path, "other-0-0", "key-x86_64")

    assert trimmed() == {"env/key-x86_64.other-0-0"}


def test_what_somebody_begins_to_use_in_the_same_moment_is_put_back(
    trimmed: Callable[..., set[str]], tmp_path: Path
) -> None:
    kept(tmp_path, "env/old/complete", 40)
    kept(tmp_path, "env/older/complete", 50)
    use(tmp_path, "other-0-0", "neither")
    begins = 'mv() { command mv "$@"; echo old >"$cache/run/elsewhere/other-0-0/uses"; }'

    assert trimmed(begins) == {"env/old"}


def test_what_is_made_anew_in_the_same_moment_stays_as_it_is(trimmed: Callable[..., set[str]], tmp_path: Path) -> None:
    kept(tmp_path, "env/old/complete", 40)
    use(tmp_path, "other-0-0", "neither")
    anew = """mv() {
        command mv "$@"
        echo old >"$cache/run/elsewhere/other-0-0/uses"
        mkdir -p "$cache/env/old/complete/anew"
    }"""

    assert trimmed(anew) == {"env/old"}
    assert [path.name for path in (tmp_path / ".cache/skyward/env/old").rglob("*")] == ["complete", "anew"]
