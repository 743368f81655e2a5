"""The options that several commands share."""

from typing import Annotated

from cyclopts import Parameter

type AsJson = Annotated[bool, Parameter(help="Output JSON.", negative="")]
