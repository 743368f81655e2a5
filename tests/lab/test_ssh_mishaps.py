"""What may happen to machines, connections and drivers while a pool is there."""

import pytest

import skyward as sky
from tests import kit
from tests.lab.conftest import Hosts
from tests.lab.lab import Lab
from tests.lab.test_ssh_pool import ssh

pytestmark = pytest.mark.timeout(240)


def test_an_environment_whose_python_is_gone_is_made_anew(hosts: Hosts, lab: Lab) -> None:
    (host,) = hosts(used=True)
    for _ in range(2):
        with sky.Compute(provider=ssh(lab, host)) as compute:
            assert compute.submit(pow, 2, 3).result(kit.SOON) == 8
        host.run("ln -sf /nowhere/python /home/ubuntu/.cache/skyward/env/*/bin/python")


def test_two_pools_of_one_program_share_a_list_of_machines(hosts: Hosts, lab: Lab) -> None:
    provider = ssh(lab, *hosts(2, used=True))
    with sky.Compute(provider=provider) as first, sky.Compute(provider=provider) as second:
        assert first.nodes[0].host != second.nodes[0].host
        with pytest.raises(sky.NoCapacity):
            sky.Compute(provider=provider).__enter__()
        assert first.submit(pow, 2, 3).result(kit.SOON) == second.submit(pow, 2, 3).result(kit.SOON) == 8
