"""A pool on machines reached by SSH: from bare machines to results, and back to machines as they were found."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import skyward as sky
from skyward.actors.tls import Authority, Identity
from skyward.environment import bundle
from skyward.events import Printed
from tests import kit, printing, work
from tests.lab.conftest import Hosts
from tests.lab.host import Host, until
from tests.lab.lab import Key, Lab

pytestmark = pytest.mark.timeout(240)
ROOT = Path(__file__).parents[2]
OURS = "ps -e -o args= | grep -c '[s]kyward' || true"
LEFT = "find /home/ubuntu/.cache/skyward/run -mindepth 2 2>/dev/null || true"


def ssh(lab: Lab, *hosts: Host) -> sky.SSH:
    return sky.SSH(hosts=[host.name for host in hosts], config=lab.config)


def nothing_is_left(host: Host) -> bool:
    """Whether the machine is as it was found, but for the cache and an empty folder."""
    return host.run(OURS).strip() == "0" and host.run(LEFT) == ""


@pytest.fixture
def host(hosts: Hosts) -> Host:
    """A host that was a node before."""
    return hosts(used=True)[0]


@contextlib.contextmanager
def program(lab: Lab, hosts: list[Host], body: str, lease: float = 10) -> Iterator[subprocess.Popen[str]]:
    """Another program with a pool on these hosts, in the block of which it runs `body`."""
    names = [host.name for host in hosts]
    text = (
        "import sys, time\nimport skyward as sky\n"
        f"provider = sky.SSH(hosts={names!r}, config={str(lab.config)!r})\n"
        f"with sky.Compute(provider=provider, nodes={len(hosts)}, worker=sky.Worker(concurrency=2),\n"
        f"                 options=sky.Options(lease={lease})) as compute:\n"
        f"    print('ready', flush=True)\n    {body}\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", text],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_bare_machine_becomes_a_node_and_the_second_time_it_has_its_packages(host: Host, lab: Lab) -> None:
    steps = []
    for _ in range(2):
        with sky.Compute(
            provider=ssh(lab, host), worker=sky.Worker(concurrency=2), plugins=[sky.plugins.joblib()]
        ) as compute:
            assert compute.submit(pow, 2, 10).result(kit.SOON) == 1024
            steps.append({name for name, _ in compute.report().starts[0]})
        assert nothing_is_left(host)

    assert steps[0] - steps[1] >= {"packages"}


def test_a_machine_without_the_python_says_so_at_once(hosts: Hosts, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    (bare,) = hosts()
    monkeypatch.setattr(bundle, "find_uv", lambda: None)  # none that could be sent

    with pytest.raises(sky.BootFailed, match=r"step 'python' failed[\s\S]*no Python 3.12 here, and no uv"):
        sky.Compute(provider=ssh(lab, bare)).__enter__()
    assert nothing_is_left(bare)


def test_a_step_that_fails_fails_the_pool_with_what_it_said(host: Host, lab: Lab) -> None:
    image = sky.Image(shell=["echo all is well", "echo this is why >&2; exit 3"])

    began = time.monotonic()
    with pytest.raises(sky.BootFailed) as raised:
        sky.Compute(provider=ssh(lab, host), image=image).__enter__()
    assert raised.value.log.splitlines() == ["this is why", "failed echo this is why >&2; exit 3: exit code 3"]
    assert time.monotonic() - began < 15
    assert nothing_is_left(host)


def test_an_environment_that_is_not_like_here_is_told_as_a_table(host: Host, lab: Lab) -> None:
    with sky.Compute(provider=ssh(lab, host)):
        pass
    meta = "/home/ubuntu/.cache/skyward/env/*/lib/python3.12/site-packages/cloudpickle-*.dist-info/METADATA"
    host.run(f"sed -i 's/^Version: .*/Version: 0.1/' {meta}")

    with pytest.raises(sky.BootFailed, match=r"what +here +there +fix\ncloudpickle +\d\S+ +0.1 +remove"):
        sky.Compute(provider=ssh(lab, host)).__enter__()
    with pytest.raises(sky.BootFailed, match=r"module nowhere +preload +missing +Image\(packages=\[\"nowhere\"\]\)"):
        sky.Compute(provider=ssh(lab, host), image=sky.Image(preload=["nowhere"], shell=["true"])).__enter__()
    assert nothing_is_left(host)


def test_tasks_find_the_packages_files_and_variables_of_the_image(host: Host, lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("from here")
    image = sky.Image(
        packages=["numpy"],
        files={"in/data.txt": tmp_path / "data.txt"},
        env={"TOKEN": "s3cret-value"},
        preload=["numpy"],
    )

    def look() -> tuple[float, str, str]:
        import numpy

        return float(numpy.arange(4).sum()), Path("in/data.txt").read_text(), os.environ["TOKEN"]

    with sky.Compute(provider=ssh(lab, host), image=image) as compute:
        assert compute.submit(look).result(kit.SOON) == (6.0, "from here", "s3cret-value")
        assert "s3cret" not in host.run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        readable = host.run("grep -rlF s3cret-value /home/ubuntu /tmp /var/log /run 2>/dev/null | xargs -r ls -l")
        assert all(line.startswith("-rw-------") for line in readable.splitlines())
        folders = host.run("find /home/ubuntu/.cache/skyward/run -type d -printf '%m\\n' | sort -u").split()
        assert folders == ["700"]


def test_a_killed_driver_leaves_nothing_but_the_cache(hosts: Hosts, lab: Lab) -> None:
    machines = hosts(2, used=True)
    with program(lab, machines, "compute.broadcast(time.sleep, 1000)") as process:
        until(lambda: all(int(host.run(OURS)) >= 4 for host in machines), "the nodes run")
        process.send_signal(signal.SIGKILL)
        process.wait(kit.SOON)

    until(lambda: all(nothing_is_left(host) for host in machines), "the nodes end themselves", 20)


def test_two_drivers_on_one_machine_do_not_see_each_other(host: Host, lab: Lab) -> None:
    with program(lab, [host], "sys.stdin.read(); print(compute.submit(pow, 2, 5).result(60))") as other:
        with sky.Compute(provider=ssh(lab, host), worker=sky.Worker(concurrency=2)) as compute:
            assert compute.submit(pow, 2, 3).result(kit.SOON) == 8
        assert other.communicate(timeout=kit.SOON)[0] == "32\n"
    assert nothing_is_left(host)


def test_another_account_cannot_make_the_node_run_anything(hosts: Hosts, lab: Lab) -> None:
    (host,) = hosts(accounts=("ubuntu", "mallory"), used=True)
    as_mallory = "setpriv --reuid mallory --regid mallory --clear-groups "
    with sky.Compute(provider=ssh(lab, host), image=sky.Image(env={"TOKEN": "s3cret"})) as compute:
        folder = host.run("echo /home/ubuntu/.cache/skyward/run/*/*").strip()
        port = json.loads(host.run(f"grep -ho '{{.*NodeStarted.*}}' {folder}/.*.out | head -1"))["port"]

        read = host.run(
            f"{as_mallory} sh -c 'cat {folder}/* /home/ubuntu/.cache/skyward/env/*/pyvenv.cfg' 2>&1 || true"
        )
        assert "Permission denied" in read
        assert "s3cret" not in host.run(
            f"{as_mallory} sh -c 'cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null' | tr '\\0' ' '"
        )
        assert compute._driver is not None
        ours = compute._driver._context.clients.identity
        assert (
            knock(host, as_mallory, folder, port, Authority.create("mallory").issue("driver", server=False))
            == "refused"
        )
        assert knock(host, as_mallory, folder, port, None) == "refused"
        stolen = Identity(ours.cert.read_bytes(), ours.key.read_bytes(), ours.ca.read_bytes())
        assert knock(host, as_mallory, folder, port, stolen) == "entered"
        host.run("rm -r /tmp/mallory")
        assert compute.submit(os.getpid).result(kit.SOON)
    assert nothing_is_left(host)


def knock(host: Host, as_account: str, folder: str, port: int, identity: Identity | None) -> str:
    """Knock at the node's door with a client of the right name and this identity: what becomes of it."""
    where = "/tmp/mallory"
    host.run(f"mkdir -p {where}; [ -d {where}/env ] || cp -r /home/ubuntu/.cache/skyward/env/*/ {where}/env")
    if identity is not None:
        for name, content in (("cert", identity.cert), ("key", identity.key), ("ca", identity.ca)):
            host.run(f"cat >{where}/{name} <<'END'\n{content.decode()}\nEND")
    host.run(f"cat >{where}/knock.py <<'END'\n{KNOCK}\nEND\nchown -R mallory {where}")
    tls = "none" if identity is None else where
    return host.run(f"{as_account} {where}/env/bin/python {where}/knock.py {port} {Path(folder).name} {tls}").strip()


