"""What a batch finds in `__main__`: what the script defines, by its name, whatever else runs in the process."""

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from skyward.remote.serialization.namespace import Mains
from skyward.remote.serialization.packer import Packer
from tests.kit import SOON
from tests.slot import Slot, run_as_main


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Makes this process run a script that consists of a text."""
    return partial(run_as_main, monkeypatch)


BOTH = threading.Barrier(2)


def meet() -> None:
    BOTH.wait(SOON)


def test_each_thread_finds_the_main_of_its_own_batch(
    script: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    main = script("""
        def helper():
            return 1
        def task(meet):
            import pickle
            meet()
            copy = pickle.loads(pickle.dumps(helper))
            meet()
            return copy is helper, id(helper)
        """)
    packed = [Packer().pack(main.task, (meet,), {}) for _ in range(2)]
    monkeypatch.setitem(sys.modules, "__main__", mains := Mains("__main__"))
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda each: Slot(alone=False).run(each), packed))
    assert [is_own for is_own, _ in found] == [True, True]
    assert found[0] != found[1]
    with pytest.raises(AttributeError, match="module '__main__' has no attribute 'helper'"):
        _ = mains.helper
    assert not hasattr(mains, "__file__")


def test_a_class_is_found_by_its_name_though_those_around_it_are_not_sent(script: Callable[[str], Any]) -> None:
    main = script("""
        class Outer:
            class Inner:
                class Innermost: ...
        Inner, Innermost = Outer.Inner, Outer.Inner.Innermost
        def first():
            import __main__
            return __main__.Outer.Inner.Innermost is Innermost, hasattr(__main__.Outer, "Inner")
        def second():
            import __main__
            return Innermost is __main__.Outer.Inner.Innermost, Inner is __main__.Outer.Inner
        def third():
            return Innermost is Outer.Inner.Innermost, isinstance(Outer, type)
        """)
    packer, slot = Packer(), Slot()
    assert [slot.run(packer.pack(each, (), {})) for each in (main.first, main.second, main.third)] == [(True, True)] * 3
