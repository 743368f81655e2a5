"""The resources of one pool in EC2: its keys, its security group, its machines, and their removal.

**One call for many machines.** Supervisors order one machine each. What they order at about the same time becomes one
`RunInstances` for as many machines, so that ten nodes cost one call, and throttling hits one call and not ten.

**Which machine is whose** needs no second call, in which it could be lost: the launch carries the tag `skyward:nodes`,
the names of the nodes in order, and EC2 numbers the machines of a launch from 0 (`AmiLaunchIndex`). The machine with
index i is that of the i-th node. If a zone has room for fewer machines, these are those of the first nodes; the rest is
asked for in the next zone, by another call with a tag of its own.

**No second machine.** The client token of a launch is a hash of everything in it: pool, nodes, type, zone, keys. A call
that is repeated because its answer was lost is the same call, so it gives the same machines; what differs in anything
is another launch with another token. A node that ended and is launched once more counts as another one.

**Before anything is created** the intent is in the journal, and the guard stands by (`watchdog`).
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from skyward.errors import BudgetExceeded, Denied, NoCapacity, ProvisioningError
from skyward.providers.aws import resources, security_group, staleness, userdata
from skyward.providers.aws.api import Api, Refusal, Unanswered
from skyward.providers.aws.instance_selection import Offer
from skyward.providers.aws.journal import Journal
from skyward.providers.aws.launch_config import LaunchConfig
from skyward.providers.aws.launch_plan import LaunchPlan
from skyward.providers.aws.resources import GOING, LEASE, NODES, POOL, Found
from skyward.providers.aws.userdata import Limits
from skyward.providers.aws.watchdog import Charge, Watchdog
from skyward.providers.batching import RequestCoalescer, side_by_side, while_wanted
from skyward.providers.provider import Instance, Order, Purse, Quote
from skyward.providers.ssh.key_pair import KeyPair

log = logging.getLogger("skyward")

TAG = 256
"""Characters that the value of a tag may have, and so a limit to the nodes of one launch."""

FIND_INTERVAL_S = 1.0
"""Seconds after which it is looked again for the machines of a launch that was not answered."""

PRICES = 5.0
"""Seconds that a launch waits for the prices, where no limit depends on them."""

CLEAR = 300.0
"""Seconds in which a security group can be removed, once the machines that had it go down."""


class EC2Pool:
    """A pool's machines, and what they share.

    Attributes
    ----------
    login
        The key that opens its machines.
    first_host_keys
        The host key that a machine has until it is given one of its own: that of its launch.
    """

    def __init__(self, config: LaunchConfig, pool: str, login: KeyPair) -> None:
        self._config, self.pool, self.login = config, pool, login
        self.lease = 300.0
        self.purse: Purse | None = None
        self._warned = False
        self.first_host_keys: dict[str, KeyPair] = {}
        self.api = Api(config.region, config.profile)
        self.plan = LaunchPlan(config, self.api)
        self.known: dict[str, Instance] = {}
        self._journal = Journal(config.journal_path)
        self._ended: Counter[str] = Counter()
        self._launched: dict[str, float] = {}
        self._last: float | None = None
        self._unanswered: dict[str, float] = {}
        self._group: str | None = None
        self._guard: Watchdog | None = None
        self._possible = 0  # calls that may have created something
        self._orders: dict[str, Order] = {}
        self._closing = False
        self._problem = ""
        self._launches = RequestCoalescer(self._launch)
        self._looks = RequestCoalescer(self._look)
        self._ends = RequestCoalescer(self._end)

    # ---------------------------------------------------------------- launch

    async def launch(self, order: Order) -> Instance:
        """Return the machine of a node; launch it, together with those of other nodes, if it does not exist."""
        node = order.node
        self.lease, self.purse, self._orders[node] = order.lease, order.purse, order
        try:
            return self.known.get(node) or await self._launches.do(node)
        finally:
            self._orders.pop(node, None)

    def _settled(self, nodes: Sequence[str]) -> dict[str, Instance | Exception]:
        """Return those of the nodes that need no launch: their machine is there, or nobody waits for it any more."""
        found: dict[str, Instance | Exception] = {}
        for node in nodes:
            order = self._orders.get(node)
            if node in self.known:
                found[node] = self.known[node]
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
        """Return what to try with prices: those that come soon, or all where there is a limit to them."""
        limited = self.purse is not None and self.purse.limited
        try:
            async with asyncio.timeout(None if limited else PRICES):
                priced, self._problem = await self.plan.with_prices(offers), "the price list does not have it"
                return priced
        except (Denied, Refusal, Unanswered) as error:
            self._problem = str(error)
        except TimeoutError:
            self._problem = f"the price list did not answer within {PRICES:g} s"
        return offers

    async def _offers(self) -> Sequence[Offer]:
        """Return what to try; the image for the first of it is looked up meanwhile, too."""
        offers = await self.plan.launchable()
        await self.plan.image_id(offers[0].architecture)
        return offers

    async def _shop(
        self, nodes: Sequence[str], offers: Sequence[Offer], groups: Sequence[str]
    ) -> dict[str, Instance | Exception]:
        """Launch these nodes wherever there is room for them."""
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
            done |= {each.node: each for each in made}
            left = [node for node in left if node not in done]
            full.append(f"{offer.kind} in {offer.zone} after {len(made)}")
        if not left:
            return done
        text = f"no capacity for {len(left)} of {len(nodes)} machines: tried {', '.join(full)}"
        return done | dict.fromkeys(left, NoCapacity(f"{text}; give other zones=, or a choice of types by cpus="))

    async def _run(self, nodes: Sequence[str], offer: Offer, groups: Sequence[str]) -> list[Instance]:
        extras = [name for name, price in (("address", offer.address), ("disk", offer.disk)) if price is not None]
        machine = f"{offer.kind}{' spot' if offer.spot else ''}"
        quote = Quote(machine, offer.zone, len(nodes), offer.hourly, " and ".join(extras), self._problem)
        if self.purse is not None:
            self.purse.check(quote)
        host_key = KeyPair()
        asked = await self._asked(nodes, offer, groups, host_key)
        turns = [self._ended[node] for node in nodes]
        token = hashlib.sha256(json.dumps([asked, turns], sort_keys=True).encode()).hexdigest()
        facts = {"pool": self.pool, "region": await self.api.region(), "nodes": list(nodes), "token": token}
        await self._journal.note("run_instances", kind=offer.kind, zone=offer.zone, spot=offer.spot, **facts)
        try:
            async with self._creating("ec2:RunInstances"):
                answer = await self.api.call("ec2", "run_instances", ClientToken=token, **asked)
        except (Refusal, Unanswered) as error:
            if not isinstance(error, Refusal) or not error.certain:
                self._unanswered |= dict.fromkeys(nodes, time.monotonic())
            raise
        finally:
            self._last = at = time.monotonic()  # whatever was answered, there may be machines
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
        self.known |= {each.node: each for each in made}
        if self.purse is not None:
            for each in made:  # at once: the next call is checked before anybody hears of these
                self.purse.begin(each.id, each.hourly)
        self.first_host_keys |= dict.fromkeys((each.id for each in made), host_key)
        self._launched |= dict.fromkeys((each.id for each in made), at)
        await self._journal.note("made", pool=self.pool, machines=[each.id for each in made])
        log.info("%d x %s%s in %s", len(made), offer.kind, " spot" if offer.spot else "", offer.zone)
        if self._is_held_back(offer) and not self._warned:
            self._warned = True
            log.warning(
                "%s: with a limit no credits for bursts are bought, so that it has a part of its processors only, and "
                "starts slowly; a type that does not burst has all of them: instance_type='c7g.medium', say",
                offer.kind,
            )
        return made

    async def _asked(
        self, nodes: Sequence[str], offer: Offer, groups: Sequence[str], host_key: KeyPair
    ) -> dict[str, Any]:
        """What is asked of `RunInstances`."""
        config = self._config
        short = " ".join(node.removeprefix(f"{self.pool}-") for node in nodes)
        tags = {**self._tags(), NODES: short, LEASE: f"{self.lease:g}"}
        limits = Limits(config.first_contact, self.lease, config.max_lifetime)
        halves = host_key.private.decode(), host_key.public
        subnet = (await self.plan.subnets()).get(offer.zone)
        asked: dict[str, Any] = {
            "ImageId": await self.plan.image_id(offer.architecture),
            "InstanceType": offer.kind,
            "MinCount": 1,
            "MaxCount": len(nodes),
            "UserData": userdata.cloud_config(limits, halves, self.login.public),
            "InstanceInitiatedShutdownBehavior": "terminate",
            "MetadataOptions": {"HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1},
            "SecurityGroupIds": list(groups),
            "TagSpecifications": [
                {"ResourceType": kind, "Tags": security_group.listed(tags)} for kind in ("instance", "volume")
            ],
        }
        asked |= {"SubnetId": subnet[0]} if subnet else {"Placement": {"AvailabilityZone": offer.zone}}
        if offer.spot:
            how = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
            asked["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": how}
        if self._is_held_back(offer):
            asked["CreditSpecification"] = {"CpuCredits": "standard"}
        if config.volume_gb is not None:
            disk = {"VolumeSize": config.volume_gb, "VolumeType": "gp3", "DeleteOnTermination": True}
            device = (await self.plan.image(offer.architecture)).device
            asked["BlockDeviceMappings"] = [{"DeviceName": device, "Ebs": disk}]
        if config.role is not None:
            asked["IamInstanceProfile"] = {"Name": config.role}
        return asked

    def _is_held_back(self, offer: Offer) -> bool:
        """Whether a machine gets no more processor time than its price pays for: a limit counts nothing else."""
        return offer.burstable and self.purse is not None and self.purse.limited

    def _tags(self) -> dict[str, str]:
        """The tags of what is made now."""
        ours = {"Name": f"skyward-{self.pool}", POOL: self.pool, **staleness.stamps(self._config.max_lifetime)}
        return {**self._config.tags, **ours}

    @contextlib.asynccontextmanager
    async def _creating(self, action: str) -> AsyncIterator[None]:
        """Have the guard watch what `action` may create; count it, unless it was refused for certain."""
        if self._guard is None:
            region, lifetime = await self.api.region(), self._config.max_lifetime
            settle = min(resources.SETTLE_DELAY_S, self.lease)
            self._guard = Watchdog(
                Charge(self.pool, region, self._config.profile, str(self._journal.path), settle, lifetime)
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
                self._group = await security_group.make(
                    self.api, self.plan, self._journal, self.pool, self._config.allow, self._tags()
                )
        return [self._group]

    # ---------------------------------------------------------------- what there is, and its end

    async def look(self, machine: str) -> Found | None:
        """Return what the API says of a machine of this pool; None if it does not list it, yet or any more."""
        return await self._looks.do(machine)

    async def _look(self, machines: Sequence[str]) -> Mapping[str, Found | Exception | None]:
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
            seen, since = {each.node for each in told}, time.monotonic() - resources.SETTLE_DELAY_S
            self._unanswered = {node: at for node, at in self._unanswered.items() if node not in seen and at > since}
            if not self._unanswered:
                break
            await asyncio.sleep(FIND_INTERVAL_S)
        found = {each.id: Instance(each.id, self.pool, each.node, each.id) for each in told if each.is_alive}
        gone = {each.id for each in told} - found.keys()
        launched = {each.id: each for each in self.known.values() if each.id not in gone}  # its price is known, too
        return sorted((found | launched).values(), key=lambda each: each.node)

    async def terminate(self, instance: Instance) -> None:
        """Terminate a machine, if it belongs to this pool and this node."""
        known = self.known.get(instance.node)
        if known is None or known.id != instance.id:
            told = await self.look(instance.id)
            if told is None or told.node != instance.node or told.state in GOING:
                return
        delays = resources.terminate_delays()
        while not await self._ends.do(instance.id):
            if not _is_young(self._launched.get(instance.id)):
                break
            await asyncio.sleep(next(delays))
        self._ended[instance.node] += 1
        self.known.pop(instance.node, None)
        self.first_host_keys.pop(instance.id, None)
        self._launched.pop(instance.id, None)

    async def _end(self, machines: Sequence[str]) -> Mapping[str, bool | Exception]:
        """End machines; false for one that the API does not know."""
        failed = await resources.end(self.api, machines)
        told = {each: False if resources.is_unknown(error) else error for each, error in failed.items()}
        return dict.fromkeys(machines, True) | told

    async def clear(self) -> Sequence[str]:
        """Remove what the machines shared, once they have released it; return the ids of what is left."""
        self._closing = True
        await self._launches.idle()  # one that nobody waits for any more
        if self._guard is None:
            return ()
        if not self._possible:
            await asyncio.to_thread(self._guard.dismiss)
            self._guard = None
            return ()
        async with self.api.open():
            settle = min(resources.SETTLE_DELAY_S, self.lease) if _is_young(self._last) else 0.0
            try:
                left = await resources.cleared(self.api, self.pool, CLEAR, settle)
            except resources.NotEnded as error:
                log.warning("%s", error)
                left = list(error.errors)
            if not left:
                await security_group.remove_those_left_behind(self.api)
                await self._journal.note("gone", pool=self.pool)
                await asyncio.to_thread(self._guard.dismiss)
                self._guard = self._group = None
        return tuple(left)


def _is_young(since: float | None) -> bool:
    """Whether the API may not know yet of what was launched then."""
    return since is not None and time.monotonic() < since + resources.PROPAGATION_TIME_S


def _chunks(pool: str, nodes: Sequence[str]) -> list[list[str]]:
    """Cut nodes into launches whose tag can name them all."""
    chunks: list[list[str]] = []
    length = TAG
    for node in nodes:
        size = len(node.removeprefix(f"{pool}-")) + 1
        if length + size > TAG:
            chunks.append([])
            length = 0
        chunks[-1].append(node)
        length += size
    return chunks
