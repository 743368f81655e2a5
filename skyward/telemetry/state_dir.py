"""The folder that holds this user's Skyward state from one run to the next."""

from pathlib import Path

import platformdirs

from skyward.errors import InvalidArgument


def state_dir(purpose: str) -> Path:
    """Return `$XDG_STATE_HOME/skyward`, or the platform's default: `~/.local/state/skyward` on Linux.

    Parameters
    ----------
    purpose
        What is kept there, for the error message.

    Raises
    ------
    InvalidArgument
        This user has no home folder, as in a container that runs under a number without a name.
    """
    try:
        return platformdirs.user_state_path("skyward")
    except RuntimeError as error:
        text = f"there is no home folder for {purpose}: set HOME or XDG_STATE_HOME to a folder of your own"
        raise InvalidArgument(text) from error
