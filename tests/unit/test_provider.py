"""What a provider and a host may have and need not: of those that come with Skyward, who has what."""

from collections.abc import Sequence

import skyward as sky
from skyward.providers.local import LocalHost
from skyward.providers.provider import SupportsAcknowledged, SupportsClear, SupportsNotices
from skyward.providers.ssh.remote_host import RemoteHost


class Wrapper:
    """A provider of one's own that shares something."""

    async def clear(self, pool: str) -> Sequence[str]:
        return ()


def test_only_what_is_there_is_asked_for() -> None:
    providers = [sky.AWS(), sky.SSH(hosts=["gpu-box"]), sky.Local(), Wrapper()]
    assert [isinstance(each, SupportsClear) for each in providers] == [True, False, False, True]
    assert [isinstance(each, SupportsNotices) for each in providers] == [True, False, False, False]


def test_only_a_remote_machine_acknowledges() -> None:
    assert issubclass(RemoteHost, SupportsAcknowledged)
    assert not issubclass(LocalHost, SupportsAcknowledged)
