"""Watch for the notice that this machine is about to be taken away, which a cloud gives to the machine itself."""

import asyncio
import urllib.error
import urllib.request
from collections.abc import Callable

EC2 = "http://169.254.169.254/latest"
"""Where a machine of EC2 asks about itself."""

NOTICE_POLL_INTERVAL_S = 5.0
"""Seconds between two requests, as Amazon recommends."""

REQUEST_TIMEOUT_S = 2.0
"""Seconds that a request may take."""


def of_ec2() -> str:
    """Return the notice of EC2 for this spot instance, as EC2 words it; empty if there is none.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html

    Raises
    ------
    OSError
        It does not answer.
    """
    token = _ask("PUT", "api/token", **{"X-aws-ec2-metadata-token-ttl-seconds": "60"})
    try:
        return _ask("GET", "meta-data/spot/instance-action", **{"X-aws-ec2-metadata-token": token})
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return ""
        raise


NOTICE_SOURCES: dict[str, Callable[[], str]] = {"ec2": of_ec2}
"""What to ask, by the name that a provider has for it."""


async def watch(source: str, tell: Callable[[str], None]) -> None:
    """Ask until there is a notice, and pass it on."""
    while True:
        try:
            notice = await asyncio.to_thread(NOTICE_SOURCES[source])
        except OSError:  # it is asked again
            notice = ""
        if notice:
            tell(notice)
            return
        await asyncio.sleep(NOTICE_POLL_INTERVAL_S)


def _ask(method: str, path: str, **headers: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is this machine's own
    asked = urllib.request.Request(f"{EC2}/{path}", headers=headers, method=method)
    with opener.open(asked, timeout=REQUEST_TIMEOUT_S) as answer:
        text: str = answer.read(4096).decode()
    return text.strip()
