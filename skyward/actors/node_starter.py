"""Start a node on a machine that was reached: send its files, and read its output until it is ready.

A machine that is bare is given a script, and what the script asks for, until it has made a node of it.
"""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import repeat
from typing import assert_never

from skyward.actors.pool_context import PoolContext
from skyward.config.image import Image
from skyward.environment.bundle import EnvironmentBundle, contents, pack
from skyward.errors import BootFailed, Unreachable
from skyward.events import Logged, NodeStep, Printed
from skyward.providers.provider import Host, Process, SupportsNotices
from skyward.remote import bootstrap
from skyward.remote.node import environment_check
from skyward.remote.node_config import ALIVE_FILE, CONFIG_FILE, LEASE_FILE, WORK_FOLDER, NodeConfig, Requirements
from skyward.remote.node_messages import (
    BootStep,
    EnvironmentMismatch,
    FileRequested,
    MachineFact,
    NodeEnding,
    NodeFailed,
    NodeStarted,
    OutputFrame,
    StepFailed,
    WaitingForFiles,
    decode,
)
from skyward.remote.output_protocol import ERR, LOG, STREAMS, FrameDecoder
from skyward.renewal import keep_renewing
from skyward.retry import retry
from skyward.telemetry.event_log import now

log = logging.getLogger("skyward")

MAX_LOG_LINES = 200
"""Lines of what a node printed while it started that an error carries."""

SEND_RETRY_DELAY_S = 0.2
"""Seconds before a file is sent again whose connection was cut."""


