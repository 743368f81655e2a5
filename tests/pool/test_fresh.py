"""What a task leaves in a function or class by value is not seen by later tasks; and what these hold may be large."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from joblib import Parallel, delayed

import skyward as sky
from tests.kit import SOON, Apart, Bell
from tests.slot import run_as_main

SCRIPT = """
import random
OPTIONS = {"scale": 1}
RANDOM = random.Random(5)
count = 1
def task(x=0, seen=[]):
    global count
    OPTIONS["scale"] += 1
    count += 1
    seen.append(x)
    task.calls = getattr(task, "calls", 0) + 1
    return OPTIONS["scale"], count, len(seen), task.calls, RANDOM.random() == random.Random(5).random()
"""
FRESH = (2, 2, 1, 1, True)


@pytest.fixture(params=["process", "thread"], scope="module")
def compute(request: pytest.FixtureRequest) -> Iterator[sky.Compute]:
    worker = sky.Worker(concurrency=2, executor=request.param)
    with sky.Compute(worker=worker, plugins=[sky.plugins.joblib()]) as compute:
        yield compute


def test_each_batch_finds_the_state_of_the_script(compute: sky.Compute, monkeypatch: pytest.MonkeyPatch) -> None:
    main = run_as_main(monkeypatch, SCRIPT)
    one_by_one = [compute.submit(main.task).result(SOON) for _ in range(4)]
    mapped = list(compute.map(main.task, range(8)))
    chunked = list(compute.map(main.task, range(8), chunksize=4))
    parallel = Parallel(n_jobs=-1, batch_size=1)(delayed(main.task)(x) for x in range(8))

    assert one_by_one == [FRESH] * 4
    assert mapped == parallel == [FRESH] * 8
    assert [each[0] for each in chunked] == [2, 3, 4, 5] * 2
    assert (main.OPTIONS, main.count) == ({"scale": 1}, 1)
    main.OPTIONS["scale"], main.count = 10, 20
    assert [each[:2] for each in compute.map(main.task, range(4))] == [(11, 21)] * 4


CLASSES = """
class Model:
    fits = 0
    def __init__(self):
        Model.fits += 1
        self.number = Model.fits
def task(*models):
    Model.extra = getattr(Model, "extra", 0) + 1
    assert all(isinstance(each, Model) for each in models)
    return Model().number, Model.extra, Model()
"""


def test_each_batch_finds_the_classes_of_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    main = run_as_main(monkeypatch, CLASSES)
    with sky.Compute(worker=sky.Worker(concurrency=1), plugins=[sky.plugins.joblib()]) as compute:
        alone = [compute.submit(main.task, main.Model()).result(SOON)[:2] for _ in range(3)]
        *mapped, (_, _, model) = compute.map(main.task, [main.Model() for _ in range(4)])

    assert alone == [(2, 1), (3, 1), (4, 1)]  # the script itself makes one before each
    assert [each[:2] for each in mapped] == [(8, 1)] * 3
    assert type(model) is main.Model
    assert (main.Model.fits, hasattr(main.Model, "extra")) == (7, False)


# ---------------------------------------------------------------- large data

ITEMS = 3 << 17
"""Items of a float array of 3 MiB."""

LARGE = """
import functools
import numpy as np
DATA = np.arange({items}.0)
PARTS = list(DATA.reshape(-1, 1024).copy())
def make(data):
    return lambda number: float(data[number])
closure = make(DATA)
def variable(number):
    return float(DATA[number])
def parts(number):
    return float(PARTS[number // 1024][number % 1024])
class Holder:
    table = DATA
    def __init__(self, data):
        self.data = data
    def own(self, number):
        return float(self.data[number])
    def of_class(self, number):
        return float(self.table[number])
    @classmethod
    def of_itself(cls, number):
        return float(cls.table[number])
method = Holder(DATA).own
class_data = Holder(None).of_class
class_method = Holder.of_itself
def add(data, number):
    return float(data[number])
partial = functools.partial(add, DATA)
behind = functools.partial(closure)
"""

KINDS = ["closure", "variable", "parts", "method", "class_data", "class_method", "partial", "behind"]


@pytest.fixture(params=[sky.Local, Apart], ids=["shared memory", "chunks"], scope="module")
def nodes(request: pytest.FixtureRequest) -> Iterator[sky.Compute]:
    worker = sky.Worker(concurrency=2)
    with sky.Compute(provider=request.param(), nodes=2, worker=worker, plugins=[sky.plugins.joblib()]) as compute:
        yield compute


@pytest.mark.parametrize("kind", KINDS)
def test_large_data_of_a_function_reaches_each_node_once(
    nodes: sky.Compute,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    puts: list[tuple[str, int]],
) -> None:
    main = run_as_main(monkeypatch, LARGE.format(items=ITEMS))
    main.DATA[0] = KINDS.index(kind)  # not what another one has brought
    main.PARTS[0][0] = -1 - KINDS.index(kind)
    first = float(main.PARTS[0][0] if kind == "parts" else main.DATA[0])
    before = nodes.report().sent
    numbers = [0, *range(7, ITEMS, 10_007)]
    expected = [first, *map(float, numbers[1:])]
    fn: Callable[[int], Any] = getattr(main, kind)
    found = Parallel(n_jobs=-1, batch_size=1)(delayed(fn)(number) for number in numbers)
    again = list(nodes.map(fn, numbers))

    assert found == again == expected
    assert nodes.report().sent - before < 2 << 20
    assert sum(size for _, size in puts) == (2 * 8 * ITEMS if "chunks" in request.node.name else 0)


def test_a_large_function_that_finds_no_room_travels_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    main = run_as_main(monkeypatch, LARGE.format(items=ITEMS))
    options = sky.Options(blob_threshold=None)
    with sky.Compute(options=options) as compute:
        assert list(compute.map(main.closure, [1, 2])) == [1.0, 2.0]


WRITES = """
import numpy as np
import skyward as sky
class Table:
    values = np.zeros(400_000)
ARRAY = np.zeros(300_000)
def task(argument=None):
    for array in ARRAY, Table.values:
        array[7] += 1
    return float(ARRAY[7]), float(Table.values[7]), argument is not None and argument.flags.writeable
remote = sky.remote(task)
"""


def test_a_large_array_of_a_function_may_be_written_in_every_kind_of_call(
    compute: sky.Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = run_as_main(monkeypatch, WRITES)
    other = main.np.ones(500_000)
    submitted = [compute.submit(main.task, other).result(SOON) for _ in range(3)]
    called = [main.remote(other) for _ in range(2)]
    mapped = list(compute.map(main.task, [other] * 3))
    parallel = Parallel(n_jobs=-1, batch_size=1)(delayed(main.task)(other) for _ in range(3))

    assert submitted == mapped == parallel == [(1.0, 1.0, False)] * 3
    assert called == [(1.0, 1.0, False)] * 2
    assert not main.ARRAY.any()
    assert not main.Table.values.any()


COUNTS = """
from tests import work
class Counter:
    count = 0
def held(port):
    Counter.count += 1
    work.ring(port)
    return Counter.count
def quick():
    Counter.count += 10
    return Counter.count
"""


def test_a_class_of_the_script_is_not_changed_by_a_batch_that_runs_beside(
    compute: sky.Compute, monkeypatch: pytest.MonkeyPatch, bell: Bell
) -> None:
    main = run_as_main(monkeypatch, COUNTS)
    running = compute.submit(main.held, bell.port)
    line = bell.answer()
    beside = [compute.submit(main.quick).result(SOON) for _ in range(3)]
    line.release()

    assert (running.result(SOON), beside) == (1, [10] * 3)
