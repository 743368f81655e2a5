"""A slot without a pool, for tests of what travels: it runs packed calls one after the other, as a worker does."""

import sys
import textwrap
import types
from typing import Any

import pytest

from skyward.remote.serialization import call_codec, loader
from skyward.remote.serialization.packer import Packed


class Slot:
    """Runs packed calls one after the other, as a worker does; one that is not `alone` has others beside it."""

    def __init__(self, *, alone: bool = True) -> None:
        self.functions, self.alone = loader.Functions(), alone

    def run(self, packed: Packed) -> Any:
        self.functions.raw.update(packed.functions)
        blobs = {blob.name: blob.ref for blob in packed.blobs}
        beside = call_codec.CallContext(
            self.functions, blobs, packed.buffers, tuple(packed.functions), owns_main=self.alone
        )
        value, error = call_codec.open_outcome(*call_codec.execute(packed.payload, beside))
        if error is not None:
            raise error
        return value


def run_as_main(monkeypatch: pytest.MonkeyPatch, text: str) -> Any:
    """Make this process run a script that consists of a text, and return its module."""
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    exec(textwrap.dedent(text), main.__dict__)
    return main