class BundleTask:
    """Makes what bare machines are sent, once, beside the launch of the first."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._task: asyncio.Task[EnvironmentBundle] | None = None

    def start(self) -> None:
        """Begin, if nobody has."""
        if self._task is None:
            self._task = asyncio.create_task(asyncio.to_thread(pack, self._image))
            self._task.add_done_callback(lambda done: done.cancelled() or done.exception())  # perhaps nobody asks

    async def result(self) -> EnvironmentBundle:
        """Return the bundle when it is made."""
        self.start()
        assert self._task is not None
        return await asyncio.shield(self._task)


class NodeStarter:
    """The start of one node, and what it prints from then on.

    Parameters
    ----------
    context
        The configuration of the pool.
    number, name
        The node's.
    host
        The machine.
    slots
        How many the node has, if its provider said so.
    bundle
        Gives what a bare machine is sent.
    note_step
        Called with the number of the node and each step of its script, and when it began.
    exited
        Called with the reason when the node has ended.
    """

    def __init__(
        self,
        context: PoolContext,
        number: int,
        name: str,
        host: Host,
        slots: int | None,
        *,
        bundle: Callable[[], Awaitable[EnvironmentBundle]],
        note_step: Callable[[int, str, float], None],
        exited: Callable[[str], None],
    ) -> None:
        self._context, self._number, self._name, self._host = context, number, name, host
        self._get_bundle, self._note_step, self._exited = bundle, note_step, exited
        self._slots = slots or context.spec.worker.concurrency
        self._log: deque[str] = deque(maxlen=MAX_LOG_LINES)
        self._step = ""
        self._failed: NodeFailed | None = None
        self._mismatch = ""
        self._requested: list[str] = []
        self._bundle: EnvironmentBundle | None = None
        self._ear = FrameDecoder()
        self.watching: asyncio.Task[None] | None = None

    async def run(self) -> NodeStarted:
        """Start the node and return when it is up.

        Raises
        ------
        BootFailed
            It did not start; the error carries what it printed.
        """
        host, identity = self._host, self._context.authority.issue(self._name, server=True)
        command = [host.python, "-m", "skyward.remote.node", host.folder]
        files = {"cert.pem": identity.cert, "key.pem": identity.key, "ca.pem": identity.ca}
        if self._context.provider.bare:
            self._bundle = await self._get_bundle()
            files[bootstrap.SCRIPT_FILE] = self._bundle.script
            command = ["sh", f"{host.folder}/{bootstrap.SCRIPT_FILE}"]
        elif image_files := self._context.spec.image.files:
            placed = await asyncio.to_thread(contents, image_files)
            await host.write({f"{WORK_FOLDER}/{name}": content for name, content in placed.items()})
        await host.write({CONFIG_FILE: self._config().encode(), **files})
        answer: asyncio.Future[NodeStarted] = asyncio.get_running_loop().create_future()
        self.watching = asyncio.create_task(self._watch(await host.start(command), answer))
        return await answer

    async def renew(self) -> None:
        """Renew the node's lease in files, until cancelled: there is no connection to the node yet.

        A tethered node needs no lease, as it notices the end of this process.
        """
        lease = self._context.spec.options.lease
        if not self._host.tethered:
            files = {LEASE_FILE: f"{lease:.0f}\n".encode(), ALIVE_FILE: b""}
            await keep_renewing(partial(self._host.write, files), lease)

    async def _send(self, names: list[str]) -> None:
        """Send what the script waits for, one file at a time, however often the connection is cut meanwhile."""
        assert self._bundle is not None
        log.debug("node %s: sending %s", self._name, ", ".join(names))
        for name in names:
            content = await asyncio.to_thread(self._bundle.content, name)
            write = partial(self._host.write, {f"sent/{name}": content})
            await retry(write, on=Unreachable, delays=repeat(SEND_RETRY_DELAY_S))

    def _first_contact(self) -> float:
        options = self._context.spec.options
        return options.lease + (options.start_timeout if self._host.tethered else 0.0)

    def _config(self) -> NodeConfig:
        spec, provider = self._context.spec, self._context.provider
        requirements: Requirements | None = None
        modules: dict[str, bytes] = {}
        if self._bundle is not None:
            sent, preload = self._context.modules, spec.image.preload
            plugins = (type(plugin).__module__ for plugin in spec.plugins if plugin.has_node_hooks())
            modules = {name: sent.bundles[name] for name in sent.needed((*preload, *plugins))}
            installed = tuple(name for name in preload if not sent.needed([name]))
            requirements = self._bundle.requirements(installed)
        return NodeConfig(
            cluster=self._name,
            node=self._number,
            nodes=spec.nodes.count,
            concurrency=self._slots,
            executor=spec.worker.executor,
            lease=spec.options.lease,
            first_contact=self._first_contact(),
            env=dict(spec.image.env),
            preload=tuple(spec.image.preload),
            preload_on_demand=all(plugin.allows_new_workers() for plugin in spec.plugins),
            hooks=self._context.hooks,
            modules=modules,
            stdin=self._host.tethered,
            notices=provider.notices if isinstance(provider, SupportsNotices) else "",
            requirements=requirements,
            levels=levels(),
        )

    async def _watch(self, process: Process, answer: "asyncio.Future[NodeStarted]") -> None:
        """Read what the node prints: first until it is ready, then to show what tasks print; and notice its end."""
        try:
            await self._listen(process, answer)
        except Exception as error:  # noqa: BLE001 - whoever waits for the node is told
            if not answer.done():
                answer.set_exception(error)
            else:
                self._exited(f"its output can no longer be read: {error}")

    async def _listen(self, process: Process, answer: "asyncio.Future[NodeStarted]") -> None:
        ready = False
        async for stream, line in process.lines():
            text, message = decode(line)
            if text or message is None:
                if ready:
                    self._tell(-1, STREAMS.index(stream), f"{text}\n")
                else:
                    self._log.append(text)
            match message:
                case NodeStarted():
                    ready = True
                    if not answer.done():  # else it has been given up, and nobody waits for it
                        answer.set_result(message)
                case OutputFrame(slot, channel):
                    output = self._ear.hear(message)
                    self._tell(slot, channel, output)
                    if not ready:
                        self._log.extend(output.splitlines())
                case BootStep(step):
                    self._begin(step)
                case StepFailed(step, reason):
                    self._log.append(f"failed {step}: {reason}")
                case FileRequested(file):
                    self._requested.append(file)
                case WaitingForFiles():
                    await self._send(self._requested)
                    self._requested = []
                case EnvironmentMismatch(rows):
                    self._mismatch = environment_check.table(rows)
                case NodeFailed():
                    self._failed = self._failed or message
                case NodeEnding(reason):
                    log.debug("node %s ends: %s", self._name, reason)
                case MachineFact() | None:  # what a machine is like is asked by `skyward doctor`
                    pass
                case _:
                    assert_never(message)
        code = await process.wait()
        if not answer.done():
            answer.set_exception(self._failure(code))
        else:
            self._exited(self._failed.reason if self._failed else f"its process ended (exit code {code})")

    def _begin(self, step: str) -> None:
        """Note that a step of the script begins."""
        log.debug("node %s: %s", self._name, step)
        self._step = step
        at = now()
        self._context.record.put(NodeStep(at, self._number, step))
        self._note_step(self._number, step, at)
        self._log.clear()

    def _tell(self, slot: int, stream: int, text: str) -> None:
        """Note what was printed or logged on the node."""
        if stream == LOG:
            for line in text.splitlines():
                try:
                    event = Logged(now(), self._number, slot, *json.loads(line))
                except (ValueError, TypeError):  # two processes of a task logged at once, more than fits in one piece
                    self._tell(slot, ERR, f"{line}\n")
                else:
                    self._context.record.put(event)
        elif text:
            self._context.record.put(Printed(now(), self._number, slot, "stderr" if stream == ERR else "stdout", text))

    def _failure(self, code: int) -> BootFailed:
        if self._mismatch:
            text = f"node {self._number} lacks what your program has:\n{self._mismatch}"
            return BootFailed(text, final=True)
        if self._failed:
            text = f"node {self._number} failed before it was ready: {self._failed.reason}"
            return BootFailed(text, log=self.log, final=self._failed.final)
        if code == bootstrap.STEP_FAILED_EXIT_CODE:
            text = f"node {self._number} could not be set up: step {self._step!r} failed"
            return BootFailed(text, log=self.log, final=True)
        return BootFailed(f"node {self._number} ended with exit code {code} before it was ready", log=self.log)

    @property
    def log(self) -> str:
        """What the node has printed while it started."""
        return "\n".join(self._log)


def levels() -> dict[str, int]:
    """Return the levels of all loggers that have one of their own, by name; the root has none."""
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    return {
        "" if logger is loggers[0] else logger.name: logger.level
        for logger in loggers
        if isinstance(logger, logging.Logger) and logger.level
    }
