"""What may happen to machines, connections and drivers while a pool is there."""

from collections import Counter

import pytest

import skyward as sky
from tests import kit, work
from tests.lab.conftest import Hosts
from tests.lab.host import Host, until
from tests.lab.lab import Lab
from tests.lab.test_ssh_pool import nothing_is_left, ssh

pytestmark = pytest.mark.timeout(120)
CUT = "pkill -f 'sshd: [u]buntu@'"


def runs(hosts: list[Host]) -> Counter[int]:
    """How often each call has run, on all hosts."""
    return Counter(int(line) for host in hosts for line in host.run("cat /var/tmp/runs 2>/dev/null || true").split())


def test_a_connection_that_is_cut_while_calls_run_costs_none(hosts: Hosts, lab: Lab) -> None:
    machines = hosts(2, python=True)
    with sky.Compute(provider=ssh(lab, *machines), nodes=2, worker=sky.Worker(concurrency=2)) as compute:
        results = compute.map(work.note_there, range(100))
        for cut in range(3):
            until(lambda past=20 * cut: sum(runs(machines).values()) > past, "calls run")  # type: ignore[misc]
            for host in machines:
                host.run(CUT)
        assert list(results) == list(range(100))
    assert runs(machines) == dict.fromkeys(range(100), 1)


def test_a_machine_that_dies_costs_its_calls_another_attempt(hosts: Hosts, lab: Lab) -> None:
    machines = hosts(3, python=True)
    options = sky.Options(grace=1)
    with sky.Compute(
        provider=ssh(lab, *machines), nodes=2, options=options, worker=sky.Worker(concurrency=2)
    ) as compute:
        results = compute.map(work.note_there, range(60))
        until(lambda: runs([machines[0]]), "calls run there")
        machines[0].kill()
        assert list(results) == list(range(60))
        kit.until(lambda: {node.host for node in compute.nodes} == {machines[1].name, machines[2].name}, 40)
    assert all(nothing_is_left(host) for host in machines[1:])


def test_an_environment_whose_python_is_gone_is_made_anew(hosts: Hosts, lab: Lab) -> None:
    (host,) = hosts(python=True)
    for _ in range(2):
        with sky.Compute(provider=ssh(lab, host)) as compute:
            assert compute.submit(pow, 2, 3).result(kit.SOON) == 8
        host.run("ln -sf /nowhere/python /home/ubuntu/.cache/skyward/env/*/bin/python")


def test_two_pools_of_one_program_share_a_list_of_machines(hosts: Hosts, lab: Lab) -> None:
    provider = ssh(lab, *hosts(2, python=True))
    with sky.Compute(provider=provider) as first, sky.Compute(provider=provider) as second:
        assert first.nodes[0].host != second.nodes[0].host
        with pytest.raises(sky.NoCapacity):
            sky.Compute(provider=provider).__enter__()
        assert first.submit(pow, 2, 3).result(kit.SOON) == second.submit(pow, 2, 3).result(kit.SOON) == 8
