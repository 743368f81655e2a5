"""The messages that a node prints."""

import shlex
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyward.remote.node_messages import (
    MARKER,
    SHELL,
    BootStep,
    EnvironmentMismatch,
    FileRequested,
    MachineFact,
    NodeEnding,
    NodeFailed,
    NodeMessage,
    NodeStarted,
    OutputFrame,
    StepFailed,
    WaitingForFiles,
    decode,
    encode,
)

MESSAGES: list[NodeMessage] = [
    BootStep("packages from an index"),
    StepFailed("python", 'there is no "python"'),
    FileRequested("a-1.whl"),
    WaitingForFiles(),
    EnvironmentMismatch([["casty", "0.30", "0.1", "fix"]]),
    NodeStarted(4711, 2, 1 << 30, ["/data"]),
    NodeFailed("two\nlines", final=True),
    NodeEnding("told to end"),
    OutputFrame(-1, 1, True, "größer\n"),
    MachineFact("memory", "4096"),
]


def line(message: NodeMessage) -> str:
    return encode(message).decode().removesuffix("\n")


@pytest.mark.parametrize("message", MESSAGES, ids=repr)
def test_a_message_is_one_line_that_is_decoded_to_it(message: NodeMessage) -> None:
    assert "\n" not in line(message)
    assert decode(line(message)) == ("", message)


def test_a_message_may_follow_a_line_that_somebody_did_not_end() -> None:
    assert decode(f"half a line{line(NodeEnding('x'))}") == ("half a line", NodeEnding("x"))


def test_of_a_message_that_was_cut_off_the_rest_is_text() -> None:
    cut = line(BootStep("python"))[:-4]
    assert decode(cut) == (cut, None)
    assert decode(cut + line(NodeEnding("x"))) == (cut, NodeEnding("x"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "skyward ends",
        f"{MARKER}and more",
        f"{MARKER}[1]",
        f"{MARKER}1",
        f"{MARKER}{{}}",
        f'{MARKER}{{"type": "Unknown"}}',
        f'{MARKER}{{"type": ["BootStep"]}}',
        f'{MARKER}{{"type": "BootStep"}}',
        f'{MARKER}{{"type": "BootStep", "step": "a", "other": 1}}',
    ],
)
def test_what_is_no_message_is_text(text: str) -> None:
    assert decode(text) == (text, None)


@given(st.sampled_from(MESSAGES), st.integers(0, 300))
def test_a_task_that_prints_a_message_sends_none(message: NodeMessage, slot: int) -> None:
    printed = OutputFrame(slot, 0, False, encode(message).decode())
    assert decode(line(printed)) == ("", printed)


@pytest.mark.parametrize("shell", ["sh", "dash", "bash", "busybox"])
@pytest.mark.parametrize(
    "text",
    ["", "a b", r'"\"', r"C:\new\table", 'say "it\'s" \\', "100 % %s ${HOME} $(id) `id` *", "größer ✓", '"', "\\"],
)
def test_a_shell_prints_the_same(shell: str, text: str) -> None:
    assert say(shell, "StepFailed", "step", text, "reason", f"x{text}y") == ("", StepFailed(text, f"x{text}y"))


@pytest.mark.parametrize("shell", ["sh", "dash", "bash", "busybox"])
def test_a_shell_prints_a_message_in_one_line_whatever_it_holds(shell: str) -> None:
    assert say(shell, "BootStep", "step", "one\ntwo\tthree\x1b\x1e") == ("", BootStep("one two three  "))
    assert say(shell, "WaitingForFiles") == ("", WaitingForFiles())


def say(shell: str, *words: str) -> tuple[str, NodeMessage | None]:
    """What is decoded of what `say` prints."""
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    command = [shell, "sh"] if shell == "busybox" else [shell]
    script = f"set -u\n{SHELL}\nsay {shlex.join(words)}"
    ran = subprocess.run([*command, "-c", script], capture_output=True, timeout=150, check=True)
    printed = ran.stdout.decode()
    assert printed.endswith("\n")
    assert not ran.stderr
    return decode(printed.removesuffix("\n"))
