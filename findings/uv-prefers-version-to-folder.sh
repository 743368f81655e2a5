#!/usr/bin/env bash
# uv 0.13.9 takes the name of an environment's folder for a version of Python when it looks like one.
#
# Guess: after `uv venv v3`, `uv pip install --python v3` installs into the folder v3, as it does for a folder `env`.
# Seen: `v3` means "any Python 3", so packages go to the first interpreter on the search path, without a warning; `v1`
# is refused ("Python <3 is not supported but 1 was requested") although the folder v1 is there. `./v3` names the folder.
# Environment: Python 3.12 or newer, Linux. Exits with 1 if this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/first"
"$folder/first/bin/pip" install -q uv==0.13.9
cd "$folder"
export PATH="$folder/first/bin:$PATH" UV_PYTHON_DOWNLOADS=never
for name in env v1 v3; do uv venv -q --python first/bin/python "$name"; done

seen=$(for name in env v3 ./v3 v1; do
    found=$(uv python find "$name" 2>&1 | head -n 1) || true
    echo "$name: ${found#"$folder"/}"
done)
echo "$seen"
expected='env: env/bin/python
v3: first/bin/python3
./v3: v3/bin/python
v1: error: Invalid version request: Python <3 is not supported but 1 was requested.'
[[ $seen == "$expected" ]] || { echo "changed; expected: $expected" >&2; exit 1; }
