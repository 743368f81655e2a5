"""Files to a machine over SFTP: each appears whole or not at all, and is this user's alone."""

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import cast

import asyncssh
from asyncssh.constants import OPEN_REQUEST_SESSION_FAILED

from skyward.providers.batching import side_by_side
from skyward.providers.provider import Content

FILES = 16
"""Files under way at once in a transfer."""


class NoSFTP(Exception):
    """The machine has no SFTP, or none that can do what is needed."""


async def begin(connection: asyncssh.SSHClientConnection) -> asyncssh.SFTPClient:
    """Open a session of SFTP.

    Raises
    ------
    NoSFTP
        There is none, though the connection is well.
    """
    try:
        return await connection.start_sftp_client()
    except asyncssh.ChannelOpenError as error:
        if error.code != OPEN_REQUEST_SESSION_FAILED or connection.is_closed():  # else all sessions are taken
            raise
        raise NoSFTP("sshd has no such subsystem") from error
    except asyncssh.SFTPError as error:  # the subsystem has a name, and its program is not there
        if connection.is_closed():
            raise
        raise NoSFTP(str(error)) from error


async def put(sftp: asyncssh.SFTPClient, folder: str, files: Mapping[str, Content]) -> None:
    """Write files into a folder; see `Tunnel.put`.

    Raises
    ------
    NoSFTP
        It cannot rename as OpenSSH can, or say what a folder is.
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
    """Make a folder that is this user's alone, or see that it is."""
    try:
        await sftp.mkdir(folder, asyncssh.SFTPAttrs(permissions=0o700))
    except asyncssh.SFTPFailure:  # it is there
        found, home = await sftp.lstat(folder), await sftp.stat(".")
        alone = found.uid == home.uid and not (found.permissions or 0) & 0o077
        if found.type != asyncssh.FILEXFER_TYPE_DIRECTORY or not alone:
            raise PermissionError(f"{folder} is there, and is not a folder of this user alone") from None


async def _write(sftp: asyncssh.SFTPClient, folder: str, files: Mapping[str, Content]) -> None:
    at_once = asyncio.Semaphore(FILES)

    async def write(path: str, data: Content) -> None:
        async with at_once:
            async with sftp.open(f"{path}.part", "wb", asyncssh.SFTPAttrs(permissions=0o600)) as file:
                await file.write(cast(bytes, data))  # of which it takes slices
            await sftp.posix_rename(f"{path}.part", path)

    paths = {str(PurePosixPath(folder, name)): data for name, data in files.items()}
    try:
        await side_by_side(*(write(path, data) for path, data in paths.items()))
    except asyncssh.SFTPFailure:  # all that OpenSSH says of a full disk
        full = not (await sftp.statvfs(folder)).bavail
        for path in paths:
            with contextlib.suppress(asyncssh.SFTPError):
                await sftp.remove(f"{path}.part")
        if full:
            raise OSError(f"{folder}: no space left") from None
        raise
