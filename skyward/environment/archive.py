"""Reproducible zip files: equal content gives equal bytes."""

import zipfile
from collections.abc import Iterable
from typing import IO

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The modification time of all files: the earliest that the format allows."""


def write_zip(file: IO[bytes], members: Iterable[tuple[str, bytes]]) -> None:
    """Write a zip file with these names and contents, in this order."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name, EPOCH), data, zipfile.ZIP_DEFLATED, 1)
