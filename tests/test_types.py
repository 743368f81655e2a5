"""A type checker knows what a remote function takes and gives: what is marked here is wrong, and nothing else is."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PROGRAM = """
# mypy: disable-error-code=unused-awaitable
from collections.abc import Iterator
from concurrent.futures import as_completed
from typing import assert_type

import skyward as sky
from skyward.plugins import Plugin, Pool

@sky.remote
def square(x: int, *, rounded: bool = False) -> int:
    return x * x

@sky.remote(timeout=60, retries=0)
def name(x: int) -> str:
    return str(x)

@sky.remote
def first[T](items: list[T]) -> T:
    return items[0]

class Scale:
    @sky.remote
    def times(self, x: float) -> float:
        return x

def plain(x: int, text: str) -> bytes:
    return text.encode() * x

assert_type(square(3), int)
assert_type(square(3, rounded=True), int)
assert_type(square.remote(3), sky.Future[int])
assert_type(square.remote(3).result(), int)
assert_type(square.map([1, 2]), Iterator[int])
assert_type(square.options(timeout=5, node=1).remote(3), sky.Future[int])
assert_type(square.options(retries=0)(3), int)
assert_type(name(3), str)
assert_type(first(["a"]), str)
assert_type(first.remote([1]).result(), int)
assert_type(Scale().times(2.0), float)
assert_type(Scale().times.remote(2.0), sky.Future[float])
assert_type(Scale.times(Scale(), 2.0), float)
assert_type(name.options(node=0).map(range(3), chunksize=2), Iterator[str])
square("three")  # arg-type
square()  # call-arg
square(3, round=True)  # call-arg
square.remote("three")  # arg-type
square.remote(3, 4)  # call-arg
square.options(timeout="soon")  # arg-type
square.options(tmeout=5)  # arg-type
square.options(node=1).remote(None)  # arg-type
name(b"three")  # arg-type
Scale().times("two")  # arg-type
sky.remote(timeout=5, slots=3)  # call-overload
sky.remote(3)  # call-overload

def inside(compute: sky.Compute) -> None:
    assert_type(compute.submit(plain, 2, "a"), sky.Future[bytes])
    assert_type(compute.submit(plain, 2, text="a").result(), bytes)
    assert_type(compute.submit(len, "ab").result(), int)
    assert_type(compute.map(square, [1, 2]), Iterator[int])
    assert_type(compute.broadcast(plain, 2, "a"), list[bytes])
    assert_type(compute.broadcast(sky.instance_info), list[sky.InstanceInfo])
    assert_type(sky.shard([1, 2]), list[int])
    assert_type(next(as_completed([compute.submit(plain, 2, "a")])).result(), bytes)
    with compute.task_group(limit=2) as group:
        assert_type(group.submit(plain, 2, "a"), sky.Future[bytes])
    compute.submit(plain, "a", 2)  # arg-type
    compute.submit(plain, 2)  # call-arg
    compute.broadcast(plain, 2, b"a")  # arg-type

async def awaited(compute: sky.Compute) -> None:
    assert_type(await compute.submit(plain, 2, "a"), bytes)
    assert_type(await square.remote(3), int)

class Mine(Plugin):
    def image(self, image: sky.Image, /) -> sky.Image:
        return image.with_packages("numpy")

def enter(pool: Pool) -> None:
    assert_type(pool.submit(plain, 2, "a"), sky.Future[bytes])
    pool.submit(plain, 2)  # call-arg

def takes_a_pool(compute: sky.Compute) -> None:
    enter(compute)

sky.Compute(nodes=2, worker=sky.Worker(concurrency=3), plugins=[Mine(), sky.plugins.joblib()])
sky.Compute(nodes="2")  # arg-type
sky.Compute(plugins=Mine())  # arg-type
sky.Worker(executor="fibre")  # arg-type
"""


@pytest.mark.timeout(300)  # without its cache mypy reads half a library
def test_types_survive_and_what_is_wrong_is_an_error(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", str(program)]

    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)

    errors = re.findall(r"program\.py:(\d+): error: .*\[(\S+)\]", ran.stdout)
    found = {int(line): code for line, code in reversed(errors)}  # the first of each line
    marked = {
        number: line.rpartition("  # ")[2] for number, line in enumerate(PROGRAM.splitlines(), 1) if "  # " in line
    }
    assert found == marked, ran.stdout + ran.stderr
