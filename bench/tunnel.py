"""Our tunnel to a host of the lab beside `ssh -L` to the same host: needs root, as `make lab` does."""

import asyncio
import contextlib
import multiprocessing
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.backends import NotInstalledError
from bench.figures import Figures
from bench.plan import Plan

SIZE = 400 << 20
"""Bytes that are sent each time, each way."""

ROUNDS = 7
"""Each way is taken so often, in turn, as the machine is shared: of the speeds the best counts, of the ratios the
median."""

CIPHERS = {"aes128": "aes128-gcm@openssh.com", "chacha": "chacha20-poly1305@openssh.com"}
"""What `ssh -L` is measured with: our first choice, and its own."""

PEER = """
import socket, threading
server = socket.create_server(("127.0.0.1", 5000))
def serve(line):
    what, size = line.recv(1), int.from_bytes(line.recv(8, socket.MSG_WAITALL))
    chunk = memoryview(bytearray(1 << 18))
    while size > 0:
        size -= line.recv_into(chunk) if what == b"u" else line.send(chunk[: min(size, len(chunk))])
    line.sendall(b"!")
    line.close()
while True:
    threading.Thread(target=serve, args=[server.accept()[0]]).start()
"""

CLIENT = """
import socket, sys, time
port, way, size = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
line = socket.create_connection(("127.0.0.1", port))
chunk = memoryview(bytearray(1 << 18))
line.sendall(way[:1].encode() + size.to_bytes(8))
began, left = time.perf_counter(), size
while left > 0:
    left -= line.send(chunk[: min(left, len(chunk))]) if way == "up" else line.recv_into(chunk[: min(left, len(chunk))])
assert line.recv(1) == b"!"
print(size / (time.perf_counter() - began) / 1e6)
"""


def throughput(plan: Plan) -> Figures:
    """MB/s through our tunnel and through `ssh -L`, each way, and how many times as fast ours is."""
    if plan.backend != "skyward":
        raise NotInstalledError(f"{plan.backend} has no tunnel")
    lab = import_module("tests.lab.lab")
    if reason := lab.why_not():
        raise NotInstalledError(f"no lab here: {reason}")
    lab.enter()
    with tempfile.TemporaryDirectory() as folder, lab.Lab(Path(folder)) as opened:
        host = opened.start()
        with contextlib.ExitStack() as stack:
            stack.callback(_in(host).kill)
            ports = {"skyward": stack.enter_context(_ours(opened.destination(host)))}
            for name, cipher in CIPHERS.items():
                ports[f"ssh_{name}"] = stack.enter_context(_openssh(str(opened.config), host.name, cipher))
            return _compared(ports)


def _compared(ports: dict[str, int]) -> Figures:
    speeds: dict[tuple[str, str], list[float]] = {(name, way): [] for way in ("up", "down") for name in ports}
    for _ in range(ROUNDS):
        for (name, way), found in speeds.items():
            found.append(_measured(ports[name], way))
    figures = {f"{name}_{way}_mb_per_s": max(found) for (name, way), found in speeds.items()}
    for way in ("up", "down"):
        for name in CIPHERS:
            pairs = zip(speeds["skyward", way], speeds[f"ssh_{name}", way], strict=True)
            figures[f"{way}_of_ssh_{name}"] = statistics.median(ours / theirs for ours, theirs in pairs)
    return figures


def _measured(port: int, way: str) -> float:
    words = [sys.executable, "-c", CLIENT, str(port), way, str(SIZE)]
    return float(subprocess.run(words, check=True, stdout=subprocess.PIPE, timeout=120).stdout)


def _in(host: Any) -> subprocess.Popen[bytes]:
    """Start the peer on the host."""
    words = ["nsenter", "-t", str(host.pid), "-a", "/usr/bin/python3", "-c", PEER]
    peer = subprocess.Popen(words)
    while not host.listens(5000):
        time.sleep(0.01)
    return peer


@contextlib.contextmanager
def _openssh(config: str, name: str, cipher: str) -> Iterator[int]:
    port = 6000 + len(cipher)
    words = ["ssh", "-F", config, "-c", cipher, "-N", "-L", f"{port}:127.0.0.1:5000", "-o", "ExitOnForwardFailure=yes"]
    forwarding = subprocess.Popen([*words, name])
    try:
        while _refused(port):
            time.sleep(0.01)
        yield port
    finally:
        forwarding.terminate()
        forwarding.wait()


def _refused(port: int) -> bool:
    with socket.socket() as tried:
        return bool(tried.connect_ex(("127.0.0.1", port)))


@contextlib.contextmanager
def _ours(to: Any) -> Iterator[int]:
    """Open our tunnel in a process of its own, as `ssh` is one."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_serve, args=(to, there))
    process.start()
    try:
        yield here.recv()
    finally:
        here.send(None)
        process.join(10)


def _serve(to: Any, pipe: Connection) -> None:
    tunnels = import_module("skyward.providers.ssh.tunnel")

    async def serve() -> None:
        tunnel = await tunnels.Tunnel(to).open()
        pipe.send(await tunnel.forward(5000))
        await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
        await tunnel.close()

    import_module("uvloop").run(serve())
