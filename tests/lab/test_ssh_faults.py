"""What breaks while a pool works costs time, or another attempt of what was lost, and nothing else. Over real SSH."""

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest

import skyward as sky
from tests import kit, work
from tests.history import History
from tests.lab import limits
from tests.lab.conftest import Hosts
from tests.lab.host import Host, until
from tests.lab.lab import Lab
from tests.lab.test_ssh_pool import nothing_is_left, ssh

pytestmark = pytest.mark.timeout(240)

NOTES = "/run/notes"
"""A file system of its own, which outlives full and lost disks."""

SLOTS = 2


def history(machines: list[Host]) -> History:
    """A history of tasks on these machines. One that is gone says what was read last."""

    def reader(host: Host) -> Callable[[], str]:
        host.run(f"mkdir {NOTES} && mount -t tmpfs -o mode=1777,size=8m notes {NOTES}")
        said = ""

        def read() -> str:
            nonlocal said
            if host.is_alive:
                said = host.run(f"cat {NOTES}/runs 2>/dev/null || true")
            return said

        return read

    return History(f"{NOTES}/runs", *map(reader, machines))


@contextlib.contextmanager
def working(
    lab: Lab, machines: list[Host], *, spare: int = 0, again: bool = False, **options: float
) -> Iterator[tuple[sky.Compute, History]]:
    """A pool on all but so many of the machines; when the block is over, every task is answered as it should be."""
    made = history(machines)
    with sky.Compute(
        provider=ssh(lab, *machines),
        nodes=len(machines) - spare,
        worker=sky.Worker(concurrency=SLOTS),
        options=sky.Options(**options),  # type: ignore[arg-type]
    ) as compute:
        yield compute, made
        made.all()
        report = compute.report()
    closed = time.time()
    for host in machines:
        assert not host.is_alive or nothing_is_left(host)
    made.check(report, again=again, closed=closed)


@pytest.mark.parametrize("seconds", [1.0, 5.0, pytest.param(30.0, marks=pytest.mark.slow)])
def test_a_cable_that_is_pulled_for_a_while_costs_nothing_but_time(seconds: float, hosts: Hosts, lab: Lab) -> None:
    machines = hosts(2, used=True)
    with working(lab, machines, grace=60) as (compute, made):
        for _ in range(3 if seconds == 1 else 1):
            made.ask(compute, range(100), 0.05)
            made.more(15)
            for host in machines:
                host.cut(seconds)
            made.all(seconds + 20)


def test_a_slow_line_costs_nothing_but_time(hosts: Hosts, lab: Lab) -> None:
    (machine,) = hosts(1, used=True, slow=True)
    with working(lab, [machine], grace=3) as (compute, _):
        compute.submit(work.square, 1).result(kit.SOON)
        machine.slow(delay=0.02, rate=400_000)
        arguments = [compute.submit(len, bytes(900_000)) for _ in range(5)]
        shared = [compute.submit(len, bytes(2_000_000)) for _ in range(2)]
        results = [compute.submit(bytes, 900_000) for _ in range(3)]
        lengths = [len(each.result(60)) for each in results]
        assert (lengths, [each.result(60) for each in (*arguments, *shared)]) == (
            [900_000] * 3,
            [900_000] * 5 + [2_000_000] * 2,
        )
        assert not compute.report().retries
        machine.slow()


def kill_sessions(host: Host) -> None:
    host.run("pkill -KILL -f 'sshd: [u]buntu@'")


@pytest.mark.parametrize("how", [kill_sessions, Host.restart_sshd, lambda host: host.stop_sshd(2.0)])
def test_connections_that_are_lost_with_their_sshd_cost_nothing_but_time(
    how: Callable[[Host], None], hosts: Hosts, lab: Lab
) -> None:
    machines = hosts(2, used=True)
    with working(lab, machines) as (compute, made):
        made.ask(compute, range(120), 0.1)
        for _ in range(3):
            made.more(20)
            for host in machines:
                how(host)


