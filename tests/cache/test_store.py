"""The folder: whatever happens to it, nothing raises and nothing wrong is read."""

from __future__ import annotations

import errno
import logging
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prism_jax.cache import entry as entries
from prism_jax.cache import store as room
from prism_jax.cache.entry import Entry, encode
from prism_jax.cache.key import Key
from prism_jax.cache.store import ABANDONED_SECONDS, RENEW_SECONDS, Store


@pytest.fixture(autouse=True)
def _notes() -> None:
    room.forget()


def named(number: int, size: int = 100) -> tuple[str, Entry]:
    key = Key({"program": number})
    return key.name, Entry({"key": dict(key.parts)}, (bytes(size),))


def notes(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "prism_jax"]


def test_what_is_kept_is_found(tmp_path: Path) -> None:
    store = Store(tmp_path / "new" / "folder")
    name, entry = named(1)
    assert store.read(name) is None
    assert store.files() == []
    assert store.write(name, entry)
    found = store.read(name)
    assert found is not None
    assert found.blobs == entry.blobs
    assert [file.name for file in store.files()] == [name]
    assert not stat.S_IWOTH & store.path(name).stat().st_mode
    assert [p.name for p in store.folder.iterdir()] == [f"{name}.prism"]


def damaged(data: bytes) -> dict[str, tuple[bytes, str]]:
    _, other = named(2)
    return {
        "truncated": (data[: len(data) // 2], "is cut off"),
        "bit-flipped": (data[:-7] + bytes([data[-7] ^ 4]) + data[-6:], "is damaged"),
        "foreign version": (data[:8] + b"\x63\0\0\0" + data[12:], "has schema 99"),
        "another entry": (encode(other), "belongs to another key"),
        "empty": (b"", "is empty"),
        "foreign": (b"GIF89a" * 50, "is no entry of this cache"),
    }


@pytest.mark.parametrize("kind", list(damaged(encode(named(1)[1]))))
def test_a_damaged_entry_is_skipped_and_replaced(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path)
    name, entry = named(1)
    beside, kept = named(3)
    store.write(name, entry)
    store.write(beside, kept)
    data, sentence = damaged(store.path(name).read_bytes())[kind]
    store.path(name).write_bytes(data)
    with caplog.at_level(logging.INFO, "prism_jax"):
        assert store.read(name) is None
        assert store.read(name) is None
    assert len(notes(caplog)) == 1
    assert name in notes(caplog)[0]
    assert sentence in notes(caplog)[0]
    assert store.read(beside) is not None
    assert store.write(name, entry)
    assert store.read(name) is not None


def test_an_oversized_entry_is_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path)
    name, entry = named(1)
    store.write(name, entry)
    with open(store.path(name), "r+b") as file:  # sparse: takes no disk
        file.truncate(entries.MOST_BYTES + 1)
    assert store.read(name) is None
    assert "more than any entry" in notes(caplog)[0]
    assert not Store(tmp_path, limit=50).write(*named(2))


def test_what_is_no_file_is_not_opened(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path)
    (name, entry), (other, _), (third, _) = named(1), named(2), named(3)
    store.write(name, entry)
    store.path(other).symlink_to(store.path(name))
    os.mkfifo(store.path(third))  # opening it for reading would wait for a writer
    assert store.read(other) is None
    assert store.read(third) is None
    store.path(other).unlink()
    store.path(other).mkdir()
    assert store.read(other) is None
    assert [file.name for file in store.files()] == [name]
    assert len(notes(caplog)) == 3


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("where", ["open", "write", "fsync", "replace"])
def test_a_full_or_broken_disk_keeps_nothing_and_says_so_once(
    where: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    store = Store(tmp_path)
    old, kept = named(1)
    store.write(old, kept)

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        if where == "write":
            patch.setattr("builtins.open", lambda *a, **k: _Full(fail))
        elif where == "open":
            patch.setattr("builtins.open", fail)
        else:
            patch.setattr(os, where, fail)
        assert not store.write(*named(2))
        assert not store.write(*named(3))
    assert [n for n in notes(caplog) if os.strerror(code) in n] == notes(caplog)
    assert len(notes(caplog)) == 1
    assert store.read(old) is not None
    assert [p.name for p in tmp_path.iterdir()] == [f"{old}.prism"]


class _Full:
    def __init__(self, fail: Any) -> None:
        self.write = fail

    def __enter__(self) -> _Full:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def test_a_folder_that_is_a_file_or_gone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file")
    name, entry = named(1)
    assert store.read(name) is None
    assert not store.write(name, entry)
    assert store.files() == []
    assert store.prune(0) == []
    assert store.problem() is not None
    assert Store(tmp_path / "new").problem() is None


@pytest.fixture
def nobody() -> Iterator[None]:
    """Root may write everywhere, so inside of this a test that is run by root is somebody else."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.usefixtures("nobody")
def test_a_folder_without_write_permission_is_read() -> None:
    # Not pytest's folder, which is closed to whom the fixture makes of root.
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        name, entry = named(1)
        store.write(name, entry)
        os.utime(store.path(name), (1.0, 1.0))
        Path(folder).chmod(0o555)
        try:
            assert store.read(name) is not None
            assert not store.write(*named(2))
            assert store.problem() is not None
            assert [file.name for file in Path(folder).iterdir()] == [f"{name}.prism"]
        finally:
            Path(folder).chmod(0o755)


def test_a_file_that_cannot_be_read_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path)
    name, entry = named(1)
    store.write(name, entry)

    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", refuse)
        assert store.read(name) is None
    assert "Permission denied" in notes(caplog)[0]


# -- trust -----------------------------------------------------------------------------------------


def test_what_everybody_may_write_is_not_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, signed = Store(tmp_path), Store(tmp_path, secret=b"k" * 20)
    name, entry = named(1)
    signed.write(name, entry)
    assert store.read(name) is not None
    store.path(name).chmod(0o666)
    assert store.read(name) is None
    assert "everybody" in notes(caplog)[0]
    assert signed.read(name) is not None


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_others_files_count_only_where_not_everybody_may_write(tmp_path: Path) -> None:
    store = Store(tmp_path / "shared")
    name, entry = named(1)
    store.write(name, entry)
    os.chown(store.path(name), 12345, 12345)
    assert store.read(name) is not None
    store.folder.chmod(0o1777)
    room.forget()
    assert store.read(name) is None


def test_only_what_was_signed_with_the_key_is_read(tmp_path: Path) -> None:
    mine, other = Store(tmp_path, secret=b"k" * 20), Store(tmp_path, secret=b"q" * 20)
    name, entry = named(1)
    for writer, readable in ((mine, True), (other, False), (Store(tmp_path), False)):
        writer.write(name, entry)
        assert (mine.read(name) is not None) == readable
        assert Store(tmp_path).read(name) is not None


# -- size and time ---------------------------------------------------------------------------------


def test_what_was_used_longest_ago_goes(tmp_path: Path) -> None:
    now = time.time()
    store = Store(tmp_path, clock=lambda: now)
    size = len(encode(named(0)[1]))
    for number in range(10):
        name, entry = named(number)
        store.write(name, entry)
        os.utime(store.path(name), (now - 1e6 + number, now - 1e6 + number))
    used, _ = named(0)
    assert store.read(used) is not None  # renews it
    bounded = Store(tmp_path, limit=5.5 * size, clock=lambda: now)
    assert bounded.write(*named(99))
    left = {file.name for file in store.files()}
    assert left == {named(n)[0] for n in (0, 99, 9, 8)}
    assert store.size() <= 0.9 * 5.5 * size
    assert store.prune(0) != []
    assert len(store.files()) == 1


def test_reading_seldom_writes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    name, entry = named(1)
    store.write(name, entry)
    before = store.path(name).stat().st_mtime_ns
    store.read(name)
    assert store.path(name).stat().st_mtime_ns == before
    os.utime(store.path(name), (1e9, 1e9))
    store.read(name)
    assert abs(store.path(name).stat().st_mtime - time.time()) < RENEW_SECONDS


@pytest.mark.parametrize("jump", [-4e9, -1e6, 1e6, 4e9])
def test_a_clock_that_jumps_breaks_nothing(jump: float, tmp_path: Path) -> None:
    now = time.time()
    names: list[str] = []
    store = Store(tmp_path)
    for number, moment in enumerate((now, now + jump, now + jump + 1, now)):
        store = Store(tmp_path, clock=lambda moment=moment: moment)
        name, entry = named(number)
        assert store.write(name, entry)
        names.append(name)
        assert all(store.read(n) is not None for n in names)
    os.utime(store.path(names[1]), (now + 1e6, now + 1e6))  # written while the clock was ahead
    size = store.size()
    assert store.prune(size) == []
    gone = store.prune(size / 2)
    assert gone
    assert store.files()
    assert all(file.used <= now + RENEW_SECONDS for file in store.files())


def test_what_dead_writers_left_is_cleared_and_living_ones_are_not(tmp_path: Path) -> None:
    store = Store(tmp_path)
    old, new, foreign = (tmp_path / n for n in (".a.1.x.part", ".b.2.y.part", "notes.txt"))
    for path in (old, new, foreign):
        path.write_bytes(b"half")
    past = time.time() - 2 * ABANDONED_SECONDS
    os.utime(old, (past, past))
    os.utime(foreign, (past, past))
    store.write(*named(1))
    assert (old.exists(), new.exists(), foreign.exists()) == (False, True, True)


def test_a_part_that_was_cleared_under_its_writer_costs_that_entry_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)

    def cleared(descriptor: int) -> None:
        for path in tmp_path.glob(".*.part"):
            path.unlink()

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", cleared)
        assert not store.write(*named(1))
    assert store.write(*named(2))
