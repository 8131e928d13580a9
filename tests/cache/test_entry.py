"""The bytes of an entry: what was written is read, and nothing else is."""

from __future__ import annotations

import dataclasses
import functools
import json
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_jax.cache import entry as room
from prism_jax.cache import manage, plans
from prism_jax.cache.data import ForeignError, pack, unpack
from prism_jax.cache.entry import BadEntryError, Entry, decode, encode
from prism_jax.cache.key import Key, key
from prism_jax.cache.store import Store
from prism_jax.emit import binary
from prism_jax.emit.binary import Binary
from prism_jax.instantiate.plan import Schedule
from prism_jax.options import Options
from prism_jax.report import CandidateRow, RegionReport
from tests.cache import examples

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


# -- malice ----------------------------------------------------------------------------------------

PLANNED = key(examples.region().program.digest, examples.TARGET.identity, Options())


@functools.cache
def kept_entry() -> Entry:
    program, options = examples.region().program, Options()
    return plans.entry(PLANNED, program, examples.decision("triton"), options)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in JSON types, as a path of keys and positions."""
    yield path
    if isinstance(value, dict | list):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*path, name))


ODD = [None, True, -1, 0, 10**30, 1e308, float("inf"), float("nan"), "", "x" * 1000, [], {}, [[]],
       {"float": "nan"}, "kernel", "%9", "sum{" * 50, "(" * 2000, [1] * 10]  # fmt: skip


@given(st.data())
def test_a_valid_checksum_over_anything_else_is_foreign_or_a_plan(data: st.DataObject) -> None:
    """Where entries are not signed, whoever may write can seal what he likes: a value of another
    type, or a plan's text with other letters in it. Nothing but `ForeignError` comes of it, or
    what the report and the commands can show.
    """
    values = json.loads(json.dumps(dict(kept_entry().values)))
    path = data.draw(st.sampled_from([p for p in places(values) if p and p[0] != "key"]))
    holder = functools.reduce(lambda value, step: value[step], path[:-1], values)
    old = holder[path[-1]]
    if isinstance(old, str) and old and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(old)))
        cut = data.draw(st.integers(0, 5))
        holder[path[-1]] = old[:at] + data.draw(st.text(max_size=5)) + old[at + cut :]
    else:
        holder[path[-1]] = data.draw(st.sampled_from(ODD))
    try:
        found = plans.kept(decode(encode(Entry(values, kept_entry().blobs))))
        if found.plan is not None:
            plans.fits(found.plan, examples.region().program)
            assert found.plan.digest == found.digest
    except (BadEntryError, ForeignError):
        return
    assert str(found.report)


def test_a_kernel_that_unpacks_without_end_is_refused() -> None:
    """A megabyte of packed zeros is a gigabyte; unpacking stops where no kernel can be so large."""
    endless = zlib.compress(bytes(binary.MOST_BYTES + 1))
    assert len(endless) < 2**17
    tracemalloc.start()
    try:
        for data in (endless, endless[:-9], zlib.compress(b"x") + b"more", b""):
            with pytest.raises(ValueError, match="not a packed kernel"):
                Binary.unpack(bytes(32) + data)
        assert tracemalloc.get_traced_memory()[1] < 3 * binary.MOST_BYTES
    finally:
        tracemalloc.stop()
    with pytest.raises(ForeignError):
        unpack(Binary, 0, [bytes(32) + endless])


@pytest.mark.parametrize("odd", [None, [], "x", 3, {"name": [1]}, {"plan": {}}])
def test_commands_show_what_other_versions_may_have_written(odd: Any, tmp_path: Path) -> None:
    """Types are only known of this version's entries."""
    options = Options(cache="on", cache_dir=str(tmp_path))
    store = Store(tmp_path)
    for device in ({}, "a name", None, [1]):
        parts = {**PLANNED.parts, "sources": "another version's", "device": device}
        store.write(Key(parts).name, Entry({"key": parts, "report": odd}))
    rows = manage.entries(options)
    assert len(rows) == 4
    assert all(row.good and row.stale for row in rows)
    assert all(str(row) for row in rows)
    assert manage.verify(options) == {}
    assert len(manage.prune(stale=True, options=options)) == 4
