"""Pickle the calls that a driver sends.

Functions and classes that nodes cannot import (those of `__main__`, closures, lambdas) are pickled once per `Packer`
and sent separately under a name, so that a thousand calls of a function contain it once. Large buffers (arrays,
`bytes`) are sent separately as blobs.
"""

import hashlib
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any

from skyward.remote.blobs import Blob
from skyward.remote.serialization import arrays, pickle_errors, sealed
from skyward.remote.serialization.classes import is_dynamic
from skyward.remote.serialization.module_references import Modules, first_imports
from skyward.remote.serialization.pickler import (
    AgainPickler,
    CallPickler,
    LargeBufferError,
    LargePickler,
    Named,
    UnknownError,
    by_value,
    collect,
    keep_small,
)
from skyward.remote.serialization.reducers import as_remote, importable

PRIVATE = "+private"
"""Suffix of the name of a buffer that is mapped privately, so that the slot may write into it."""

MIN_MAPPED_BYTES = 4096
"""Bytes from which a buffer of a large function is mapped together with others instead of copied by each load."""

MAX_FAST_FAILURES = 3
"""Consecutive calls that `AgainPickler` could not pickle, after which it is not tried again."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A pickled call, and what it needs to be unpickled.

    Attributes
    ----------
    payload
        The pickled call; empty if it is large, and thus the first of `blobs`.
    functions
        The pickled functions and classes by value that it needs, by name.
    buffers
        Names of the blobs that are its out-of-band buffers, in order, with the suffix `PRIVATE` if writable.
    blobs
        Every blob that it needs, each once.
    modules
        Names of bundles of the user's own modules.
    kept
        Objects that must be kept alive until the call has been unpickled.
    """

    payload: bytes
    functions: Mapping[str, bytes]
    buffers: tuple[str, ...] = ()
    blobs: tuple[Blob, ...] = ()
    modules: tuple[str, ...] = ()
    kept: tuple[object, ...] = ()


