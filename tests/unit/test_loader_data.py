"""Classes by value, the `__main__` of a batch, and what is large in functions."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from skyward.calls.blob_store import BlobStore
from skyward.remote.blobs import Blob
from skyward.remote.serialization import call_codec
from skyward.remote.serialization.packer import Packer
from tests.slot import Slot, run_as_main


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Makes this process run a script that consists of a text."""
    return partial(run_as_main, monkeypatch)


# ---------------------------------------------------------------- classes


def test_an_object_that_outlives_its_batch_is_still_of_its_class(script: Callable[[str], Any]) -> None:
    main = script("""
        class Point: ...
        def make(kept): kept.append(Point())
        def look(kept): return [isinstance(each, Point) for each in kept]
        """)
    slot = Slot()
    slot.run(Packer().pack(on_kept, (main.make,), {}))
    assert slot.run(Packer().pack(on_kept, (main.look,), {})) == [True]


KEPT: list[Any] = []


def on_kept(fn: Callable[[list[Any]], object]) -> object:
    return fn(KEPT)


ELSEWHERE = """
import pickle, sys, types
from skyward.remote.serialization import call_codec
sys.modules["__main__"] = types.ModuleType("__main__")
payload, functions = pickle.load(sys.stdin.buffer)
pickle.dump(call_codec.execute(payload, call_codec.beside(functions, {})), sys.stdout.buffer)
"""


def test_a_result_does_not_change_its_class_in_the_program(script: Callable[[str], Any]) -> None:
    main = script("""
        class Model:
            fits, made = 0, []
            def __init_subclass__(cls): Model.made.append(cls.__name__)
            def name(self): return NAME
        class Tree(Model): ...
        NAME = "first"
        def task():
            Model.fits += 1
            Model.extra = 1
            return Tree()
        def fails():
            Model.fits += 1
            raise Problem(Tree())
        class Problem(Exception): ...
        """)
    name = main.Model.name
    for fn in (main.task, main.fails):
        packed = Packer().pack(fn, (), {})
        said = subprocess.run(
            [sys.executable, "-c", ELSEWHERE],
            input=pickle.dumps((packed.payload, packed.functions)),
            capture_output=True,
            env={"PYTHONPATH": ":".join(sys.path)},
            check=True,
            timeout=150,
        )
        value, error = call_codec.open_outcome(*pickle.loads(said.stdout))
        found: Any = value if error is None else error.args[0]
        assert type(found) is main.Tree
        assert error is None or type(error) is main.Problem
    main.NAME = "second"

    assert (main.Model.fits, main.Model.made, main.Model.name, found.name()) == (0, ["Tree"], name, "second")
    assert not hasattr(main.Model, "extra")


def test_a_class_that_travels_is_pickled_once(script: Callable[[str], Any]) -> None:
    main = script("""
        class Point:
            table = bytes(20_000)
            def __init__(self, x): self.x = x
            def size(self): return self.x, len(self.table)
        def task(point): return point.size()
        """)
    packer, slot = Packer(), Slot()
    packed = [packer.pack(main.task, (main.Point(number),), {}) for number in range(3)]

    assert [slot.run(each) for each in packed] == [(number, 20_000) for number in range(3)]
    assert max(len(each.payload) for each in packed) < 1000


# ---------------------------------------------------------------- `__main__` on a slot


def test_what_a_task_pickles_by_name_is_found_in_main_while_it_runs(script: Callable[[str], Any]) -> None:
    main = script("""
        import pickle, sys
        class Point: ...
        def other(): ...
        def task(*more):
            main = sys.modules["__main__"]
            given = task, other, Point, *more
            found = pickle.loads(pickle.dumps(given))
            return [a is b for a, b in zip(found, given)], getattr(main, "__file__", None), __file__
        def given(): ...
        """)
    main.__file__ = "script.py"
    before = sys.modules["__main__"]

    for share in (True, False):
        packed = Packer(share=share).pack(main.task, (main.given,), {})
        assert Slot().run(packed) == ([True] * 4, None, "script.py")
    assert sys.modules["__main__"] is before


def test_main_is_left_alone_where_others_run_in_the_process(script: Callable[[str], Any]) -> None:
    main = script("""
        import sys
        def task(): return sys.modules["__main__"] is before
        """)
    main.before = None
    packed = Packer().pack(main.task, (), {})

    assert call_codec.execute(packed.payload, call_codec.beside(packed.functions, {}))[0] == "returned"
    assert sys.modules["__main__"] is main


# ---------------------------------------------------------------- large buffers

MEGABYTE = 1 << 17
"""Items of a float array of 1 MiB."""


class Storing:
    """Puts blobs on a blob_store, or finds no room."""

    def __init__(self, *, full: bool = False) -> None:
        self.blob_store, self.full, self.sizes = BlobStore(), full, list[int]()

    def put(self, content: memoryview) -> Blob:
        if self.full:
            raise OSError(28, "no room")
        self.sizes.append(content.nbytes)
        return self.blob_store.put(content)


def closure_over(value: Any) -> Callable[..., Any]:
    return lambda look: look(value)


