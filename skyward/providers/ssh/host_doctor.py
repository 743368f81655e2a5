"""Check machines reached by SSH, step by step from the name to the login."""

import asyncio
import importlib.metadata
import os
import socket
import time

from skyward.errors import Unreachable
from skyward.providers import health_checks
from skyward.providers.health_checks import Finding, HostRequirements
from skyward.providers.ssh import login_keys
from skyward.providers.ssh.resolve import ResolvedTarget
from skyward.providers.ssh.target import Distrusted, NotAllowed, Target
from skyward.providers.ssh.tunnel import Tunnel

CHECK_TIMEOUT_S = 60.0
"""Seconds that all checks of a machine may take."""

ROUND_TRIP_PROBES = 3
"""Round trips that are measured; the shortest counts."""


async def examine(to: Target, needs: HostRequirements) -> list[Finding]:
    """Return the findings about a machine. Checks that depend on one that failed are left out."""
    found: list[Finding] = []
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await _examine(to, needs, found)
    except TimeoutError:
        fix = "check whether it hangs or is overloaded"
        found.append(Finding("answers", "FAIL", f"it did not answer everything within {CHECK_TIMEOUT_S:g} s", fix))
    except Unreachable as error:
        text, _ = health_checks.advised(str(error), str(to))
        found.append(Finding("answers", "FAIL", text, "check whether it is being restarted, and try again"))
    return found


def extra() -> Finding:
    """Return a finding with the version of asyncssh, without which this module cannot be imported."""
    return Finding("extra", "ok", f"asyncssh {importlib.metadata.version('asyncssh')}")


async def _examine(to: Target, needs: HostRequirements, found: list[Finding]) -> None:
    try:
        plan = await asyncio.to_thread(ResolvedTarget.of, to)
    except ValueError as error:
        fix = "fix the configuration of ssh, or pass another: --config"
        found.append(Finding("config", "FAIL", str(error), fix))
        return
    found.append(keys := await _credentials(plan, to))
    if keys.verdict != "FAIL":
        found += await _network(plan)
    if found[-1].verdict == "FAIL":
        return
    tunnel = Tunnel(to)
    try:
        try:
            await tunnel.open()
        except Unreachable as error:
            found += _refusal(to, plan, error, keys)
            return
        found += [Finding("host key", "ok", "known"), Finding("login", "ok", f"as {plan.user}")]
        await _look(tunnel, needs, found)
    finally:
        await asyncio.shield(tunnel.close())


async def _credentials(plan: ResolvedTarget, to: Target) -> Finding:
    known = await login_keys.keys(plan)
    there, wrong = [each.name for each in known if not each.problem], [each for each in known if each.problem]
    problems, fixes = "; ".join(f"{each.name} {each.problem}" for each in wrong), "; ".join(each.fix for each in wrong)
    if to.keys and wrong:
        return Finding("key", "FAIL", problems, fixes)
    if not there and wrong:
        return Finding("key", "warn", f"no key can be used: {problems}", fixes)
    if not there:
        text = "there is no key to log in with, in no file and no agent"
        return Finding("key", "warn", text, "give one: --key, or make one: ssh-keygen -t ed25519")
    if exposed := login_keys.exposed(plan.keys):
        files = ", ".join(exposed)
        return Finding("key", "warn", f"others can read {files}, which ssh refuses", f"chmod 600 {' '.join(exposed)}")
    return Finding("key", "ok", ", ".join(there))


async def _network(plan: ResolvedTarget) -> list[Finding]:
    """Check the machine's name and port. Behind a jump host, only the login can show whether they are right."""
    if not plan.direct:
        return [Finding("way", "ok", f"through {plan.jump or 'the ProxyCommand'}")]
    host, port = plan.host, plan.port
    loop = asyncio.get_running_loop()
    try:
        addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=plan.family)
    except OSError as error:
        fix = "check its spelling, or set its HostName in ~/.ssh/config"
        return [Finding("name", "FAIL", f"{host}: {_reason(error)}", fix)]
    address = str(addresses[0][4][0])
    name = Finding("name", "ok", address if host == address else f"{host} is {address}")
    try:
        async with asyncio.timeout(plan.connect_timeout):
            _, writer = await asyncio.open_connection(host, port)
        writer.close()
    except ConnectionRefusedError as error:
        fix = "check whether sshd runs there, and on which port"
        return [name, Finding("port", "FAIL", f"port {port}: {_reason(error)}", fix)]
    except OSError as error:
        text = f"no answer within {plan.connect_timeout:g} s" if isinstance(error, TimeoutError) else _reason(error)
        fix = "check whether it is on, and what a firewall lets through"
        return [name, Finding("port", "FAIL", f"port {port}: {text}", fix)]
    return [name, Finding("port", "ok", f"{port} answers")]


def _reason(error: OSError) -> str:
    """The system's text for an error; those of name resolution have numbers of their own."""
    if error.errno and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    return str(error.strerror or error)


def _refusal(to: Target, plan: ResolvedTarget, error: Unreachable, keys: Finding) -> list[Finding]:
    text, command = health_checks.advised(str(error), str(to))
    match error:
        case Distrusted():
            return [Finding("host key", "FAIL", text, command)]
        case NotAllowed():
            user, host = plan.user, plan.host
            fix = f"put your public key there: ssh-copy-id {user}@{host}, or give another --user or --key"
            if "ssh-copy-id" not in text:  # there was no usable key
                fix = keys.fix or fix
            return [Finding("host key", "ok", "known"), Finding("login", "FAIL", text.partition(". ")[0], fix)]
        case _:
            return [Finding("login", "FAIL", text, f"check what `ssh -v {to.host}` prints")]


async def _look(tunnel: Tunnel, needs: HostRequirements, found: list[Finding]) -> None:
    try:
        found.append(health_checks.round_trip(min([await tunnel.probe() for _ in range(ROUND_TRIP_PROBES)])))
        found.append(Finding("forwarding", "ok", "sshd lets connections through"))
    except PermissionError:
        fix = "allow it for this user in sshd_config: AllowTcpForwarding local"
        found.append(Finding("forwarding", "FAIL", "sshd does not forward connections to a node", fix))
    ran = await tunnel.run(health_checks.PROBE)
    found.append(health_checks.shell(ran.code, ran.stdout or ran.stderr))
    if found[-1].verdict == "FAIL":
        return
    if await tunnel.has_sftp():
        found.append(Finding("files", "ok", "by SFTP"))
    else:
        fix = "enable it in sshd_config: Subsystem sftp internal-sftp"
        found.append(
            Finding("files", "warn", "sshd offers no SFTP: files are written with shell commands, which is slower", fix)
        )
    began = time.time()
    seconds = (await tunnel.run("date +%s")).stdout.strip()
    took = time.time() - began
    if seconds.isdecimal():  # whole seconds, read at some moment of the round trip
        found.append(health_checks.clock(int(seconds) + 0.5 - (began + took / 2), 0.5 + took / 2))
    found += health_checks.judged((await tunnel.run(["sh", "-c", health_checks.script(needs)])).stdout, needs)
