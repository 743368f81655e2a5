"""What holds for every provider holds for `sky.AWS`, on an EC2 with real machines; and what holds for it alone."""

from collections.abc import Callable

import pytest

import skyward as sky
from skyward.providers.provider import Provider
from tests.conformance import test_provider as suite

pytestmark = pytest.mark.timeout(60)
globals().update({name: test for name, test in vars(suite).items() if name.startswith("test_")})


@pytest.fixture
def provider(aws: Callable[..., sky.AWS]) -> Provider:
    return aws()
