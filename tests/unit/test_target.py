import pytest

from skyward.providers.ssh.target import Shown, Target, changed, hops, unknown


@pytest.mark.parametrize(
    ("destination", "text"),
    [
        (Target("gpu-box"), "gpu-box"),
        (Target("gpu-box", user="alice"), "alice@gpu-box"),
        (Target("10.0.0.5", 2222, "alice"), "alice@10.0.0.5:2222"),
        (Target("fe80::1", 2222, "alice"), "alice@[fe80::1]:2222"),
        (Target("fe80::1"), "[fe80::1]"),
    ],
)
def test_a_destination_is_written_as_one_says_it_to_ssh(destination: Target, text: str) -> None:
    assert str(destination) == text


def test_a_destination_does_not_show_its_keys() -> None:
    assert "secret" not in repr(Target("gpu-box", keys=(b"secret",)))


@pytest.mark.parametrize(
    ("jump", "machines"),
    [
        ("bastion", [Target("bastion")]),
        ("alice@bastion:2222", [Target("bastion", 2222, "alice")]),
        ("one, bob@two", [Target("one"), Target("two", user="bob")]),
        ("[fe80::1]:2222", [Target("fe80::1", 2222)]),
        ("[fe80::1]", [Target("fe80::1")]),
        ("fe80::1", [Target("fe80::1")]),
        ("ssh://alice@bastion:22", [Target("bastion", 22, "alice")]),
    ],
)
def test_jump_hosts_are_written_as_proxy_jump_has_them(jump: str, machines: list[Target]) -> None:
    assert hops(jump) == machines


SHOWN = Shown("[10.0.0.5]:2222", "ssh-ed25519", "AAAA", "SHA256:abc")


def test_an_unknown_host_key_is_shown_with_the_line_that_accepts_it() -> None:
    said = unknown(Target("gpu-box"), SHOWN, "/home/alice/.ssh/known_hosts")

    assert said.startswith("gpu-box: its host key is not known")
    assert "SHA256:abc" in said
    assert said.endswith("\n  echo '[10.0.0.5]:2222 ssh-ed25519 AAAA' >> /home/alice/.ssh/known_hosts")


def test_a_changed_host_key_is_shown_with_the_place_of_the_old_one() -> None:
    said = changed(Target("gpu-box"), SHOWN, ["/k (line 3)", "/g (line 1)"], "/k")

    assert "which differs from /k (line 3), /g (line 1)." in said
    assert said.endswith("ssh-keygen -f /k -R '[10.0.0.5]:2222' && echo '[10.0.0.5]:2222 ssh-ed25519 AAAA' >> /k")
