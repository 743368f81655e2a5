"""A real node and one who knows its protocol: what the node promises, message by message."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from skyward.actors.tls import Authority, Identity
from skyward.remote.node.parent_process import SILENCE_FILE
from skyward.remote.node_config import ALIVE_FILE
from skyward.remote.protocol import Assign, Assigned, Beat, Collect, Collected, Facts, Revoke, Revoked
from tests import byhand, kit, work
from tests.byhand import Caller, Node, value_of
from tests.kit import Bell

# ---------------------------------------------------------------- one node for all that leave it as it was


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with byhand.node(tmp_path_factory.mktemp("nodes") / "skyward-by-hand") as node:
        yield node


@pytest.fixture
def caller(node: Node, tmp_path: Path) -> Iterator[Caller]:
    with Caller(node, tmp_path / "driver") as caller:
        yield caller


@pytest.fixture
def bell() -> Iterator[Bell]:
    with Bell() as bell:
        yield bell


def test_an_assignment_that_is_repeated_runs_once(caller: Caller, tmp_path: Path) -> None:
    file = tmp_path / "runs"
    assignment = caller.assign(caller.batch(work.note, file, "first"))
    again = caller.ask(assignment)
    caller.assign(caller.batch(work.note, file, "second"))
    caller.collect(2)

    assert again == caller.ask(assignment)
    assert file.read_text().split() == ["first", "second"]


def test_an_assignment_that_is_repeated_after_it_has_run_does_not_run_again(caller: Caller, tmp_path: Path) -> None:
    file = tmp_path / "runs"
    assignment = caller.assign(caller.batch(work.note, file, "first"))
    caller.collect(1)
    caller.ask(assignment)
    caller.run(caller.batch(work.note, file, "second"))

    assert file.read_text().split() == ["first", "second"]


def test_a_command_that_comes_late_by_another_connection_changes_nothing(caller: Caller, node: Node) -> None:
    assignment = caller.assign(caller.batch(work.luck))
    revocation = Revoke(next(node.numbers), (), kill=False)
    assert caller.ask(revocation) == Revoked(())
    assert caller.ask(assignment) == Assigned()
    caller.assign(caller.batch(work.luck))
    assert caller.ask_in_vain(revocation)
    assert len(caller.collect(2)) == 2


def test_an_ask_for_outcomes_that_comes_late_does_not_take_the_place_of_the_newest(caller: Caller, node: Node) -> None:
    late = Collect(node.after, byhand.SOON)
    caller.call(work.luck)
    caller.ask(Collect(node.after, 0.0))
    assert caller.ask(late) == Collected(node.after, ())


def test_of_two_asks_for_outcomes_both_are_answered(caller: Caller, node: Node) -> None:
    assignment = Assign(next(node.numbers), (caller.batch(work.pid),), {}, ())
    first, second = caller.ask_twice(Collect(node.after, byhand.SOON), assignment)
    node.after = first.number
    assert first == second


def test_a_revocation_gives_back_what_has_not_started(caller: Caller, node: Node, bell: Bell) -> None:
    running, *waiting = [
        caller.batch(work.ring, bell.port, timeout=60.0),
        caller.batch(work.luck),
        caller.batch(work.luck),
    ]
    caller.assign(running, *waiting)
    line = bell.answer()
    numbers = tuple(batch.id for batch in (running, *waiting))
    answer = caller.ask(Revoke(next(node.numbers), numbers, kill=False))
    line.release(b"still running")

    assert answer == Revoked(tuple(batch.id for batch in waiting))
    assert value_of(caller.collect(1)[0]) == b"still running"


def test_a_revocation_that_is_repeated_is_answered_as_before(caller: Caller, node: Node, bell: Bell) -> None:
    running, waiting = caller.batch(work.ring, bell.port, timeout=60.0), caller.batch(work.luck)
    caller.assign(running, waiting)
    line = bell.answer()
    revocation = Revoke(next(node.numbers), (waiting.id,), kill=False)
    first = caller.ask(revocation)
    line.release()
    caller.collect(1)

    assert first == caller.ask(revocation) == Revoked((waiting.id,))


def test_what_was_given_back_may_be_assigned_again(caller: Caller, node: Node, bell: Bell) -> None:
    running, waiting = caller.batch(work.ring, bell.port, timeout=60.0), caller.batch(work.square, 3)
    caller.assign(running, waiting)
    line = bell.answer()
    caller.ask(Revoke(next(node.numbers), (waiting.id,), kill=False))
    caller.assign(waiting)
    line.release()

    assert [value_of(outcome) for outcome in caller.collect(2)] == [b"on", 9]


def test_a_revocation_may_stop_what_runs(caller: Caller, node: Node, bell: Bell) -> None:
    running = caller.batch(work.ring, bell.port)
    caller.assign(running)
    line = bell.answer()
    answer = caller.ask(Revoke(next(node.numbers), (running.id,), kill=True))

    assert answer == Revoked(())
    assert line.hears_the_end()
    assert [(outcome.batch, outcome.status) for outcome in caller.collect(1)] == [(running.id, "killed")]
    assert caller.call(work.square, 4) == 16


def test_a_revocation_of_what_has_ended_gives_nothing_back(caller: Caller, node: Node) -> None:
    batch = caller.batch(work.square, 1)
    caller.run(batch)

    assert caller.ask(Revoke(next(node.numbers), (batch.id,), kill=True)) == Revoked(())
    assert caller.call(work.square, 4) == 16


def test_outcomes_are_sent_again_until_they_are_acknowledged(caller: Caller, node: Node) -> None:
    batch = caller.batch(work.square, 5)
    caller.assign(batch)
    before = node.after
    first = caller.ask(Collect(before, byhand.SOON))
    again = caller.ask(Collect(before, byhand.SOON))
    node.after = first.number

    assert first == again
    assert [value_of(outcome) for outcome in again.outcomes] == [25]


def test_outcomes_that_are_acknowledged_are_gone(caller: Caller, node: Node) -> None:
    caller.run(caller.batch(work.square, 5))

    assert caller.ask(Collect(node.after, wait=0.0)) == Collected(node.after, ())
    assert caller.ask(Collect(node.after - 1, wait=0.0)) == Collected(node.after, ())


def test_an_outcome_waits_for_a_caller_who_comes_back(node: Node, tmp_path: Path, bell: Bell) -> None:
    with Caller(node, tmp_path / "first") as caller:
        caller.assign(caller.batch(work.ring, bell.port))
        line = bell.answer()
    line.release(b"while nobody was there")

    with Caller(node, tmp_path / "second") as caller:
        assert value_of(caller.collect(1)[0]) == b"while nobody was there"


def test_a_caller_who_comes_back_repeats_its_last_command_and_nothing_happens(node: Node, tmp_path: Path) -> None:
    file = tmp_path / "runs"
    with Caller(node, tmp_path / "first") as caller:
        assignment = caller.assign(caller.batch(work.note, file, "once"))

    with Caller(node, tmp_path / "second") as caller:
        caller.ask(assignment)
        caller.collect(1)
        caller.call(work.square, 1)
    assert file.read_text() == "once\n"


def test_a_collect_that_finds_nothing_is_answered_when_its_time_is_up(caller: Caller, node: Node) -> None:
    assert caller.ask(Collect(node.after, wait=0.01)) == Collected(node.after, ())


def test_a_collect_is_answered_as_soon_as_there_is_an_outcome(caller: Caller, bell: Bell) -> None:
    caller.assign(caller.batch(work.ring, bell.port))
    bell.answer().release(b"now")

    assert value_of(caller.collect(1)[0]) == b"now"  # well before the time of the `Collect` is up


def test_batches_run_in_the_order_they_came(caller: Caller, tmp_path: Path) -> None:
    file = tmp_path / "runs"
    caller.assign(*[caller.batch(work.note, file, str(number)) for number in range(20)])
    caller.assign(*[caller.batch(work.note, file, str(number)) for number in range(20, 30)])
    caller.collect(30)

    assert file.read_text().split() == [str(number) for number in range(30)]


def test_a_beat_tells_what_the_node_is_doing(caller: Caller, bell: Bell) -> None:
    caller.assign(caller.batch(work.ring, bell.port), caller.batch(work.luck), caller.batch(work.luck))
    line = bell.answer()
    facts = caller.ask(Beat())
    line.release()
    caller.collect(3)

    assert isinstance(facts, Facts)
    assert (facts.slots, facts.running, facts.queued) == (1, 1, 2)
    assert facts.memory > 0


def test_whoever_has_no_certificate_of_the_pool_never_connects(node: Node, tmp_path: Path) -> None:
    other = Authority.create("by hand").issue("driver", server=False)
    for number, identity in enumerate((None, other, Identity(other.cert, other.key, byhand.POOL.certificate))):
        stranger = Caller(node, tmp_path / str(number), identity)
        with pytest.raises(TimeoutError):
            stranger.connect(within=0.5)


# ---------------------------------------------------------------- how a node ends


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "skyward-by-hand"


def busy(node: Node, caller: Caller, bell: Bell) -> list[psutil.Process]:
    """Have the node run something that would go on, and return its processes."""
    caller.assign(caller.batch(work.ring, bell.port))
    bell.answer()
    processes = node.processes()
    assert len(processes) == 4
    return processes


def close_stdin(node: Node) -> None:
    assert node.process.stdin is not None
    node.process.stdin.close()


def terminate(node: Node) -> None:
    node.process.terminate()


@pytest.mark.parametrize("end", [close_stdin, terminate])
def test_a_node_that_is_told_to_end_leaves_nothing(
    folder: Path, tmp_path: Path, bell: Bell, end: Callable[[Node], None]
) -> None:
    with byhand.node(folder) as node, Caller(node, tmp_path / "driver") as caller:
        processes = busy(node, caller, bell)
        end(node)

        assert node.process.wait(byhand.SOON) == 0
        assert byhand.ended(processes)
        assert not folder.exists()


def test_a_node_that_does_not_hear_its_driver_any_more_ends(folder: Path, tmp_path: Path, bell: Bell) -> None:
    with byhand.node(folder, lease=0.3) as node, Caller(node, tmp_path / "driver") as caller:
        processes = busy(node, caller, bell)

        assert byhand.ended(processes)
        assert not folder.exists()


def test_a_driver_that_is_heard_keeps_the_node_alive(folder: Path, tmp_path: Path) -> None:
    with byhand.node(folder, lease=0.6) as node, Caller(node, tmp_path / "driver") as caller:
        for _ in range(5):
            caller.ask(Collect(0, wait=0.2))

        assert caller.call(work.square, 3) == 9


def test_a_node_that_never_hears_its_driver_ends(folder: Path) -> None:
    with byhand.node(folder, first_contact=2.0) as node:
        assert byhand.ended(node.processes())
        assert not folder.exists()


def test_a_node_that_is_called_from_its_folder_goes_on_until_that_stops(folder: Path) -> None:
    with byhand.node(folder, lease=5.0, first_contact=5.0) as node:
        for _ in range(3):
            (folder / ALIVE_FILE).touch()
            kit.until(lambda: not (folder / ALIVE_FILE).exists())  # it looks twice a second
        until = time.monotonic() + 1.0
        assert byhand.ended(node.processes())
        assert time.monotonic() > until
        assert not folder.exists()


def test_a_parent_counts_on_from_where_the_one_before_it_was(folder: Path) -> None:
    with byhand.node(folder, also={SILENCE_FILE: b"598\n"}, first_contact=600.0) as node:
        assert byhand.ended(node.processes())
        assert not folder.exists()


def parent(node: Node) -> int:
    return node.process.pid


def host(node: Node) -> int:
    return node.host


def zygote(node: Node) -> int:
    return node.zygote


@pytest.mark.parametrize("part", [parent, host, zygote])
def test_whichever_process_of_a_node_is_killed_all_of_them_end(
    folder: Path, tmp_path: Path, bell: Bell, part: Callable[[Node], int]
) -> None:
    with byhand.node(folder) as node, Caller(node, tmp_path / "driver") as caller:
        processes = busy(node, caller, bell)
        os.kill(part(node), signal.SIGKILL)

        assert byhand.ended(processes)
        assert folder.exists() == (part is parent)  # it was the one to remove it: now the provider does


def test_what_a_call_has_started_ends_with_the_node(folder: Path, tmp_path: Path, bell: Bell) -> None:
    with byhand.node(folder) as node, Caller(node, tmp_path / "driver") as caller:
        daemon = caller.call(work.start_a_daemon, bell.port)
        assert bell.answer().pid == daemon
        started = psutil.Process(daemon)
        close_stdin(node)

        assert byhand.ended([started])
