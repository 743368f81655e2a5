"""What the user writes for machines of EC2, and what is wrong with it. What becomes of it is proved in `tests/lab`."""

import asyncio
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

import skyward as sky
from skyward.errors import InvalidArgument
from skyward.providers.aws import resources
from skyward.providers.aws.api import Api, Refusal, Unanswered
from skyward.providers.aws.pool import _chunks
from skyward.providers.aws.security_group import allowed_network
from skyward.providers.ssh.key_pair import KeyPair


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"region": "europe"}, "region='europe': is not a region; give a region, for example region='eu-central-1'"),
        (
            {"region": "us-esat-1"},
            "region='us-esat-1': is not a region; did you mean 'us-east-1' or 'us-west-1'?",
        ),
        ({"region": "eu-central-1a"}, "region='eu-central-1a': is not a region; did you mean 'eu-central-1' or 'me-ce"),
        (
            {"region": "eu-west-1", "zones": ["eu-west-1a", "us-east-1a"]},
            "zones=['eu-west-1a', 'us-east-1a']: 'us-east-1a' is not in eu-west-1; give zones of it, for example 'eu-w",
        ),
        ({"instance_type": "huge"}, "instance_type='huge': is not an instance type"),
        ({"instance_type": "t4g.micro", "cpus": 4}, "instance_type='t4g.micro': cannot be combined with cpus="),
        ({"cpus": 0}, "cpus=0: must be at least 1"),
        ({"image": "ubuntu"}, "image='ubuntu': is not an image"),
        ({"spot": "maybe"}, "spot='maybe': must be True, False or 'if-available'; choose whether to use spot machines"),
        ({"spot": "if_available"}, "spot='if_available': must be True, False or 'if-available'; did you mean 'if-av"),
        ({"zones": 3}, "zones=3: must be a list; give a list of zones"),
        ({"zones": [3]}, "zones=[3]: 3 must be a string; give a list of zones"),
        ({"tags": {"team": 3}}, "tags={'team': 3}: 3 must be a string; give names and strings"),
        ({"user": " "}, "user=' ': is empty; give the name of a user"),
        ({"key": "/no/such/key"}, "key='/no/such/key': there is no such file; give the file of a private key"),
        ({"gpu": "T4"}, "AWS has no argument 'gpu'; did you mean 'accelerator'?"),
        ({"type": "t4g.micro"}, "AWS has no argument 'type'; did you mean 'instance_type'?"),
        ({"nodes": 3}, "AWS has no argument 'nodes'; it is an argument of Compute: sky.Compute(nodes=...)"),
        ({"architecture": "arm"}, "architecture='arm': must be 'arm64' or 'x86_64'"),
        ({"tags": {"skyward:pool": "x"}}, "'skyward:pool' is reserved; give other names"),
        ({"volume_gb": 0}, "volume_gb=0: must be at least 1"),
        ({"max_lifetime": 0.0}, "max_lifetime=0.0: must be more than 0"),
        ({"regoin": "eu-central-1"}, "AWS has no argument 'regoin'; did you mean 'region'?"),
    ],
)
def test_what_cannot_be_meant_is_said_in_one_line(given: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        sky.AWS(**given)

    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("region", ["eu-central-1", "us-gov-west-1", "eusc-de-east-1", "eu-south-9"])
def test_a_region_may_be_newer_than_what_the_sdk_knows(region: str) -> None:
    assert sky.AWS(region=region, zones=[f"{region}a", f"{region}-ham-1a"]).region == region


def test_a_misspelt_region_of_the_environment_is_refused_before_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-esat-1")
    with pytest.raises(InvalidArgument, match="region='us-esat-1': is not a region; did you mean 'us-east-1'"):
        asyncio.run(Api(None, None).region())
    monkeypatch.setenv("AWS_DEFAULT_REGION", "frankfurt")
    with pytest.raises(InvalidArgument, match="region='frankfurt': is not a region; give one, for example"):
        asyncio.run(Api(None, None).region())


@pytest.mark.parametrize(
    ("region", "end"),
    [
        ("eu-central-1", '"http://127.0.0.1:1/"'),
        (
            "eu-central-9",
            ". The region 'eu-central-9' is not one that botocore knows: did you mean 'eu-central-2' or 'eu-c",
        ),
        ("nz-north-1", ". The region 'nz-north-1' is not one that botocore knows"),
    ],
)
def test_a_region_that_does_not_answer_and_is_not_known_is_doubted(
    region: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("ENDPOINT_URL", "http://127.0.0.1:1"), ("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "x")):
        monkeypatch.setenv(f"AWS_{name}", value)

    async def ask(service: str, action: str) -> None:
        async with Api(region, None, 0.001).open() as api:
            await api.call(service, action)

    with pytest.raises(Unanswered) as raised:
        asyncio.run(ask("ec2", "describe_subnets"))
    assert end in str(raised.value)
    assert ("botocore" in str(raised.value)) == (region != "eu-central-1")
    with pytest.raises(Unanswered, match=r'"http://127.0.0.1:1/"$'):  # its region is another one, which is known
        asyncio.run(ask("pricing", "describe_services"))


@pytest.mark.parametrize(
    ("region", "answered", "timeout"),
    [
        ("eu-central-1", set(), 60.0),
        ("eu-central-9", set(), 2.0),
        ("eu-central-9", {"sts"}, 2.0),
        ("eu-central-9", {"ec2"}, 60.0),
    ],
)
def test_a_region_that_is_not_known_is_not_asked_for_long_until_it_answers(
    region: str, answered: set[str], timeout: float
) -> None:
    api = Api(region, None)
    api._answered = answered

    assert asyncio.run(api._retry_timeout("ec2", 60.0)) == timeout
    assert asyncio.run(Api(region, None)._retry_timeout("pricing", 60.0)) == 60.0


def test_a_region_that_answers_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Server(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    async def ask(api: Api) -> None:
        async with api.open():
            await api.call("ec2", "describe_subnets", patience=0.001)

    api = Api("eu-central-9", None)
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        for name, value in (("ENDPOINT_URL", url), ("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "x")):
            monkeypatch.setenv(f"AWS_{name}", value)
        with pytest.raises(Refusal):
            asyncio.run(ask(api))
        server.shutdown()

    assert api._answered == {"ec2"}


@pytest.mark.parametrize(
    ("given", "needs"),
    [
        ({}, False),
        ({"instance_type": "c7g.large"}, False),
        ({"architecture": "arm64"}, False),
        ({"architecture": "x86_64"}, True),
        ({"cpus": 2}, True),
        ({"memory_gb": 4}, True),
        ({"accelerator": "T4"}, True),
    ],
)
def test_a_type_is_chosen_where_none_is_named_and_something_is_needed(given: dict[str, Any], needs: bool) -> None:
    assert sky.AWS(**given).has_needs is needs


def test_lists_and_single_names_are_welcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "id").touch()
    provider = sky.AWS(subnet="subnet-1", zones=["eu-central-1a"], security_groups="sg-1", key="~/id")

    assert (provider.subnet, provider.zones, provider.security_groups) == (("subnet-1",), ("eu-central-1a",), ("sg-1",))
    assert provider.key == tmp_path / "id"
    assert "subnet=('subnet-1',)" in provider.summary
    assert sky.AWS().summary == "a t4g.micro"


def exported(form: serialization.PrivateFormat, passphrase: bytes = b"") -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    lock = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, lock)


KEYS = {
    "none": (b"no key", "is not a private key; give the file of a private key, or leave it out: a key is made for"),
    "empty": (b"", "is not a private key; "),
    "public": (KeyPair().public.encode(), "is not a private key; "),
    "locked": (exported(serialization.PrivateFormat.PKCS8, b"x"), "needs a passphrase; give a copy without one (ssh-"),
    "locked as of old": (exported(serialization.PrivateFormat.TraditionalOpenSSL, b"x"), "needs a passphrase; "),
}


@pytest.mark.parametrize("kind", KEYS)
def test_a_key_that_cannot_be_used_is_refused_with_its_name(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, told = KEYS[kind]
    monkeypatch.chdir(tmp_path)
    Path("key").write_bytes(data)
    with pytest.raises(InvalidArgument) as raised:
        sky.AWS(key="key")._pool("pool")
    assert str(raised.value).startswith(f"key='key': {told}")


@pytest.mark.parametrize("form", [serialization.PrivateFormat.OpenSSH, serialization.PrivateFormat.TraditionalOpenSSL])
def test_a_key_may_be_written_as_openssh_or_ec2_write_it(tmp_path: Path, form: serialization.PrivateFormat) -> None:
    (tmp_path / "key.pem").write_bytes(exported(form))
    assert KeyPair.read(tmp_path / "key.pem").public.startswith("ecdsa-sha2-")


def test_a_key_pair_is_read_as_it_is_written() -> None:
    made = KeyPair()
    assert KeyPair(made.private).public == made.public


@pytest.mark.parametrize("library", ["aioboto3", "asyncssh"])
def test_without_the_extra_the_line_that_installs_it_is_given_at_once(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)

    with pytest.raises(sky.MissingExtra, match=rf"{library} is not installed: .* pip install .*\[aws\]"):
        sky.AWS(region="eu-central-1")


@pytest.mark.parametrize(
    ("allow", "network"),
    [("203.0.113.7", "203.0.113.7/32"), ("203.0.113.0/24", "203.0.113.0/24"), ("203.0.113.7/24", "203.0.113.0/24")],
)
def test_an_address_is_a_network_of_one(allow: str, network: str) -> None:
    assert allowed_network(allow) == network


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="allow='here': not an address"):
        allowed_network("here")
    with pytest.raises(sky.ProvisioningError, match=r"allow='http://127.0.0.1:1/': .*give the address"):
        allowed_network("http://127.0.0.1:1/")


def test_nodes_are_cut_into_launches_whose_tag_names_them_all() -> None:
    nodes = [f"pool-{number}-0" for number in range(200)]
    chunks = _chunks("pool", nodes)

    assert [node for chunk in chunks for node in chunk] == nodes
    tags = [" ".join(node.removeprefix("pool-") for node in chunk) for chunk in chunks]
    assert max(map(len, tags)) <= 256
    assert len(chunks) == 5
    assert resources.node_of("pool", tags[1], 0) == chunks[1][0]
    assert resources.node_of("pool", tags[1], 1000) == ""
