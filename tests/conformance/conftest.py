"""What the tests of the contracts share."""

from tests.pool.conftest import bell as bell
