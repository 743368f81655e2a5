"""`python -m skyward.remote.node FOLDER`: one node; see `parent_process`."""

import sys
from pathlib import Path

from skyward.remote import failure_line
from skyward.remote.node.parent_process import main

if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except (OSError, ValueError) as error:
        failure_line.report_exception("the node cannot start", error, final=True)
        sys.exit(failure_line.SAID)
