"""What a user hands over as an array is what a task computes with: type, layout, attributes, and the file behind it."""

import mmap
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skyward.calls.blob_store import BlobStore
from skyward.errors import NotPortable
from skyward.remote import mounts
from skyward.remote.serialization import arrays, call_codec
from skyward.remote.serialization.packer import Packed, Packer

LARGE = 1 << 11
"""Bytes from which on a buffer is large in these tests."""

ROWS = 60


class Tagged(np.ndarray[Any, Any]):
    """An array with an attribute, as NumPy's guide to subclasses has it."""

    def __array_finalize__(self, obj: object) -> None:
        self.tag = getattr(obj, "tag", None)


class Own(Tagged):
    """One that says itself how it is pickled."""

    def __reduce__(self) -> Any:
        reduced: Any = super().__reduce__()
        return *reduced[:2], (*reduced[2], self.tag)

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state[:-1])
        self.tag = state[-1]


def tagged(kind: type[Any] = Tagged) -> Any:
    found = np.arange(ROWS * 20.0).reshape(ROWS, 20).view(kind)
    found.tag = {"unit": "m"}
    return found


def masked(**how: Any) -> Any:
    data = np.arange(ROWS * 20.0).reshape(ROWS, 20)
    return np.ma.array(data, mask=data % 3 == 0, fill_value=-7.0, **how)


def packed(fn: Callable[..., object], *args: object, **how: Any) -> tuple[Packed, BlobStore]:
    blob_store = BlobStore()
    return Packer(put=blob_store.put, threshold=LARGE, reaches=lambda token: True, **how).pack(fn, args, {}), blob_store


def ran(call: Packed) -> Any:
    """Run a packed call as a slot does, and open its outcome as the driver does."""
    blobs = {blob.name: blob.ref for blob in call.blobs}
    value, error = call_codec.open_outcome(
        *call_codec.execute(call.payload, call_codec.beside(call.functions, blobs, call.buffers))
    )
    if error is not None:
        raise error
    return value


def identity(value: Any) -> Any:
    return value


GRID = np.arange(ROWS * 20.0).reshape(ROWS, 20)
CUBE = np.arange(10 * 12 * 14).reshape(10, 12, 14)
TIMES = np.arange(ROWS * 20).astype("M8[ns]").reshape(ROWS, 20)
PAIRS = np.zeros(900, [("when", "M8[s]"), ("x", "f8")])
KINDS: dict[str, Any] = {
    "C": GRID,
    "Fortran": np.asfortranarray(GRID),
    "axes in another order": CUBE.transpose(1, 0, 2),
    "backwards": GRID[::-1],
    "backwards in the last axis": GRID[:, ::-1],
    "with gaps": np.arange(4000.0)[::3],
    "with gaps, Fortran": np.asfortranarray(GRID)[::2, ::2],
    "broadcast": np.broadcast_to(np.arange(20.0), (ROWS, 20)),
    "no axis": np.array(3.5),
    "nothing in it": np.zeros((0, 5)),
    "items of no bytes": np.zeros(5, "V0"),
    "big-endian": GRID.astype(">f8"),
    "times": TIMES,
    "times, Fortran": np.asfortranarray(TIMES),
    "times backwards with gaps": TIMES[::-2, 1:],
    "spans of time": TIMES - TIMES[0],
    "one time": np.array("2026-11-30", "M8[D]"),
    "records with times": PAIRS,
    "a field of records": PAIRS["x"],
    "text": np.array(["a", "long text"] * 400),
    "strings of any length": np.array(["a", "é" * 100, ""] * 400, np.dtypes.StringDType()),
    "strings that may be missing": np.array(["a" * 50, "b", None] * 300, np.dtypes.StringDType(na_object=None)),
    "matrix": GRID.view(np.matrix),
    "records": PAIRS.view(np.recarray),
    "user's own": tagged(),
    "user's own, backwards": tagged()[::-1],
    "user's own reducer": tagged(Own),
    "masked": masked(),
    "masked and hard": masked(hard_mask=True),
    "masked nowhere": np.ma.array(GRID),
    "masked records": np.ma.array(PAIRS, mask=[(True, False)] * len(PAIRS)),
    "masked times, Fortran": np.ma.array(np.asfortranarray(TIMES), mask=np.asfortranarray(GRID) % 2 == 0),
    "masked itself": np.ma.masked,
    "one masked record": np.ma.array(PAIRS, mask=[(True, False)] * len(PAIRS))[3],
}


