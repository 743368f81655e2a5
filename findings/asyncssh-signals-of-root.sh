#!/usr/bin/env bash
# asyncssh 2.24.1 with OpenSSH 9.2: a command of root is not ended by `terminate`, `kill`, `close` or a timeout.
#
# Guess: `process.terminate()` and `run(timeout=)` end the command, as they do for other users, and free its session.
# Seen: sshd ignores the signals of a session of root without an answer, so the calls return and the command goes on. A
# command keeps its session until it ends: after ten timeouts the next `run` on the connection is refused.
# Environment: Linux, root, OpenSSH 9.2 (openssh-server), Python 3.12 or newer. Exits with 1 if this changes.
set -euo pipefail
[[ $(id -u) == 0 ]] || { echo "this needs root, who is the one concerned" >&2; exit 2; }
sshd=$(command -v sshd || echo /usr/sbin/sshd)
folder=$(mktemp -d)
trap 'kill "$server" 2>/dev/null || true; rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install -q asyncssh==2.24.1
mkdir -p /run/sshd
for key in host user; do ssh-keygen -q -t ed25519 -N '' -f "$folder/$key"; done
port=$("$folder/env/bin/python" -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])')
"$sshd" -D -e -f /dev/null -p "$port" -h "$folder/host" -o ListenAddress=127.0.0.1 -o PidFile=none -o UsePAM=no \
    -o StrictModes=no -o PermitRootLogin=yes -o "AuthorizedKeysFile=$folder/user.pub" 2>"$folder/log" &
server=$!
until grep -q listening "$folder/log"; do kill -0 "$server"; done

seen=$("$folder/env/bin/python" - "$folder" "$port" <<'PYTHON'
import asyncio, os, signal, sys
import asyncssh

async def main(folder, port):
    known = asyncssh.import_known_hosts(f"* {open(f'{folder}/host.pub').read()}")
    how = {"known_hosts": known, "client_keys": [f"{folder}/user"], "config": None, "username": "root"}
    pids = []
    async with asyncssh.connect("127.0.0.1", int(port), **how) as connection:
        process = await connection.create_process("echo $$; exec sleep 60")
        pids.append(int(await process.stdout.readline()))
        process.terminate()
        process.kill()
        process.close()
        await connection.run("true")
        print("after terminate, kill and close it", "runs" if os.path.exists(f"/proc/{pids[0]}") else "has ended")
        for count in range(1, 12):
            try:
                await connection.run(f"echo $$ >>{folder}/pids; exec sleep 60", timeout=1.0)
            except asyncssh.TimeoutError:
                pass
            except asyncssh.ChannelOpenError as error:
                print(f"run {count + 1} is refused: {error.reason}")
                break
    for pid in [*pids, *map(int, open(f"{folder}/pids").read().split())]:
        os.kill(pid, signal.SIGKILL)

asyncio.run(main(*sys.argv[1:]))
PYTHON
)
echo "$seen"
expected='after terminate, kill and close it runs
run 11 is refused: open failed'
[[ $seen == "$expected" ]] || { echo "changed; expected: $expected" >&2; exit 1; }
