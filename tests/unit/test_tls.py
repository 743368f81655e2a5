import os
import pickle
import ssl
import stat
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from skyward.actors.tls import Authority, Identity


@cache
def ours() -> Authority:
    return Authority.create("pool-1")


@cache
def node() -> Identity:
    return ours().issue("node-1", server=True)


@cache
def driver() -> Identity:
    return ours().issue("driver", server=False)


@cache
def other() -> Authority:
    return Authority.create("pool-1")


def context(identity: Identity, folder: Path, *, server: bool) -> ssl.SSLContext:
    files = identity.write(folder)
    purpose = ssl.Purpose.CLIENT_AUTH if server else ssl.Purpose.SERVER_AUTH
    made = ssl.create_default_context(purpose, cafile=str(files.ca))
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    made.load_cert_chain(files.cert, files.key)
    return made


def shake(server: Identity, client: Identity, folder: Path, hostname: str = "127.0.0.1") -> bytes:
    """Both ends of one TLS connection in memory; what the client said, as the server heard it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = context(server, folder / "server", server=True).wrap_bio(to_server, to_client, server_side=True)
    there = context(client, folder / "client", server=False).wrap_bio(to_client, to_server, server_hostname=hostname)
    for _ in range(4):
        for end in (there, here):
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    there.write(b"hello")
    return here.read()


def certificate(identity: Identity) -> x509.Certificate:
    return x509.load_pem_x509_certificate(identity.cert)


@pytest.mark.parametrize("hostname", ["127.0.0.1", "localhost"])
def test_both_ends_of_one_pool_accept_each_other(tmp_path: Path, hostname: str) -> None:
    assert shake(node(), driver(), tmp_path, hostname) == b"hello"


def test_a_node_refuses_a_driver_of_another_pool_of_the_same_name(tmp_path: Path) -> None:
    stranger = other().issue("driver", server=False)
    impostor = Identity(stranger.cert, stranger.key, ours().certificate)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(node(), impostor, tmp_path)


def test_a_driver_refuses_a_node_of_another_pool_of_the_same_name(tmp_path: Path) -> None:
    stranger = other().issue("node-1", server=True)
    impostor = Identity(stranger.cert, stranger.key, ours().certificate)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(impostor, driver(), tmp_path)


def test_the_certificate_of_a_node_does_not_call_another_node(tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose"):
        shake(node(), ours().issue("node-2", server=True), tmp_path)


def test_the_certificate_of_the_driver_does_not_pass_for_a_node(tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose"):
        shake(ours().issue("driver-2", server=False), driver(), tmp_path)


def test_a_node_cannot_sign_for_others() -> None:
    constraints = certificate(node()).extensions.get_extension_for_class(x509.BasicConstraints)
    usage = certificate(node()).extensions.get_extension_for_class(x509.KeyUsage)
    assert (constraints.critical, constraints.value.ca) == (True, False)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.digital_signature) == (True, False, True)


def test_the_authority_signs_leaves_only() -> None:
    extensions = x509.load_pem_x509_certificate(ours().certificate).extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.digital_signature) == (True, True, False)


def test_a_certificate_is_for_loopback() -> None:
    names = certificate(node()).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.IPAddress) == [IPv4Address("127.0.0.1")]
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]


@pytest.mark.parametrize(
    ("server", "purpose"), [(True, ExtendedKeyUsageOID.SERVER_AUTH), (False, ExtendedKeyUsageOID.CLIENT_AUTH)]
)
def test_a_certificate_has_one_purpose(server: bool, purpose: x509.ObjectIdentifier) -> None:
    usage = certificate(node() if server else driver()).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [purpose]


def test_a_clock_that_is_hours_behind_or_a_year_ahead_still_accepts() -> None:
    now = datetime.now(UTC)
    for one in (certificate(node()), x509.load_pem_x509_certificate(ours().certificate)):
        assert one.not_valid_before_utc < now - timedelta(hours=23)
        assert one.not_valid_after_utc > now + timedelta(days=366)


@pytest.mark.parametrize(("name", "kept"), [("n" * 200, "n" * 64), ("", "skyward"), ("nœud-1", "nœud-1")])
def test_any_name_gives_a_certificate(name: str, kept: str) -> None:
    subject = certificate(ours().issue(name, server=True)).subject
    assert [attribute.value for attribute in subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == [kept]


def test_two_identities_share_no_key_and_no_number() -> None:
    assert node().key != driver().key
    assert certificate(node()).serial_number != certificate(driver()).serial_number


def test_files_are_for_this_user_only_whatever_the_umask(tmp_path: Path) -> None:
    for umask in (0o000, 0o777):
        before = os.umask(umask)
        try:
            files = node().write(tmp_path / f"umask-{umask}")
        finally:
            os.umask(before)
        assert stat.S_IMODE(files.key.parent.stat().st_mode) == 0o700
        assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600] * 3


def test_an_open_folder_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    node().write(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_files_hold_the_identity_and_nothing_else_is_written(tmp_path: Path) -> None:
    files = node().write(tmp_path)
    assert [path.read_bytes() for path in files] == [node().cert, node().key, ours().certificate]
    assert sorted(tmp_path.iterdir()) == sorted(files)


def test_writing_again_replaces_a_link_and_not_what_it_points_to(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "trust"
    folder.mkdir()
    (folder / "key.pem").symlink_to(victim)
    assert node().write(folder).key.read_bytes() == node().key
    assert victim.read_text() == "precious"


def test_the_authority_does_not_travel() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(ours())


def test_no_key_shows_in_a_repr() -> None:
    assert "PRIVATE" not in repr(node()) + repr(ours())
    assert "_key" not in repr(ours())


def test_importing_the_module_does_not_load_cryptography() -> None:
    program = "import sys, skyward.actors.tls; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