class Packer:
    """Packs calls.

    If it shares, a function is pickled the first time that it is used, with its closure and its globals of `__main__`
    at that time, and is assumed not to change during the lifetime of the packer: one `Parallel` call, one `map`.
    Otherwise, each call contains its functions.

    Parameters
    ----------
    share
        Whether functions by value are sent separately from the calls.
    put
        Makes a blob of a large buffer (see `skyward.calls.blob_store`). None: all buffers stay in the payload.
    threshold
        Bytes from which a buffer is large.
    bundles
        Returns the names of the bundles with the user's modules that are imported with modules of these names. None:
        nodes can import everything that this program can.
    reloaded
        Returns the names of bundles that tell nodes to import modules again.
    reaches
        Returns whether the nodes can access the files on a mount (see `arrays.reduce`).
    mode
        What slots may do with large buffers, as in `task_groups.TaskGroup`.
    imports
        Returns the list of installed modules imported with modules of these names, by its name; empty for none.
    """

    def __init__(
        self,
        *,
        share: bool = True,
        put: Callable[[memoryview], Blob] | None = None,
        threshold: int = 1 << 20,
        bundles: Callable[[frozenset[str]], tuple[str, ...]] | None = None,
        reloaded: Callable[[], tuple[str, ...]] = tuple,
        reaches: arrays.Reaches = lambda token: False,
        mode: arrays.Mode = "r",
        imports: Callable[[frozenset[str]], Mapping[str, bytes]] = lambda modules: {},
    ) -> None:
        self._share = share
        self._reaches = reaches
        self._together = arrays.Together(threshold) if mode == "r+" else None
        self._mark = PRIVATE if mode == "c" else ""
        self._put, self._threshold = put, threshold
        self._looks_for_bytes = False
        self._bundles, self._reloaded, self._imports = bundles, reloaded, imports
        self._needed: dict[tuple[object, ...], tuple[tuple[str, ...], Mapping[str, bytes]]] = {}
        self._noted: dict[str, Modules] = {}  # by name of function
        self._names: dict[int, Any] = {}
        self._kept: list[Any] = []  # keeps the ids in `_names` valid
        self._again: dict[tuple[object, ...], tuple[Mapping[str, bytes], tuple[str, ...]]] = {}
        self._fast_failures = 0

    def pack(self, fn: Callable[..., object], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Packed:
        """Pickle the call `fn(*args, **kwargs)`.

        Raises
        ------
        NotPortable
            Something in the call cannot be pickled. The text names the path to it.
        """
        call = fn, args, kwargs
        try:
            return self._like_before(call) or self._packed(call)
        except Exception as error:
            raise pickle_errors.refuse(error, fn, args, kwargs, self._reducer([])) from error

    def _like_before(self, call: tuple[object, ...]) -> Packed | None:
        """Pack a call of known functions with arguments that pickle supports by itself; None if it is not like that.

        Most calls of a packer are alike, so this is the fast path.
        """
        if not self._share or self._looks_for_bytes or self._fast_failures > MAX_FAST_FAILURES:
            return None
        file = io.BytesIO()
        pickler = AgainPickler(file, self._names)
        try:
            pickler.dump(call)
        except UnknownError:
            self._fast_failures += 1
            return None
        payload = file.getvalue()
        if self._put is not None and len(payload) >= self._threshold:
            return None
        self._fast_failures = 0
        key = self._reloaded(), *map(id, pickler.met)
        if (known := self._again.get(key)) is None:
            known = self._again[key] = self._needs_of(pickler.met)
        functions, bundles = known
        return Packed(payload, functions, modules=bundles)

    def _needs_of(self, met: Iterable[FunctionType]) -> tuple[Mapping[str, bytes], tuple[str, ...]]:
        """Return the functions by value and the bundles of a call that refers to these functions only."""
        modules = self._new_modules()
        functions: dict[str, bytes] = {}
        for function in met:
            if type(named := self._names[id(function)]) is Named:
                functions[named.name] = named.data
            else:
                modules.note(function)
        bundles, lists = self._needs(modules, functions)
        return {**functions, **lists}, bundles

    def _packed(self, call: tuple[object, ...]) -> Packed:
        if not self._looks_for_bytes:
            try:
                packed = self._dumped(call)
            except LargeBufferError:
                pass
            else:
                if self._put is None or len(packed.payload) < self._threshold:
                    return packed
                self._looks_for_bytes = True  # slower, but all calls of a group tend to have large ones or none
        return self._dumped(call, large=True)

    def _dumped(self, call: tuple[object, ...], *, large: bool = False) -> Packed:
        file = io.BytesIO()
        kind = LargePickler if large else CallPickler
        modules = self._new_modules()
        name = self._name if self._share else None
        aside = None if self._put is None else self._aside
        keep = None if large or self._share or aside is None else partial(keep_small, self._threshold)
        kept: list[Any] = []
        pickler = kind(file, name, aside, modules, self._reducer(kept), keep)
        pickler.dump(call)
        payload, functions = file.getvalue(), pickler.met
        if not self._share:
            _note_beginning(call[0], modules)
        bundles, lists = self._needs(modules, functions)
        if lists:
            functions = {**functions, **lists}
        if not (large or pickler.buffers or pickler.beside):
            return Packed(payload, functions, (), (), bundles, tuple(kept))
        private, buffers = pickler.private, pickler.buffers
        names = tuple(blob.name + (PRIVATE if place in private else self._mark) for place, blob in enumerate(buffers))
        blobs = {blob.name: blob for blob in (*buffers, *pickler.bytes, *pickler.beside)}
        if large and len(payload) >= self._threshold and (body := self._aside(memoryview(payload))):
            payload, blobs = b"", {body.name: body, **blobs}
        return Packed(payload, functions, names, tuple(blobs.values()), bundles, tuple(kept))

    def _reducer(self, kept: list[Any]) -> arrays.Reducer:
        """Return the reducer of arrays, which adds objects that must be kept alive to `kept`."""
        return partial(arrays.reduce, reaches=self._reaches, together=self._together, kept=kept)

    def _new_modules(self) -> Modules:
        return Modules(inner=None if self._bundles is None else set())

    def _needs(self, modules: Modules, functions: Iterable[str]) -> tuple[tuple[str, ...], Mapping[str, bytes]]:
        """Return the bundles of these modules and those of the functions, and the list of installed modules."""
        reloaded = self._reloaded()
        key = frozenset(modules.referred), frozenset(modules.inner or ()), tuple(functions), reloaded
        if (known := self._needed.get(key)) is not None:
            return known
        for name in functions:
            modules.add(self._noted[name])
        referred, inner = frozenset(modules.referred), frozenset(modules.inner or ())
        bundles = reloaded if self._bundles is None else self._bundles(referred | inner)
        found = self._needed[key] = bundles, self._imports(referred)
        return found

    def _aside(self, content: memoryview) -> Blob | None:
        """Return the blob of a buffer; None if the buffer is not large, or there is not enough memory."""
        if self._put is None or content.nbytes < self._threshold:
            return None
        try:
            return self._put(content)
        except OSError:
            return None

    def _name(self, obj: FunctionType | type) -> Any:
        """Pack a function or class that must be sent by value; reduce any other function, None for other classes.

        Its name is a hash of its content, so that nodes and slots that have it are not sent it again.
        """
        try:
            return self._names[id(obj)]
        except KeyError:
            pass
        named: Any = None
        if isinstance(obj, FunctionType):
            named = NotImplemented if importable(obj) else as_remote(obj)
        if named is None and (isinstance(obj, FunctionType) or is_dynamic(obj)):
            modules = self._new_modules()
            data, blobs = self._apart(obj, modules)
            named = Named(hashlib.sha256(data).hexdigest(), data, blobs)
            _note_beginning(obj, modules)
            self._noted[named.name] = modules
        self._names[id(obj)] = named
        self._kept.append(obj)
        return named

    def _apart(self, obj: object, modules: Modules) -> tuple[bytes, tuple[Blob, ...]]:
        """Pickle a function or class, with its large buffers as blobs; see `sealed`.

        If it is still large, its smaller buffers are put into one blob, so that loading it does not copy them either.
        """
        reduce = self._reducer(self._kept)
        if self._put is None:
            return sealed.seal(by_value(obj, modules, reduce)), ()
        for pickler_kind, least in (
            (CallPickler, self._threshold),
            (LargePickler, min(MIN_MAPPED_BYTES, self._threshold)),
        ):
            file = io.BytesIO()
            found: list[memoryview] = []
            keep = partial(collect, least, found)
            pickler = pickler_kind(file, None, self._aside, modules, reduce, keep)
            pickler.dump(obj)
            body = file.getvalue()
            if len(body) < self._threshold:
                break
        try:
            parts, blobs = sealed.place(found, self._threshold, self._put)
            if len(body) < self._threshold:
                return sealed.seal(body, "", parts), (*pickler.bytes, *blobs)
            whole = self._put(memoryview(body))
            return sealed.seal(b"", whole.name, parts), (*pickler.bytes, *blobs, whole)
        except OSError:  # not enough memory for blobs
            return sealed.seal(by_value(obj, modules, reduce)), ()


def _note_beginning(fn: object, modules: Modules) -> None:
    """Add the modules that a function of the script imports first of all."""
    if isinstance(fn, FunctionType) and not importable(fn):
        modules.referred.update(first_imports(fn.__code__))
