"""How a machine becomes a node: where its Python and its packages come from, and what can go wrong."""

import contextlib
import functools
import hashlib
import http.server
import json
import os
import platform
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import skyward as sky
from skyward.environment import bundle
from tests import kit
from tests.lab.conftest import Hosts
from tests.lab.host import Host
from tests.lab.lab import Lab
from tests.lab.test_ssh_pool import nothing_is_left, ssh

pytestmark = pytest.mark.timeout(240)
CACHE = "/home/ubuntu/.cache/skyward"


@pytest.fixture
def host(hosts: Hosts) -> Host:
    """A host with a Python and nothing else."""
    return hosts(python=True)[0]


class Quiet(http.server.SimpleHTTPRequestHandler):
    asked: list[str]

    def log_message(self, format: str, *args: object) -> None:
        self.asked.append(self.path)


@contextlib.contextmanager
def index(folder: Path, *packages: str) -> Iterator[tuple[str, list[str]]]:
    """A package index with the packages that are installed here; yields its address and what it was asked for."""
    for name in packages:
        package = bundle.installed_package(name)
        place = folder / "simple" / name
        place.mkdir(parents=True)
        with (place / package.wheel.file).open("wb") as file:
            package.write(file)
        (place / "index.html").write_text(f'<a href="{package.wheel.file}">{package.wheel.file}</a>')
    with served(folder) as (address, asked):
        yield f"{address}/simple", asked


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The files of a folder on the lab's bridge; yields their address and what was asked for."""
    asked: list[str] = []
    handler = functools.partial(type("Asked", (Quiet,), {"asked": asked}), directory=str(folder))
    with http.server.ThreadingHTTPServer(("10.77.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://10.77.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def test_with_an_index_packages_come_from_there_at_the_versions_that_are_here(
    host: Host, lab: Lab, tmp_path: Path
) -> None:
    with (
        index(tmp_path, *bundle.NODE_PACKAGES, "joblib") as (address, asked),
        sky.Compute(provider=ssh(lab, host), image=sky.Image(index=address, packages=["joblib"])) as compute,
    ):
        assert compute.submit(pow, 2, 3).result(kit.SOON) == 8
    assert {path.split("/")[2] for path in asked} >= {*bundle.NODE_PACKAGES, "joblib"}
    assert [name.partition("-")[0] for name in host.run(f"ls {CACHE}/wheels").split()] == ["pip", "skyward"]


def test_a_package_that_nobody_has_is_named_by_what_pip_says(host: Host, lab: Lab) -> None:
    image = sky.Image(packages=["no-such-package==4.0"])
    with pytest.raises(sky.BootFailed, match="step 'packages from an index' failed") as raised:
        sky.Compute(provider=ssh(lab, host), image=image).__enter__()
    assert "No matching distribution found for no-such-package==4.0" in raised.value.log
    assert nothing_is_left(host)


def test_where_there_is_no_python_uv_installs_one(host: Host, lab: Lab) -> None:
    host.run("mv /usr/bin/python3.12 /usr/bin/hidden3.12")
    host.run(
        "mkdir -p /home/ubuntu/.local/bin && cat >/home/ubuntu/.local/bin/uv <<'END'\n"
        "#!/bin/sh\n"
        'echo "asked: $*"\n'
        'place="$UV_PYTHON_INSTALL_DIR/cpython-$3.9-linux/bin"\n'
        'mkdir -p "$place" && ln -s "/usr/bin/hidden$3" "$place/python$3"\n'
        "END\nchmod -R a+rX /home/ubuntu/.local && chmod +x /home/ubuntu/.local/bin/uv"
    )
    with sky.Compute(provider=ssh(lab, host)) as compute:
        assert compute.submit(pow, 2, 3).result(kit.SOON) == 8
    assert nothing_is_left(host)


def downloads(folder: Path, lab: Lab, address: str) -> None:
    """Put an archive of this Python, and the list by which `uv` finds it, into a folder."""
    python, layer = f"python3.{sys.version_info.minor}", lab.python()
    with tarfile.open(folder / "python.tar.gz", "w:gz", compresslevel=1) as archive:
        archive.add(layer / "usr/bin" / python, f"python/bin/{python}")
        archive.add(layer / "usr/lib" / python, f"python/lib/{python}")
    major, minor, patch = sys.version_info[:3]
    name = f"cpython-{major}.{minor}.{patch}-linux-{platform.machine()}-gnu"
    told = {
        "name": "cpython",
        "arch": {"family": platform.machine(), "variant": None},
        "os": "linux",
        "libc": "gnu",
        "major": major,
        "minor": minor,
        "patch": patch,
        "prerelease": "",
        "url": f"{address}/python.tar.gz",
        "sha256": hashlib.sha256((folder / "python.tar.gz").read_bytes()).hexdigest(),
        "variant": None,
        "build": "20250101",
    }
    (folder / "pythons.json").write_text(json.dumps({name: told}))


def test_a_uv_that_is_here_is_sent_and_installs_a_python(
    host: Host, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv = Path(sys.executable).with_name("uv")
    monkeypatch.setenv("PATH", f"{uv.parent}:{os.environ['PATH']}")
    host.run("mv /usr/bin/python3.12 /usr/bin/hidden3.12")
    with served(tmp_path) as (address, asked):
        downloads(tmp_path, lab, address)
        where = f'python-downloads-json-url = "{address}/pythons.json"'
        host.run(f"mkdir -p /home/ubuntu/.config/uv && echo '{where}' >/home/ubuntu/.config/uv/uv.toml")
        host.run("chown -R ubuntu /home/ubuntu/.config")
        for _ in range(2):
            with sky.Compute(provider=ssh(lab, host)) as compute:
                path = compute.submit(lambda: os.path.realpath(sys.executable)).result(kit.SOON)
    assert path.startswith(f"{CACHE}/python/cpython-3.12")
    assert asked.count("/python.tar.gz") == 1
    assert host.run(f"ls {CACHE}/bin").startswith("uv-")
    assert nothing_is_left(host)


def test_the_python_that_the_user_names_must_be_the_right_one(host: Host, lab: Lab) -> None:
    with pytest.raises(sky.BootFailed, match=r"/usr/bin/python3 is not CPython 3\.12, which is what your program"):
        sky.Compute(provider=ssh(lab, host), image=sky.Image(python="/usr/bin/python3")).__enter__()
    with pytest.raises(sky.BootFailed, match="there is no /opt/nowhere"):
        sky.Compute(provider=ssh(lab, host), image=sky.Image(python="/opt/nowhere")).__enter__()
    with sky.Compute(provider=ssh(lab, host), image=sky.Image(python="python3.12")) as compute:
        assert compute.submit(pow, 2, 3).result(kit.SOON) == 8


def test_a_connection_that_is_cut_while_a_node_is_made_costs_nothing(host: Host, lab: Lab) -> None:
    cut = "pkill -f 'sshd: [u]buntu@'"
    image = sky.Image(shell=["touch /tmp/there; while [ -e /tmp/there ]; do sleep 0.05; done; echo over >/tmp/over"])

    def interfere() -> None:
        kit.until(lambda: host.run("[ ! -e /tmp/there ] || echo there") == "there\n")
        host.run(cut)
        host.run("rm /tmp/there")

    interfering = threading.Thread(target=interfere)
    interfering.start()
    options = sky.Options(launch_attempts=1)
    with sky.Compute(provider=ssh(lab, host), image=image, options=options) as compute:
        assert compute.submit(pow, 2, 3).result(kit.SOON) == 8
        assert [node.instance.endswith("-0-0") for node in compute.nodes] == [True]
    interfering.join()
    host.run("rm /tmp/over")


def test_an_environment_that_nobody_used_for_a_month_makes_room_for_the_next(host: Host, lab: Lab) -> None:
    def start(**image: list[str]) -> set[str]:
        with sky.Compute(provider=ssh(lab, host), image=sky.Image(**image)):  # type: ignore[arg-type]
            return set(host.run(f"ls {CACHE}/env").split())

    (first,) = start()
    host.run(f"touch -d '40 days ago' {CACHE}/env/*/complete {CACHE}/wheels/*")
    assert start() == {first}
    host.run(f"touch -d '40 days ago' {CACHE}/env/*/complete {CACHE}/wheels/*")
    (second,) = start(shell=["true"])
    assert second != first
    assert "casty" in host.run(f"ls {CACHE}/wheels")  # which the second needed


def test_a_full_disk_is_said(hosts: Hosts, lab: Lab) -> None:
    (full,) = hosts(python=True, disk="8m")

    with pytest.raises((sky.SkywardError, OSError), match=r"full|space|write|Failure"):
        sky.Compute(provider=ssh(lab, full), options=sky.Options(launch_attempts=1)).__enter__()
    assert nothing_is_left(full)


def test_system_packages_that_are_there_are_not_installed_again(host: Host, lab: Lab) -> None:
    with sky.Compute(provider=ssh(lab, host), image=sky.Image(apt=["openssh-server", "dash"])) as compute:
        assert compute.submit(pow, 2, 3).result(kit.SOON) == 8
    with pytest.raises(sky.BootFailed, match="step 'apt' failed"):
        sky.Compute(provider=ssh(lab, host), image=sky.Image(apt=["no-such-package"])).__enter__()
