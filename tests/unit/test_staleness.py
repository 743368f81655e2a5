"""Whether somebody still needs what the cloud has of us."""

import datetime as dt
import subprocess
import sys
from collections.abc import Iterator

import pytest

from skyward.providers.aws import staleness
from skyward.providers.aws.staleness import BY, MADE, UNTIL, is_orphan, is_stale

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
BEFORE, AFTER = "2025-12-31T23:59:59+00:00", "2026-01-01T00:00:01+00:00"


@pytest.fixture
def other() -> Iterator[str]:
    """Another process that lives, as it would sign."""
    command = [
        sys.executable,
        "-c",
        "from skyward.providers.aws import staleness as s; print(s.owner(), flush=True); input()",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate("\n")


def test_what_a_process_made_that_has_ended_is_an_orphan(other: str) -> None:
    host, pid, life = other.split(":")
    place, _, began = life.rpartition("-")
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass

    assert not is_orphan({BY: staleness.owner()})
    assert not is_orphan({BY: other})
    assert not is_orphan({BY: f"{host}:1:{place}-{staleness._start_time(1)}"})
    assert is_orphan({BY: f"{host}:{ended.pid}:{life}"})
    assert is_orphan({BY: f"{host}:{pid}:{place}-{int(began) - 1}"}), "its pid was given to another one"


def test_of_other_boots_and_other_containers_nothing_is_known() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    host, _, life = staleness.owner().split(":")
    boot, space, began = life.split("-")

    assert is_orphan({BY: f"{host}:{ended.pid}:{life}"})
    assert not is_orphan({BY: f"{host}:{ended.pid}:00000000-{space}-{began}"})
    assert not is_orphan({BY: f"{host}:{ended.pid}:{boot}-1-{began}"})
    assert not is_orphan({BY: f"{host}:{ended.pid}"})
    assert not is_orphan({BY: f"{host}:x:{life}"})
    assert not is_orphan({})


def test_where_there_is_no_proc_nobody_is_an_orphan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staleness, "_boot", lambda: "")
    assert not is_orphan({BY: "mac:1:-"})


@pytest.mark.parametrize(
    ("tags", "stale"),
    [
        ({UNTIL: BEFORE}, True),
        ({UNTIL: AFTER}, False),
        ({UNTIL: "nonsense"}, False),
        ({UNTIL: "2025-12-31"}, False),
        ({MADE: "2025-12-31T23:00:00+00:00", UNTIL: AFTER}, True),
        ({MADE: "2025-12-31T23:50:00+00:00", UNTIL: AFTER}, False),
    ],
)
def test_a_group_alone_is_stale_when_it_is_overdue_or_long_alone(tags: dict[str, str], stale: bool) -> None:
    assert is_stale([], [tags], NOW) is stale


def test_a_group_whose_maker_still_lives_is_not_stale_and_one_whose_maker_has_ended_is(other: str) -> None:
    old = {MADE: "2025-12-30T00:00:00+00:00", UNTIL: BEFORE}
    host, pid, life = other.split(":")
    place, _, began = life.rpartition("-")

    assert not is_stale([], [old | {BY: other}], NOW)
    assert is_stale([], [{UNTIL: AFTER, BY: f"{host}:{pid}:{place}-{int(began) - 1}"}], NOW)


@pytest.mark.parametrize(
    ("machines", "stale"),
    [
        ([{UNTIL: BEFORE}], True),
        ([{UNTIL: BEFORE}, {UNTIL: AFTER}], False),  # one of a later launch
        ([{MADE: "2025-12-31T23:00:00+00:00", UNTIL: AFTER}], False),
    ],
)
def test_a_pool_with_machines_is_judged_by_them(machines: list[dict[str, str]], stale: bool) -> None:
    assert is_stale(machines, [{MADE: "2025-12-30T00:00:00+00:00", UNTIL: BEFORE}], NOW) is stale


def test_what_is_made_is_stamped_with_its_end() -> None:
    stamps = staleness.owner_tags(60.0)
    made, until = (dt.datetime.fromisoformat(stamps[name]) for name in (MADE, UNTIL))

    assert dt.timedelta(0) <= dt.datetime.now(dt.UTC) - made < dt.timedelta(seconds=10)
    assert until - made == dt.timedelta(seconds=60)
    assert stamps[BY] == staleness.owner()
