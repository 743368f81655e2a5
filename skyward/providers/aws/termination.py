"""Terminate the machines of a pool and remove its security group.

This is the one way to do that: for the pool itself, for its watchdog process, and for `sky.down`.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from skyward.errors import ProvisioningError
from skyward.providers.aws import api_errors, resources, staleness
from skyward.providers.aws.api import Api, Refusal
from skyward.providers.aws.resources import TERMINATING_STATES
from skyward.providers.batching import RequestCoalescer
from skyward.retry import backoff, retry

log = logging.getLogger("skyward")

RETRY_DELAY_S, LONGEST_RETRY_DELAY_S = 0.2, 5.0
"""Seconds between two attempts, at first and at most."""

LISTED_AFTER_S = 10.0
"""Seconds after which EC2 lists every machine of an earlier launch."""

GROUP_REMOVAL_TIMEOUT_S = 300.0
"""Seconds in which a security group can be removed once the machines that use it are shutting down."""

MAX_IDS_PER_CALL = 200


class NotTerminated(ProvisioningError):
    """Some resources of a pool could not be terminated. `errors` has the reasons by id."""

    def __init__(self, errors: Mapping[str, Exception]) -> None:
        self.errors = dict(errors)
        reasons: dict[str, list[str]] = {}
        for each, error in errors.items():
            reasons.setdefault(explanation(error), []).append(each)
        super().__init__("; ".join(f"{', '.join(ids)}: {reason}" for reason, ids in reasons.items()))


def explanation(error: Exception) -> str:
    """Return the text of an error for the user."""
    return str(error.explained() if isinstance(error, Refusal) else error)


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What a sweep found: machines, now terminating; security groups, now removed or still in use."""

    terminated: list[str]
    removed: list[str]
    in_use: list[str]

    @property
    def left(self) -> list[str]:
        """The ids of what may still exist and has to be checked by another sweep."""
        return [*self.terminated, *self.in_use]


class Terminator:
    """Terminates machines of a region and removes security groups.

    Machines that are to be terminated at about the same time are terminated by one call. EC2 refuses the whole call if
    it refuses one of them; then each machine gets a call of its own.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._requests = RequestCoalescer(self._request)

    async def terminate(self, machine: str, is_new: Callable[[], bool] = lambda: False) -> None:
        """Terminate a machine; return when the API confirms that it is shutting down.

        A machine that the API does not know is gone. But while it `is_new`, the API may not know it yet: then the call
        is repeated.
        """
        try:
            await retry(
                partial(self._requests.do, machine),
                on=lambda error: _is_unknown(error) and is_new(),
                delays=backoff(RETRY_DELAY_S, LONGEST_RETRY_DELAY_S, 1.5),
            )
        except Refusal as refusal:
            if not _is_unknown(refusal):
                raise

    async def terminate_all(self, machines: Sequence[str]) -> dict[str, Exception]:
        """Terminate these machines, and return the errors of those that could not be terminated."""
        outcomes = await asyncio.gather(*map(self.terminate, machines), return_exceptions=True)
        return {each: error for each, error in zip(machines, outcomes, strict=True) if isinstance(error, Exception)}

    async def _request(self, machines: Sequence[str]) -> Mapping[str, Exception | None]:
        outcomes: dict[str, Exception | None] = {}
        async with self._api.open():
            for first in range(0, len(machines), MAX_IDS_PER_CALL):
                outcomes |= await self._call(list(machines[first : first + MAX_IDS_PER_CALL]))
        return outcomes

    async def _call(self, machines: list[str]) -> dict[str, Exception | None]:
        try:
            answer = await self._api.call("ec2", "terminate_instances", InstanceIds=machines)
        except (Refusal, ProvisioningError) as error:
            alike = not isinstance(error, Refusal) or api_errors.concerns_every_call(error.code, error.status)
            if len(machines) == 1 or alike:
                return dict.fromkeys(machines, error)
            return {each: (await self._call([each]))[each] for each in machines}
        states = {each["InstanceId"]: each["CurrentState"]["Name"] for each in answer["TerminatingInstances"]}
        return dict.fromkeys(machines) | {
            each: ProvisioningError(f"ec2:TerminateInstances: it is {state}, and not shutting down")
            for each, state in states.items()
            if state not in TERMINATING_STATES
        }

    async def remove_group(self, group: str) -> bool:
        """Remove a security group if it exists; return False if a machine that is shutting down still uses it."""
        async with self._api.open():
            try:
                await self._api.call("ec2", "delete_security_group", GroupId=group)
            except Refusal as refusal:
                if refusal.code not in ("DependencyViolation", "InvalidGroup.InUse", "InvalidGroup.NotFound"):
                    raise
                return refusal.code == "InvalidGroup.NotFound"
        return True

    async def remove_orphaned_groups(self) -> None:
        """Remove the groups of pools of this machine whose driver and watchdog were killed."""
        for each in await resources.groups(self._api):
            if staleness.is_orphan(each.tags):
                log.info("the security group %s of pool %s was left behind; removing it", each.id, each.pool)
                with contextlib.suppress(Refusal):  # it does not concern this pool
                    await self.remove_group(each.id)

    async def sweep(self, pool: str) -> SweepResult:
        """Terminate the machines and remove the security groups that the API lists for a pool.

        Raises
        ------
        NotTerminated
            Some of them may not be terminated; the others were.
        """
        async with self._api.open():
            alive = [each.id for each in await resources.machines(self._api, pool) if each.is_alive]
            failed = await self.terminate_all(alive)
            removed, in_use = list[str](), list[str]()
            for each in await resources.groups(self._api, pool):
                try:
                    (removed if await self.remove_group(each.id) else in_use).append(each.id)
                except (Refusal, ProvisioningError) as error:
                    failed[each.id] = error
        if failed:
            raise NotTerminated(failed)
        return SweepResult(alive, removed, in_use)

    async def clear(self, pool: str, within: float, settle: float, *, always_twice: bool = False) -> None:
        """Sweep a pool repeatedly until nothing is left, for `within` seconds at most.

        An empty listing proves nothing: EC2 may not list a new machine yet. Removing the pool's security group does,
        because EC2 refuses that while a machine uses it; otherwise, or `always_twice`, a second sweep `settle` seconds
        later must find nothing as well, unless `settle` is 0.

        Raises
        ------
        NotTerminated
            Something is left.
        """
        clock = asyncio.get_running_loop().time
        until, delays = clock() + within, backoff(RETRY_DELAY_S, LONGEST_RETRY_DELAY_S, 1.5)
        clean, needed = 0, 2 if settle else 1
        async with self._api.open():
            while True:
                swept = await self.sweep(pool)
                clean = 0 if swept.left else clean + 1
                if swept.removed and not always_twice:
                    needed = 1
                if clean >= needed:
                    return
                if clock() > until:
                    break
                await asyncio.sleep(settle if clean else next(delays))
        if swept.left:
            reason = ProvisioningError("it is still shutting down, or in use by what is")
            raise NotTerminated(dict.fromkeys(swept.left, reason))


def _is_unknown(error: Exception) -> bool:
    """Whether the API says that there is no such machine."""
    return isinstance(error, Refusal) and error.code == "InvalidInstanceID.NotFound"