def told(array: Any) -> dict[str, object]:
    """What must be the same at the other end."""
    if array is np.ma.masked:
        return {"it": "itself"}
    found: dict[str, object] = {"type": type(array), "dtype": array.dtype, "shape": array.shape}
    found["values"] = pickle.dumps(np.asarray(array).tolist())
    found["order"] = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    if isinstance(array, np.ma.MaskedArray):
        found["mask"] = np.ma.getmaskarray(array).tolist()
        found["fill"] = str(array.fill_value)
        found["hard"] = array.hardmask
    if isinstance(array, Tagged):
        found["tag"] = array.tag
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_an_array_arrives_as_it_is_and_comes_home_so(kind: str) -> None:
    array = KINDS[kind]
    call, _shelf = packed(lambda value: (told(value), value), array)
    there, back = ran(call)

    assert there == told(array) == told(back)


@pytest.mark.parametrize("kind", KINDS)
def test_an_array_in_a_function_by_value_arrives_as_it_is(kind: str) -> None:
    array = KINDS[kind]
    call, _shelf = packed(lambda: told(array))

    assert ran(call) == told(array)


OUT_OF_BAND = sorted(set(KINDS) - {"no axis", "nothing in it", "items of no bytes", "one time", "masked itself"})


@pytest.mark.parametrize("kind", sorted(set(OUT_OF_BAND) - {"one masked record", "user's own reducer"}))
def test_the_memory_of_an_array_travels_beside_its_call(kind: str) -> None:
    call, _shelf = packed(len, KINDS[kind])

    assert len(call.payload) < 2 * LARGE
    assert len(call.payload) < KINDS[kind].nbytes / 2 or KINDS[kind].nbytes < 2 * LARGE
    assert call.buffers


@pytest.mark.parametrize("kind", ["C", "Fortran", "backwards", "times", "matrix", "user's own", "records", "masked"])
def test_memory_that_is_sent_already_is_named_only(kind: str) -> None:
    (first, blob_store), (second, _) = packed(len, KINDS[kind]), packed(sum, KINDS[kind])

    assert [blob.name for blob in first.blobs] == [blob.name for blob in second.blobs]
    assert blob_store is not None


def test_arrays_in_an_array_of_objects_travel_beside_the_call() -> None:
    parts = np.array([GRID, TIMES, None, {"deep": GRID[::-1]}], dtype=object)
    call, _shelf = packed(identity, parts)
    back = ran(call)

    assert len(call.payload) < LARGE
    assert np.array_equal(back[0], GRID)
    assert np.array_equal(back[1], TIMES)
    assert np.array_equal(back[3]["deep"], GRID[::-1])


def test_a_large_array_cannot_be_written_unless_it_is_private() -> None:
    def doubled(array: Any) -> Any:
        array *= 2
        return array

    shared, _shelf = packed(doubled, GRID.copy())
    with pytest.raises(ValueError, match="read-only"):
        ran(shared)
    for kind in ("C", "backwards", "with gaps"):
        private, _other = packed(doubled, KINDS[kind], mode="c")
        assert np.array_equal(ran(private), KINDS[kind] * 2)
        assert np.array_equal(ran(private), KINDS[kind] * 2), "what a call writes, another one sees"


# ---------------------------------------------------------------- memory maps


def mapped(path: Path, mode: Any = "r+", shape: Any = (ROWS, 20), order: Any = "C", offset: int = 0) -> Any:
    if not path.exists():
        path.write_bytes(bytes(offset) + np.arange(ROWS * 20.0).tobytes())
    return np.memmap(path, "f8", mode, offset, shape, order)


def seen(array: Any) -> tuple[str, Any, bool, Any]:
    return type(array).__name__, getattr(array, "mode", None), array.flags.writeable, array.tolist()


