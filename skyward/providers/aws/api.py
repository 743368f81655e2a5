"""The AWS API for one account and region, with its own retries. The only file that imports aioboto3.

The SDK's own retries are off: it would retry for seconds what another zone may offer at once, and would not spread
callers that were throttled together. Here, temporary failures are retried with growing, random pauses. That is safe for
every call: a launch carries a client token, and the others are idempotent.
"""

import asyncio
import contextlib
import datetime as dt
import functools
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from skyward import extras
from skyward.errors import Denied, InvalidArgument, ProvisioningError
from skyward.providers.aws import api_errors, region_names
from skyward.retry import backoff, jittered, retry

RETRY_TIMEOUT_S = 60.0
"""Seconds for which a call with a temporary error is retried."""

UNKNOWN_REGION_RETRY_TIMEOUT_S = 2.0
"""The same in a region that the SDK does not know, until it has answered once: its name may be misspelled."""

API_CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5.0, 20.0
"""Timeouts of a connection and of an answer, in seconds."""

PRICE_LIST_REGION = "us-east-1"
"""The region whose endpoint has the price list of all regions."""

IDENTITY_REGIONS = {"cn": "cn-north-1", "us-gov": "us-gov-west-1"}
"""Regions that accept the credentials of an account whatever regions it has enabled, by partition."""


class Refusal(Exception):
    """The API has answered with an error.

    It is `certain` that nothing was done unless the API failed itself, now or when the same call was sent before, or an
    earlier launch had the same token.
    """

    def __init__(self, action: str, code: str, text: str, status: int = 400, *, certain: bool = True) -> None:
        super().__init__(f"{action}: {code}: {text}")
        self.action, self.code, self.text, self.status = action, code, text, status
        self.certain = certain and status < 500 and code != api_errors.TOKEN_SPENT

    def explained(self, *, kind: str = "", spot: bool = False) -> Exception:
        """Return what to tell the user."""
        return api_errors.explained(self.action, self.code, self.text, kind=kind, spot=spot)


class Unanswered(ProvisioningError):
    """The API did not answer, so the result of the call is not known."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where credentials come from, as the SDK calls it, and how long they last.

    `temporary` credentials expire; `renewed` ones are fetched again before that. The expiry is not always known.
    """

    source: str
    temporary: bool
    renewed: bool
    expire: dt.datetime | None


def _sdk() -> Any:
    try:
        import aioboto3
    except ModuleNotFoundError as missing:
        raise extras.missing(missing.name or "aioboto3", "aws") from None
    return aioboto3


@functools.cache
def regions() -> tuple[str, ...]:
    """Return the regions that the SDK knows; none if it is not installed."""
    try:
        from botocore.session import Session
    except ModuleNotFoundError:
        return ()
    session = Session()
    return tuple(
        each for kind in session.get_available_partitions() for each in session.get_available_regions("ec2", kind)
    )


