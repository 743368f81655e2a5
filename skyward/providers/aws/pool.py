"""The resources of one pool in EC2: its keys, its security group and its machines, from their launch to their end.

**One call for many machines.** Supervisors order one machine each. Orders made at about the same time become one
`RunInstances` call, so that ten nodes cost one call, and throttling hits one call and not ten.

**Which machine belongs to which node** needs no second call, which could fail: the launch carries the tag
`skyward:nodes` with the names of the nodes in order, and EC2 numbers the machines of a launch from 0
(`AmiLaunchIndex`). The machine with index i is that of the i-th node. If a zone has capacity for fewer machines, the
first nodes get them; the others are launched in the next zone, by another call with a tag of its own.

**No second machine.** Each launch has a client token. A call that is repeated because its answer was lost has the token
of the first one, so it returns the same machines. If these have been terminated meanwhile, EC2 refuses the token, and
the launch is repeated with another one.

**Before anything is created**, the intent is in the journal and the watchdog runs.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from skyward.errors import BudgetExceeded, Denied, NoCapacity, ProvisioningError
from skyward.formatting import counted
from skyward.providers.aws import api_errors, resources, security_group, staleness, termination, userdata
from skyward.providers.aws.api import Api, Refusal, Unanswered
from skyward.providers.aws.instance_selection import Offer
from skyward.providers.aws.journal import Journal
from skyward.providers.aws.launch_config import LaunchConfig
from skyward.providers.aws.launch_plan import LaunchPlan
from skyward.providers.aws.resources import LEASE_TAG, NODES_TAG, POOL_TAG, TERMINATING_STATES, EC2Instance
from skyward.providers.aws.termination import NotTerminated, Terminator
from skyward.providers.aws.userdata import ShutdownTimeouts
from skyward.providers.aws.watchdog import WatchedPool
from skyward.providers.batching import RequestCoalescer, side_by_side, while_wanted
from skyward.providers.provider import Instance, Order, Purse, Quote
from skyward.providers.ssh.key_pair import KeyPair

log = logging.getLogger("skyward")

MAX_TAG_LENGTH = 256
"""Characters that the value of a tag may have, which limits the nodes of one launch."""

LAUNCH = "ec2:RunInstances"

FIND_INTERVAL_S = 1.0
"""Seconds between two listings while the machines of a launch without an answer may still appear."""

PRICE_TIMEOUT_S = 5.0
"""Seconds that a launch waits for prices if no limit depends on them."""


class EC2Pool:
    """A pool's machines and what they share.

    Parameters
    ----------
    api
        The API of the region to launch in.
    start_watchdog
        Starts the process that clears the pool if this one is gone, and returns the function that dismisses it.

    Attributes
    ----------
    login
        The key that opens its machines.
    first_host_keys
        The host key of each machine until it is given another one: that of its launch.
    """

    def __init__(
        self,
        config: LaunchConfig,
        pool: str,
        login: KeyPair,
        api: Api,
        start_watchdog: Callable[[WatchedPool], Callable[[], None]],
    ) -> None:
        self._config, self.pool, self.login, self.api = config, pool, login, api
        self._start_watchdog = start_watchdog
        self._dismiss_watchdog: Callable[[], None] | None = None
        self.lease = 300.0
        self.purse: Purse | None = None
        self._warned = False
        self.first_host_keys: dict[str, KeyPair] = {}
        self._plan = LaunchPlan(config, api)
        self._terminator = Terminator(api)
        self._known: dict[str, Instance] = {}
        self._journal = Journal(config.journal_path)
        self._launched: dict[str, float] = {}
        self._last: float | None = None
        self._unanswered: dict[str, float] = {}
        self._group: str | None = None
        self._possible = 0  # calls that may have created something
        self._orders: dict[str, Order] = {}
        self._closing = False
        self._problem = ""
        self._launches = RequestCoalescer(self._launch)
        self._looks = RequestCoalescer(self._look)

    # ---------------------------------------------------------------- launch

    async def launch(self, order: Order) -> Instance:
        """Return the machine of a node; launch it, together with those of other nodes, if it does not exist."""
        node = order.name
        self.lease, self.purse, self._orders[node] = order.lease, order.purse, order
        try:
            return self._known.get(node) or await self._launches.do(node)
        finally:
            self._orders.pop(node, None)

    def _settled(self, nodes: Sequence[str]) -> dict[str, Instance | Exception]:
        """Return the nodes that need no launch: their machine exists, or nobody waits for it any more."""
        found: dict[str, Instance | Exception] = {}
        for node in nodes:
            order = self._orders.get(node)
            if node in self._known:
                found[node] = self._known[node]
            elif self._closing or order is None or not order.wanted():
                found[node] = ProvisioningError("its machine is no longer needed")
        return found

    async def _launch(self, nodes: Sequence[str]) -> Mapping[str, Instance | Exception]:
        done = self._settled(nodes)
        if left := [node for node in nodes if node not in done]:
            async with self.api.open():
                # before anything is created: it fails if nothing can be launched
                found = await while_wanted(self._offers(), lambda: len(self._settled(left)) < len(left))
                if found is None:
                    return done | self._settled(left)
                offers, groups = await side_by_side(self._priced(found), self._groups())
                for some in _chunks(self.pool, left):
                    done |= await self._shop(some, offers, groups)
        return done

    async def _priced(self, offers: Sequence[Offer]) -> Sequence[Offer]:
        """Return the offers with prices; without them if they take long and no limit depends on them."""
        limited = self.purse is not None and self.purse.limited
        try:
            async with asyncio.timeout(None if limited else PRICE_TIMEOUT_S):
                priced, self._problem = await self._plan.with_prices(offers), "the price list does not have it"
                return priced
        except (Denied, Refusal, Unanswered) as error:
            self._problem = str(error)
        except TimeoutError:
            self._problem = f"the price list did not answer within {PRICE_TIMEOUT_S:g} s"
        return offers

    async def _offers(self) -> Sequence[Offer]:
        """Return the offers to try; look up the image for the first one, too."""
        offers = await self._plan.launchable()
        await self._plan.image_id(offers[0].architecture)
        return offers

    async def _shop(
        self, nodes: Sequence[str], offers: Sequence[Offer], groups: Sequence[str]
    ) -> dict[str, Instance | Exception]:
        """Launch these nodes wherever there is capacity for them."""
        left, done = list(nodes), dict[str, Instance | Exception]()
        full: list[str] = []
        for offer in offers:
            done |= self._settled(left)
            left = [node for node in left if node not in done]
            if not left:
                return done
            try:
                made = await self._run(left, offer, groups)
            except Refusal as refusal:
                error = refusal.explained(kind=offer.kind, spot=offer.spot)
                if not isinstance(error, NoCapacity):
                    return done | dict.fromkeys(left, error)
                full.append(f"{offer.kind}{' spot' if offer.spot else ''} in {offer.zone}")
                log.info("%s; trying the next one", error)
                continue
            except (BudgetExceeded, ProvisioningError) as error:
                return done | dict.fromkeys(left, error)
            done |= {each.name: each for each in made}
            left = [node for node in left if node not in done]
            full.append(f"{offer.kind} in {offer.zone} after {len(made)}")
        if not left:
            return done
        text = f"no capacity for {len(left)} of {counted(len(nodes), 'machine')}: tried {', '.join(full)}"
        return done | dict.fromkeys(left, NoCapacity(f"{text}; give other zones=, or a choice of types by cpus="))

    async def _run(self, nodes: Sequence[str], offer: Offer, groups: Sequence[str]) -> list[Instance]:
        extras = [name for name, price in (("address", offer.address), ("disk", offer.disk)) if price is not None]
        machine = f"{offer.kind}{' spot' if offer.spot else ''}"
        quote = Quote(machine, offer.zone, len(nodes), offer.hourly, " and ".join(extras), self._problem)
        if self.purse is not None:
            self.purse.check(quote)
        host_key = KeyPair()
        limits = ShutdownTimeouts(self._config.first_contact, self.lease, self._config.max_lifetime)
        user_data = userdata.cloud_config(limits, (host_key.private.decode(), host_key.public), self.login.public)
        short = " ".join(node.removeprefix(f"{self.pool}-") for node in nodes)
        tags = {**self._tags(), NODES_TAG: short, LEASE_TAG: f"{self.lease:g}"}
        limited = self._is_limited(offer)
        asked = await self._plan.parameters(offer, len(nodes), user_data, groups, tags, standard_credits=limited)
        try:
            try:
                answer = await self._request(nodes, offer, asked)
            except Refusal as refusal:
                if refusal.code != api_errors.TOKEN_SPENT:
                    raise
                log.info("the machines of a launch without an answer have been terminated; launching others")
                await self._terminate_survivors(nodes)
                answer = await self._request(nodes, offer, asked)
        except (Refusal, Unanswered) as error:
            if not isinstance(error, Refusal) or not error.certain or error.action != LAUNCH:
                self._unanswered |= dict.fromkeys(nodes, time.monotonic())
            raise
        finally:
            self._last = at = time.monotonic()  # whatever the answer is, there may be machines
        made = [
            Instance(
                each["InstanceId"],
                self.pool,
                nodes[int(each["AmiLaunchIndex"])],
                each["InstanceId"],
                hourly=offer.hourly,
            )
            for each in answer["Instances"]
        ]
        self._known |= {each.name: each for each in made}
        if self.purse is not None:
            for each in made:  # at once: the next call is checked before anybody else learns of these
                self.purse.begin(each.id, each.hourly)
        self.first_host_keys |= dict.fromkeys((each.id for each in made), host_key)
        self._launched |= dict.fromkeys((each.id for each in made), at)
        await self._journal.note("made", pool=self.pool, machines=[each.id for each in made])
        log.info("%d x %s%s in %s", len(made), offer.kind, " spot" if offer.spot else "", offer.zone)
        if limited and not self._warned:
            self._warned = True
            log.warning(
                "%s: with a limit no credits for bursts are bought, so that it has a part of its processors only, and "
                "starts slowly; a type that does not burst has all of them: instance_type='c7g.medium', say",
                offer.kind,
            )
        return made

    async def _request(self, nodes: Sequence[str], offer: Offer, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Call `RunInstances` with a new client token."""
        token = secrets.token_hex(32)
        facts = {"pool": self.pool, "region": await self.api.region(), "nodes": list(nodes), "token": token}
        await self._journal.note("run_instances", kind=offer.kind, zone=offer.zone, spot=offer.spot, **facts)
        async with self._creating(LAUNCH):
            return await self.api.call("ec2", "run_instances", ClientToken=token, **asked)

    async def _terminate_survivors(self, nodes: Sequence[str]) -> None:
        """Terminate the machines of a launch without an answer that were not terminated with the others of it."""
        listed = await resources.machines(self.api, self.pool)
        if failed := await self._terminator.terminate_all(
            [each.id for each in listed if each.is_alive and each.node in nodes]
        ):
            raise NotTerminated(failed)

    def _is_limited(self, offer: Offer) -> bool:
        """Whether a machine gets no more processor time than its price includes: a limit counts nothing else."""
        return offer.burstable and self.purse is not None and self.purse.limited

    def _tags(self) -> dict[str, str]:
        """Return the tags of a resource that is created now."""
        ours = {"Name": f"skyward-{self.pool}", POOL_TAG: self.pool, **staleness.owner_tags(self._config.max_lifetime)}
        return {**self._config.tags, **ours}

    @contextlib.asynccontextmanager
    async def _creating(self, action: str) -> AsyncIterator[None]:
        """Start the watchdog before `action` may create something; count it unless it certainly created nothing."""
        if self._dismiss_watchdog is None:
            region, lifetime = await self.api.region(), self._config.max_lifetime
            settle = min(termination.LISTED_AFTER_S, self.lease)
            self._dismiss_watchdog = self._start_watchdog(
                WatchedPool(self.pool, region, self._config.profile, str(self._journal.path), settle, lifetime)
            )
        self._possible += 1
        try:
            yield
        except Refusal as refusal:
            self._possible -= refusal.action == action and refusal.certain
            raise

    def left(self) -> float | None:
        """Return the seconds until the budget is spent; None: never."""
        return None if self.purse is None else self.purse.left()

    # ---------------------------------------------------------------- the security group

    async def _groups(self) -> Sequence[str]:
        if self._config.security_groups:
            return self._config.security_groups
        if self._group is None:
            async with self._creating("ec2:CreateSecurityGroup"):
                self._group = await security_group.create(
                    self.api, self._plan, self._journal, self.pool, self._config.allow, self._tags()
                )
        return [self._group]

    # ---------------------------------------------------------------- what there is, and its end

    async def look(self, machine: str) -> EC2Instance | None:
        """Return a machine of this pool as the API lists it; None if it does not list it, yet or any more."""
        return await self._looks.do(machine)

    async def _look(self, machines: Sequence[str]) -> Mapping[str, EC2Instance | Exception | None]:
        found = {each.id: each for each in await resources.machines(self.api, self.pool)}
        return {machine: found.get(machine) for machine in machines}

    async def find(self) -> list[Instance]:
        """Return every machine of the pool, including one that was just launched and is not listed yet.

        After a launch without an answer, wait a while for its machines, because they may exist.
        """
        if not self._possible:
            return []
        while True:
            told = await resources.machines(self.api, self.pool)
            seen, since = {each.node for each in told}, time.monotonic() - termination.LISTED_AFTER_S
            self._unanswered = {node: at for node, at in self._unanswered.items() if node not in seen and at > since}
            if not self._unanswered:
                break
            await asyncio.sleep(FIND_INTERVAL_S)
        found = {each.id: Instance(each.id, self.pool, each.node, each.id) for each in told if each.is_alive}
        gone = {each.id for each in told} - found.keys()
        launched = {each.id: each for each in self._known.values() if each.id not in gone}  # its price is known, too
        return sorted((found | launched).values(), key=lambda each: each.name)

    async def terminate(self, instance: Instance) -> None:
        """Terminate a machine, if it belongs to this pool and this node."""
        known = self._known.get(instance.name)
        if known is None or known.id != instance.id:
            told = await self.look(instance.id)
            if told is None or told.node != instance.name or told.state in TERMINATING_STATES:
                return
        await self._terminator.terminate(instance.id, lambda: _is_young(self._launched.get(instance.id)))
        self._known.pop(instance.name, None)
        self.first_host_keys.pop(instance.id, None)
        self._launched.pop(instance.id, None)

    async def clear(self) -> Sequence[str]:
        """Remove what the machines shared, once they have released it; return the ids of what is left."""
        self._closing = True
        await self._launches.idle()  # one that nobody waits for any more
        if self._dismiss_watchdog is None:
            return ()
        if self._possible:
            async with self.api.open():
                settle = min(termination.LISTED_AFTER_S, self.lease) if _is_young(self._last) else 0.0
                try:
                    await self._terminator.clear(self.pool, termination.GROUP_REMOVAL_TIMEOUT_S, settle)
                except NotTerminated as error:
                    log.warning("%s", error)
                    return tuple(error.errors)
                await self._terminator.remove_orphaned_groups()
            await self._journal.note("gone", pool=self.pool)
        await asyncio.to_thread(self._dismiss_watchdog)
        self._dismiss_watchdog = self._group = None
        return ()


def _is_young(since: float | None) -> bool:
    """Whether the API may not know yet what was launched then."""
    return since is not None and time.monotonic() < since + resources.PROPAGATION_TIME_S


def _chunks(pool: str, nodes: Sequence[str]) -> list[list[str]]:
    """Split nodes into launches whose tag can name them all."""
    chunks: list[list[str]] = []
    length = MAX_TAG_LENGTH
    for node in nodes:
        size = len(node.removeprefix(f"{pool}-")) + 1
        if length + size > MAX_TAG_LENGTH:
            chunks.append([])
            length = 0
        chunks[-1].append(node)
        length += size
    return chunks
