"""Zip files whose bytes depend on nothing but what is in them."""

import zipfile
from collections.abc import Iterable
from typing import IO

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of every file in them, the first that a zip file can have."""


def write_zip(file: IO[bytes], members: Iterable[tuple[str, bytes]]) -> None:
    """Write files, given by name and content in this order, as a zip file."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name, EPOCH), data, zipfile.ZIP_DEFLATED, 1)
