"""What tests run on nodes. A module of its own, and a light one: every slot imports it."""

import os
import signal
import socket
import sys
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import skyward as sky
from skyward.plugins.plugin import Plugin


def task(number: int) -> int:
    time.sleep(0.02)
    return number


def die(*_: object) -> None:
    os._exit(3)


def die_once(mark: Path) -> str:
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGSEGV)
    return "second attempt"


def square(x: int) -> int:
    return x * x


def square_or_wait(x: int, waits: bool) -> int:
    """Return the square of `x`, or wait for longer than any test."""
    if waits:
        time.sleep(600)
    return x * x


def pid(_: object = None) -> int:
    return os.getpid()


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def fail(text: str) -> None:
    raise LookupError(text)


def fail_if(number: int, fails: bool) -> int:
    if fails:
        raise ValueError("broken")
    return number


def die_once_and_fail(mark: Path) -> None:
    die_once(mark)
    raise ValueError("broken")


def leave() -> None:
    raise SystemExit(4)


def size(data: bytes) -> int:
    return len(data)


def lock() -> object:
    import threading

    return {"guard": threading.Lock()}


def luck() -> float:
    import random

    return random.random()


def touch(folder: Path, name: str) -> None:
    (folder / name).touch()


def say(text: str) -> None:
    print(text)  # noqa: T201 - that is what it is for


class OddError(Exception):
    """One whose constructor does not take its `args`."""

    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(f"odd {code}")
        self.code, self.hint = code, hint


def odd() -> None:
    raise OddError(5, hint="even")


def ring(port: int) -> bytes:
    """Ring at the test's `Bell`, and return what it answers; the end of this process is heard there at once."""
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.sendall(b"%d\n" % os.getpid())
        return line.recv(100)


def note(file: Path, text: str) -> None:
    """Add a line, so that every run of a batch can be counted."""
    with file.open("a") as lines:
        lines.write(f"{text}\n")


def start_a_daemon(port: int) -> int:
    """Start what would outlive its slot and rings at the test's `Bell`; return its pid."""
    import subprocess

    text = f"from tests.work import ring; ring({port})"
    return subprocess.Popen([sys.executable, "-c", text], start_new_session=True).pid


def die_by(number: int) -> None:
    """End this process by a signal. It may come to another thread, and a moment later: do not return before."""
    os.kill(os.getpid(), number)
    threading.Event().wait()


def dice() -> tuple[float, float]:
    import random

    import numpy as np

    return random.random(), float(np.random.random())


def slot() -> int:
    return sky.instance_info().slot


def thread() -> int:
    return threading.get_ident()


def modules() -> set[str]:
    return set(sys.modules)


class Hook(Plugin):
    """Counts what it surrounds."""

    def __init__(self) -> None:
        self.workers = self.tasks = 0

    def worker(self, info: sky.InstanceInfo) -> AbstractContextManager[None]:
        self.workers += 1
        return nullcontext()

    def task(self, info: sky.InstanceInfo) -> AbstractContextManager[None]:
        self.tasks += 1
        os.environ["COUNTED"] = f"{self.workers} {self.tasks} {info.slot}"
        return nullcontext()


def counted() -> str:
    return os.environ["COUNTED"]


def spin(seconds: float) -> None:
    """Keep the interpreter busy, so that a thread hears at once that it is to stop."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def ring_and_spin(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.sendall(b"%d\n" % os.getpid())
    spin(600)


def item(array: Any, index: int) -> tuple[float, bool]:
    """One item of an array, and whether the call might write to it."""
    return float(array[index]), bool(array.flags.writeable)


def firsts(held: dict[str, list[Any]], *others: Any) -> list[float]:
    """The first item of each array, and the length of `bytes`."""
    return [len(each) if isinstance(each, bytes) else float(each[0]) for each in (*held["a"], *others)]


def large(items: int) -> tuple[Any, str, Any]:
    import numpy as np

    return np.arange(items, dtype="f8"), "between", np.full(items, -7)


def ring_with(port: int, _: Any) -> bytes:
    return ring(port)


def ring_but_on_node_1(port: int) -> bytes:
    if sky.instance_info().node == 1:
        raise LookupError("node 1")
    return ring(port)


def noted[T](file: str, task: int, value: T, seconds: float = 0.01) -> T:
    """Take a while and return `value`; `tests.history` reads what this notes."""
    notes = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for what in ("began", "ended"):
        os.write(notes, f"{what} {task} {os.uname().nodename} {os.getpid()} {time.time()}\n".encode())
        if what == "began":
            time.sleep(seconds)
    os.close(notes)
    return value


def noted_and_told(file: str, task: int, value: int) -> int:
    """The same, and print a line."""
    say(f"this is task {task}")
    return noted(file, task, value)


def noted_and_greedy(file: str, task: int, size: int) -> int:
    """The same, and then take so much memory."""
    noted(file, task, size)
    return len(b"." * size)


def wait_for_a_child(port: int) -> None:
    """Wait for a process of its own, which rings."""
    import subprocess

    subprocess.run([sys.executable, "-c", f"from tests.work import ring; ring({port})"], check=True)


def note_both(file: Path, text: str, seconds: float) -> None:
    """Add a line when it begins and one when it ends."""
    note(file, f"{text} began")
    time.sleep(seconds)
    note(file, f"{text} ended")


class Box:
    """Something with a part that cannot be pickled."""

    def __init__(self) -> None:
        self.name, self._lock = "box", threading.Lock()


class BoxedError(Exception):
    """One that holds what cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.box = Box()


def boxed() -> list[object]:
    return [1, {"box": Box()}]


def raise_boxed() -> None:
    raise BoxedError("the box is open")


@dataclass(frozen=True)
class FrozenError(Exception):
    """One that takes no attribute."""

    code: int


def raise_frozen() -> None:
    raise FrozenError(7)


class OldWarning(DeprecationWarning):
    """A category that can be imported."""


def totals(*held: Any) -> tuple[float, ...]:
    """The sum of each array, or of the column x of each Arrow table."""
    import numpy as np

    return tuple(float(np.sum(each["x"].to_numpy() if hasattr(each, "column_names") else each)) for each in held)


def limit_files(most: int) -> None:
    """Have this slot open no file beyond so many."""
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (most, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
