#!/usr/bin/env bash
# Slurm 22.05.8: a job whose working folder does not exist on the node runs all the same, in /tmp.
#
# Guess: the job fails with a reason, as one does whose output file cannot be made.
# Seen: it runs in /tmp, ends as COMPLETED, and what `scontrol` tells of its folder is the one that does not exist. The
# only trace is a line in its own output. A missing folder of the output file, in contrast, is JobLaunchFailure.
# Environment: Linux, root, Debian 12's Slurm (slurmctld, slurmd, slurm-client, munge). Exits with 1 if this changes.
set -euo pipefail
source "$(dirname "$0")/slurm.inc"

told() { scontrol show job "$1" | grep -oE "\b(JobState|Reason|WorkDir)=[^ ]*" | sed "s#$folder#FOLDER#" | tr '\n' ' '; }
seen=$(
    missing=$(sbatch --parsable --wait --chdir="$folder/none" --output="$folder/out" --wrap pwd)
    told "$missing"
    echo "ran in $(tail -1 "$folder/out")"
    refused=$(sbatch --parsable --wait --chdir=/ --output="$folder/none/out" --wrap pwd) || true
    told "$refused"
    echo
)
echo "$seen"
expected='JobState=COMPLETED Reason=None WorkDir=FOLDER/none ran in /tmp
JobState=FAILED Reason=JobLaunchFailure WorkDir=/ '
[[ $seen == "$expected" ]] || { echo "changed; expected: $expected" >&2; exit 1; }
