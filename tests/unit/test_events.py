import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyward import events

TEXT = st.text()
WHOLE = st.integers(-1, 1 << 40)


@given(
    st.one_of(
        st.builds(events.NodeChanged, at=st.floats(0, 1e10), node=WHOLE, generation=WHOLE, stage=st.just("ready")),
        st.builds(events.BatchLost, at=st.floats(0, 1e10), batch=WHOLE, causes=st.lists(TEXT).map(tuple)),
        st.builds(events.Printed, at=st.floats(0, 1e10), node=WHOLE, slot=WHOLE, stream=st.just("stdout"), text=TEXT),
        st.builds(
            events.BatchesEnded,
            at=st.floats(0, 1e10),
            node=WHOLE,
            batches=st.lists(WHOLE).map(tuple),
            slots=st.lists(WHOLE).map(tuple),
            seconds=st.lists(st.floats(0, 1e6)).map(tuple),
            statuses=st.lists(st.just("returned")).map(tuple),
            tasks=st.lists(WHOLE).map(tuple),
            size=WHOLE,
            opening=st.lists(st.floats(0, 1e6)).map(tuple),
            imports=st.dictionaries(TEXT, st.floats(0, 1e6)),
        ),
    )
)
def test_an_event_is_one_line_and_comes_back_from_it(event: events.Event) -> None:
    line = events.to_json(event)
    assert "\n" not in line
    assert events.from_json(line) == event


def test_what_another_version_wrote_is_left_out() -> None:
    known = json.loads(events.to_json(events.NodeHeard(1.0, 3)))
    assert events.from_json(json.dumps(known | {"mood": "good"})) == events.NodeHeard(1.0, 3)
    assert events.from_json(json.dumps(known | {"event": "NodeSang"})) is None


def test_a_line_that_was_cut_off_is_none() -> None:
    line = events.to_json(events.NodeHeard(1.0, 3))
    assert events.from_json(line[:-5]) is None
    assert events.from_json('{"event": "NodeHeard", "at": 1.0}') is None
    assert events.from_json("[]") is None
    assert events.from_json("[" * 200_000) is None


@pytest.mark.parametrize(
    ("function", "first", "tasks", "label"),
    [
        ("train", events.NOT_COUNTED, 1, "train (call 3)"),
        ("", events.NOT_COUNTED, 1, "call 3"),
        ("train", 17, 1, "train, task 17"),
        ("train", 17, 3, "train, tasks 17 to 19"),
    ],
)
def test_a_batch_is_called_after_its_function_and_tasks(function: str, first: int, tasks: int, label: str) -> None:
    assert events.label(3, function, first, tasks) == label