def test_a_session_that_is_stuck_on_a_machine_that_is_not_costs_nothing_but_time(hosts: Hosts, lab: Lab) -> None:
    machines = hosts(1, used=True)
    with working(lab, machines, grace=20) as (compute, made):
        made.ask(compute, range(40), 0.1)
        made.more(5)
        for pid in machines[0].run("pgrep -f 'sshd: [u]buntu@'").split():
            machines[0].run(f"kill -STOP {pid}")
        made.all(30)
        assert not compute.report().retries


def test_a_machine_that_freezes_is_noticed_within_ten_seconds_and_its_work_goes_elsewhere(
    hosts: Hosts, lab: Lab
) -> None:
    machines = hosts(3, used=True)
    with working(lab, machines, spare=1, again=True, grace=0.5, lease=10) as (compute, made):
        made.ask(compute, range(300), 0.1)
        made.more(20)
        machines[0].freeze()
        kit.until(lambda: compute.report().retries, 10)
        made.more(20)
        machines[0].thaw()
        until(lambda: nothing_is_left(machines[0]), "the node that was given up ends itself", 20)


def test_a_machine_that_freezes_for_a_while_costs_nothing_but_time(hosts: Hosts, lab: Lab) -> None:
    machines = hosts(2, used=True)
    with working(lab, machines) as (compute, made):
        made.ask(compute, range(150), 0.1)
        made.more(20)
        machines[0].freeze(6.0)


def test_a_machine_that_dies_costs_its_tasks_another_attempt(hosts: Hosts, lab: Lab) -> None:
    machines = hosts(3, used=True)
    with working(lab, machines, spare=1, again=True, grace=1) as (compute, made):
        made.ask(compute, range(100), 0.1)
        made.more(20)
        machines[0].freeze()
        made.runs()  # which is the last that can be read there
        machines[0].kill()
        made.all()
        kit.until(lambda: {node.host for node in compute.nodes} == {machines[1].name, machines[2].name}, 40)


def test_a_full_disk_loses_what_is_printed_and_no_task(hosts: Hosts, lab: Lab) -> None:
    machines = hosts(2, used=True)
    with working(lab, machines) as (compute, made):
        made.ask(compute, range(100), function=work.noted_and_told)
        made.more(10)
        machines[0].fill()
        made.ask(compute, range(300), function=work.noted_and_told)
        made.all()
        machines[0].unfill()
        made.ask(compute, range(50), function=work.noted_and_told)


def test_a_machine_that_loses_its_files_costs_no_task(hosts: Hosts, lab: Lab) -> None:
    machines = hosts(3, used=True)
    with working(lab, machines, spare=1, again=True, grace=1) as (compute, made):
        made.ask(compute, range(200), 0.05)
        made.more(20)
        machines[0].wipe()
        made.all()
        made.ask(compute, range(50), 0.05)


def test_a_task_that_takes_all_memory_of_a_machine_fails_alone(hosts: Hosts, lab: Lab) -> None:
    if reason := limits.why_not():
        pytest.skip(reason)
    machines = hosts(2, used=True, memory=400 << 20)
    with working(lab, machines, again=True) as (compute, made):
        made.ask(compute, range(100), 0.05)
        made.ask(compute, [600 << 20], function=work.noted_and_greedy, lost=True)
        made.ask(compute, range(100), 0.05)
        made.all()
        assert all("signal 9" in why or "SIGKILL" in why for why in compute.report().retries)
        assert any("by the kernel, out of memory: it had" in why for why in compute.report().retries)


@pytest.mark.parametrize("loss", [0.0, 0.01])
def test_a_link_that_is_slow_and_loses_packets_costs_nothing_but_time(loss: float, hosts: Hosts, lab: Lab) -> None:
    machines = hosts(2, used=True, slow=True)
    for host in machines:
        host.slow(delay=0.04, loss=loss)
    with working(lab, machines) as (compute, made):
        made.ask(compute, range(300), 0.05)
        made.more(50)
        machines[0].cut(1.0)
