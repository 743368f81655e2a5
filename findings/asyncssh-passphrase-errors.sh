#!/usr/bin/env bash
# asyncssh 2.24.1: which error says that a private key needs another passphrase depends on the key's format.
#
# Guess: `KeyEncryptionError`, whenever a passphrase is missing or wrong; `KeyImportError` for what is no key.
# Seen: a missing passphrase is always a `KeyImportError`. A wrong one is a `KeyEncryptionError` for OpenSSH's own format
# only; for PKCS#1 and PKCS#8 it is a `KeyImportError` as well. Only the text tells a locked key from rubbish.
# Environment: Linux, ssh-keygen of OpenSSH 9.2, openssl 3, Python 3.12 or newer. Exits with 1 if this changes.
set -euo pipefail
command -v ssh-keygen openssl >/dev/null || exit 2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install -q asyncssh==2.24.1 bcrypt==5.0.0
ssh-keygen -q -t ed25519 -N 'right words' -f "$folder/openssh"
ssh-keygen -q -t rsa -m PEM -N 'right words' -f "$folder/pkcs1"
openssl genpkey -algorithm ed25519 -aes256 -pass 'pass:right words' -out "$folder/pkcs8"

seen=$("$folder/env/bin/python" - "$folder" <<'PYTHON'
import sys
import asyncssh

for name in ("openssh", "pkcs1", "pkcs8"):
    asyncssh.read_private_key(f"{sys.argv[1]}/{name}", "right words")
    for passphrase in (None, "other words"):
        try:
            asyncssh.read_private_key(f"{sys.argv[1]}/{name}", passphrase)
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
            print(name, "missing" if passphrase is None else "wrong", type(error).__name__)
PYTHON
)
echo "$seen"
expected='openssh missing KeyImportError
openssh wrong KeyEncryptionError
pkcs1 missing KeyImportError
pkcs1 wrong KeyImportError
pkcs8 missing KeyImportError
pkcs8 wrong KeyImportError'
[[ $seen == "$expected" ]] || { echo "changed; expected: $expected" >&2; exit 1; }