VIEWS: dict[str, Callable[[Any], Any]] = {
    "whole": identity,
    "rows": lambda array: array[3:9],
    "columns": lambda array: array[:, 2:5],
    "backwards": lambda array: array[::-1, ::-3],
    "transposed": lambda array: array.T,
    "plain": np.asarray,
    "plain rows of rows": lambda array: np.asarray(array[5:])[::2][1:],
    "one item": lambda array: array[3:4, 4:5],
    "bytes": lambda array: (array if array.flags.c_contiguous else array.T).view("u1"),
    "no longer to be written": lambda array: _closed(array[2:]),
}


def _closed(array: Any) -> Any:
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("how", [{}, {"offset": 24}, {"order": "F"}, {"offset": mmap.PAGESIZE + 8}], ids=str)
def test_a_memory_map_is_opened_where_it_is_reached(tmp_path: Path, mode: str, view: str, how: dict[str, Any]) -> None:
    array = VIEWS[view](mapped(tmp_path / "data", mode, **how))
    call, _shelf = packed(seen, array)

    assert ran(call) == seen(array)
    assert not call.blobs


@pytest.mark.parametrize("view", sorted(set(VIEWS) - {"no longer to be written"}))
@pytest.mark.parametrize("mode", ["r+", "w+"])
def test_what_a_task_writes_into_a_memory_map_is_in_the_file(tmp_path: Path, mode: Any, view: str) -> None:
    array = VIEWS[view](np.memmap(tmp_path / "data", "f8", mode="w+", shape=(ROWS, 20)))
    if mode == "r+":
        array = VIEWS[view](mapped(tmp_path / "data", mode))

    def write(out: Any) -> None:
        out[:] = np.arange(out.size, dtype="u1").reshape(out.shape) + 1

    call, _shelf = packed(write, array)
    ran(call)

    write(wanted := np.zeros_like(array, subok=False))
    assert array.tolist() == wanted.tolist()
    ran(packed(lambda out: out.flush() if isinstance(out, np.memmap) else None, array)[0])


def test_a_private_memory_map_arrives_with_what_was_written_into_it(tmp_path: Path) -> None:
    array = mapped(tmp_path / "data", "c")
    array[1, 1] = -5.0

    def write(found: Any) -> Any:
        found[0, 0] = 7.0
        return type(found).__name__, found.mode, found.tolist()

    kind, mode, values = ran(packed(write, array)[0])
    wanted = array.tolist()
    wanted[0][0] = 7.0

    assert (kind, mode, values) == ("memmap", "c", wanted)
    assert array[0, 0] == 0.0


def test_a_memory_map_that_is_read_only_and_out_of_reach_travels_by_its_content(tmp_path: Path) -> None:
    nowhere = Packer(put=(blob_store := BlobStore()).put, threshold=LARGE)
    for mode in ("r", "c"):
        for view in VIEWS.values():
            array = view(mapped(tmp_path / "data", mode))
            assert ran(nowhere.pack(seen, (array,), {})) == seen(array)
            assert ran(nowhere.pack(lambda array=array: seen(array), (), {})) == seen(array)
    array = mapped(tmp_path / "data", "r")
    assert nowhere.pack(seen, (array,), {}).blobs
    array = _closed(mapped(tmp_path / "data", "r+"))
    assert ran(nowhere.pack(seen, (array,), {}))[1:] == ("r+", False, array.tolist())
    assert blob_store is not None


@pytest.mark.parametrize(
    ("wrap", "path"), [(identity, "args[0]"), (lambda array: {"out": [array]}, 'args[0]["out"][0]')]
)
def test_a_writable_memory_map_out_of_reach_is_refused_with_its_name(tmp_path: Path, wrap: Any, path: str) -> None:
    nowhere = Packer(put=BlobStore().put, threshold=LARGE)
    with pytest.raises(
        NotPortable, match=r"not every node can write into .*data\): what tasks write .* would be lost"
    ) as error:
        nowhere.pack(seen, (wrap(mapped(tmp_path / "data")),), {})

    assert error.value.path == path


