"""Functions by value are fresh for each batch, and those that are kept cannot be told from fresh ones."""

import sys
import threading
import types
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyward.remote.serialization.packer import Packer
from tests.slot import Slot, run_as_main


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Makes this process run a script that consists of a text."""
    return partial(run_as_main, monkeypatch)


def results(fn: Callable[..., Any], *calls: tuple[Any, ...]) -> list[Any]:
    """Run a function on one slot, in a batch for each call."""
    packer, slot = Packer(), Slot()
    return [slot.run(packer.pack(fn, args, {})) for args in calls]


STATE = {
    "a dict of the script": """
        OPTIONS = {"scale": 1}
        def task():
            OPTIONS["scale"] += 1
            return OPTIONS["scale"]
        """,
    "a global that is stored": """
        count = 1
        def task():
            global count
            count += 1
            return count
        """,
    "a global that is stored by a function that it calls": """
        count = 1
        def add():
            global count
            count += 1
        def task():
            add()
            return count
        """,
    "a generator of random numbers": """
        import random
        source = random.Random(7)
        value = random.Random(7).random()
        def task():
            return 2 if source.random() == value else 3
        """,
    "a default": """
        def task(seen=[1]):
            seen.append(1)
            return len(seen)
        """,
    "a default that is given by name": """
        def task(*, seen={}):
            seen[len(seen)] = 1
            return len(seen) + 1
        """,
    "an attribute of the function": """
        def task():
            task.count = getattr(task, "count", 1) + 1
            return task.count
        """,
    "an attribute that is set by name": """
        def task():
            setattr(task, "count", getattr(task, "count", 1) + 1)
            return task.count
        """,
    "the attributes of another function": """
        def other(): ...
        def task():
            other.__dict__.setdefault("seen", [1]).append(1)
            return len(other.seen)
        """,
    "a variable of an outer function": """
        def make():
            count = 1
            def task():
                nonlocal count
                count += 1
                return count
            return task
        task = make()
        """,
    "a variable of an outer function, changed deep inside": """
        def make():
            count = 1
            def task():
                def inner():
                    nonlocal count
                    count += 1
                inner()
                return count
            return task
        task = make()
        """,
    "a list in a closure": """
        def make():
            seen = [1]
            def task():
                seen.append(1)
                return len(seen)
            return task
        task = make()
        """,
    "an attribute of a class": """
        class Counter:
            count = 1
        def task():
            Counter.count += 1
            return Counter.count
        """,
    "an attribute that a class had not": """
        class Counter: ...
        def task():
            Counter.count = getattr(Counter, "count", 1) + 1
            return Counter.count
        """,
    "a list of a class": """
        class Counter:
            seen = [1]
            def note(self):
                self.seen.append(1)
                return len(self.seen)
        def task():
            return Counter().note()
        """,
    "a memory of its results": """
        import functools
        def remember(fn):
            known = []
            @functools.wraps(fn)
            def inner():
                known.append(1)
                return fn() + len(known)
            return inner
        @remember
        def task():
            return 1
        """,
    "its globals": """
        def task():
            space = globals()
            space["count"] = space.get("count", 1) + 1
            return space["count"]
        """,
    "a class method": """
        class Counter:
            count = 1
            @classmethod
            def note(cls):
                cls.count += 1
                return cls.count
        task = Counter.note
        """,
    "an object behind a bound method": """
        class Counter:
            def __init__(self):
                self.count = 1
            def note(self):
                self.count += 1
                return self.count
        task = Counter().note
        """,
    "a partial": """
        import functools
        def note(seen):
            seen.append(1)
            return len(seen)
        task = functools.partial(note, [1])
        """,
    "a module of the script": """
        import sys
        def task():
            main = sys.modules["__main__"]
            main.count = getattr(main, "count", 1) + 1
            return main.count
        """,
    "a code object that it replaces": """
        def one(): return 1
        def two(): return 2
        def three(): return 3
        def task():
            two.__code__, one.__code__ = three.__code__, two.__code__
            return one()
        """,
}


@pytest.mark.parametrize("text", STATE.values(), ids=STATE)
def test_what_a_batch_changes_no_later_batch_sees(script: Callable[[str], Any], text: str) -> None:
    assert results(script(text).task, (), (), ()) == [2, 2, 2]


PIECES = [
    ("LIMIT = 3", "LIMIT * 2"),
    ("PAIR = (1, (2, 'x'), frozenset([3]))", "len(PAIR)"),
    ("ITEMS = [1]", "(ITEMS.append(1), len(ITEMS))[1]"),
    ("ITEMS2 = [1]", "len(ITEMS2)"),
    ("import math", "math.floor(2.5)"),
    ("from math import floor", "floor(2.5)"),
    ("from collections import Counter", "Counter('aab')['a']"),
    ("total = 1\ndef add():\n    global total\n    total += 1\n    return total", "add()"),
    ("def fact(n): return 1 if n < 2 else n * fact(n - 1)", "fact(4)"),
    ("def twice(x, by=2): return x * by", "twice(3)"),
    ("def grows(seen=[0]):\n    seen.append(1)\n    return len(seen)", "grows()"),
    ("def lists(*, seen=(1, 2)): return [*seen]", "len(lists())"),
    ("def tags(): ...\ntags.value = 5", "tags.value"),
    ("def marks(): return marks.n\nmarks.n = 1", "(marks.__setattr__('n', marks.n + 1), marks())[1]"),
    (
        (
            "def outer():\n    n = 1\n    def inner():\n        nonlocal n\n"
            "        n += 1\n        return n\n    return inner\nstep = outer()"
        ),
        "step()",
    ),
    ("def outer2(n):\n    return lambda x: x + n\nplus = outer2(4)", "plus(1)"),
    (
        (
            "def makes():\n    n = 1\n    def inner():\n"
            "        nonlocal n\n        n += 1\n        return n\n    return inner()"
        ),
        "makes()",
    ),
    ("def counts():\n    yield 1\n    yield 2", "sum(counts())"),
    ("gen = iter(range(100)).__next__", "gen()"),
    ("class Point:\n    made = 0\n    def __init__(self):\n        Point.made += 1", "(Point(), Point.made)[1]"),
    (
        (
            "class Base:\n    kinds = []\n"
            "    def __init_subclass__(cls): Base.kinds.append(cls.__name__)\nclass Child(Base): ..."
        ),
        "(type('More', (Child,), {}), len(Base.kinds))[1]",
    ),
    ("import enum\nclass Color(enum.Enum):\n    RED = 1", "Color.RED.value"),
    ("import dataclasses\n@dataclasses.dataclass\nclass Row:\n    x: int = 1", "Row(4).x"),
    (
        (
            "import functools\ndef wrap(fn):\n    @functools.wraps(fn)\n"
            "    def inner(): return fn() + 1\n    return inner\n@wrap\ndef one(): return 1"
        ),
        "one()",
    ),
    ("import random\ndice = random.Random(3)", "dice.randrange(1000)"),
    ("from functools import partial\nbits = []\nnote = partial(bits.append, 1)", "(note(), len(bits))[1]"),
    ("def last(fn): return fn.__name__", "last(last)"),
    ("word = 'a'", "(globals().update(word=word + 'b'), word)[1]"),
    ("box = {}", "(exec('box[len(box)] = 1'), len(box))[1]"),
]
SHAPES = [
    "def task():\n    return [{value}]",
    "def task():\n    def inner():\n        return [{value}]\n    return inner()",
    "def task():\n    return list((each for each in [{value}]))",
    (
        "def build():\n    kept = {first}\n    def task():\n"
        "        return [kept, {value}]\n    return task\ntask = build()"
    ),
    "task = lambda: [{value}]",
    (
        "class Does:\n    def run(self): return [{value}]\n"
        "    @staticmethod\n    def still(): return [{value}]\ntask = Does.still"
    ),
    "class Does:\n    def run(self): return [{value}]\ntask = Does().run",
    "def task(first={first}):\n    return [first, {value}]",
]


@given(pieces=st.lists(st.sampled_from(PIECES), min_size=1, max_size=4, unique=True), shape=st.sampled_from(SHAPES))
@settings(max_examples=150)
def test_every_batch_gives_what_a_new_process_would(pieces: list[tuple[str, str]], shape: str) -> None:
    values = [value for _, value in pieces]
    text = "\n".join([*(made for made, _ in pieces), shape.format(value=", ".join(values), first=values[0])])
    expected: Any = {"__name__": "elsewhere"}
    exec(text, expected)
    with pytest.MonkeyPatch.context() as patch:
        main = types.ModuleType("__main__")
        patch.setitem(sys.modules, "__main__", main)
        exec(text, main.__dict__)
        found = results(main.task, (), (), ())

    assert found == [expected["task"]()] * 3


# ---------------------------------------------------------------- what is kept


def kept(fn: Callable[..., Any]) -> bool:
    """Whether a slot loads it once for two batches."""
    packer, slot = Packer(), Slot()
    packed = [packer.pack(fn, (), {}) for _ in range(2)]
    slot.run(packed[0])
    names = tuple(packed[0].functions)
    return slot.functions.scope(names, {}) is slot.functions.scope(names, {})


def test_a_function_of_constants_is_loaded_once(script: Callable[[str], Any]) -> None:
    main = script("""
        import math
        from collections import Counter
        LIMIT, WORDS = 3, ("a", frozenset([1]))
        def other(x, by=2):
            return [math.floor(each * by) for each in (x, LIMIT, len(WORDS))]
        def task():
            found = []
            def note(x):
                found.extend(other(x))
                return Counter(found)
            return note(1)
        """)
    assert kept(main.task)


@pytest.mark.parametrize("part", ["extra", "__name__", "__qualname__", "__module__", "__doc__"])
def test_a_function_that_was_changed_from_outside_is_loaded_again(script: Callable[[str], Any], part: str) -> None:
    main = script("""
        def other(): "One."
        def task(change, get, part):
            found = get(other, part, None)
            change(other, part, "another")
            return found
        """)
    before = getattr(main.other, part, None)
    assert results(main.task, *[(setattr, getattr, part)] * 3) == [before] * 3


def test_a_value_that_the_program_changes_between_calls_is_what_the_next_call_has(script: Callable[[str], Any]) -> None:
    main = script("""
        LIMIT = 1
        OPTIONS = {"scale": 1}
        def task():
            OPTIONS["scale"] += 1
            return LIMIT, OPTIONS["scale"]
        """)
    slot, found = Slot(), []
    for number in range(3):
        main.LIMIT, main.OPTIONS["scale"] = number, 10 * number
        found.append(slot.run(Packer().pack(main.task, (), {})))
    assert found == [(0, 1), (1, 11), (2, 21)]


def test_functions_of_a_script_share_its_variables_within_a_batch_only(script: Callable[[str], Any]) -> None:
    main = script("""
        count = 1
        def add():
            global count
            count += 1
        def look():
            return count
        """)
    packer, slot = Packer(), Slot()
    packed = [packer.pack(together, (main.look, main.add, main.look), {}) for _ in range(2)]
    assert [slot.run(each) for each in packed] == [[1, None, 2]] * 2


def together(*functions: Callable[[], object]) -> list[object]:
    return [fn() for fn in functions]


def test_namespaces_that_only_are_called_main_are_kept_apart() -> None:
    spaces: list[Any] = [{"__name__": "__main__", "value": number} for number in range(2)]
    for space in spaces:
        exec("def look(): return value", space)
    assert Slot().run(Packer().pack(together, (spaces[0]["look"], spaces[1]["look"]), {})) == [0, 1]


def test_threads_load_for_themselves() -> None:
    seen = [1]

    def task(barrier: Any) -> int:
        seen.append(1)
        return len(seen)

    packer, slot = Packer(), Slot()
    packed = [packer.pack(task, (None,), {}) for _ in range(8)]
    found: list[int] = []
    threads = [threading.Thread(target=lambda each=each: found.append(slot.run(each))) for each in packed]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [2] * 8