class Api:
    """The API, for one event loop. Connections stay open while a block of `open` is entered.

    Parameters
    ----------
    region, profile
        As for the SDK; None for those of its own configuration.
    patience
        Seconds for which a call with a temporary error is retried.

    Attributes
    ----------
    ahead
        Seconds, in whole numbers, that the clock of the last answering server is ahead of the one here.
    """

    def __init__(self, region: str | None, profile: str | None, patience: float = RETRY_TIMEOUT_S) -> None:
        self._region, self._profile, self._patience = region, profile, patience
        self.ahead: float | None = None
        self._session: Any = None
        self._clients: dict[str, Any] = {}
        self._answered: set[str] = set()  # the services that have
        self._stack = AsyncExitStack()
        self._users = 0
        self._opening: asyncio.Lock | None = None

    async def session(self) -> Any:
        """Return the SDK's session. Importing the SDK takes a second, so a thread does it."""
        if self._session is None:
            sdk = await asyncio.to_thread(_sdk)
            from botocore.exceptions import ProfileNotFound

            try:
                self._session = sdk.Session(region_name=self._region, profile_name=self._profile)
            except ProfileNotFound as error:
                raise InvalidArgument.of("profile", self._profile, str(error), "give one of ~/.aws/config") from None
        return self._session

    async def region(self) -> str:
        """Return the name of the region."""
        region = (await self.session()).region_name
        if not region:
            raise InvalidArgument(region_names.none_set(os.environ.get("AWS_REGION", "")))
        if not region_names.has_form(region):
            fix = region_names.meant(region, await asyncio.to_thread(regions)) or "give one, for example 'eu-central-1'"
            raise InvalidArgument.of("region", region, "is not a region", fix)
        return str(region)

    async def credentials(self) -> Credentials | None:
        """Return the credentials, fetched if necessary, or None if there are none."""
        session = await self.session()
        with _explaining_credentials():
            found = await session.get_credentials()
            if found is None:
                return None
            frozen = await found.get_frozen_credentials()
        renewed = hasattr(found, "refresh_needed") and found.method != "env"  # the environment stays as it is
        return Credentials(found.method, bool(frozen.token), renewed, getattr(found, "_expiry_time", None))

    async def has_login_session(self) -> bool:
        """Whether the profile was made by `aws login`, whose credentials the SDK here may not know."""
        session = await self.session()
        return "login_session" in session._session.get_scoped_config()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["Api"]:
        """Keep connections open for the length of the block."""
        self._users += 1
        try:
            yield self
        finally:
            self._users -= 1
            if self._users == 0:
                stack, self._stack, self._clients, self._opening = self._stack, AsyncExitStack(), {}, None
                await stack.aclose()

    async def call(self, service: str, action: str, *, patience: float | None = None, **asked: Any) -> dict[str, Any]:
        """Call an action, such as `run_instances`; retry it while its error is temporary.

        Raises
        ------
        Refusal
            The answer is an error.
        Unanswered
            There was no answer.
        """
        await self.session()
        from botocore import exceptions as known

        named = _permission(service, action)
        certain = True

        async def attempt() -> dict[str, Any]:
            nonlocal certain
            try:
                client = await self._client(service)
                answer: dict[str, Any] = await getattr(client, action)(**asked)
            except known.ClientError as error:
                self._answered.add(service)
                told, meta = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
                code, text = str(told.get("Code", "Unknown")), str(told.get("Message", ""))
                self._compare_clocks(meta)
                refusal = Refusal(named, code, text, int(meta.get("HTTPStatusCode", 400)), certain=certain)
                certain = refusal.certain
                raise refusal from error
            except (known.HTTPClientError, known.ConnectionError):
                certain = False
                raise
            self._answered.add(service)
            self._compare_clocks(answer.get("ResponseMetadata", {}))
            return answer

        def may_pass(error: Exception) -> bool:
            if isinstance(error, Refusal):
                return api_errors.is_temporary(error.code, error.status)
            return isinstance(error, (known.HTTPClientError, known.ConnectionError))

        try:
            with _explaining_credentials():
                within = await self._retry_timeout(service, patience or self._patience)
                return await retry(attempt, on=may_pass, delays=jittered(backoff()), within=within)
        except (known.HTTPClientError, known.ConnectionError) as error:
            raise Unanswered(f"{named}: Amazon does not answer: {error}{await self._doubt(service)}") from error
        except known.BotoCoreError as error:
            raise ProvisioningError(f"{named}: {error}") from error

    async def pages(self, service: str, action: str, key: str, **asked: Any) -> list[Any]:
        """Return the items under a key on all pages of an answer."""
        found: list[Any] = []
        more: dict[str, Any] = {}
        while True:
            answer = await self.call(service, action, **asked, **more)
            found += answer.get(key, [])
            if not (token := answer.get("NextToken")):
                return found
            more = {"NextToken": token}

    async def _client(self, service: str) -> Any:
        if self._opening is None:
            self._opening = asyncio.Lock()
        async with self._opening:
            if service not in self._clients:
                from botocore.config import Config

                once = Config(
                    retries={"total_max_attempts": 1},
                    connect_timeout=API_CONNECT_TIMEOUT_S,
                    read_timeout=READ_TIMEOUT_S,
                    max_pool_connections=50,
                )
                client = (await self.session()).client(service, region_name=await self._home(service), config=once)
                self._clients[service] = await self._stack.enter_async_context(client)
        return self._clients[service]

    async def _home(self, service: str) -> str:
        """Return the region whose endpoint of a service to call."""
        match service:
            case "pricing":
                return PRICE_LIST_REGION
            case "sts":
                region = (await self.session()).region_name or ""
                return next(
                    (home for name, home in IDENTITY_REGIONS.items() if region.startswith(f"{name}-")),
                    PRICE_LIST_REGION,
                )
            case _:
                return await self.region()

    async def _retry_timeout(self, service: str, usual: float) -> float:
        """Return the seconds for which a call of a service is retried that does so for `usual` ones."""
        if service in self._answered or not await self._unknown_region(service):
            return usual
        return min(usual, UNKNOWN_REGION_RETRY_TIMEOUT_S)

    async def _doubt(self, service: str) -> str:
        """Return a sentence for an error if the SDK does not know the region that was asked."""
        if not (region := await self._unknown_region(service)):
            return ""
        meant = region_names.meant(region, regions())
        return f". The region {region!r} is not one that botocore knows{f': {meant}' if meant else ''}"

    async def _unknown_region(self, service: str) -> str:
        """Return the region whose endpoint of a service is called if the SDK does not know it; else nothing."""
        home = await self._home(service)
        return "" if home in await asyncio.to_thread(regions) else home

    def _compare_clocks(self, meta: Mapping[str, Any]) -> None:
        with contextlib.suppress(KeyError, TypeError, ValueError):
            then = parsedate_to_datetime(meta["HTTPHeaders"]["date"])
            self.ahead = (then - dt.datetime.now(dt.UTC)).total_seconds()


@contextlib.contextmanager
def _explaining_credentials() -> Iterator[None]:
    """Raise errors about credentials as `Denied`, with what to do."""
    from botocore import exceptions as known

    try:
        yield
    except known.NoCredentialsError:
        text = "there are no AWS credentials: run `aws configure`, set AWS_PROFILE, or give profile="
        raise Denied(text) from None
    except (
        known.CredentialRetrievalError,
        known.PartialCredentialsError,
        known.SSOError,
        known.TokenRetrievalError,
    ) as error:
        raise Denied(f"could not obtain AWS credentials: {error}") from error
    except RuntimeError as error:
        if "still expired" not in str(error):  # what the SDK says if AWS_CREDENTIAL_EXPIRATION is past
            raise
        raise Denied("the AWS credentials have expired: renew them, or name others by profile=") from error


def _permission(service: str, action: str) -> str:
    """Return the name of the action in a policy."""
    return f"{service}:{''.join(word.capitalize() for word in action.split('_'))}"
