#!/usr/bin/env bash
# cloud-init 22.4.2: a script in the user data that follows a blank line is taken for a script, and cannot run.
#
# Guess: what may stand before the first line's mark is the same for both kinds: a `#cloud-config` after a blank line or
# an indent (as a multi-line string of a program has them) works, so a `#!` does too, or is not taken for a script.
# Seen: both are recognized. The configuration is applied; the script is written with the blank line still before `#!`,
# and the kernel refuses it (Exec format error), which is told in the machine's log only. CRLF line ends, in contrast,
# are mended.
# Environment: Debian 12 (apt-get download), its Python 3.11 with venv. Exits with 1 if this changes.
set -euo pipefail
version=22.4.2-1+deb12u4
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get -qq download -o APT::Sandbox::User=root "cloud-init=$version" || { echo "this needs Debian 12's archive" >&2; exit 2; }
dpkg -x cloud-init_*.deb .
/usr/bin/python3 -m venv env
env/bin/pip install -q requests==2.32.3 PyYAML==6.0.2 configobj==5.0.9 Jinja2==3.1.4 oauthlib==3.2.2 \
    jsonschema==4.23.0 jsonpatch==1.33

seen=$(PYTHONPATH=usr/lib/python3/dist-packages env/bin/python - "$folder" <<'PYTHON' 2>/dev/null
import logging, os, sys

logging.disable()
from cloudinit import handlers, helpers, subp, user_data, util
from cloudinit.handlers.cloud_config import CloudConfigPartHandler
from cloudinit.handlers.shell_script import ShellScriptPartHandler

SCRIPT = "#!/bin/sh\ntouch {}\n"
for name, raw in {
    "script": SCRIPT,
    "script after a blank line": "\n" + SCRIPT,
    "script with CRLF": SCRIPT.replace("\n", "\r\n"),
    "configuration after a blank line": "\n#cloud-config\nhostname: named\n",
}.items():
    root = os.path.join(sys.argv[1], name.replace(" ", "-"))
    paths = helpers.Paths({"cloud_dir": root, "run_dir": root})
    os.makedirs(f"{root}/instance/scripts")
    mark = f"{root}/ran"
    (part,) = user_data.UserDataProcessor(paths).process(raw.format(mark).encode()).get_payload()
    kind, text = part.get_content_type(), util.fully_decoded_payload(part)
    if kind == "text/x-shellscript":
        handler = ShellScriptPartHandler(paths)
        handler.handle_part(None, kind, "part", text, None)
        try:
            subp.runparts(handler.script_dir)
        except RuntimeError:
            pass
        result = "ran" if os.path.exists(mark) else "did not run"
    else:
        handler = CloudConfigPartHandler(paths)
        handler.cloud_fn = f"{root}/config"
        for when, given in ((handlers.CONTENT_START, None), (kind, text), (handlers.CONTENT_END, None)):
            handler.handle_part(None, when, "part", given, None, {})
        result = util.load_yaml(util.load_file(handler.cloud_fn))
    print(f"{name}: {kind}, {result}")
PYTHON
)
echo "$seen"
expected="script: text/x-shellscript, ran
script after a blank line: text/x-shellscript, did not run
script with CRLF: text/x-shellscript, ran
configuration after a blank line: text/cloud-config, {'hostname': 'named'}"
[[ $seen == "$expected" ]] || { echo "changed; expected: $expected" >&2; exit 1; }
