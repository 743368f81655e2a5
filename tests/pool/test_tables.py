"""What libraries make of arrays arrives as it is: frames of pandas, tables of Arrow, sparse matrices of SciPy."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import skyward as sky
from tests.kit import Apart

ROWS = 140_000

PATIENCE = 200.0
"""Seconds that a node has to import pandas and answer, also on a busy machine."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(250)]


@pytest.fixture(params=[sky.Local, Apart], ids=["shared memory", "chunks"], scope="module")
def compute(request: pytest.FixtureRequest) -> Iterator[sky.Compute]:
    with sky.Compute(provider=request.param(), worker=sky.Worker(concurrency=1)) as compute:
        yield compute


def same(value: Any) -> Any:
    return value


def frame(pandas: Any) -> Any:
    numbers = np.arange(ROWS)
    return pandas.DataFrame(
        {
            "number": numbers,
            "half": numbers / 2,
            "when": numbers.astype("M8[ns]"),
            "kind": pandas.Categorical.from_codes(numbers % 3, ["a", "b", "c"]),
            "text": np.where(numbers % 2, "odd", "even"),
            "maybe": pandas.array(numbers, "Int64").copy(),
        },
        index=pandas.Index(numbers[::-1], name="row"),
    )


@pytest.mark.parametrize(
    "pick",
    [same, lambda frame: frame[::2], lambda frame: frame[["half", "when"]], lambda frame: frame["when"].dt.date[:9]],
    ids=["whole", "every other row", "two columns", "objects"],
)
def test_frames_of_pandas(compute: sky.Compute, pick: Callable[[Any], Any]) -> None:
    pandas = pytest.importorskip("pandas")
    table = pick(frame(pandas))
    equal = pandas.testing.assert_frame_equal if table.ndim == 2 else pandas.testing.assert_series_equal

    def total(there: Any) -> Any:
        equal(there, table)  # the one in the closure
        return there

    equal(compute.submit(total, table).result(PATIENCE), table)


def test_tables_of_arrow(compute: sky.Compute) -> None:
    arrow = pytest.importorskip("pyarrow")
    numbers = np.arange(ROWS)
    table = arrow.table({"number": numbers, "text": [None if number % 5 == 0 else str(number) for number in numbers]})

    for each in (table, table.slice(7, 1000), table["text"]):
        assert compute.submit(same, each).result(PATIENCE).equals(each)


@pytest.mark.parametrize("kind", ["csr_array", "csc_matrix", "coo_array", "dia_array", "lil_array", "dok_array"])
def test_sparse_matrices_of_scipy(compute: sky.Compute, kind: str) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    diagonal = np.arange(1.0, 1 + (ROWS if kind[:3] in ("csr", "csc", "coo", "dia") else 50))
    matrix = getattr(sparse, kind)(sparse.diags_array(diagonal, offsets=0))
    back = compute.submit(same, matrix).result(PATIENCE)

    assert type(back) is type(matrix)
    assert (back.shape, back.dtype, back.nnz) == (matrix.shape, matrix.dtype, matrix.nnz)
    assert np.array_equal(back.diagonal(), diagonal)
