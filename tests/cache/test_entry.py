"""The bytes of an entry: what was written is read, and nothing else is."""

from __future__ import annotations

import dataclasses
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_jax.cache import entry as room
from prism_jax.cache.data import ForeignError, pack, unpack
from prism_jax.cache.entry import BadEntryError, Entry, decode, encode
from prism_jax.emit.binary import Binary
from prism_jax.instantiate.plan import Schedule
from prism_jax.report import CandidateRow, RegionReport

SECRET = b"a key of twenty bytes"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(min_size=1), inner),
    max_leaves=8,
)
ENTRIES = st.builds(
    Entry,
    st.dictionaries(st.text().filter(lambda key: key != "blobs"), JSON),
    st.lists(st.binary(max_size=64)).map(tuple),
)


def same(a: Any, b: Any) -> bool:
    """Equality with NaN equal to itself, and 1 apart from 1.0."""
    return repr(a) == repr(b)


def sorted_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: sorted_keys(value[key]) for key in sorted(value)}
    return [sorted_keys(item) for item in value] if isinstance(value, list) else value


@given(ENTRIES, st.sampled_from([None, SECRET]))
def test_what_was_written_is_read(entry: Entry, secret: bytes | None) -> None:
    data = encode(entry, secret)
    back = decode(data, secret)
    assert same(sorted_keys(dict(entry.values)), sorted_keys(dict(back.values)))
    assert entry.blobs == back.blobs
    assert encode(entry, secret) == data
    decode(data)  # a signature hinders nobody who does not ask for one


@given(ENTRIES, st.data())
def test_no_flipped_bit_is_believed(entry: Entry, draw: st.DataObject) -> None:
    data = bytearray(encode(entry, SECRET))
    place = draw.draw(st.integers(0, len(data) - 1))
    data[place] ^= 1 << draw.draw(st.integers(0, 7))
    with pytest.raises(BadEntryError):
        decode(bytes(data), SECRET)


@given(ENTRIES, st.data())
def test_no_other_length_is_believed(entry: Entry, draw: st.DataObject) -> None:
    data = encode(entry)
    for wrong in (data[: draw.draw(st.integers(0, len(data) - 1))], data + b"x"):
        with pytest.raises(BadEntryError):
            decode(wrong)


@given(st.binary(max_size=300))
def test_foreign_bytes_are_refused(data: bytes) -> None:
    for bytes_ in (data, room.MAGIC + data):
        with pytest.raises(BadEntryError):
            decode(bytes_)


def test_each_refusal_says_why() -> None:
    data = encode(Entry({"a": 1}, (b"blob",)))
    other = bytearray(data)
    struct.pack_into("<I", other, 8, room.SCHEMA + 1)
    signed = encode(Entry({}), b"another key of bytes")
    cases = [
        (b"", None, "is empty", False),
        (data[:50], None, "is cut off", False),
        (data[:-1], None, "is cut off", False),
        (b"x" * 200, None, "is no entry of this cache", False),
        (bytes(other), None, "has schema 2, this version reads 1", True),
        (data[:-1] + b"x", None, "is damaged: its checksum does not hold", False),
        (data, SECRET, "is not signed", True),
        (signed, SECRET, "is signed with another key", True),
    ]
    for bytes_, secret, sentence, foreign in cases:
        with pytest.raises(BadEntryError) as caught:
            decode(bytes_, secret)
        assert (str(caught.value), caught.value.foreign) == (sentence, foreign)


@pytest.mark.parametrize(
    "payload",
    [
        b"[]", b"{}", b'{"blobs": 3}', b'{"blobs": ["x"]}', b'{"blobs": [-1]}', b'{"blobs": [5]}',
        b'{"blobs": [true]}', b"nonsense", b"[" * 100_000,
    ],
)  # fmt: skip
def test_well_sealed_nonsense_is_refused(payload: bytes) -> None:
    """Whoever can compute a checksum cannot make reading raise anything else."""
    import hashlib

    digest = hashlib.sha256(payload).digest()
    head = room._HEADER.pack(room.MAGIC, room.SCHEMA, len(payload), digest, bytes(32), len(payload))
    with pytest.raises(BadEntryError):
        decode(head + payload)


def test_nothing_is_ever_unpickled() -> None:
    """No file of the cache imports a module that makes objects, or code, of bytes."""
    import ast
    from pathlib import Path

    folder = Path(room.__file__).parent
    for path in folder.glob("*.py"):
        tree = ast.parse(path.read_text())
        names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        names |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
        assert not names & {"pickle", "marshal", "shelve", "dill", "cloudpickle", "importlib.util"}
        calls = {n.func.id for n in ast.walk(tree)
                 if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}  # fmt: skip
        assert not calls & {"eval", "exec", "compile", "__import__"}, path


# -- values ----------------------------------------------------------------------------------------

BINARY = Binary(
    name="k", compute_capability=90, parameters=("*fp32",), pointer_divisibility=(16,), ptx="p",
    cubin=b"\x7fELF", shared=1024, num_warps=4, num_ctas=1, registers=32, stack=0,
)  # fmt: skip


def test_dataclasses_come_back_equal() -> None:
    row = CandidateRow("x", bound=1.0, estimate=None, measured=float("inf"), verdict="v")
    report = RegionReport("f", axioms=("a", "b"), candidates=(row,), stages=(("explore", 0.5),))
    entry = decode(encode(Entry({"report": pack(report)})))
    assert unpack(RegionReport, entry.values["report"]) == report
    blobs: list[bytes] = []
    number = pack(BINARY, blobs)
    assert unpack(Binary, number, blobs) == BINARY


@dataclasses.dataclass(frozen=True)
class Newer:
    num_warps: int
    swizzle: int | None = None
    ratio: float = 1.0
    pair: tuple[int, str] = (0, "")


def test_fields_that_are_missing_take_defaults_and_unknown_ones_are_foreign() -> None:
    assert unpack(Newer, {"num_warps": 8}) == Newer(8)
    assert unpack(Newer, pack(Newer(8, 3, 2.0, (1, "a")))) == Newer(8, 3, 2.0, (1, "a"))
    with pytest.raises(ForeignError, match="does not know"):
        unpack(Schedule, {"num_warps": 4, "of a later version": 8})
    for wrong in (
        {}, {"num_warps": "8"}, {"num_warps": True}, {"num_warps": 8.0}, [8], None, 8,
        {"num_warps": 8, "pair": [1]}, {"num_warps": 8, "pair": ["a", 1]},
        {"num_warps": 8, "swizzle": "x"}, {"num_warps": 8, "swizzle": [1]},
    ):  # fmt: skip
        with pytest.raises(ForeignError):
            unpack(Newer, wrong)
    for number in (1, -1, True, "0", None):
        with pytest.raises(ForeignError):
            unpack(Binary, number, [BINARY.pack()])
    with pytest.raises(ForeignError):
        unpack(Binary, 0, [BINARY.pack()[:-3]])
    with pytest.raises(TypeError):
        pack(object())


@given(JSON)
def test_any_data_is_a_value_or_foreign(data: Any) -> None:
    data = json.loads(json.dumps(data))
    for kind in (Newer, RegionReport, Schedule):
        try:
            unpack(kind, data)
        except ForeignError:
            continue
        assert isinstance(data, dict)
