"""The process of a node that holds the foreman and the slots: one casty system, bound to 127.0.0.1, behind mutual TLS.

It prints a `NodeStarted` once every slot is up.
"""

import asyncio
import contextlib
import gc
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import uvloop
from casty import TLS, Cluster, Runtime

from skyward.remote import failure_line, mounts
from skyward.remote.node import agent, interruption, process_tree
from skyward.remote.node.executor import Executor
from skyward.remote.node.gateway import ClusterSystem
from skyward.remote.node.room import Room
from skyward.remote.node_config import NodeConfig
from skyward.remote.node_messages import NodeStarted, encode
from skyward.remote.protocol import COMPRESSION, LIMITS

WORKER_EXIT_TIMEOUT_S = 0.5
"""Seconds that idle workers have to leave by themselves."""

COLLECT = (50_000, 20, 100)
"""When the host looks for cyclic garbage, which it hardly makes: at Python's own pace it costs a tenth of its time."""


def serve(config: NodeConfig, slots: int, folder: Path, zygote: socket.socket, leash: int) -> NoReturn:
    """Run the node until told to stop. Never returns."""
    gc.freeze()
    gc.set_threshold(*COLLECT)
    try:
        uvloop.run(_serve(config, slots, folder, zygote, leash))
    except BaseException as error:  # noqa: BLE001 - whoever reads the node's output is told
        failure_line.report_exception("the node cannot run", error)
        os._exit(failure_line.SAID)
    os._exit(0)


async def _serve(config: NodeConfig, slots: int, folder: Path, zygote: socket.socket, leash: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    tls = TLS(cert=str(folder / "cert.pem"), key=str(folder / "key.pem"), ca=str(folder / "ca.pem"))
    name = config.cluster
    cluster = Cluster(bind="127.0.0.1:0", name=name, tls=tls, limits=LIMITS, compression=COMPRESSION)
    room = Room(slots=slots, threads=config.executor == "thread", renew=_renewer(leash))
    async with room, ClusterSystem(cluster=cluster, runtime=Runtime(threads=1), room=room) as entrance:
        room.executor = Executor(
            zygote,
            threads=room.threads,
            preload=config.preload_on_demand,
            functions=room.functions,
            places=room.places,
            tell=room.tell,
            keep=room.keep,
            lost=lambda: os._exit(failure_line.ZYGOTE_GONE),  # the leash, its parent, knows why
        )
        await agent.ref(room).ask(agent.Open())
        port = int((entrance.node.address or "").rpartition(":")[2])
        os.write(1, encode(NodeStarted(port, room.slots, process_tree.free_memory(), mounts.tokens())))
        watching = asyncio.create_task(_watch(config.notices, room))
        await stop.wait()
        watching.cancel()
        await room.executor.close(WORKER_EXIT_TIMEOUT_S)
        os._exit(0)  # an orderly end of the cluster would tell nobody anything


async def _watch(source: str, room: Room) -> None:
    if source:
        await interruption.watch(source, lambda said: setattr(room, "notice", said))


def _renewer(leash: int) -> Callable[[], None]:
    """Write a byte to the leash when the driver is heard, at most ten times a second, and never wait for it."""
    os.set_blocking(leash, False)
    clock, last = asyncio.get_running_loop().time, 0.0

    def renew() -> None:
        nonlocal last
        if clock() - last > 0.1:
            last = clock()
            with contextlib.suppress(BlockingIOError):
                os.write(leash, b".")

    return renew
