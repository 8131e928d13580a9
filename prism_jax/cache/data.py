"""Frozen dataclasses as JSON types and back, checked field by field: entries are data, never code.

In: a value made of dataclasses, tuples, texts, numbers, booleans and None, or its JSON form with
the type that it should have. Out: the other of the two. An sGraph is its own text; a `Binary` is a
number, and its bytes stand apart. Invariant: `unpack(kind, pack(value)) == value`; what does not
fit the type exactly is a `ForeignError` (an entry of another version), never a guess. A field that
the data lacks takes its default, a field that the type lacks is foreign.

>>> from prism_jax.instantiate.plan import Schedule
>>> pack(Schedule(8, 2))["num_stages"]
2
>>> unpack(Schedule, {"num_warps": 8}) == Schedule(8)
True
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from prism_jax.emit.binary import Binary
from prism_jax.ir.sgraph import SGraph

T = TypeVar("T")


class ForeignError(ValueError):
    """Data of another version, or no data of ours. The message is the end of a sentence."""


def pack(value: Any, blobs: list[bytes] | None = None) -> Any:
    """The value as JSON types: dataclasses become dictionaries, tuples lists.

    Args:
      value: what to write.
      blobs: where the bytes of binaries go.

    Raises:
      TypeError: it holds something else.
    """
    if isinstance(value, SGraph):
        return str(value)
    if isinstance(value, Binary) and blobs is not None:
        blobs.append(value.pack())
        return len(blobs) - 1
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: pack(getattr(value, f.name), blobs) for f in _fields(type(value))}
    if isinstance(value, tuple | list):
        return [pack(item, blobs) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} cannot be kept in an entry")


def unpack(kind: type[T], data: Any, blobs: Sequence[bytes] = ()) -> T:
    """The value of type `kind` that `pack` made `data` of.

    Raises:
      ForeignError: `data` does not fit `kind`.
    """
    return _value(kind, data, kind.__name__, blobs)


def _value(kind: Any, data: Any, where: str, blobs: Sequence[bytes]) -> Any:
    if kind in _READERS:
        try:
            return _READERS[kind](data, blobs)
        except (ValueError, TypeError, IndexError) as error:
            raise ForeignError(f"{where}: {error}") from None
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, data, where, blobs)
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and isinstance(data, list):
        kinds = parts[:1] * len(data) if parts[1:] == (...,) else parts
        if len(kinds) == len(data):
            return tuple(_value(k, d, where, blobs) for k, d in zip(kinds, data, strict=True))
    elif origin in (typing.Union, types.UnionType):
        # Numbers are told apart exactly, so that 1 in a field of `int | float` stays an int.
        exact = [k for k in parts if type(data) is k or (data is None and k is type(None))]
        rest = [k for k in parts if k not in _PLAIN and data is not None]
        wide = [k for k in parts if k is float and type(data) is int]
        for k in (*exact, *rest, *wide):
            return _value(k, data, where, blobs)
    elif kind is float and type(data) in (int, float):
        return float(data)
    elif kind in _PLAIN and type(data) is kind:
        return data
    raise ForeignError(f"{where} is no {getattr(kind, '__name__', kind)}")


def _dataclass(kind: Any, data: Any, where: str, blobs: Sequence[bytes]) -> Any:
    if not isinstance(data, Mapping):
        raise ForeignError(f"{where} is no {kind.__name__}")
    known = {field.name for field in _fields(kind)}
    if unknown := sorted(map(str, set(data) - known)):
        raise ForeignError(f"{where} has fields that this version does not know: {unknown}")
    hints = _hints(kind)
    values = {n: _value(hints[n], v, f"{kind.__name__}.{n}", blobs) for n, v in data.items()}
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:  # a field without default is missing, or refused
        raise ForeignError(f"{where}: {error}") from None


def _sgraph(data: Any, _: Sequence[bytes]) -> SGraph:
    from prism_jax.ir.parse import parse_sgraph  # not needed to write

    if not isinstance(data, str):
        raise ValueError(f"{data!r} is no text")
    return parse_sgraph(data)


def _binary(data: Any, blobs: Sequence[bytes]) -> Binary:
    if type(data) is not int or data < 0:
        raise ValueError(f"{data!r} is no number of a blob")
    return Binary.unpack(blobs[data])


_PLAIN = (str, int, float, bool, type(None))
_READERS: dict[Any, Callable[[Any, Sequence[bytes]], Any]] = {SGraph: _sgraph, Binary: _binary}


@functools.cache
def _fields(kind: Any) -> tuple[dataclasses.Field[Any], ...]:
    return tuple(field for field in dataclasses.fields(kind) if field.init)


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)
