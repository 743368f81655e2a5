"""How a node reports why it failed."""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator
from typing import NoReturn

from skyward.errors import explain
from skyward.remote.node_messages import NodeFailed, encode

MAX_REASON_BYTES = 3000
"""Bytes of a reason that are kept: a pipe takes 4096 in one piece."""

SAID, ZYGOTE_GONE = 70, 71
"""Exit codes of the host: it has said why the node fails; it ends because the zygote is gone."""


def report(reason: str, *, final: bool = False) -> None:
    """Write a `NodeFailed` to standard error. `final` means that another start would fail in the same way."""
    reason = reason.encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="ignore")
    try:
        os.write(2, encode(NodeFailed(reason, final)))  # in one piece: several processes of a node share this pipe
    except OSError:  # nobody reads it
        return


def report_exception(what: str, error: BaseException, *, final: bool = False) -> None:
    """Write the traceback and a `NodeFailed` to standard error; `what` says what could not be done."""
    traceback.print_exception(error, file=sys.stderr)
    sys.stderr.flush()
    report(f"{what}: {explain(error)}", final=final)


def end_node(reason: str, error: BaseException | None = None) -> NoReturn:
    """Report the reason, with the error if there is one, and end this process, and with it the node."""
    if error is None:
        report(reason)
    else:
        report_exception(reason, error)
    os._exit(SAID)


@contextlib.contextmanager
def end_node_on_error(what: str) -> Iterator[None]:
    """End the node if the block raises: what failed halfway has lost track of its state, so the node is replaced."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - it ends the node
        end_node(what, error)
