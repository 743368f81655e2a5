"""What the tests with real nodes share."""

from collections.abc import Iterator

import pytest

from skyward.actors.blob_transfer import BlobTransfer
from skyward.remote.blobs import Blob
from tests.kit import Bell


@pytest.fixture
def bell() -> Iterator[Bell]:
    with Bell() as rung:
        yield rung


@pytest.fixture
def puts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The names and sizes of the blobs that are brought to nodes."""
    found: list[tuple[str, int]] = []
    put = BlobTransfer.put

    async def noted(bulk: BlobTransfer, blob: Blob) -> None:
        found.append((blob.name, blob.size))
        await put(bulk, blob)

    monkeypatch.setattr(BlobTransfer, "put", noted)
    return found
