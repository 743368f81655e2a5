"""What cloud-init makes of user data, as far as the lab goes: scripts and keys that are in place before sshd starts.

Of a `#cloud-config`: `bootcmd`, which runs before everything else and is waited for, `ssh_keys`, `ssh_authorized_keys`,
`write_files` and `runcmd`; and a script.
"""

import base64
import shlex
from collections.abc import Iterable
from typing import Any

import yaml

NAMES = {"private": "", "public": ".pub", "certificate": "-cert.pub"}


def text(value: object) -> str:
    """User data as it was given."""
    return base64.b64decode(str(value)).decode() if value else ""


def seed(userdata: str, account: str, keys: Iterable[str]) -> dict[str, bytes]:
    """The files by which a host's first boot does what the user data says; `keys` may log in besides."""
    allowed = list(keys)
    seeded: dict[str, bytes] = {}
    if userdata.startswith("#!"):
        seeded["userdata"] = userdata.encode()
    elif userdata.startswith("#cloud-config"):
        config: dict[str, Any] = yaml.safe_load(userdata) or {}
        allowed += config.get("ssh_authorized_keys", [])
        for kind, value in config.get("ssh_keys", {}).items():  # ed25519_private, ed25519_public, ...
            algorithm, _, half = kind.partition("_")
            seeded[f"ssh_host_{algorithm}_key{NAMES[half]}"] = f"{value.strip()}\n".encode()
        lines = [_written(each) for each in config.get("write_files", [])]
        seeded["bootcmd"] = _script(config.get("bootcmd", []))
        seeded["userdata"] = _script([*lines, *config.get("runcmd", [])])
    seeded[f"accounts/{account}"] = "".join(f"{key.strip()}\n" for key in allowed).encode()
    return seeded


def _script(commands: list[Any]) -> bytes:
    lines = [each if isinstance(each, str) else shlex.join(map(str, each)) for each in commands]
    return "\n".join([*lines, ""]).encode() if lines else b""


def _written(file: dict[str, str]) -> str:
    path, content = shlex.quote(file["path"]), shlex.quote(file.get("content", ""))
    mode = file.get("permissions", "0644")
    return f'mkdir -p "$(dirname {path})" && printf %s {content} >{path} && chmod {mode} {path}'
