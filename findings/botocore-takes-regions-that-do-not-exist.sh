#!/usr/bin/env bash
# botocore 1.40.61: a region that does not exist has a partition and an endpoint, if its name has the usual form.
#
# Guess: `get_partition_for_region` raises `UnknownRegionError` for a region that is in none of its lists, such as the
# misspelled us-esat-1, and no client is made for it.
# Seen: it answers `aws` for every name that begins like a region (us-, eu-, ...) and ends in a number, and the client
# gets an endpoint whose host name nobody has. The error comes only when that name is looked up.
# Environment: Linux, Python 3.12 or newer; no account, nothing is sent. Exits with 1 if this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install -q botocore==1.40.61

seen=$("$folder/env/bin/python" - <<'PYTHON'
import botocore.exceptions, botocore.session

session = botocore.session.get_session()
session.set_credentials("none", "none")
for region in ("us-esat-1", "eu-north-9", "moon-west-1"):
    try:
        print(region, region in session.get_available_regions("ec2"), session.get_partition_for_region(region))
    except botocore.exceptions.UnknownRegionError as error:
        print(region, type(error).__name__)
print(session.create_client("ec2", "us-esat-1").meta.endpoint_url)
PYTHON
)
echo "$seen"
expected='us-esat-1 False aws
eu-north-9 False aws
moon-west-1 UnknownRegionError
https://ec2.us-esat-1.amazonaws.com'
[[ $seen == "$expected" ]] || { echo "changed; expected: $expected" >&2; exit 1; }
