"""The command `skyward`: exit code 0 when all is well, 1 when it is not, 2 when it was asked wrongly."""

import sys
from collections.abc import Sequence

from skyward.errors import InvalidArgument, MissingExtra


def main(words: Sequence[str] | None = None) -> None:
    """Run what the command line asks for, and end the process."""
    try:
        import cyclopts  # not above: without its extra the command says how to get it
    except ModuleNotFoundError as missing:
        if missing.name != "cyclopts":
            raise
        _refuse(MissingExtra.of("cyclopts", "cli"))
    from skyward.cli.doctor import doctor

    app = cyclopts.App(name="skyward", help="Machines for your functions: provisioned, used and ended for you.")
    app.command(doctor)
    try:
        code = app(words, exit_on_error=False, print_error=False, result_action="return_value")
    except (cyclopts.CycloptsError, InvalidArgument) as error:
        _refuse(error)
    sys.exit(code)


def _refuse(error: Exception) -> None:
    print(f"skyward: {error}", file=sys.stderr)
    sys.exit(2)
