import pytest

from skyward.cli.settings import merged_settings, nodes, paired, split, split_items, spoken, spoken_as_options
from skyward.errors import Denied, InvalidArgument


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ("job.py", "-- job.py"),
        ("job.py --nodes 3", "-- job.py --nodes 3"),
        ("--nodes 3 -q job.py -q", "--nodes 3 -q -- job.py -q"),
        ("--nodes=3 -m package.job a", "--nodes=3 -m -- package.job a"),
        ("--nodes 3 -- job.py", "--nodes 3 -- job.py"),
        ("--spot --no-dashboard --env A=1 job.py", "--spot --no-dashboard --env A=1 -- job.py"),
        ("--help", "--help"),
        ("--nodes 3", "--nodes 3"),
        ("--nodes", "--nodes"),
        ("", ""),
    ],
)
def test_what_follows_the_script_is_its_own(words: str, given: str) -> None:
    assert split(words.split()) == given.split()


@pytest.mark.parametrize(
    ("texts", "items"),
    [
        (["numpy,scipy"], ["numpy", "scipy"]),
        (["numpy", "scipy, "], ["numpy", "scipy"]),
        (["numpy>=1,<3,scipy"], ["numpy>=1,<3", "scipy"]),
        (["dask[array, dataframe],numpy"], ["dask[array, dataframe]", "numpy"]),
        ([], []),
        (None, None),
    ],
)
def test_several_items_are_parted_by_commas_or_given_again(texts: list[str] | None, items: list[str] | None) -> None:
    assert split_items(texts) == items


def test_a_name_without_a_value_is_its_own_or_has_one_here() -> None:
    assert paired(["data.csv", "a/b=c=d"]) == {"data.csv": "data.csv", "a/b": "c=d"}
    assert paired(["TOKEN", "LEVEL=debug", "EMPTY="], {"TOKEN": "x"}) == {"TOKEN": "x", "LEVEL": "debug", "EMPTY": ""}
    assert paired(None) is None
    with pytest.raises(InvalidArgument, match="--env TOKEN: no such variable is set here; write --env TOKEN=VALUE"):
        paired(["TOKEN"], {})


def test_an_option_wins_over_the_table_and_the_table_over_nothing() -> None:
    table = {"nodes": 2, "concurrency": 4, "budget": 2.5, "retries": 1, "dashboard": True}
    assert merged_settings({"nodes": "3", "concurrency": None, "region": None, "dashboard": False}, table, "f") == {
        "provider": "local",
        "nodes": "3",
        "concurrency": 4,
        "budget": 2.5,
        "retries": 1,
        "dashboard": False,
        "own": {},
        "image": {},
    }


def test_a_provider_has_what_its_own_table_says_and_the_options_that_are_its_own() -> None:
    table = {"provider": "ssh", "aws": {"region": "eu-central-1", "spot": True}, "ssh": {"user": "alice"}}
    found = merged_settings({"hosts": ["a"]}, table, "f")
    assert (found["provider"], found["own"]) == ("ssh", {"user": "alice", "hosts": ["a"]})
    found = merged_settings({"provider": "aws", "region": "us-east-1"}, table, "f")
    assert (found["provider"], found["own"]) == ("aws", {"region": "us-east-1", "spot": True})


def test_an_image_is_put_together_of_table_and_options() -> None:
    image = {"preload": ["numpy"], "env": {"A": "1", "B": "2"}, "apt": ["a"]}
    table = {"packages": ["numpy"], "image": image}
    assert merged_settings({}, table, "f")["image"] == {**image, "packages": ["numpy"]}
    assert merged_settings({"image": {"apt": ["b"]}}, table, "f")["image"] == {
        **image,
        "packages": ["numpy"],
        "apt": ["b"],
    }
    given = {"packages": ["scipy"], "env": {"B": "3"}, "files": {"x": "y"}, "python": "python3.12"}
    assert merged_settings(given, table, "f")["image"] == {
        "packages": ["scipy"],
        "preload": ["numpy"],
        "env": {"A": "1", "B": "3"},
        "apt": ["a"],
        "files": {"x": "y"},
        "python": "python3.12",
    }


@pytest.mark.parametrize(
    ("name", "provider", "said"),
    [
        ("hosts", "local", "--hosts needs --provider ssh; the provider is local"),
        ("hosts", "aws", "--hosts needs --provider ssh; the provider is aws"),
        ("region", "local", "--region needs --provider aws; the provider is local"),
        ("profile", "local", "--profile needs --provider aws; the provider is local"),
        ("instance_type", "ssh", "--instance-type needs --provider aws; the provider is ssh"),
        ("spot", "local", "--spot needs --provider aws; the provider is local"),
    ],
)
def test_an_option_of_another_provider_is_refused_with_its_provider(name: str, provider: str, said: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        merged_settings({name: "x", "provider": provider}, {"ssh": {"hosts": ["a"]}}, "f")
    assert str(raised.value) == said


def test_what_nobody_knows_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"p.toml: \[tool.skyward\] has the unknown key 'nods'; known: provider"):
        merged_settings({}, {"nods": 2}, "p.toml")
    with pytest.raises(InvalidArgument, match="provider='gcp': there is no such provider; give one of local, ssh, aws"):
        merged_settings({}, {"provider": "gcp"}, "p.toml")
    with pytest.raises(InvalidArgument, match=r"p.toml: \[tool.skyward.ssh\] must be a table"):
        merged_settings({}, {"provider": "ssh", "ssh": "alice"}, "p.toml")
    with pytest.raises(InvalidArgument, match="--provider ssh needs --hosts, for example --hosts node-7"):
        merged_settings({"provider": "ssh"}, {}, "p.toml")


def test_nodes_are_a_number_or_bounds() -> None:
    assert (nodes("10"), nodes("2-10")) == (10, (2, 10))
    for text in ("", "many", "2-", "1-2-3"):
        with pytest.raises(InvalidArgument, match="not a number of nodes; give a number"):
            nodes(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nodes=0: too few; for example nodes=1", "--nodes 0: too few; for example --nodes 1"),
        ("region=None: no region is set; give region='us-east-1'", "no region is set; give --region us-east-1"),
        ("instance_type='huge': no", "--instance-type huge: no"),
        ("hosts=('a b',): no; hosts=['a', ('b', 22)]", "--hosts a b: no; --hosts a,b:22"),
        ("env={'A': '1'}: no", "--env A=1: no"),
        ("run `aws configure`, or give profile=", "run `aws configure`, or give --profile"),
        ("env={'A': <int>}: no", "--env {'A': <int>}: no"),
        ("--env NAME=nodes=3", "--env NAME=nodes=3"),
    ],
)
def test_an_error_is_said_in_the_words_of_the_command_line(text: str, said: str) -> None:
    names = ("nodes", "region", "instance_type", "hosts", "env", "profile", "budget")
    assert spoken(text, names) == said


def test_an_argument_that_is_plain_words_there_is_said_without_a_name() -> None:
    text = "hosts=('a b',): no; for example hosts=['a', ('b', 22)], user='c'"
    assert spoken(text, ["user"], positional="hosts") == "a b: no; for example a b:22, --user c"


def test_errors_about_arguments_are_raised_with_the_options_instead() -> None:
    with pytest.raises(Denied, match=r"^or give --profile$"), spoken_as_options("profile"):
        raise Denied("or give profile=")
    with pytest.raises(ValueError, match="profile="), spoken_as_options("profile"):
        raise ValueError("profile=")
