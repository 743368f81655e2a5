"""The start of a node, by what its machine prints."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

import skyward as sky
from skyward.actors.node_starter import NodeStarter
from skyward.actors.tls import Identity
from skyward.environment.user_modules import UserModules
from skyward.events import NodeStep, Printed
from skyward.remote.bootstrap import STEP_FAILED_EXIT_CODE
from skyward.remote.node_config import CONFIG_FILE, NodeConfig, Requirements
from skyward.remote.node_messages import (
    BootStep,
    EnvironmentMismatch,
    FileRequested,
    NodeEnding,
    NodeFailed,
    NodeMessage,
    NodeStarted,
    OutputFrame,
    StepFailed,
    WaitingForFiles,
    encode,
)
from skyward.remote.output_protocol import ERR, OUT

STARTED = NodeStarted(4711, 2, 1 << 30, ["/data"])


class Machine:
    """A host whose only process prints these lines, texts on stderr, and ends with this exit code or is lost."""

    folder, python, tethered = "/node", "python3", False

    def __init__(self, *printed: NodeMessage | str, code: int | OSError = 0) -> None:
        self.printed, self.code = printed, code
        self.files: dict[str, bytes] = {}
        self.command: Sequence[str] = ()

    async def write(self, files: Mapping[str, bytes]) -> None:
        self.files |= files

    async def start(self, command: Sequence[str]) -> "Machine":
        self.command = command
        return self

    async def lines(self) -> AsyncIterator[tuple[str, str]]:
        for each in self.printed:
            yield ("stderr", each) if isinstance(each, str) else ("stdout", line(each))

    async def wait(self) -> int:
        if isinstance(self.code, OSError):
            raise self.code
        return self.code


class Started:
    """A node that was started there: what came of it, what was noted meanwhile, and why it ended."""

    def __init__(self, machine: Machine, *, bare: bool = False) -> None:
        self.events: list[object] = []
        self.steps: list[tuple[int, str]] = []
        self.reasons: list[str] = []
        self.answer: NodeStarted | BaseException | None = None
        asyncio.run(self._run(machine, bare))

    async def _run(self, machine: Any, bare: bool) -> None:
        async def bundle() -> Any:
            return SimpleNamespace(
                script=b"true",
                content=str.encode,
                requirements=lambda modules: Requirements("3.12", {"casty": "0.30"}, modules),
            )

        context: Any = SimpleNamespace(
            spec=SimpleNamespace(
                nodes=sky.Nodes(count=3), worker=sky.Worker(), image=sky.Image(), options=sky.Options(), plugins=()
            ),
            authority=SimpleNamespace(issue=lambda name, server: Identity(b"cert", b"key", b"ca")),
            provider=SimpleNamespace(bare=bare),
            hooks=b"hooks",
            modules=UserModules(),
            record=SimpleNamespace(put=self.events.append),
        )
        boot = NodeStarter(
            context,
            1,
            "pool-1-0",
            machine,
            2,
            bundle=bundle,
            note_step=lambda number, step, at: self.steps.append((number, step)),
            exited=self.reasons.append,
        )
        try:
            self.answer = await boot.run()
        except (sky.NodeError, OSError) as error:
            self.answer = error
        assert boot.watching is not None
        await boot.watching

    def printed(self) -> list[tuple[int, str, str]]:
        return [(each.slot, each.stream, each.text) for each in self.events if isinstance(each, Printed)]


def line(message: NodeMessage) -> str:
    return encode(message).decode().removesuffix("\n")


def test_a_node_is_started_with_its_configuration_and_tells_where_it_listens() -> None:
    machine = Machine("a warning", STARTED)

    assert Started(machine).answer == STARTED
    assert machine.command == ["python3", "-m", "skyward.remote.node", "/node"]
    assert machine.files.keys() == {CONFIG_FILE, "cert.pem", "key.pem", "ca.pem"}
    config = NodeConfig.decode(machine.files[CONFIG_FILE])
    assert (config.cluster, config.node, config.nodes, config.concurrency) == ("pool-1-0", 1, 3, 2)
    assert (config.hooks, config.requirements) == (b"hooks", None)


def test_a_bare_machine_is_given_a_script_and_the_files_that_it_requests() -> None:
    steps = BootStep("python"), BootStep("packages")
    machine = Machine(*steps, FileRequested("a.whl"), FileRequested("b.whl"), WaitingForFiles(), STARTED)
    node = Started(machine, bare=True)

    assert node.answer == STARTED
    assert machine.command == ["sh", "/node/boot.sh"]
    assert (machine.files["boot.sh"], machine.files["sent/a.whl"], machine.files["sent/b.whl"]) == (
        b"true",
        b"a.whl",
        b"b.whl",
    )
    assert NodeConfig.decode(machine.files[CONFIG_FILE]).requirements == Requirements("3.12", {"casty": "0.30"})
    assert node.steps == [(1, "python"), (1, "packages")]
    assert [each.step for each in node.events if isinstance(each, NodeStep)] == ["python", "packages"]


def test_what_a_node_prints_is_noted() -> None:
    frames = OutputFrame(0, OUT, True, "one "), OutputFrame(0, OUT, False, "line\n"), OutputFrame(1, ERR, False, "no\n")
    node = Started(Machine("before", STARTED, *frames, "from C", NodeEnding("told to end")))

    assert node.printed() == [(0, "stdout", "one line\n"), (1, "stderr", "no\n"), (-1, "stderr", "from C\n")]
    assert node.reasons == ["its process ended (exit code 0)"]


def test_a_task_that_prints_what_a_node_does_is_not_mistaken_for_one() -> None:
    text = encode(NodeFailed("no more", final=True)).decode()
    node = Started(Machine(STARTED, OutputFrame(0, OUT, False, text)))

    assert node.printed() == [(0, "stdout", text)]
    assert node.reasons == ["its process ended (exit code 0)"]


@pytest.mark.parametrize(
    ("printed", "code", "text", "log", "final"),
    [
        (["bye"], 1, "node 1 ended with exit code 1 before it was ready", "bye", False),
        (
            [BootStep("python"), "no such", StepFailed("python", "none here")],
            STEP_FAILED_EXIT_CODE,
            "node 1 could not be set up: step 'python' failed",
            "no such\nfailed python: none here",
            True,
        ),
        (
            [EnvironmentMismatch([("casty", "0.30", "0.1", "fix it")])],
            78,
            "node 1 lacks what your program has:\nwhat   here  there  fix\ncasty  0.30  0.1    fix it",
            "",
            True,
        ),
        (
            ["Traceback", f"half a line{line(NodeFailed('broken', final=True))}", NodeFailed("later", final=False)],
            STEP_FAILED_EXIT_CODE,
            "node 1 failed before it was ready: broken",
            "Traceback\nhalf a line",
            True,
        ),
        (
            [OutputFrame(-1, ERR, False, "one\ntwo\n"), NodeFailed("broken", final=False)],
            0,
            "node 1 failed before it was ready: broken",
            "one\ntwo",
            False,
        ),
    ],
)
def test_a_start_that_fails_says_why(
    printed: list[NodeMessage | str], code: int, text: str, log: str, final: bool
) -> None:
    error = Started(Machine(*printed, code=code)).answer

    assert isinstance(error, sky.BootFailed)
    assert (error.args[0], error.log, error.final) == (text, log, final)


@pytest.mark.parametrize(
    ("printed", "reason"),
    [([NodeFailed("no memory", final=False)], "no memory"), ([], "its process ended (exit code 9)")],
)
def test_a_node_that_ends_later_says_why(printed: list[NodeMessage], reason: str) -> None:
    node = Started(Machine(STARTED, *printed, code=9))

    assert node.answer == STARTED
    assert node.reasons == [reason]


def test_a_node_that_cannot_be_followed_is_given_up() -> None:
    lost = OSError("the machine is gone")

    assert Started(Machine(code=lost)).answer is lost
    assert Started(Machine(STARTED, code=lost)).reasons == ["its output can no longer be read: the machine is gone"]


@pytest.mark.parametrize("tethered", [False, True])
def test_a_lease_is_renewed_in_files_where_a_node_would_not_notice_the_end_of_the_driver(
    tethered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Mapping[str, bytes]] = []

    async def scenario() -> None:
        often = asyncio.Event()

        async def write(files: Mapping[str, bytes]) -> None:
            written.append(files)
            if len(written) > 1:
                often.set()

        context: Any = SimpleNamespace(spec=SimpleNamespace(options=sky.Options(lease=60), worker=sky.Worker()))
        unused: Any = None
        host: Any = SimpleNamespace(tethered=tethered, write=write)
        starter = NodeStarter(context, 1, "pool-1-0", host, 2, bundle=unused, note_step=unused, exited=unused)
        renewing = asyncio.create_task(starter.renew())
        if tethered:
            await renewing
        else:
            await often.wait()
            renewing.cancel()

    monkeypatch.setattr("skyward.renewal.RENEWAL_SHARE", 0.0)
    asyncio.run(scenario())

    assert written == ([] if tethered else [{"lease": b"60\n", "alive": b""}] * 2)
