"""What to launch on EC2: the checked arguments of `sky.AWS`, which the modules of this package read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from skyward.config.validation import StrictModel, Text, any_path, as_tuple, existing_file, matching, refused
from skyward.providers.aws import journal, region_names
from skyward.providers.aws.api import regions

CHECKIP = "https://checkip.amazonaws.com"
"""Amazon's service that returns the public address of the caller."""

IF_AVAILABLE = "if-available"

_NEEDS = ("cpus", "memory_gb", "accelerator")


def _spare(value: object) -> object:
    if not isinstance(value, bool) and value != IF_AVAILABLE:
        near = isinstance(value, str) and value.lower().replace("_", "-").replace(" ", "-") == IF_AVAILABLE
        raise refused("must be True, False or 'if-available'", f"did you mean {IF_AVAILABLE!r}?" if near else "")
    return value


def _region(value: str | None) -> str | None:
    if value is not None and not region_names.has_form(value):
        raise refused("is not a region", region_names.meant(value, regions()))
    return value


class LaunchConfig(StrictModel):
    """What `sky.AWS` was given. See there for the arguments."""

    synonyms: ClassVar[Mapping[str, str]] = {
        "accelerator": "gpu gpus accelerators gpu_type",
        "instance_type": "type machine machine_type instance instances instance_types flavor size",
        "cpus": "cpu vcpu vcpus cores num_cpus",
        "memory_gb": "memory mem ram ram_gb memory_mb",
        "architecture": "arch platform",
        "image": "ami ami_id image_id",
        "user": "username login ssh_user",
        "spot": "preemptible use_spot spot_instances",
        "subnet": "subnets subnet_id vpc vpc_id",
        "security_groups": "security_group security_group_ids sg sgs",
        "allow": "cidr ip allow_ip allowed",
        "key": "ssh_key key_name key_file key_pair keypair private_key identity_file",
        "profile": "aws_profile profile_name credentials",
        "role": "iam_role instance_profile iam_instance_profile",
        "volume_gb": "disk disk_gb disk_size storage volume volume_size",
        "tags": "labels tag",
        "zones": "zone az availability_zone availability_zones",
        "region": "region_name location aws_region",
        "max_lifetime": "ttl lifetime",
        "it is an argument of Compute: sky.Compute(nodes=...)": "nodes n count n_nodes num_nodes",
        "it is an argument of Options: sky.Options(budget=...)": "budget max_price price",
    }

    region: Annotated[str | None, AfterValidator(_region)] = Field(
        default=None, description="give a region", examples=["'eu-central-1'"]
    )
    cpus: int | None = Field(default=None, ge=1, description="give a number of processors", examples=["4"])
    memory_gb: float | None = Field(default=None, gt=0, description="give GB of memory", examples=["16.0"])
    architecture: Literal["arm64", "x86_64"] | None = Field(
        default=None, description="give the architecture", examples=["'arm64'"]
    )
    accelerator: Text | None = Field(default=None, description="name an accelerator", examples=["'T4'"])
    instance_type: Annotated[str | None, matching(r"[a-z0-9-]+\.[a-z0-9-]+", "is not an instance type")] = Field(
        default=None, description="give an instance type", examples=["'t4g.micro'"]
    )
    image: Annotated[str | None, matching(r"ami-\w+|/.+", "is not an image")] = Field(
        default=None, description="give an image, or the name of a public parameter", examples=["'ami-...'"]
    )
    user: Text = Field(default="ubuntu", description="give the name of a user", examples=["'ubuntu'"])
    spot: Annotated[bool | Literal["if-available"], BeforeValidator(_spare)] = Field(
        default=False, description="choose whether to use spot machines", examples=["'if-available'"]
    )
    subnet: Annotated[tuple[Text, ...], BeforeValidator(as_tuple)] = Field(
        default=(), description="give a subnet, or a list of them", examples=["'subnet-...'"]
    )
    security_groups: Annotated[tuple[Text, ...], BeforeValidator(as_tuple)] = Field(
        default=(), description="give a list of security groups", examples=["['sg-...']"]
    )
    allow: Text = Field(
        default=CHECKIP, description="give the address from which machines are reached", examples=["'203.0.113.7'"]
    )
    key: Annotated[Path | None, BeforeValidator(existing_file)] = Field(
        default=None, description="give the file of a private key", examples=["'~/.ssh/id_ed25519'"]
    )
    profile: Text | None = Field(default=None, description="give a profile of ~/.aws/config", examples=["'work'"])
    role: Text | None = Field(default=None, description="give the name of an instance profile", examples=["'reader'"])
    volume_gb: int | None = Field(default=None, ge=1, description="give the size of the disk in GB", examples=["30"])
    tags: Mapping[str, str] = Field(default={}, description="give names and strings", examples=["{'team': 'vision'}"])
    zones: Annotated[tuple[Text, ...], BeforeValidator(as_tuple)] = Field(
        default=(), description="give a list of zones", examples=["['eu-central-1a']"]
    )
    first_contact: float = Field(
        default=600.0,
        gt=0,
        description="give the seconds that a new machine waits for the first contact",
        examples=["600.0"],
    )
    max_lifetime: float = Field(
        default=43200.0, gt=0, description="give the seconds that a machine may live", examples=["43200.0"]
    )
    journal: Annotated[Path | None, BeforeValidator(any_path)] = Field(
        default=None, description="give a file", examples=["'/var/lib/skyward/aws.jsonl'"]
    )

    @field_validator("instance_type")
    @classmethod
    def _either(cls, value: str | None, info: ValidationInfo) -> str | None:
        given = [name for name in _NEEDS if info.data.get(name) is not None]
        if value is not None and given:
            raise refused(f"cannot be combined with {given[0]}=", "give one of the two")
        return value

    @field_validator("zones")
    @classmethod
    def _there(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        region = info.data.get("region")
        if region is not None and (elsewhere := [zone for zone in value if not zone.startswith(region)]):
            raise refused(f"{elsewhere[0]!r} is not in {region}", f"give zones of it, for example {region + 'a'!r}")
        return value

    @field_validator("tags")
    @classmethod
    def _free(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        if taken := [name for name in value if name.startswith(("skyward:", "aws:")) or name == "Name"]:
            raise refused(f"{taken[0]!r} is reserved", "give other names")
        return value

    @property
    def has_needs(self) -> bool:
        """Whether the type is to be chosen."""
        needed = any(getattr(self, name) is not None for name in _NEEDS)
        return needed or (self.instance_type is None and self.architecture == "x86_64")

    @property
    def summary(self) -> str:
        """The requested machine, in a few words."""
        names = ("instance_type", *_NEEDS, "architecture", "zones", "subnet")
        given = [f"{name}={getattr(self, name)!r}" for name in names if getattr(self, name)]
        return ", ".join(given) or "a t4g.micro"

    @property
    def journal_path(self) -> Path:
        """Where the journal is."""
        return self.journal or journal.usual().path
