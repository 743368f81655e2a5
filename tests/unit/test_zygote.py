"""What the zygote does with templates. How workers are forked, and what they inherit, is in `tests/pool`."""

import os
import socket
import subprocess
import sys
from typing import Any, cast

from skyward.remote.node.fork_template import PID, Template
from skyward.remote.node.zygote import _Zygote
from tests.kit import SOON

OLD = """
import os, socket, subprocess, sys
link = socket.socket(fileno=int(sys.argv[1]))
forked = subprocess.Popen(["cat"])
link.send(forked.pid.to_bytes(4, sys.byteorder))
os._exit(len(link.recv(1)))
"""
"""A template whose child is still its own, as that of a real one is until the process in between has ended."""


def test_a_template_that_another_one_replaces_ends_by_itself_and_not_with_what_it_has_forked() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    new, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-c", OLD, str(theirs.fileno())]
    old = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert old.stdin is not None
    assert old.stdout is not None
    with theirs, other, old.stdin, old.stdout:
        zygote = _Zygote(ours, cast(Any, None), ())
        zygote.template = Template(ours, old.pid)
        (forked,) = PID.unpack(ours.recv(PID.size))
        theirs.close()
        zygote.use_template(Template(new, forked))
        assert old.wait(SOON) == 0
        os.write(old.stdin.fileno(), b"alive\n")
        assert old.stdout.readline() == b"alive\n"
        zygote.use_template(None)
        assert old.stdout.read() == b""