HOLDERS: dict[str, Any] = {
    "an array": (lambda: np.arange(2.0 * MEGABYTE), lambda value: float(value.sum())),
    "many small arrays": (
        lambda: [np.full(1000, float(number)) for number in range(300)],
        lambda value: sum(float(each.sum()) for each in value),
    ),
    "small and large arrays": (
        lambda: [np.ones(10), np.ones(2 * MEGABYTE), np.ones(1000), np.ones((300, 1000)), [np.ones(700)] * 200],
        lambda value: (float(value[3].sum()), value[4][0] is value[4][1], float(value[1][-1]), value[2].shape),
    ),
    "bytes": (lambda: [b"ab" * (1 << 20)], lambda value: (len(value[0]), value[0][-1])),
    "a long list": (lambda: list(range(600_000)), lambda value: sum(value)),
    "a list and an array": (
        lambda: (list(range(600_000)), np.ones(MEGABYTE)),
        lambda value: (sum(value[0]), float(value[1].sum())),
    ),
    "an empty array": (lambda: [np.ones(0), np.ones(MEGABYTE)], lambda value: [each.shape for each in value]),
}


@pytest.mark.parametrize("full", [False, True], ids=["room", "no room"])
@pytest.mark.parametrize("kind", HOLDERS)
def test_what_is_large_in_a_function_goes_beside_it(kind: str, full: bool) -> None:
    make, look = HOLDERS[kind]
    storing, slot = Storing(full=full), Slot()
    packer = Packer(put=storing.put)
    packed = [packer.pack(closure_over(value), (look,), {}) for value in [make()] for _ in range(2)]
    names = {blob.name for each in packed for blob in each.blobs}

    assert [slot.run(each) for each in packed] == [look(make())] * 2
    assert bool(names) is not full
    assert full or sum(map(len, packed[0].functions.values())) < 100_000


def test_an_array_in_a_function_may_be_written_and_is_fresh_for_each_batch() -> None:
    array = np.zeros(MEGABYTE)
    storing, slot = Storing(), Slot()

    def task() -> float:
        array[5] += 1
        return float(array[5])

    packer = Packer(put=storing.put)
    assert [slot.run(packer.pack(task, (), {})) for _ in range(3)] == [1.0] * 3
    assert storing.sizes == [array.nbytes]


WRITERS = """
import numpy as np
from functools import partial
ARRAY = np.zeros(300_000)
def add(array):
    array[5] += 1
    return float(array[5])
def make(array):
    return lambda *others: add(array)
def variable(*others): return add(ARRAY)
def default(array=np.zeros(300_000)): return add(array)
def attribute(*others): return add(attribute.array)
attribute.array = np.zeros(300_000)
def call(fn, *others): return fn(*others)
closure = make(ARRAY)
behind = partial(call, closure)
WITH_OTHERS = closure, variable, attribute, behind
def is_read_only(*arrays): return not any(each.flags.writeable for each in arrays)
def keep(fn, array): return fn(), is_read_only(array)
def same(array): return array is ARRAY and add(array)
"""


@pytest.mark.parametrize("share", [False, True], ids=["one call", "a group"])
def test_what_a_function_holds_may_be_written_in_each_kind_of_call(share: bool, script: Callable[[str], Any]) -> None:
    main = script(WRITERS)
    storing, slot = Storing(), Slot()
    packer = Packer(share=share, put=storing.put)
    alone = main.closure, main.variable, main.default, main.attribute, main.behind
    for fn in alone * 2:
        assert slot.run(packer.pack(fn, (), {})) == 1.0
    for fn in main.WITH_OTHERS:
        assert slot.run(packer.pack(fn, (np.ones(300_000),), {})) == 1.0
        assert slot.run(packer.pack(main.keep, (fn, np.ones(300_000)), {})) == (1.0, True)
    assert slot.run(packer.pack(main.is_read_only, (np.ones(300_000), np.ones(400_000)), {}))
    assert not main.ARRAY.any()


def test_one_call_keeps_what_is_the_same_in_it(script: Callable[[str], Any]) -> None:
    main = script(WRITERS)
    storing, slot = Storing(), Slot()
    packer = Packer(share=False, put=storing.put)

    assert [slot.run(packer.pack(main.same, (main.ARRAY,), {})) for _ in range(2)] == [1.0, 1.0]
    assert storing.sizes == [main.ARRAY.nbytes] * 2  # one for each call


def test_an_array_that_is_read_only_stays_so() -> None:
    array = np.zeros(MEGABYTE)
    array.flags.writeable = False
    packed = Packer(put=Storing().put).pack(lambda: array.flags.writeable, (), {})
    assert Slot().run(packed) is False


def test_the_buffers_of_a_class_go_beside_it(script: Callable[[str], Any]) -> None:
    main = script("""
        import numpy as np
        class Table:
            values = np.arange(300_000.0)
            def last(self): return float(self.values[-1])
        def task(table): return table.last()
        """)
    storing = Storing()
    packed = Packer(put=storing.put).pack(main.task, (main.Table(),), {})

    assert Slot().run(packed) == 299_999.0
    assert len(packed.payload) + sum(map(len, packed.functions.values())) < 20_000
    assert {2_400_000} == set(storing.sizes)
