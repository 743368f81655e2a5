"""The command `skyward`: exit code 0 when all is well, 1 when it is not, 2 when it was asked wrongly.

A script that it runs has its own; after Ctrl-C it is 130.
"""

import io
import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from skyward import extras
from skyward.errors import InvalidArgument, MissingExtra, SkywardError
from skyward.view.escape import escape

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it."""

HINT = "; see `skyward {} --help`"


def main(words: Sequence[str] | None = None) -> None:
    """Run what the command line asks for, and end the process."""
    words = list(sys.argv[1:] if words is None else words)
    if words == ["--version"]:
        from importlib.metadata import version

        print(version("skyward"))
        return
    try:
        _run(words)
    except KeyboardInterrupt:
        if words[:1] == ["run"]:
            sys.exit(INTERRUPTED)
        _let_go()
        if words[:1] == ["down"]:
            print("skyward: interrupted; `skyward ls` lists what is left", file=sys.stderr, flush=True)
        os._exit(INTERRUPTED)  # else Python would wait for threads of the SDK, which nobody can interrupt


def _run(words: list[str]) -> NoReturn:
    try:
        import cyclopts  # not above: without its extra the command says how to get it
    except ModuleNotFoundError as missing:
        if missing.name != "cyclopts":
            raise
        _refuse(extras.missing("cyclopts", "cli"))
    from skyward.cli.cloud import down, ls
    from skyward.cli.doctor import doctor
    from skyward.cli.run import run
    from skyward.cli.runs import logs, report, runs
    from skyward.cli.settings import split

    if words[:1] == ["run"]:
        words = ["run", *split(words[1:])]
    else:
        for library in ("aiobotocore", "botocore"):  # what they warn of is said in an error's own words
            logging.getLogger(library).setLevel(logging.ERROR)
        if isinstance(sys.stdout, io.TextIOWrapper):  # what is printed need not be text that the terminal knows
            sys.stdout.reconfigure(errors="backslashreplace")
    app = cyclopts.App(
        name="skyward",
        help="Run your functions on machines that are launched and shut down for you.",
        help_format="plaintext",  # a parser of Markdown would take as long to load as all the rest
        default_parameter=cyclopts.Parameter(show_default=False),
        suppress_keyboard_interrupt=False,
    )
    for command in (run, runs, logs, report, ls, down, doctor):
        app.command(command)
    try:
        code = app(words, exit_on_error=False, print_error=False, result_action="return_value")
        if words[:1] != ["run"]:
            print(end="", flush=True)
    except cyclopts.UnusedCliTokensError as error:
        _refuse(f"{words[0]} takes no argument {(error.unused_tokens or [''])[0]!r}{HINT.format(words[0])}")
    except cyclopts.MissingArgumentError as error:
        _refuse(f"{str(error).removesuffix('.')}{HINT.format(words[0])}")
    except (cyclopts.CycloptsError, InvalidArgument, MissingExtra) as error:
        _refuse(error)
    except SkywardError as error:
        _refuse(error, 1)
    except OSError as error:
        _let_go()
        if isinstance(error, BrokenPipeError):  # `| head`: nobody reads on
            sys.exit(1)
        where = "" if error.filename is None else f"{error.filename}: "
        _refuse(f"{where}{error.strerror or str(error) or type(error).__name__}", 1)
    sys.exit(code)


def _let_go() -> None:
    """Print what waits to be printed; if it cannot be, have Python not try it again when it ends."""
    try:
        print(end="", flush=True)
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _refuse(error: Exception | str, code: int = 2) -> NoReturn:
    print(escape(f"skyward: {error}"), file=sys.stderr)
    sys.exit(code)
