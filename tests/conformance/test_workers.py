"""What holds for every kind of worker, on a real node: seen from its door, where each outcome can be looked at."""

import os
import signal
from collections import ChainMap
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from skyward.remote.node.executor import MAX_FUNCTIONS
from skyward.remote.node_messages import OutputFrame
from skyward.remote.output_protocol import OUT
from skyward.remote.protocol import Batch, Revoke
from skyward.remote.serialization import call_codec
from skyward.remote.serialization.packer import Packer
from tests import byhand, work
from tests.byhand import Caller, Node, value_of
from tests.kit import Bell

KINDS = ("process", "thread")


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of worker."""
    return str(request.param)


@pytest.fixture(scope="module")
def node(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp(kind) / "skyward-by-hand"
    hooks = call_codec.pack_hooks([work.Hook()])
    with byhand.node(folder, concurrency=2, executor=kind, hooks=hooks, preload=("numpy",), env={"FLAG": "up"}) as node:
        yield node


@pytest.fixture(scope="module")
def caller(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    with Caller(node, tmp_path_factory.mktemp("driver")) as caller:
        yield caller


@pytest.fixture
def bell() -> Iterator[Bell]:
    with Bell() as bell:
        yield bell


def both_slots_work(caller: Caller, bell: Bell) -> bool:
    """Whether two batches run at the same time."""
    caller.assign(*[caller.batch(work.ring, bell.port) for _ in range(2)])
    lines = [bell.answer(), bell.answer()]
    for line in lines:
        line.release()
    return {outcome.slot for outcome in caller.collect(2)} == {0, 1}


# ---------------------------------------------------------------- calls


def test_a_call_runs_on_the_node(caller: Caller, node: Node) -> None:
    assert caller.call(work.pid) in {process.pid for process in node.processes()}


def test_every_slot_runs_at_the_same_time_as_the_others(caller: Caller, bell: Bell) -> None:
    assert both_slots_work(caller, bell)


def test_process_slots_are_processes_and_thread_slots_share_one(kind: str, caller: Caller, bell: Bell) -> None:
    caller.assign(*[caller.batch(work.ring, bell.port) for _ in range(2)])
    lines = [bell.answer(), bell.answer()]
    for line in lines:
        line.release()
    caller.collect(2)

    assert len({line.pid for line in lines}) == (2 if kind == "process" else 1)


def test_an_outcome_names_its_slot_and_how_long_it_ran(caller: Caller) -> None:
    (outcome,) = caller.run(caller.batch(work.slot))

    assert value_of(outcome) == outcome.slot
    assert 0 < outcome.seconds < 10


def test_a_worker_has_never_met_casty(caller: Caller) -> None:
    modules = caller.call(work.modules)

    assert isinstance(modules, set)
    assert not {"casty", "asyncio", "pydantic", "cryptography"} & modules


def test_what_is_preloaded_is_there(caller: Caller) -> None:
    assert "numpy" in caller.call(work.modules)  # type: ignore[operator]


def test_tasks_have_the_environment_of_the_image(caller: Caller) -> None:
    assert caller.call(os.getenv, "FLAG") == "up"


def test_hooks_surround_workers_once_and_tasks_each_time(caller: Caller) -> None:
    (outcome,) = caller.run(caller.batch(work.counted))
    workers, tasks, slot = str(value_of(outcome)).split()

    assert (workers, slot) == ("1", str(outcome.slot))
    assert int(tasks) >= 1


def test_what_a_task_prints_comes_out_of_the_node(caller: Caller, node: Node) -> None:
    (outcome,) = caller.run(caller.batch(work.say, "hello from a slot"))

    assert node.says() == OutputFrame(outcome.slot, OUT, False, "hello from a slot\n")


def test_large_arguments_and_results_travel(caller: Caller) -> None:
    data = os.urandom(1 << 20) * 50

    assert caller.call(work.size, data) == len(data)
    assert caller.call(bytes, 10 << 20) == bytes(10 << 20)


def test_an_empty_argument_travels(caller: Caller) -> None:
    assert caller.call(work.size, b"") == 0


def test_slots_have_random_numbers_of_their_own(caller: Caller) -> None:
    dice = [value_of(outcome) for outcome in caller.run(*[caller.batch(work.dice) for _ in range(20)])]

    assert len({each[0] for each in dice}) == len({each[1] for each in dice}) == 20  # type: ignore[index]


# ---------------------------------------------------------------- functions by value


def packed(node: Node, number: int) -> tuple[Batch, Mapping[str, bytes]]:
    """A batch of a function that travels by value and returns this number, and the function."""
    call = Packer().pack(lambda: number, (), {})
    return Batch(next(node.numbers), call.payload, tuple(call.functions)), call.functions


def test_a_function_is_sent_to_the_node_once_and_runs_on_every_slot(caller: Caller, node: Node, bell: Bell) -> None:
    packer = Packer()
    fn = lambda number: number + 1  # noqa: E731 - one that nodes cannot import
    calls = [packer.pack(fn, (number,), {}) for number in range(20)]
    first, *others = [Batch(next(node.numbers), call.payload, tuple(call.functions)) for call in calls]
    caller.assign(first, functions=calls[0].functions)
    caller.assign(*others)

    assert sorted(value_of(outcome) for outcome in caller.collect(20)) == list(range(1, 21))  # type: ignore[type-var]


def test_a_function_that_is_not_there_is_an_exception_of_the_call(caller: Caller, node: Node) -> None:
    caller.assign(packed(node, 1)[0])

    with pytest.raises(KeyError):
        value_of(caller.collect(1)[0])
    assert caller.call(work.square, 2) == 4


def test_a_function_that_is_forgotten_is_dropped_by_the_node(caller: Caller, node: Node) -> None:
    batch, functions = packed(node, 1)
    caller.assign(functions=functions)
    caller.assign(batch, forget=tuple(functions))

    with pytest.raises(KeyError):
        value_of(caller.collect(1)[0])


def test_more_functions_than_a_worker_holds_are_no_problem(caller: Caller, node: Node) -> None:
    made = [packed(node, number) for number in range(3 * MAX_FUNCTIONS)]
    batches = [batch for batch, _ in made]
    caller.assign(*batches, functions=dict(ChainMap(*(dict(functions) for _, functions in made))))
    outcomes = {outcome.batch: value_of(outcome) for outcome in caller.collect(len(batches))}

    assert [outcomes[batch.id] for batch in batches] == list(range(3 * MAX_FUNCTIONS))


# ---------------------------------------------------------------- death


def test_a_worker_that_exits_is_told_and_comes_back(caller: Caller, bell: Bell) -> None:
    (outcome,) = caller.run(caller.batch(work.die))

    assert (outcome.status, outcome.payload) == ("died", b"exit code 3")
    assert both_slots_work(caller, bell)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_a_signal_ends_is_told_and_comes_back(caller: Caller, bell: Bell, number: signal.Signals) -> None:
    (outcome,) = caller.run(caller.batch(work.die_by, number))

    assert (outcome.status, outcome.payload.decode()) == ("died", f"killed by signal {int(number)} ({number.name})")
    assert both_slots_work(caller, bell)


def test_a_worker_that_dies_costs_its_own_slots_only(kind: str, caller: Caller, bell: Bell) -> None:
    other = caller.batch(work.ring, bell.port)
    caller.assign(other)
    line = bell.answer()
    caller.assign(caller.batch(work.die))
    died = {outcome.batch for outcome in caller.collect(1 if kind == "process" else 2) if outcome.status == "died"}

    assert (other.id in died) == (kind == "thread")  # the other slot is a thread of the process that died
    if kind == "process":
        line.release()
        assert value_of(caller.collect(1)[0]) == b"on"
    assert both_slots_work(caller, bell)


def test_a_worker_that_dies_idle_comes_back(caller: Caller, node: Node, bell: Bell) -> None:
    pid = caller.call(work.pid)
    assert isinstance(pid, int)
    worker = psutil.Process(pid)
    worker.kill()

    assert byhand.ended([worker])
    caller.run(caller.batch(work.square, 1))  # dies with the worker if the node has not heard of its end yet
    assert both_slots_work(caller, bell)


def test_a_batch_that_runs_too_long_is_stopped(caller: Caller, bell: Bell) -> None:
    (outcome,) = caller.run(caller.batch(work.spin, 600.0, timeout=0.1))

    assert outcome.status == "overdue"
    assert both_slots_work(caller, bell)


def test_what_takes_no_time_does_not_wait_for_long_behind_one_that_does(caller: Caller, bell: Bell) -> None:
    caller.run(*[caller.batch(work.square, x) for x in range(20)])
    long = caller.batch(work.ring, bell.port)
    others = [caller.batch(work.square, x) for x in range(30)]
    caller.assign(long, *others)
    line = bell.answer()

    assert sorted(value_of(outcome) for outcome in caller.collect(30)) == [x * x for x in range(30)]  # type: ignore[type-var]
    line.release()
    assert value_of(caller.collect(1)[0]) == b"on"
    assert both_slots_work(caller, bell)


def test_what_is_not_wanted_any_more_never_starts_behind_another(caller: Caller, node: Node, bell: Bell) -> None:
    caller.run(*[caller.batch(work.square, x) for x in range(20)])
    first, second = caller.batch(work.ring, bell.port), caller.batch(work.ring, bell.port)
    unwanted = [caller.batch(work.ring, bell.port) for _ in range(3)]
    caller.assign(first, second, *unwanted)
    lines = [bell.answer() for _ in range(2)]
    back = caller.ask(Revoke(next(node.numbers), tuple(batch.id for batch in unwanted), kill=True)).batches
    stopped = [batch.id for batch in unwanted if batch.id not in back]
    killed = caller.collect(len(stopped))  # before the slots are free: the answer does not wait for them to hear of it
    for line in lines:
        line.release()
    done = caller.collect(2)

    assert sorted((outcome.batch, outcome.status) for outcome in killed) == [(each, "killed") for each in stopped]
    assert {(outcome.batch, outcome.status) for outcome in done} == {(each.id, "returned") for each in (first, second)}
    assert bell.is_silent()


def test_a_death_among_what_takes_no_time_costs_one(kind: str, caller: Caller, bell: Bell) -> None:
    caller.run(*[caller.batch(work.square, x) for x in range(20)])
    deaths = [caller.batch(work.die) for _ in range(2)]
    others = [caller.batch(work.square, x) for x in range(12)]
    caller.assign(*others[:3], deaths[0], *others[3:8], deaths[1], *others[8:])
    outcomes = {outcome.batch: outcome for outcome in caller.collect(14)}

    died = {batch for batch, outcome in outcomes.items() if outcome.status == "died"}
    if kind == "process":
        assert died == {death.id for death in deaths}
    assert both_slots_work(caller, bell)


def test_what_has_ended_just_before_a_death_does_not_run_again(caller: Caller, kind: str, tmp_path: Path) -> None:
    caller.run(*[caller.batch(work.square, x) for x in range(20)])
    notes = tmp_path / "notes"
    quick = [caller.batch(work.note, notes, str(x)) for x in range(10)]
    caller.assign(*quick[:2], caller.batch(work.die), *quick[2:])
    outcomes = {outcome.batch: outcome.status for outcome in caller.collect(11)}

    ran = notes.read_text().split()
    assert len(ran) == len(set(ran))
    if kind == "process":
        assert all(outcomes[batch.id] == "returned" for batch in quick)


def test_what_has_ended_is_not_kept_back_by_what_runs_behind_it(caller: Caller, bell: Bell, kind: str) -> None:
    caller.run(*[caller.batch(work.square, x) for x in range(20)])
    quick = [caller.batch(work.square, x) for x in range(2)]
    caller.assign(quick[0], caller.batch(work.ring, bell.port), quick[1], caller.batch(work.ring, bell.port))
    lines = [bell.answer() for _ in range(2)]

    assert {outcome.batch for outcome in caller.collect(2)} == {batch.id for batch in quick}
    for line in lines:
        line.release()
    assert [value_of(outcome) for outcome in caller.collect(2)] == [b"on", b"on"]


def test_a_batch_that_nobody_wants_any_more_is_stopped(caller: Caller, node: Node, bell: Bell) -> None:
    batch = caller.batch(work.ring_and_spin, bell.port)
    caller.assign(batch)
    bell.answer()
    caller.ask(Revoke(next(node.numbers), (batch.id,), kill=True))

    assert [(outcome.batch, outcome.status) for outcome in caller.collect(1)] == [(batch.id, "killed")]
    assert both_slots_work(caller, bell)


@pytest.mark.parametrize("kind_", KINDS)
def test_a_node_without_its_zygote_ends(kind_: str, tmp_path: Path) -> None:
    with byhand.node(tmp_path / "skyward-by-hand", concurrency=2, executor=kind_) as node:
        processes = node.processes()
        os.kill(node.zygote, signal.SIGKILL)

        assert byhand.ended(processes)


def test_a_preload_that_fails_is_told_before_the_node_is_ready(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with (
        pytest.raises(AssertionError),
        byhand.node(tmp_path / "skyward-by-hand", preload=("there_is_no_such_module",)),
    ):
        pass

    assert "ModuleNotFoundError: No module named 'there_is_no_such_module'" in capfd.readouterr().err
