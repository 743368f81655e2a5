"""What a user writes for machines that they have."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

import skyward as sky
from skyward.providers.provider import Order
from skyward.providers.ssh.target import Target


def test_machines_are_named_as_one_names_them_to_ssh() -> None:
    given: list[str | tuple[str, int]] = ["alice@node-7", "gpu-box", ("10.0.0.5", 2222), "bob@gate:22", ("a@[::1]", 7)]

    assert sky.SSH(hosts=given).hosts == (
        Target("node-7", user="alice"),
        Target("gpu-box"),
        Target("10.0.0.5", 2222),
        Target("gate", 22, "bob"),
        Target("::1", 7, "a"),
    )


HOSTS = "give machines as you name them to ssh, for example hosts=['alice@node-7', ('10.0.0.5', 2222)]"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, f"SSH needs hosts; {HOSTS}"),
        ({"hosts": "gpu-box"}, "hosts='gpu-box': must be a list; put it in a list: ['gpu-box']"),
        ({"hosts": 3}, f"hosts=3: must be a list; {HOSTS}"),
        ({"hosts": []}, "hosts=[]: is empty; give at least one machine"),
        ({"hosts": ["a b"]}, f"hosts=['a b']: 'a b' is not a machine; {HOSTS}"),
        ({"hosts": ["-oProxyCommand=x"]}, f"hosts=['-oProxyCommand=x']: '-oProxyCommand=x' is not a machine; {HOSTS}"),
        ({"hosts": [("a", True)]}, f"hosts=[('a', True)]: ('a', True) is not a machine; {HOSTS}"),
        ({"hosts": [("a", 0)]}, "hosts=[('a', 0)]: 0 is not a port; give a number from 1 to 65535"),
        (
            {"hosts": ["a", "b", "a"]},
            "hosts=['a', 'b', 'a']: a is listed twice; name each once, and give slots= to have more tasks at once",
        ),
        ({"hosts": ["a"], "user": ""}, "user='': is empty; give the name of a user"),
        ({"hosts": ["a"], "key": "/"}, "key='/': is a folder, not a file; give the file of a private key"),
        ({"hosts": ["a"], "config": "/no/such"}, "config='/no/such': there is no such file; give a configuration file"),
        ({"host": ["a"]}, "SSH has no argument 'host'; did you mean 'hosts'?"),
        ({"hosts": ["a"], "port": 22}, "SSH has no argument 'port'; write it with the machine: hosts=[('name', 2222)]"),
        ({"hosts": ["a"], "password": "x"}, "SSH has no argument 'password'; log in with a key: key='~/.ssh/id_"),
        ({"hosts": ["a"], "users": "b"}, "SSH has no argument 'users'; did you mean 'user'?"),
        ({"hosts": ["a"], "slots": 0}, "slots=0: must be at least 1; give a number of slots, or one for each name"),
        ({"hosts": ["a"], "slots": {"b": 1}}, "slots={'b': 1}: 'b' is not in hosts; "),
        ({"hosts": ["a"], "slots": {"a": 1.5}}, "slots={'a': 1.5}: must be a whole number for each name; "),
    ],
)
def test_a_mistake_is_explained_in_one_line(given: dict[str, Any], text: str) -> None:
    with pytest.raises(sky.InvalidArgument) as raised:
        sky.SSH(**given)

    assert str(raised.value).startswith(text)
    assert "\n" not in str(raised.value)


def test_a_key_and_a_configuration_may_be_paths_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "key").touch()
    (tmp_path / "config").touch()
    provider = sky.SSH(hosts=["a"], key="~/key", config=Path("~/config"))

    assert (provider.key, provider.config) == (str(tmp_path / "key"), str(tmp_path / "config"))


def test_slots_are_given_by_the_names_of_hosts_or_as_these_are_written() -> None:
    hosts = ["a", "bob@b:2222", "[fe80::1]:22", "[fe80::2]"]
    provider = sky.SSH(hosts=hosts, slots={"a": 1, "bob@b:2222": 2, "[fe80::1]:22": 3, "[fe80::2]": 4})

    async def slots() -> list[int | None]:
        return [(await provider.launch(Order(pool="p", name=f"p-{number}-0"))).slots for number in range(4)]

    assert asyncio.run(slots()) == [1, 2, 3, 4]
    assert [str(each) for each in provider.hosts] == hosts


def test_without_the_extra_the_line_that_installs_it_is_given_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncssh", None)

    with pytest.raises(sky.MissingExtra, match=r"asyncssh is not installed: .* pip install .*\[ssh\]"):
        sky.SSH(hosts=["a"])


@pytest.mark.parametrize(
    ("hosts", "nodes", "text"),
    [
        (["a"], 3, "nodes=3: the provider has 1 machine; ask for at most 1, or give it more"),
        (["a", "b"], (1, 5), "nodes=5: the provider has 2 machines; ask for at most 2, or give it more"),
    ],
)
def test_more_nodes_than_machines_are_refused_when_the_pool_is_made(hosts: list[str], nodes: Any, text: str) -> None:
    with pytest.raises(sky.InvalidArgument) as raised:
        sky.Compute(provider=sky.SSH(hosts=hosts), nodes=nodes)

    assert str(raised.value) == text
