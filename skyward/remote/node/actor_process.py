"""The actor process of a node: one clustered system of casty on 127.0.0.1, behind mutual TLS, and a local one.

The driver reaches the gateway and the blob server on the clustered system; agent and slots live on the local one. Here
the parts of a node are put together. The process prints a `NodeStarted` once every slot is up.
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
from casty import TLS, ActorSystem, Cluster, Runtime

from skyward.remote import failure_line, mounts
from skyward.remote.node import process_tree, scheduler
from skyward.remote.node.agent import Agent
from skyward.remote.node.blob_server import BlobServer
from skyward.remote.node.executor import Executor
from skyward.remote.node.gateway import NodeSystem
from skyward.remote.node_config import NodeConfig
from skyward.remote.node_messages import NodeStarted, encode
from skyward.remote.protocol import COMPRESSION, LIMITS

RENEWAL_INTERVAL_S = 0.1
"""Seconds between two renewals of the lease, at least."""

GC_THRESHOLDS = (50_000, 20, 100)
"""When this process looks for cyclic garbage, which it hardly makes: by default that takes a tenth of its time."""


def serve(config: NodeConfig, slots: int, folder: Path, zygote: socket.socket, lease: int) -> NoReturn:
    """Run the node until told to stop. Never returns."""
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    gc.enable()  # see `__main__`
    try:
        uvloop.run(_serve(config, slots, folder, zygote, lease))
    except BaseException as error:  # noqa: BLE001 - whoever reads the node's output is told
        failure_line.end_node("the node cannot run", error)
    os._exit(0)


async def _serve(config: NodeConfig, slots: int, folder: Path, zygote: socket.socket, lease: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    tls = TLS(cert=str(folder / "cert.pem"), key=str(folder / "key.pem"), ca=str(folder / "ca.pem"))
    name = config.cluster
    cluster = Cluster(bind="127.0.0.1:0", name=name, tls=tls, limits=LIMITS, compression=COMPRESSION)
    threads = config.executor == "thread"
    blobs = BlobServer()
    agent = Agent(
        renew=_renewer(lease),
        keep_result=blobs.keep_result,
        drop_result=blobs.drop_result,
        max_together=1 if threads else scheduler.MAX_TOGETHER,
    )
    executor = Executor(
        zygote,
        threads=threads,
        preload=config.preload_on_demand,
        functions=agent.functions,
        places=blobs.places,
        keep=agent.keep,
        lost=lambda: os._exit(failure_line.ZYGOTE_GONE),  # the parent process knows why
    )
    clustered = NodeSystem(cluster=cluster, runtime=Runtime(threads=1))
    clustered.answer, clustered.serve_blobs = agent.answer, blobs.handle
    async with ActorSystem() as local, clustered:
        await agent.open(local, executor, slots)
        port = int((clustered.node.address or "").rpartition(":")[2])
        os.write(1, encode(NodeStarted(port, slots, process_tree.free_memory(), mounts.tokens())))
        watching = asyncio.create_task(_watch(config.notices, agent))
        await stop.wait()
        watching.cancel()
        await executor.close(agent.busy)
        os._exit(0)  # nobody needs an orderly end of the cluster


async def _watch(source: str, agent: Agent) -> None:
    if source:
        from skyward.remote.node import interruption  # not above: few nodes need an HTTP client

        await interruption.watch(source, lambda notice: setattr(agent, "notice", notice))


def _renewer(lease: int) -> Callable[[], None]:
    """Return a function that sends the parent process a byte when the driver was heard, and never waits for it."""
    os.set_blocking(lease, False)
    clock, last = asyncio.get_running_loop().time, 0.0

    def renew() -> None:
        nonlocal last
        if (now := clock()) - last > RENEWAL_INTERVAL_S:
            last = now
            with contextlib.suppress(BlockingIOError):
                os.write(lease, b".")

    return renew
