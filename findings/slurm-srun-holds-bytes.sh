#!/usr/bin/env bash
# Slurm 22.05.8: what a task writes is not passed on by srun before the end of a line.
#
# Guess: srun passes on bytes as they come, as ssh does for a command without a terminal, so a protocol can be spoken
# over its standard input and output.
# Seen: without `--unbuffered` the node keeps what has no newline at its end, up to a kilobyte: a request of a binary
# protocol arrives, and its answer never does. Line by line all looks well. With `--unbuffered` each byte value passes.
# Environment: Linux, root, Debian 12's Slurm (slurmctld, slurmd, slurm-client, munge). Exits with 1 if this changes.
set -euo pipefail
source "$(dirname "$0")/slurm.inc"

seen=$(python3 - <<'PYTHON'
import os, select, subprocess

ECHO = "import os\nwhile data := os.read(0, 65536): os.write(1, data)"
BYTES = bytes(range(256))


def answer(program, request, size):
    """What of an answer of that size has come when nothing more comes for three seconds."""
    program.stdin.write(request)
    program.stdin.flush()
    got = b""
    while len(got) < size and select.select([program.stdout], [], [], 3)[0]:
        got += os.read(program.stdout.fileno(), size)
    return got


for how in ([], ["--unbuffered"]):
    command = ["srun", *how, "python3", "-c", ECHO]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        program.stdin.write(b"is it up?\n")
        program.stdin.flush()
        assert program.stdout.readline() == b"is it up?\n"
        line, rest = answer(program, b"a line\n", 7), answer(program, b"no line", 7)
        program.stdin.write(b"\n")
        program.stdin.flush()
        program.stdout.readline()
        print(*how, line, rest, answer(program, BYTES, 256) == BYTES)
        program.stdin.close()
PYTHON
)
echo "$seen"
expected="b'a line\\n' b'' False
--unbuffered b'a line\\n' b'no line' True"
[[ $seen == "$expected" ]] || { echo "changed; expected: $expected" >&2; exit 1; }
