"""An EC2 whose machines are hosts of the lab: moto keeps the model, this starts and ends hosts as the model changes.

It has the states of the real one, security groups that hold, user data that runs, a shutdown from inside that ends the
machine, metadata, spot notices, and capacity. Only the endpoint differs from the real one: `environment()`.
"""

import datetime as dt
import fnmatch
import json
import math
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

from tests.lab import firstboot
from tests.lab.endpoint import Call, Endpoint, Fault, Params
from tests.lab.host import Host
from tests.lab.lab import NEAR, Lab, far
from tests.lab.market import Market
from tests.lab.metadata import Metadata

ACCOUNT, REGION = "123456789012", "us-east-1"
USER = "ubuntu"
SSM = "/aws/service/canonical/ubuntu/server/24.04/stable/current/{}/hvm/ebs-gp3/ami-id"
IMAGES = {"ami-0lab0ubuntu2404x8": ("amd64", "x86_64"), "ami-0lab0ubuntu2404a6": ("arm64", "arm64")}
STATES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
JSON, XML = "application/x-amz-json-1.1", "text/xml"

type Machine = Any
"""What moto has of an instance."""


class Cloud:
    """An EC2 of one account and region.

    Attributes
    ----------
    pending, ending
        Seconds that a machine is pending, and shutting down.
    forgetful
        Seconds, from its launch, in which no other call knows of a machine.
    used
        Whether what a node is made of is in the cache of every machine, as in an image made of one that was a node.
    hosts
        The hosts of the machines that run, by id.
    capacity
        How many machines may be there at once, by patterns of `zone/type/market`; the first that fits counts.
    quota
        The virtual CPUs that each quota is said to allow.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.pending, self.ending, self.forgetful = 0.1, 0.3, 0.0
        self.used = True
        self.hosts: dict[str, Host] = {}
        self.capacity: dict[str, float] = {}
        self.quota = 32.0
        self._groups: dict[str, set[str]] = {}
        self._made: dict[str, float] = {}
        self._notices: dict[str, str] = {}
        self._answers: dict[str, Callable[[Params], bytes]] = {}
        self._lock, self._turn, self._closing = threading.RLock(), threading.RLock(), threading.Event()
        self._threads: list[threading.Thread] = []
        self._begin()
        self.endpoint = Endpoint(NEAR, self)
        self._metadata = Metadata(self._look)

    def _begin(self) -> None:
        images = self.lab.folder / "images.json"
        common = {
            "owner_id": "099720109477",
            "state": "available",
            "public": True,
            "root_device_type": "ebs",
            "root_device_name": "/dev/sda1",
            "image_type": "machine",
            "virtualization_type": "hvm",
            "hypervisor": "xen",
            "sriov": "simple",
            "platform": None,
        }
        named = {image: f"ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-{arch}" for image, (arch, _) in IMAGES.items()}
        rows = [
            {**common, "ami_id": image, "name": name, "description": name, "image_location": name}
            | {"architecture": IMAGES[image][1]}
            for image, name in named.items()
        ]
        images.write_text(json.dumps(rows))
        os.environ["MOTO_AMIS_PATH"] = str(images)  # which moto reads when it is first imported
        os.environ["MOTO_ENABLE_AMI_VALIDATION"] = os.environ["MOTO_ENABLE_KEYPAIR_VALIDATION"] = "true"
        os.environ["MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION"] = "true"
        from moto.ec2.models import ec2_backends, instances
        from moto.ssm.models import Parameter, ssm_backends

        hooked: Any = instances.InstanceBackend
        ended: Any = instances.Instance
        parameter: Any = Parameter
        self.model: Any = ec2_backends[ACCOUNT][REGION]
        for image, (arch, _) in IMAGES.items():
            told = {"name": SSM.format(arch), "value": image, "parameter_type": "String", "data_type": "aws:ec2:image"}
            rest = {"description": None, "allowed_pattern": None, "keyid": None, "version": 1}
            made = parameter(account_id=ACCOUNT, last_modified_date=0, **told, **rest)
            ssm_backends[ACCOUNT][REGION]._parameters[SSM.format(arch)].append(made)
        kinds = self.model.describe_instance_types()
        self.market = Market(kinds, self.model.describe_instance_type_offerings("availability-zone"))
        self._kinds = {kind["InstanceType"]: kind for kind in kinds}
        run, end, describe = hooked.run_instances, ended.terminate, hooked.describe_instances

        def run_instances(backend: Any, *args: Any, **more: Any) -> Any:
            made = run(backend, *args, **more)
            for machine in made.instances:
                self._launch(machine)
            return made

        def terminate(machine: Any) -> Any:
            with self._turn:
                if machine._state.name in ("shutting-down", "terminated"):
                    return machine._state
                was = end(machine)
                self._end(machine, "Client.UserInitiatedShutdown")
                return was

        def describe_instances(backend: Any, *args: Any, **more: Any) -> Any:
            told = describe(backend, *args, **more)  # copies
            for reservation in told:
                reservation.instances = [each for each in reservation.instances if not self._is_forgotten(each.id)]
            return [reservation for reservation in told if reservation.instances]

        def restore() -> None:
            hooked.run_instances, ended.terminate, hooked.describe_instances = run, end, describe

        self._restore = restore
        hooked.run_instances, ended.terminate = run_instances, terminate
        hooked.describe_instances = describe_instances

    def environment(self, key: str = "lab") -> dict[str, str]:
        """What a driver's environment needs. Without keys the SDK would ask the metadata service for some: never."""
        return {
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": "lab",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": self.endpoint.url,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def fail(self, action: str, code: str = "", **more: Any) -> Fault:
        """Have calls go wrong; see `Fault`."""
        return self.endpoint.fail(action, code, **more)

    @property
    def calls(self) -> list[Call]:
        """Every call that came."""
        return list(self.endpoint.calls)

    # ---------------------------------------------------------------- what there is

    def machines(self, **tags: str) -> list[Machine]:
        """The machines that have these tags and are not gone, whatever their state; `_` in a name stands for `:`."""
        wanted = {name.replace("_", ":"): value for name, value in tags.items()}
        found = []
        for reservation in list(self.model.reservations.values()):
            for machine in list(reservation.instances):
                has = {tag["key"]: tag["value"] for tag in machine.get_tags()}
                if machine._state.name != "terminated" and wanted.items() <= has.items():
                    found.append(machine)
        return found

    def living(self, **tags: str) -> list[Machine]:
        """Those of them that are not going down either."""
        return [each for each in self.machines(**tags) if each._state.name != "shutting-down"]

    def groups(self, **tags: str) -> list[str]:
        """The names of the security groups that have these tags, or of all but the default ones."""
        wanted = {name.replace("_", ":"): value for name, value in tags.items()}
        found = []
        for groups in list(self.model.groups.values()):
            for group in list(groups.values()):
                has = {tag["key"]: tag["value"] for tag in group.get_tags()}
                if group.name != "default" and wanted.items() <= has.items():
                    found.append(group.name)
        return found

    def keys(self) -> list[str]:
        """The names of the key pairs."""
        return list(self.model.key_pairs)

    def left(self) -> list[str]:
        """Everything that is there, of whomever."""
        return [*(machine.id for machine in self.machines()), *self.groups(), *self.keys()]

    # ---------------------------------------------------------------- what happens

    def crash(self, machine: str) -> None:
        """The machine dies without a word, and is said to run for a while."""
        self.hosts[machine].kill()

    def interrupt(self, machine: str, notice: float = 120.0) -> None:
        """A spot machine is taken back: a notice now, the end so many seconds later."""
        when = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=notice)
        self._notices[machine] = json.dumps({"action": "terminate", "time": when.strftime("%Y-%m-%dT%H:%M:%SZ")})

        def end() -> None:
            if not self._closing.wait(notice):
                self._end(self.model.get_instance(machine), "Server.SpotInstanceTermination")

        self._run(end)

    def close(self) -> None:
        """End every machine, and forget everything."""
        self._closing.set()
        self.endpoint.close()
        self._metadata.close()
        self._restore()
        for host in list(self.hosts.values()):
            self.lab.end(host)
        for thread in self._threads:
            thread.join(20)
        from moto.moto_api._internal.models import moto_api_backend

        moto_api_backend.reset()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # ---------------------------------------------------------------- machines

    def _run(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _is_forgotten(self, machine: str) -> bool:
        return time.monotonic() < self._made.get(machine, -math.inf) + self.forgetful

    def _launch(self, machine: Machine) -> None:
        self._made[machine.id] = time.monotonic()
        self._state(machine, "pending")
        self._address(machine, None, None)
        self._groups[machine.id] = {group.id for group in machine.security_groups or []}
        self._run(lambda: self._live(machine))

    def _live(self, machine: Machine) -> None:
        """Start the host of a machine, and see when it goes down."""
        if self._closing.wait(self.pending):
            return
        pair = self.model.key_pairs[machine.key_name].material_public.decode() if machine.key_name else None
        seed = firstboot.seed(firstboot.text(machine.user_data), USER, [pair] if pair else [])
        try:
            host = self.lab.start(python=True, used=self.used, public=True, seed=seed)
        except Exception as error:  # noqa: BLE001 - a host that cannot start is a machine that cannot start
            self._state(machine, "terminated", f"Server.InternalError: {error}")
            return
        with self._lock:
            if machine._state.name != "pending" or self._closing.is_set():
                self.lab.end(host)
                return
            self.hosts[machine.id] = host
            self._guard(machine, host)
            self._address(machine, host.address, far(host))
            with self._turn:
                if machine._state.name == "pending":  # it may have been terminated at this moment
                    self._state(machine, "running")
        host.wait()
        with self._lock:
            if machine._state.name == "running" and not self._closing.is_set():
                once = machine.instance_initiated_shutdown_behavior == "terminate" or machine.lifecycle == "spot"
                self._finish(machine, "terminated" if once else "stopped", "Client.InstanceInitiatedShutdown")

    def _end(self, machine: Machine, reason: str) -> None:
        with self._turn:
            self._state(machine, "shutting-down", reason)

        def work() -> None:
            self._closing.wait(self.ending)
            with self._lock:
                self._finish(machine, "terminated", reason)

        self._run(work)

    def _finish(self, machine: Machine, state: str, reason: str) -> None:
        if (host := self.hosts.pop(machine.id, None)) is not None:
            self.lab.end(host)
        self._address(machine, machine.nics[0].private_ip_address if machine.nics else None, None)
        self._groups.pop(machine.id, None)
        self._state(machine, state, reason)

    def _state(self, machine: Machine, name: str, reason: str = "") -> None:
        machine._state.name, machine._state.code = name, STATES[name]
        if reason:
            machine.state_reason.code = machine.state_reason.message = reason

    def _address(self, machine: Machine, private: str | None, public: str | None) -> None:
        nic = machine.nics[0]
        nic.public_ip = public
        if private is not None:
            nic.private_ip_address = nic.private_ip_addresses[0]["PrivateIpAddress"] = private

    def _guard(self, machine: Machine, host: Host) -> None:
        """Have the machine's security groups hold, as packet filter of the host's own network."""
        rules = ["ct state established,related accept", "iif lo accept", "meta l4proto { 1, 58 } accept"]
        for group in machine.security_groups or []:
            for rule in group.ingress_rules:
                what = "" if rule.ip_protocol == "-1" else f"{rule.ip_protocol} dport {rule.from_port}-{rule.to_port}"
                rules += [f"ip saddr {rule.cidr_ipv4} {what} accept"] if rule.cidr_ipv4 else []
        chain = "\n".join(["type filter hook input priority 0; policy drop;", *rules])
        text = f"flush ruleset\ntable inet groups {{ chain in {{ {chain}\n}}\n}}\n"
        words = ["nsenter", "-t", str(host.pid), "-n", "nft", "-f", "-"]
        subprocess.run(words, input=text, text=True, check=True, capture_output=True)

    def _look(self, address: str, path: str) -> str | None:
        machine = next((each for each, host in self.hosts.items() if host.address == address), None)
        if machine is None:
            return None
        known = self.model.get_instance(machine)
        return {
            "meta-data/instance-id": machine,
            "meta-data/instance-type": known.instance_type,
            "meta-data/placement/availability-zone": known.availability_zone,
            "meta-data/spot/instance-action": self._notices.get(machine),
            "user-data": firstboot.text(known.user_data),
        }.get(path)

    # ---------------------------------------------------------------- what the wire asks

    def zone_of(self, params: Params) -> str:
        """The zone that a launch is for."""
        subnet = params.get("SubnetId") or params.get("NetworkInterface.1.SubnetId")
        if subnet:
            return str(self.model.get_subnet(subnet).availability_zone)
        return str(params.get("Placement.AvailabilityZone", f"{REGION}a"))

    def room(self, zone: str, kind: str, market: str) -> float:
        """How many machines of a kind could still be launched."""
        for pattern, most in self.capacity.items():
            if fnmatch.fnmatchcase(f"{zone}/{kind}/{market}", pattern):
                return max(0.0, most - sum(fnmatch.fnmatchcase(each, pattern) for each in self._places()))
        return math.inf

    def _places(self) -> Iterator[str]:
        for each in self.living():
            yield f"{each.availability_zone}/{each.instance_type}/{each.lifecycle or 'on-demand'}"

    def spread(self) -> Counter[str]:
        """How many machines live in each `zone/type/market`."""
        return Counter(self._places())

    def groups_in_use(self) -> set[str]:
        """The ids of the groups that cannot be deleted."""
        return {group for groups in list(self._groups.values()) for group in groups}

    def forgotten(self, params: Params) -> list[str]:
        """The machines that a call names and that are not known yet."""
        ids = [str(value) for name, value in params.items() if name.startswith("InstanceId.")]
        return [each for each in ids if self._is_forgotten(each)]

    def has_living(self, machines: Sequence[str]) -> bool:
        """Whether one of these machines is not terminated."""
        return any(each.id in machines for each in self.machines())

    def wrong_architecture(self, params: Params) -> str:
        """What is wrong with a launch whose image is not for its type."""
        kind, image = self._kinds.get(str(params["InstanceType"])), IMAGES.get(str(params["ImageId"]))
        if kind is None or image is None or image[1] in kind["ProcessorInfo"]["SupportedArchitectures"]:
            return ""
        return f"The architecture of the instance type does not match the architecture '{image[1]}' of the AMI."

    def answer(self, action: str, params: Params) -> tuple[str, bytes] | None:
        """What is answered to an action that moto does not know."""
        match action:
            case "GetProducts":
                return JSON, self.market.products(params)
            case "GetServiceQuota":
                return JSON, json.dumps({"Quota": {"QuotaCode": params["QuotaCode"], "Value": self.quota}}).encode()
            case "DescribeSpotPriceHistory":
                return XML, self.market.history(params)
        return None
