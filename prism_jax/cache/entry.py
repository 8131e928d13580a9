"""One entry of the cache as bytes: JSON and binary blobs under a checksum, a version and a size.

In: an `Entry`. Out: bytes for one file; and back. Invariant: `decode` returns what `encode` was
given, or raises `BadEntryError` with the end of a sentence. It executes nothing, allocates no more
than the file's own size, and believes nothing before the checksum holds.

The layout, integers little-endian:

    8 bytes    magic            16 to 48   sha256 of the payload
    8 to 12    schema version   48 to 80   HMAC-SHA256 of it with the user's key, or zeros
    12 to 16   length of JSON   80 to 88   length of the payload
    payload: the JSON, then every blob; the JSON lists their sizes
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import math
import struct
from collections.abc import Mapping
from typing import Any

MAGIC = b"PRISMJAX"
SCHEMA = 1
"""Raised whenever older entries must not be read any more. Most changes need not: the key holds a
hash of our sources.
"""
MOST_BYTES = 256 * 2**20
"""An entry is a plan and a few kernels, some 100 kB. What is larger than this is none of ours."""
_HEADER = struct.Struct("<8sII32s32sQ")
_UNSIGNED = bytes(32)


class BadEntryError(ValueError):
    """Bytes that are no valid entry. The message is the end of a sentence.

    `foreign`: they are whole, but of another version or another key.
    """

    def __init__(self, sentence: str, *, foreign: bool = False) -> None:
        super().__init__(sentence)
        self.foreign = foreign


@dataclasses.dataclass(frozen=True)
class Entry:
    """What is kept: JSON types, and bytes that they refer to by number."""

    values: Mapping[str, Any]
    blobs: tuple[bytes, ...] = ()


def encode(entry: Entry, secret: bytes | None = None) -> bytes:
    """The file of an entry, signed if there is a secret.

    Raises:
      ValueError, TypeError: values that JSON cannot hold.
    """
    values = {**entry.values, "blobs": [len(blob) for blob in entry.blobs]}
    text = json.dumps(_finite(values), sort_keys=True, allow_nan=False).encode()
    payload = b"".join((text, *entry.blobs))
    digest = hashlib.sha256(payload).digest()
    # What is signed has the lengths in it too: they decide how the payload is read.
    seal = _seal(secret, len(text), digest) if secret else _UNSIGNED
    return _HEADER.pack(MAGIC, SCHEMA, len(text), digest, seal, len(payload)) + payload


def decode(data: bytes, secret: bytes | None = None) -> Entry:
    """The entry in a file; with a `secret`, only if it was signed with the same.

    Raises:
      BadEntryError: anything else.
    """
    if len(data) < _HEADER.size:
        raise BadEntryError("is empty" if not data else "is cut off")
    magic, schema, size, digest, seal, length = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise BadEntryError("is no entry of this cache")
    if schema != SCHEMA:
        raise BadEntryError(f"has schema {schema}, this version reads {SCHEMA}", foreign=True)
    payload = memoryview(data)[_HEADER.size :]
    if len(payload) < length:
        raise BadEntryError("is cut off")
    if len(payload) > length or hashlib.sha256(payload).digest() != digest or size > length:
        raise BadEntryError("is damaged: its checksum does not hold")
    if secret and not hmac.compare_digest(seal, _seal(secret, size, digest)):
        kind = "is not signed" if seal == _UNSIGNED else "is signed with another key"
        raise BadEntryError(kind, foreign=True)
    try:
        values: dict[str, Any] = _unfinite(json.loads(bytes(payload[:size])))
        sizes = values.pop("blobs")
        blobs: list[bytes] = []
        position = size
        for blob in sizes:
            blobs.append(bytes(payload[position : position + blob]))
            position += blob
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadEntryError(f"is no entry of this cache: {error}") from None
    if position != length or any(not isinstance(b, int) or b < 0 for b in sizes):
        raise BadEntryError("is no entry of this cache: its blobs have other sizes")
    return Entry(values, tuple(blobs))


def _seal(secret: bytes, size: int, digest: bytes) -> bytes:
    return hmac.new(secret, MAGIC + struct.pack("<II", SCHEMA, size) + digest, "sha256").digest()


def _finite(value: Any) -> Any:
    """Numbers that JSON has no word for, as texts that `_unfinite` reads."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_finite(item) for item in value]
    return value


def _unfinite(value: Any) -> Any:
    """The values that were encoded, numbers like infinity among them."""
    if isinstance(value, Mapping):
        if value.keys() == {"float"} and value["float"] in ("inf", "-inf", "nan"):
            return float(value["float"])
        return {key: _unfinite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_unfinite(item) for item in value]
    return value