def test_one_in_a_closure_is_refused_with_its_name(tmp_path: Path) -> None:
    array = mapped(tmp_path / "data")
    with pytest.raises(NotPortable, match="closure variable 'array'"):
        Packer(put=BlobStore().put, threshold=LARGE).pack(lambda: seen(array), (), {})
    assert ran(packed(lambda: seen(array))[0]) == seen(array)


@pytest.mark.parametrize("how", ["removed", "replaced", "nameless"])
def test_a_memory_map_whose_file_is_gone_is_no_longer_written_to(tmp_path: Path, how: str) -> None:
    path = tmp_path / "data"
    if how == "nameless":
        with open(path, "w+b") as file:
            path.unlink()
            file.write(GRID.tobytes())
            file.flush()
            array, read = (np.memmap(file, "f8", mode, shape=GRID.shape) for mode in ("r+", "r"))
    else:
        array, read = mapped(path), mapped(path, "r")
        path.unlink()
    if how == "replaced":
        mapped(path)[:] = 0.0

    with pytest.raises(NotPortable, match="removed or replaced"):
        packed(seen, array)
    call, _shelf = packed(seen, read)
    assert ran(call) == seen(read)


def test_a_file_that_was_cut_is_refused_before_it_is_read(tmp_path: Path) -> None:
    array = mapped(tmp_path / "data", "r")
    os.truncate(tmp_path / "data", 100)

    with pytest.raises(NotPortable, match=r"cut to 100 bytes"):
        packed(seen, array)


def test_a_file_that_is_another_one_at_the_other_end_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "data"
    array = mapped(path)
    call, _shelf = packed(seen, array)
    path.rename(tmp_path / "kept")
    with pytest.raises(NotPortable, match="cannot be opened here: No such file"):
        ran(call)
    mapped(path)[:] = 0.0
    with pytest.raises(NotPortable, match="is not the one that the program opened"):
        ran(call)
    path.unlink()
    (tmp_path / "kept").rename(path)
    os.truncate(path, 50)
    with pytest.raises(NotPortable, match="ends at byte 50"):
        ran(call)


def test_memory_maps_of_nothing_and_of_what_is_no_file(tmp_path: Path) -> None:
    empty = np.memmap(tmp_path / "empty", "f8", "w+", shape=(4, 0))
    copied = mapped(tmp_path / "data").copy()
    anonymous = np.frombuffer(mmap.mmap(-1, GRID.nbytes), "f8")
    anonymous[:] = 5.0

    assert ran(packed(seen, empty)[0]) == seen(empty)
    for array in (copied, anonymous):
        assert ran(packed(identity, array)[0]).tolist() == array.tolist()


def test_an_array_of_a_subclass_in_a_file_stays_in_it(tmp_path: Path) -> None:
    array = np.ma.array(mapped(tmp_path / "data"), mask=GRID > 5, copy=False)

    def write(found: Any) -> Any:
        found[0, 0] = -1.0
        return type(found).__name__, found.mask.tolist()

    assert ran(packed(write, array)[0]) == ("MaskedArray", array.mask.tolist())
    assert mapped(tmp_path / "data", "r")[0, 0] == -1.0


def test_a_memory_map_in_a_result_is_its_content(tmp_path: Path) -> None:
    path = tmp_path / "data"
    mapped(path)
    back = ran(packed(lambda: np.memmap(path, "f8", "r+", shape=(ROWS, 20)))[0])
    back[0, 0] = 99.0

    assert (type(back), back[1:].tolist()) == (np.memmap, GRID[1:].tolist())


def test_without_numpy_nothing_is_an_array() -> None:
    assert arrays.reduce([1, 2], None) is None


def test_a_file_on_a_network_is_read_in_place_and_not_written_by_other_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "mount_of", lambda path: mounts.Mount("here", "anywhere"))
    elsewhere = Packer(put=BlobStore().put, threshold=LARGE, reaches=lambda token: token == "anywhere")
    for mode in ("r", "c"):
        array = mapped(tmp_path / "data", mode)
        call = elsewhere.pack(seen, (array,), {})
        assert (call.blobs, ran(call)) == ((), seen(array))
    with pytest.raises(NotPortable, match="not every node can write into"):
        elsewhere.pack(seen, (mapped(tmp_path / "data"),), {})