KNOCK = """
import asyncio, sys
from casty import TLS, Client
from skyward.remote.node import gateway
from skyward.remote.protocol import COMPRESSION, LIMITS, Beat

async def main(port, cluster, where):
    address = f"127.0.0.1:{port}"
    tls = None if where == "none" else TLS(cert=f"{where}/cert", key=f"{where}/key", ca=f"{where}/ca")
    try:
        async with asyncio.timeout(3), Client(
            seeds=(address,), name=cluster, tls=tls, limits=LIMITS, compression=COMPRESSION
        ) as client:
            await gateway.ref(client, address).ask(Beat())
    except Exception:
        return "refused"
    return "entered"

print(asyncio.run(main(*sys.argv[1:])))
"""


def test_one_dead_machine_does_not_stop_the_others(hosts: Hosts, lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    machines = hosts(3, used=True)
    machines[1].kill()
    nodes = sky.Nodes(count=3, min=2)
    with sky.Compute(provider=ssh(lab, *machines), nodes=nodes, options=sky.Options(launch_attempts=1)) as compute:
        assert {node.host for node in compute.nodes} == {machines[0].name, machines[2].name}
        assert compute.submit(pow, 2, 3).result(kit.SOON) == 8
        kit.until(lambda: machines[1].name in caplog.text)
    assert nothing_is_left(machines[0])


def test_a_machine_that_refuses_us_is_asked_once_and_fails_the_pool(hosts: Hosts, lab: Lab) -> None:
    (host,) = hosts(accounts=("ubuntu", "mallory"))
    provider = sky.SSH(hosts=[host.name], user="mallory", key=lab.key("ubuntu"), config=lab.config)

    with pytest.raises(sky.Unreachable, match="login as mallory failed"):
        sky.Compute(provider=provider).__enter__()
    tried = host.run("grep -c 'Connection .* by authenticating user mallory' /var/log/sshd.log")
    assert tried == "1\n"  # nothing was done there, so nobody asks at the end what is left


def test_another_machine_is_taken_for_one_that_refuses_us(
    hosts: Hosts, lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    machines = hosts(2, used=True)
    other = Key()
    machines[0].change_key(other.private, other.public)
    with sky.Compute(provider=ssh(lab, *machines)) as compute:
        assert [node.host for node in compute.nodes] == [machines[1].name]
    assert f"{machines[0].name}: its host key has changed" in caplog.text


def test_a_machine_that_is_frozen_at_the_end_is_named_and_costs_nobody_an_exception(hosts: Hosts, lab: Lab) -> None:
    machines = hosts(2, used=True)
    with sky.Compute(provider=ssh(lab, *machines), nodes=2, options=sky.Options(lease=12)) as compute:
        assert compute.submit(pow, 2, 3).result(kit.SOON) == 8
        machines[1].freeze()
    [(left, seconds)] = compute.report().left.items()
    assert left.startswith(f"{machines[1].name}/")
    assert 0 <= seconds <= 12
    assert nothing_is_left(machines[0])
    machines[1].thaw()
    until(lambda: nothing_is_left(machines[1]), "the lease ends what runs there")


def test_slots_may_be_given_for_each_machine(hosts: Hosts, lab: Lab) -> None:
    machines = hosts(2, used=True)
    provider = sky.SSH(hosts=[host.name for host in machines], config=lab.config, slots={machines[0].name: 3})
    with sky.Compute(provider=provider, nodes=2, worker=sky.Worker(concurrency=1)) as compute:
        assert [node.slots for node in compute.nodes] == [3, 1]


def test_what_a_task_prints_is_shown_here(host: Host, lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    with sky.Compute(
        provider=ssh(lab, host), worker=sky.Worker(concurrency=1), options=sky.Options(retries=0)
    ) as compute:
        compute.submit(work.say, "from over there").result(kit.SOON)
        with pytest.raises(sky.BatchLost):
            compute.submit(printing.say_and_die, "dying", "kill").result(kit.SOON)

    said = [f"dying {number}" for number in range(1000)]
    lines = [f"[node 0 slot 0] {text}" for text in ("from over there", *said, "kill without an end")]
    assert capfd.readouterr().out.splitlines()[:1000] == lines[:1000]
    whole = "".join(event.text for event in compute.events() if isinstance(event, Printed))
    assert whole == "from over there\n" + "\n".join([*said, "kill without an end"])


def test_a_module_of_ones_own_is_simply_there(host: Host, lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("")
    (tmp_path / "mine" / "tasks.py").write_text("import beside\n\ndef run(x):\n    return beside.FACTOR * x\n")
    (tmp_path / "beside.py").write_text("FACTOR = 6\n")
    (tmp_path / "main.py").write_text(
        "import skyward as sky\nfrom mine import tasks\n"
        f"provider = sky.SSH(hosts=[{host.name!r}], config={str(lab.config)!r})\n"
        "with sky.Compute(provider=provider, image=sky.Image(preload=['mine.tasks'])) as compute:\n"
        "    print(list(compute.map(tasks.run, range(3))), compute.submit(lambda: tasks.run(7)).result(60))\n"
    )
    words = [sys.executable, str(tmp_path / "main.py")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ran = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=200, check=False)

    assert ran.stdout == "[0, 6, 12] 42\n", ran.stderr


def test_the_published_guide_runs_on_ten_machines(hosts: Hosts, lab: Lab) -> None:
    machines = hosts(10, python=True)
    guide = ROOT / "guides" / "10_joblib_concurrency.py"
    more = ["--provider=ssh", f"--config={lab.config}", "--tasks=200", "--seconds=0.2", "--hosts"]
    words = [sys.executable, str(guide), *more, *(host.name for host in machines)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for _ in ("cold", "warm"):
        ran = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=200, check=False)
        assert "Tasks: 200\nNodes: 10\nConcurrency: 10\n" in ran.stdout, ran.stderr
    assert all(nothing_is_left(host) for host in machines)


def test_a_machine_behind_another_is_a_node_too(hosts: Hosts, lab: Lab) -> None:
    (gate,) = hosts()
    (inner,) = hosts(behind=gate, used=True)
    with sky.Compute(provider=ssh(lab, inner)) as compute:
        assert compute.submit(pow, 2, 3).result(kit.SOON) == 8
    assert nothing_is_left(inner)
