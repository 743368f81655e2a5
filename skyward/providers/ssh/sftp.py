"""Write files to a machine over SFTP, atomically and readable only by this user."""

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import cast

import asyncssh
from asyncssh.constants import OPEN_REQUEST_SESSION_FAILED

from skyward.providers.batching import side_by_side
from skyward.providers.provider import Content

MAX_OPEN_FILES = 16
"""Files that are written at the same time."""


class NoSFTP(Exception):
    """The machine has no SFTP, or its SFTP server lacks a needed operation."""


async def begin(connection: asyncssh.SSHClientConnection) -> asyncssh.SFTPClient:
    """Open an SFTP session.

    Raises
    ------
    NoSFTP
        sshd offers no SFTP.
    """
    try:
        return await connection.start_sftp_client()
    except asyncssh.ChannelOpenError as error:
        if error.code != OPEN_REQUEST_SESSION_FAILED or connection.is_closed():  # else too many sessions
            raise
        raise NoSFTP("sshd has no such subsystem") from error
    except asyncssh.SFTPError as error:  # the subsystem is configured, but its program is missing
        if connection.is_closed():
            raise
        raise NoSFTP(str(error)) from error


async def put(sftp: asyncssh.SFTPClient, folder: str, files: Mapping[str, Content]) -> None:
    """Write files into a folder; see `Tunnel.put`.

    Raises
    ------
    NoSFTP
        The server has no `posix-rename` or cannot describe a folder.
    """
    try:
        await sftp.makedirs(str(PurePosixPath(folder).parent), exist_ok=True)
        for each in folders(folder, files):
            await _make(sftp, each)
        await _write(sftp, folder, files)
    except asyncssh.SFTPOpUnsupported as error:
        raise NoSFTP(str(error)) from error


def folders(folder: str, files: Mapping[str, Content]) -> list[str]:
    """Return the folders that the files need, outer ones first."""
    top = PurePosixPath(folder)
    inner = {each for name in files for each in PurePosixPath(name).parents}
    return sorted({str(top / each) for each in inner} | {str(top)})


async def _make(sftp: asyncssh.SFTPClient, folder: str) -> None:
    """Create a folder that only this user can access, or check that an existing one is like that."""
    try:
        await sftp.mkdir(folder, asyncssh.SFTPAttrs(permissions=0o700))
    except asyncssh.SFTPFailure:  # it exists
        found, home = await sftp.lstat(folder), await sftp.stat(".")
        alone = found.uid == home.uid and not (found.permissions or 0) & 0o077
        if found.type != asyncssh.FILEXFER_TYPE_DIRECTORY or not alone:
            raise PermissionError(f"{folder} exists and is not a folder of this user alone") from None


async def _write(sftp: asyncssh.SFTPClient, folder: str, files: Mapping[str, Content]) -> None:
    at_once = asyncio.Semaphore(MAX_OPEN_FILES)

    async def write(path: str, data: Content) -> None:
        async with at_once:
            async with sftp.open(f"{path}.part", "wb", asyncssh.SFTPAttrs(permissions=0o600)) as file:
                await file.write(cast(bytes, data))  # asyncssh only takes slices of it
            await sftp.posix_rename(f"{path}.part", path)

    paths = {str(PurePosixPath(folder, name)): data for name, data in files.items()}
    try:
        await side_by_side(*(write(path, data) for path, data in paths.items()))
    except asyncssh.SFTPFailure:  # OpenSSH reports a full disk like this, without a reason
        full = not (await sftp.statvfs(folder)).bavail
        for path in paths:
            with contextlib.suppress(asyncssh.SFTPError):
                await sftp.remove(f"{path}.part")
        if full:
            raise OSError(f"{folder}: no space left") from None
        raise
