"""What the tests of the contracts share."""

from tests.actors.conftest import bell as bell
