import pytest

from skyward.cli.settings import merged, nodes, split
from skyward.errors import InvalidArgument


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ("job.py", "-- job.py"),
        ("job.py --nodes 3", "-- job.py --nodes 3"),
        ("--nodes 3 -q job.py -q", "--nodes 3 -q -- job.py -q"),
        ("--nodes=3 -m package.job a", "--nodes=3 -m -- package.job a"),
        ("--nodes 3 -- job.py", "--nodes 3 -- job.py"),
        ("--help", "--help"),
        ("--nodes 3", "--nodes 3"),
        ("--nodes", "--nodes"),
        ("", ""),
    ],
)
def test_what_follows_the_script_is_its_own(words: str, given: str) -> None:
    assert split(words.split()) == given.split()


def test_an_option_wins_over_the_table_and_the_table_over_nothing() -> None:
    table = {"nodes": 2, "concurrency": 4, "budget": 2.5}
    assert merged({"nodes": "3", "concurrency": None, "region": None}, table, "f") == {
        "provider": "local",
        "nodes": "3",
        "concurrency": 4,
        "budget": 2.5,
        "own": {},
    }


def test_a_provider_has_what_its_own_table_says_and_the_options_that_are_its_own() -> None:
    table = {"provider": "ssh", "aws": {"region": "eu-central-1", "spot": True}, "ssh": {"user": "alice"}}
    assert merged({"hosts": ["a"]}, table, "f") == {"provider": "ssh", "own": {"user": "alice", "hosts": ["a"]}}
    assert merged({"provider": "aws", "region": "us-east-1"}, table, "f") == {
        "provider": "aws",
        "own": {"region": "us-east-1", "spot": True},
    }


def test_what_nobody_knows_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"p.toml: \[tool.skyward\] has 'nods', which nothing reads; known are"):
        merged({}, {"nods": 2}, "p.toml")
    with pytest.raises(InvalidArgument, match="provider='gcp': there is no such provider; give one of local, ssh, aws"):
        merged({}, {"provider": "gcp"}, "p.toml")
    with pytest.raises(InvalidArgument, match=r"p.toml: \[tool.skyward.ssh\] must be a table"):
        merged({}, {"provider": "ssh", "ssh": "alice"}, "p.toml")


def test_nodes_are_a_number_or_bounds() -> None:
    assert (nodes("10"), nodes("2-10")) == (10, (2, 10))
    for text in ("", "many", "2-", "1-2-3"):
        with pytest.raises(InvalidArgument, match="is no number of nodes; give how many"):
            nodes(text)
