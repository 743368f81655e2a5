#!/usr/bin/env bash
# asyncssh 2.24.1 against OpenSSH 9.2: the same configuration file leads through another proxy, or to another host's block.
#
# Guess: as its settings are OpenSSH's, asyncssh resolves a host as `ssh -G` does, or raises ConfigParseError.
# Seen: it raises nothing in all three cases.
#   - `ProxyCommand none` for a host and `ProxyJump` for all: ssh connects directly, asyncssh by the jump host;
#   - of `ProxyCommand` and `ProxyJump` ssh takes the one that comes first, asyncssh always the jump host;
#   - `Host b,a`: for ssh one pattern that no host matches, for asyncssh two.
# Environment: Linux, OpenSSH 9.2's client, Python 3.12 or newer. Exits with 1 if this changes.
set -euo pipefail
command -v ssh >/dev/null || { echo "this needs OpenSSH's client" >&2; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install -q asyncssh==2.24.1

seen=$("$folder/env/bin/python" - "$folder/config" <<'PYTHON'
import pathlib, subprocess, sys
import asyncssh

file = pathlib.Path(sys.argv[1])
for text in (
    "Host a\n ProxyCommand none\nHost *\n ProxyJump jump\n",
    "Host a\n ProxyCommand nc %h %p\nHost *\n ProxyJump jump\n",
    "Host b,a\n Port 2201\n",
):
    file.write_text(text)
    told = subprocess.run(["ssh", "-F", file, "-G", "a"], capture_output=True, text=True, check=True).stdout
    theirs = dict(line.partition(" ")[::2] for line in told.splitlines())
    ours = asyncssh.SSHClientConnectionOptions(host="a", config=[file], known_hosts=None, client_keys=None)
    print("ssh:", theirs.get("proxyjump"), theirs.get("proxycommand"), theirs["port"], end="; ")
    print("asyncssh:", ours.tunnel, ours.port)
PYTHON
)
echo "$seen"
expected='ssh: None None 22; asyncssh: jump 22
ssh: None nc %h %p 22; asyncssh: jump 22
ssh: None None 22; asyncssh: None 2201'
[[ $seen == "$expected" ]] || { echo "changed; expected: $expected" >&2; exit 1; }
