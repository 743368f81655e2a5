"""What is read of `ssh -G`, and of simple configuration files, which say what `ssh` itself says of them."""

import shutil
import subprocess
from pathlib import Path

import pytest

from skyward.providers.ssh import ssh_config
from skyward.providers.ssh.ssh_config import changed, expand, parse, paths, read


def test_what_ssh_prints_is_taken_by_keyword() -> None:
    printed = "user alice\nidentityfile ~/my key\nidentityfile /b\nHostName 10.0.0.5\nproxycommand nc -x %h %p\nbare\n"

    assert parse(printed) == {
        "user": ["alice"],
        "identityfile": ["~/my key", "/b"],
        "hostname": ["10.0.0.5"],
        "proxycommand": ["nc -x %h %p"],
        "bare": [""],
    }


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("~/.ssh/known_hosts ~/.ssh/known_hosts2", ["~/.ssh/known_hosts", "~/.ssh/known_hosts2"]),
        ("/a/my hosts %d/x ${D}/y", ["/a/my hosts", "%d/x", "${D}/y"]),
        ("relative other", ["relative", "other"]),
        ("none", []),
    ],
)
def test_a_list_of_paths_is_taken_apart(value: str, found: list[str]) -> None:
    assert paths(value) == found


def test_tokens_and_variables_are_replaced() -> None:
    assert expand("%d/${KIND}/%h-100%%", {"d": "/home/a", "h": "box", "%": "%"}, {"KIND": "k"}) == "/home/a/k/box-100%"


@pytest.mark.parametrize(
    ("text", "named"), [("%z", "'%z'"), ("100%", "'%' in '100%'"), ("${SKYWARD_NONE}", "SKYWARD_NONE")]
)
def test_what_cannot_be_replaced_is_named(text: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        expand(text, {"h": "box"}, {})


def test_algorithms_count_when_they_are_not_the_usual_ones() -> None:
    usual = {"ciphers": ["a,b"]}

    assert changed({"ciphers": ["a,b"]}, usual, "ciphers") is None
    assert changed({}, usual, "ciphers") is None
    assert changed({"ciphers": ["b"]}, usual, "ciphers") == ["b"]
    assert changed({"macs": ["c,d"]}, usual, "macs") == ["c", "d"]


SIMPLE = {
    "a block of an alias": "Host box\n  HostName 10.0.0.5\n  Port 2200\n  User bob\nHost *\n  Port 23\n",
    "the first line wins": "Port 2200\nHost box\n  Port 2201\n",
    "patterns": "Host b?x other\n  Port 2200\nHost b*y\n  User bob\n",
    "a negation": "Host * !box\n  Port 2200\nHost *\n  Port 2201\n",
    "only a negation": "Host !other\n  Port 2200\n",
    "equals signs, tabs and capitals": "HOST = box\n\tPORT=2200\n\tUser =\tbob\n",
    "quotes": 'Host "box"\n  User "bob"\n  IdentityFile "/a b/key"\n',
    "comments of their own line": "# a\nHost box\n  # b\n  Port 2200\n",
    "keys add up": "IdentityFile /a\nHost *\n  IdentityFile /b\n  CertificateFile /c\n",
    "a jump goes before a later command": "Host box\n  ProxyJump one,two\nHost *\n  ProxyCommand nc %h %p\n",
    "a command goes before a later jump": "Host box\n  ProxyCommand nc %h %p\nHost *\n  ProxyJump one\n",
    "files of host keys": "UserKnownHostsFile /a /b\nGlobalKnownHostsFile /c\n",
    "the name in the address": "Host *\n  HostName %h.example.org\n",
    "what changes no way": "Host *\n  Compression yes\n  ServerAliveInterval 1m\n  ForwardAgent yes\n",
    "others": "Host *\n  HostKeyAlias pool\n  ConnectTimeout 7\n  AddressFamily inet\n  IdentitiesOnly yes\n",
}


@pytest.mark.parametrize("text", SIMPLE.values(), ids=SIMPLE)
def test_a_simple_file_says_what_ssh_says_of_it(text: str, tmp_path: Path) -> None:
    ours = read({"config": text}, "box")
    if shutil.which("ssh") is None:
        pytest.skip("there is no ssh to compare with")
    (tmp_path / "config").write_text(text)
    asked = subprocess.run(
        ["ssh", "-G", "-T", "-F", tmp_path / "config", "box"], capture_output=True, text=True, timeout=150, check=True
    )
    theirs = parse(asked.stdout)

    assert {keyword: theirs[keyword] for keyword in ours} == ours
    assert ours.get("port", ["22"]) == theirs["port"]
    assert ours.get("hostname", ["box"]) == theirs["hostname"]
    assert ("proxycommand" in ours, "proxyjump" in ours) == ("proxycommand" in theirs, "proxyjump" in theirs)


@pytest.mark.parametrize(
    ("line", "keyword"),
    [
        ("Match final", "match"),
        ("Include other", "include"),
        ("Port 2200 # the usual one", "port"),
        ("Port ssh", "port"),
        ("ConnectTimeout 1m", "connecttimeout"),
        ("HostName one two", "hostname"),
        ("User 'bob'", "user"),
        ("CanonicalizeHostname yes", "canonicalizehostname"),
        ("RevokedHostKeys /keys", "revokedhostkeys"),
        ("Port", "Port"),
        ("Host box # mine", "host"),
    ],
)
def test_what_is_not_simple_is_named_with_file_and_line(line: str, keyword: str) -> None:
    text = f"Host box\n\n  {line}\n"
    with pytest.raises(
        ValueError, match=rf"^/etc/c, line 3: '{keyword}' as it is written there needs the program `ssh`"
    ):
        read({"/etc/a": "Port 7\n", "/etc/c": text}, "box")


def test_what_is_said_of_other_hosts_is_not_looked_at() -> None:
    assert read({"c": "Host other\n  Port ssh\n  Unknown yes\n"}, "box") == {}
    with pytest.raises(ValueError, match="line 2: 'match'"):
        read({"c": "Host other\n  Match all\n"}, "box")


def test_the_keywords_that_are_read_are_not_among_those_that_are_not_used() -> None:
    assert not ssh_config.READ & ssh_config.UNUSED
