"""`python -m skyward.remote.node FOLDER`: one node; see `parent_process`."""

import gc
import sys
from pathlib import Path

gc.disable()  # looking for garbage would take a tenth of the time of these imports; see `zygote` and `actor_process`

from skyward.remote import failure_line  # noqa: E402
from skyward.remote.node.parent_process import main  # noqa: E402

if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except (OSError, ValueError) as error:
        failure_line.report_exception("the node cannot start", error, final=True)
        sys.exit(failure_line.SAID)
