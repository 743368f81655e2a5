#!/usr/bin/env bash
# Slurm 22.05.8: a TERM for srun is a KILL for its task.
#
# Guess: srun forwards TERM and HUP to its task, as it does other signals, so that the task can clean up within KillWait.
# Seen: on TERM or HUP srun has the step killed at once: the task's handler never runs, and srun returns 137. USR1 is
# forwarded. `scancel --signal=TERM` of the step does reach the handler.
# Environment: Linux, root, Debian 12's Slurm (slurmctld, slurmd, slurm-client, munge). Exits with 1 if this changes.
set -euo pipefail
source "$(dirname "$0")/slurm.inc"
cat >"$folder/task.py" <<'PYTHON'
import signal, sys

def leave(number, _):
    print("heard", signal.Signals(number).name, flush=True)
    sys.exit(7)

for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, leave)
print("up", flush=True)
while True:
    signal.pause()
PYTHON

seen=$(for way in TERM HUP USR1 scancel; do
    srun python3 "$folder/task.py" >"$folder/out" 2>/dev/null &
    until grep -q up "$folder/out"; do sleep 0.1; done
    if [[ $way == scancel ]]; then
        scancel --signal=TERM "$(squeue -h -s -o %i | grep -v extern | head -1)"
    else
        kill "-$way" $!
    fi
    wait $! && code=0 || code=$?
    echo "$way: $(tail -1 "$folder/out"), exit $code"
    until [[ -z $(squeue -h) ]]; do sleep 0.2; done
done)
echo "$seen"
expected='TERM: up, exit 137
HUP: up, exit 137
USR1: heard SIGUSR1, exit 7
scancel: heard SIGTERM, exit 7'
[[ $seen == "$expected" ]] || { echo "changed; expected: $expected" >&2; exit 1; }
