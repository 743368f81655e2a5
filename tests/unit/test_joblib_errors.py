"""Errors about a batch, turned into errors about a task of it."""

import pytest

from skyward.errors import NotPortable
from skyward.plugins.joblib_errors import name_task
from tests import work

FUNCTIONS = [work.square, work.fail, work.size]


def renamed(text: str, path: str) -> tuple[str, str]:
    error = NotPortable(text, path)
    name_task(error, 10, FUNCTIONS)
    return str(error), error.path


@pytest.mark.parametrize(
    ("path", "task", "told"),
    [
        ("args[0][0][1][2].conn", "task 10 (square)", "args[2].conn"),
        ('args[0][2][2]["client"]._lock', "task 12 (size)", 'kwargs["client"]._lock'),
        ("args[0][1][0]: closure variable 'db'", "task 11 (fail)", "fn: closure variable 'db'"),
        ("args[0][1][0].__self__._lock", "task 11 (fail)", "fn.__self__._lock"),
    ],
)
def test_a_place_in_a_batch_is_a_place_in_the_call_of_a_task(path: str, task: str, told: str) -> None:
    text, found = renamed(f"run_batch cannot be sent to a node: {path} (lock) cannot be pickled", path)

    assert found == told
    assert text == f"{task} cannot be sent to a node: {told} (lock) cannot be pickled"


def test_a_place_that_is_a_whole_task_names_the_task_only() -> None:
    text, path = renamed("run_batch cannot be sent to a node: args[0][1] (tuple) cannot be pickled", "args[0][1]")

    assert path == ""
    assert text.startswith("task 11 (fail) cannot be sent")


def test_a_place_in_the_results_is_a_place_in_the_result_of_a_task() -> None:
    text, path = renamed("the result of run_batch cannot be pickled: result[2][0]._lock: no", "result[2][0]._lock")

    assert path == "result[0]._lock"
    assert text == "the result of task 12 (size) cannot be pickled: result[0]._lock: no"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("fit cannot be sent to a node: args[0][1][0] (lock) cannot be pickled", "args[0][1][0]"),
        ("the result of fit cannot be pickled: result[1]", "result[1]"),
        ("run_batch cannot be sent to a node: RecursionError", ""),
    ],
)
def test_an_error_of_a_call_that_a_task_made_is_left_as_it_is(text: str, path: str) -> None:
    assert renamed(text, path) == (text, path)
