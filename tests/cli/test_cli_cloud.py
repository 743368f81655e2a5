"""`skyward ls` and `skyward down`: how what is there is told, and what is refused before anything is asked."""

import datetime as dt
from pathlib import Path

import pytest

from skyward.cli.cloud import as_dict, down, ls, told
from skyward.errors import InvalidArgument
from skyward.providers.aws import inventory
from skyward.providers.aws.inventory import CloudMachine, CloudPool, Survey
from tests.command import run_here

NOW = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)


def machine(number: int, hourly: float | None = None, *, spot: bool = False, kind: str = "t4g.micro") -> CloudMachine:
    launched, until = NOW - dt.timedelta(minutes=12), NOW + dt.timedelta(hours=11, minutes=48)
    return CloudMachine(
        f"i-{number}", f"{number}-0", "running", kind, "eu-central-1a", spot, "10.0.0.1", launched, 300, until, hourly
    )


def pool(name: str, *machines: CloudMachine, stale: bool = False) -> CloudPool:
    return CloudPool(name, "eu-central-1", machines, (f"sg-{name}",), "desk:4711", stale)


def test_a_pool_is_told_with_its_machines_in_columns() -> None:
    pools = [pool("one", machine(1, kind="c7g.16xlarge"), machine(2, spot=True)), pool("two", stale=True)]
    until = "shuts down 5m after its driver or in 11h 48m"

    assert told(pools, NOW) == [
        "one  eu-central-1, by desk:4711, in use, 2 machines",
        f"  i-1  c7g.16xlarge    eu-central-1a  running  12m  price unknown  {until}",
        f"  i-2  t4g.micro spot  eu-central-1a  running  12m  price unknown  {until}",
        "  sg-one  security group",
        "two  eu-central-1, by desk:4711, stale, 0 machines",
        "  sg-two  security group",
    ]
    assert told([], NOW) == []


def test_what_it_costs_is_told_by_the_hour_and_so_far() -> None:
    young = dt.datetime.now(dt.UTC)
    heading, first, *_ = told([pool("one", machine(1, 0.5))], young)

    assert ", 1 machine, $0.50/h, $" in heading
    assert "  $0.50/h, $" in first


def test_a_machine_without_tags_for_its_end_is_told_without() -> None:
    bare = CloudMachine("i-1", "", "running", "t4g.micro", "zone", False, "", NOW, None, None, None)

    assert told([CloudPool("one", "region", (bare,), (), "", False)], NOW) == [
        "one  region, in use, 1 machine",
        "  i-1  t4g.micro  zone  running  0s  price unknown",
    ]


def test_for_programs_times_are_text_and_seconds() -> None:
    given = as_dict(pool("one", machine(1)))

    assert (given["name"], given["stale"], given["groups"], given["cost"]) == ("one", False, ("sg-one",), None)
    assert given["machines"][0]["launched"] == "2026-05-01T11:48:00+00:00"
    assert given["machines"][0]["until"] == "2026-05-01T23:48:00+00:00"
    assert given["machines"][0]["age"] > 0


def test_where_nothing_is_found_the_regions_that_were_searched_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = Survey((), ("eu-central-1", "us-east-1"), {"eu-west-3": "access is denied"})
    monkeypatch.setattr(inventory, "survey", lambda **_: found)

    assert ls() == 0
    assert capsys.readouterr().out == "no Skyward pools found in eu-central-1 and us-east-1\n"
    monkeypatch.setattr(inventory, "survey", lambda **_: Survey((), ("us-east-1",), {}))
    assert down(stale=True) == 0
    assert capsys.readouterr().out == "nothing to terminate in us-east-1\n"
    with pytest.raises(InvalidArgument, match=r"^there is no pool 'one' in us-east-1; found: none$"):
        down("one")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("down",), 2, "name the pools to terminate, or pass --stale or --all"),
        (("down", "pool", "--all"), 2, "name the pools to terminate"),
        (("down", "--stale", "--all", "--yes"), 2, "name the pools to terminate"),
        (("down", "--all"), 2, "--all also terminates pools in use; there is no terminal to confirm on, so add --yes"),
        (("ls",), 2, "no region is set; pass --region eu-central-1, set the variable AWS_DEFAULT_REGION, or write"),
        (("ls", "--region", "eu-central-1"), 1, "there are no AWS credentials: "),
        (("ls", "--region", "eu-central-1", "--profile", "none"), 2, "--profile none: "),
    ],
)
def test_what_cannot_be_done_is_one_line(words: tuple[str, ...], code: int, said: str, tmp_path: Path) -> None:
    nobody = {name: str(tmp_path / "none") for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")}
    ran = run_here(tmp_path, *words, HOME=str(tmp_path), AWS_EC2_METADATA_DISABLED="true", **nobody)

    assert (ran.returncode, ran.stdout) == (code, "")
    assert ran.stderr.startswith(f"skyward: {said}")
    assert ran.stderr.count("\n") == 1
