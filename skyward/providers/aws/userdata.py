"""The user data of a cloud machine, which starts its lease script first. Pure: no I/O, no clock, no luck.

The user data is a `#cloud-config` of three parts, in the order in which cloud-init processes them.

1. `bootcmd` starts the lease script, before network, login and anything else of Skyward. It is a shell script that
   needs `/proc/uptime`, `sleep` and `shutdown`. It shuts the machine down when it was never contacted, when its lease
   expired, and when it reached its maximum lifetime, whatever else runs or fails. It reads the uptime, so that setting
   the clock does not matter.
2. `ssh_keys` is the host key for the first contact, made by the driver: no key is trusted on first use.
3. `ssh_authorized_keys` is the driver's key. EC2 needs no key pair for that.

User data can be read by every process on the machine, and by everyone in the account who may describe the instance. So
each launch has a host key of its own for the first contact only: over the connection that this key has authenticated,
the driver gives the machine another one (`rekey`), and trusts nothing else from then on. The remaining exposure is the
time until the last machine of a launch was contacted: someone who reads the key before that, and can intercept the
connection to that machine, could impersonate it.
"""

import json
import math
import shlex
from dataclasses import dataclass

STATE_FOLDER = "/run/skyward"
HELD_FILE = f"{STATE_FOLDER}/held"
"""The file whose content the driver changes to renew the lease."""


@dataclass(frozen=True, slots=True)
class ShutdownTimeouts:
    """Seconds after which a machine shuts itself down: without a first contact, without a renewal, in any case."""

    first_contact: float
    lease: float
    lifetime: float

    @property
    def pause(self) -> float:
        """Seconds between two checks."""
        return min(5.0, self.first_contact / 4, self.lease / 4)


_LEASE_SCRIPT = r"""#!/bin/sh
# Shuts this machine down when its lease expires.
uptime() { read -r up rest </proc/uptime; up=${up%%.*}; }
end() {
    echo "skyward: this machine shuts itself down: $1" | tee /dev/console 2>/dev/null
    while :; do
        shutdown -h now || poweroff || systemctl poweroff --force
        sleep 5
        poweroff -f
        echo o >/proc/sysrq-trigger
        sleep 5
    done
}
uptime
began=$up
heard=
last=
paid=
while :; do
    uptime
    said=
    left=
    [ ! -r %(held)s ] || read -r said left <%(held)s
    if [ -n "$said" ] && [ "$said" != "$last" ]; then
        last=$said
        heard=$up
        case $left in
            '' | *[!0-9]*) paid= ;;
            *) paid=$((up + left)) ;;
        esac
    fi
    [ -z "$paid" ] || [ "$up" -lt "$paid" ] || end "the budget of its pool is used up"
    if [ -z "$heard" ]; then
        [ $((up - began)) -lt %(first_contact)d ] || end "it was never contacted"
    else
        [ $((up - heard)) -lt %(lease)d ] || end "its driver was not heard from any more"
    fi
    [ $((up - began)) -lt %(lifetime)d ] || end "it reached its maximum lifetime"
    sleep %(pause).2f
done
"""

_START = r"""umask 022
mkdir -p %(folder)s
cat >%(folder)s/lease <<'END-OF-SCRIPT'
%(script)sEND-OF-SCRIPT
: >%(held)s
chmod 666 %(held)s
systemd-run --no-block --unit=skyward-lease -p DefaultDependencies=no -p Restart=always -p OOMScoreAdjust=-1000 \
    /bin/sh %(folder)s/lease >/dev/null 2>&1 ||
    setsid sh %(folder)s/lease >/dev/null 2>&1 </dev/null &
"""

_REKEY = r"""set -e
umask 077
cd /etc/ssh
cat >ssh_host_ed25519_key.new
ssh-keygen -y -P '' -f ssh_host_ed25519_key.new >/dev/null # half a key is what a connection that is lost gives
cp ssh_host_ed25519_key.new ssh_host_ed25519_key
rm ssh_host_ed25519_key.new
printf '%%s\n' %(public)s >ssh_host_ed25519_key.pub
chmod 644 ssh_host_ed25519_key.pub
systemctl reload ssh >/dev/null 2>&1 || systemctl reload sshd >/dev/null 2>&1 || pkill -HUP -o -x sshd
"""


def starting(limits: ShutdownTimeouts) -> str:
    """Return the command that starts the lease script and leaves it running."""
    values = {"folder": STATE_FOLDER, "held": HELD_FILE, "pause": limits.pause}
    seconds = {name: max(1, round(getattr(limits, name))) for name in ("first_contact", "lease", "lifetime")}
    return _START % {**values, "script": _LEASE_SCRIPT % (values | seconds)}


def cloud_config(limits: ShutdownTimeouts, host_key: tuple[str, str], authorized: str) -> str:
    """Return the user data, with the private and public half of the host key, and the key that may log in."""
    private, public = host_key
    told = {
        "bootcmd": [["sh", "-c", starting(limits)]],
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": private, "ed25519_public": public},
        "ssh_authorized_keys": [authorized],
        "ssh_pwauth": False,
        "disable_root": True,
    }
    return f"#cloud-config\n{json.dumps(told)}\n"


def rekey(public: str) -> str:
    """Return the command that replaces a machine's host key; the private half comes on standard input."""
    return f"sudo -n sh -c {shlex.quote(_REKEY % {'public': shlex.quote(public)})}"


def renewal(word: str, left: float | None = None) -> str:
    """Return the command that renews the lease; the word is another one each time.

    With `left`, the machine shuts itself down after this many seconds, unless it gets another message.
    """
    return f"echo {shlex.quote(word)}{'' if left is None else f' {math.ceil(left)}'} >{HELD_FILE}"
