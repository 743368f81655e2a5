#!/usr/bin/env bash
# asyncssh 2.24.1: `run(check=True)` returns normally when the connection is lost.
#
# Guess: a command whose connection is lost raises `ConnectionLost`, or with `check=True` at least `ProcessError`.
# Seen: it returns a result whose `returncode` is None. None is the sign of the loss.
# Environment: Linux, OpenSSH 9.2 (openssh-server), Python 3.12 or newer. Exits with 1 if this changes.
set -euo pipefail
sshd=$(command -v sshd || echo /usr/sbin/sshd)
folder=$(mktemp -d)
trap 'kill "$server" 2>/dev/null || true; rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install -q asyncssh==2.24.1
[[ $(id -u) != 0 ]] || mkdir -p /run/sshd
for key in host user; do ssh-keygen -q -t ed25519 -N '' -f "$folder/$key"; done
port=$("$folder/env/bin/python" -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])')
"$sshd" -D -e -f /dev/null -p "$port" -h "$folder/host" -o ListenAddress=127.0.0.1 -o PidFile=none -o UsePAM=no \
    -o StrictModes=no -o PermitRootLogin=yes -o "AuthorizedKeysFile=$folder/user.pub" 2>"$folder/log" &
server=$!
until grep -q listening "$folder/log"; do kill -0 "$server"; done

seen=$("$folder/env/bin/python" - "$folder" "$port" <<'PYTHON'
import asyncio, sys
import asyncssh

async def main(folder, port):
    known = asyncssh.import_known_hosts(f"* {open(f'{folder}/host.pub').read()}")
    async with asyncssh.connect("127.0.0.1", int(port), known_hosts=known, client_keys=[f"{folder}/user"], config=None) as connection:
        # the command ends its own connection: the parent of its shell is the sshd of this session
        result = await connection.run("kill -KILL $PPID; exec sleep 1", check=True)
    print(f"returncode={result.returncode} exit_status={result.exit_status}")

asyncio.run(main(*sys.argv[1:]))
PYTHON
)
echo "$seen"
expected='returncode=None exit_status=None'
[[ $seen == "$expected" ]] || { echo "changed; expected: $expected" >&2; exit 1; }
