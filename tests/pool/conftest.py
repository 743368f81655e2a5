"""What the tests with real nodes share."""

from collections.abc import Iterator

import pytest

from tests.kit import Bell


@pytest.fixture
def bell() -> Iterator[Bell]:
    with Bell() as rung:
        yield rung
