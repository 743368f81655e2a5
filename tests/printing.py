"""Functions for tests of what tasks print and log."""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
import warnings

import skyward as sky
from tests import work

log = logging.getLogger(__name__)


def place() -> tuple[int, int]:
    info = sky.instance_info()
    return info.node, info.slot


def speak(mark: str) -> tuple[int, int]:
    print(mark, "begins")
    print(mark, "err", file=sys.stderr)
    log.warning("%s logged", mark)
    log.info("%s in detail", mark)
    print(mark, "ends")
    return place()


def count(task: int, lines: int) -> tuple[int, int]:
    for number in range(lines):
        print(f"task {task} line {number}")
    return place()


def stumble(mark: str) -> None:
    try:
        print(1 // (len(mark) - len(mark)))
    except ZeroDivisionError:
        log.exception("%s %d", mark, 1)


def log_at_length(sizes: list[int]) -> None:
    for size in sizes:
        log.warning("begins %s ends", "x" * size)


def warn(text: str) -> None:
    warnings.warn(text, stacklevel=1)


def beside(mark: str) -> tuple[int, int]:
    subprocess.run(["echo", f"{mark} program"], check=True)
    ctypes.CDLL(None).printf(b"%s\n", f"{mark} libc".encode())
    return place()


def ask(text: str, port: int) -> None:
    print(text, end="")
    work.ring(port)
    print("yes")


def say_and_die(text: str, how: str) -> None:
    for number in range(1000):
        print(text, number)
    print(how, "without an end", end="")
    match how:
        case "exit":
            os._exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case _:
            os.abort()


def leave_running(text: str, port: int) -> None:
    if os.fork() == 0:
        work.ring(port)
        print(text)
        os._exit(0)


def progress(steps: int) -> None:
    from tqdm import tqdm

    for _ in tqdm(range(steps)):
        time.sleep(0.001)
