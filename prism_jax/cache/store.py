"""The folder of the cache: one file per entry, written whole or not at all, never believed.

In: names and entries. Out: entries, or nothing. Many processes on many machines may use one folder
at once without a lock: a file appears under its name only when it is complete (written beside it,
flushed, then renamed), the last writer wins, and every reader checks what it reads.

Invariant: no function here raises for anything that the folder or the file system does. What cannot
be read is skipped with a note (logger `prism_jax`, once per file and reason); what cannot be
written is not kept.

The size is bounded: when a new entry makes the folder too large, the entries used longest ago go,
by their files' times of change, which reading renews. A clock that jumped ahead leaves times in the
future: they count as just used, once, and are set back.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import os
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from prism_jax.cache.entry import MOST_BYTES, BadEntryError, Entry, decode, encode
from prism_jax.cache.key import Key

SUFFIX = ".prism"
PART = ".part"
_NAME_DIGITS = 40
#: How old the file of a writer must be before it counts as abandoned, seconds.
ABANDONED_SECONDS = 3600.0
#: Reading renews the time of a file not more often than this, seconds.
RENEW_SECONDS = 600.0
#: Eviction goes down to this share of the limit, so that not every writer evicts.
EVICT_TO = 0.9

_log = logging.getLogger("prism_jax")
_noted: set[tuple[str, str]] = set()
_noted_lock = threading.Lock()


@dataclasses.dataclass(frozen=True)
class File:
    """One entry's file: its name without suffix, bytes, and when it was last used (Unix time)."""

    name: str
    size: int
    used: float


@dataclasses.dataclass(frozen=True)
class Store:
    """A folder of entries.

    Attributes:
      folder: where; it need not exist.
      limit: bytes beyond which entries are evicted.
      secret: the key without whose signature nothing is read.
      sign_with: the key that signs what is written; None: `secret`.
      clock: seconds, Unix time (tests replace it).
    """

    folder: Path
    limit: float = float("inf")
    secret: bytes | None = None
    sign_with: bytes | None = None
    clock: Callable[[], float] = time.time

    def path(self, name: str) -> Path:
        """The file of an entry."""
        return self.folder / f"{name}{SUFFIX}"

    def read(self, name: str, digest: str | None = None) -> Entry | None:
        """The entry, or None if there is none that can be believed, or (where a `digest` is given)
        none of these bytes.
        """
        data = self.raw(name)
        if data is None or (digest and hashlib.sha256(data).hexdigest() != digest):
            return None
        return self._decoded(name, data)

    def raw(self, name: str) -> bytes | None:
        """The bytes of an entry's file, unchecked; None where there are none or too many."""
        try:
            with open(self.path(name), "rb", opener=_without_following) as file:
                status = os.fstat(file.fileno())
                problem = self._unfit(status)
                if problem is None:
                    data = file.read(MOST_BYTES + 1)
                    self._renew(file.fileno(), status.st_mtime)
                    return data
        except FileNotFoundError:
            return None
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
        self.note(name, problem)
        return None

    def _decoded(self, name: str, data: bytes) -> Entry | None:
        try:
            entry = decode(data, self.secret)
            self.check_name(name, entry)
        except BadEntryError as error:
            self.note(name, str(error), routine=error.foreign and self.secret is None)
            return None
        return entry

    def check_name(self, name: str, entry: Entry) -> None:
        """Raises BadEntryError where the entry's key is not that of its file's name."""
        parts = entry.values.get("key")
        if not isinstance(parts, dict) or Key(parts).name != name:
            raise BadEntryError("belongs to another key", foreign=True)

    def _unfit(self, status: os.stat_result) -> str | None:
        """Why a file is not read, whatever is in it."""
        if not stat.S_ISREG(status.st_mode):
            return "is no regular file"
        if status.st_size > MOST_BYTES:
            return f"has {status.st_size} bytes, more than any entry"
        return self._untrusted(status) if self.secret is None else None

    def _untrusted(self, status: os.stat_result) -> str | None:
        """Where everybody may write, only files of one's own count: what is in them is run."""
        if not hasattr(os, "getuid") or status.st_uid in (0, os.getuid()):
            open_to_all = bool(status.st_mode & stat.S_IWOTH)
        else:
            open_to_all = bool((status.st_mode | os.stat(self.folder).st_mode) & stat.S_IWOTH)
        return "can be written by everybody: sign entries (trust_cache)" if open_to_all else None

    def _renew(self, descriptor: int, used: float) -> None:
        """Marks a file as just used. A folder that cannot be written only evicts less well."""
        now = self.clock()
        if abs(now - used) > RENEW_SECONDS:
            with contextlib.suppress(OSError, NotImplementedError, OverflowError, ValueError):
                os.utime(descriptor, (now, now))

    def write(self, name: str, entry: Entry) -> bool:
        """Keeps an entry; False, with a note, where that cannot be done."""
        try:
            data = encode(entry, self.sign_with or self.secret)
        except (TypeError, ValueError) as error:
            self.note(name, f"cannot be written: {error}")
            return False
        return self.write_raw(name, data)

    def write_raw(self, name: str, data: bytes) -> bool:
        """Keeps the bytes of an entry, whole or not at all."""
        if len(data) > min(MOST_BYTES, self.limit):
            self.note(name, f"is not kept: {len(data)} bytes are too many")
            return False
        part = self.folder / f".{name}.{os.getpid()}.{secrets.token_hex(4)}{PART}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(part, "xb", opener=_not_for_everybody) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, self.path(name))
        except OSError as error:
            self.note("", f"{self.folder} keeps no plans: {error.strerror or error}")
            with contextlib.suppress(OSError):
                os.unlink(part)
            return False
        self.prune(self.limit)
        return True

    def files(self) -> list[File]:
        """The entries' files, the one used last first; empty where the folder cannot be read."""
        found = [File(n, s.st_size, s.st_mtime) for n, s in self._scan(SUFFIX) if is_name(n)]
        return sorted(found, key=lambda file: (-file.used, file.name))

    def digests(self) -> dict[str, str]:
        """A hash of every entry's bytes, by name."""
        raws = ((file.name, self.raw(file.name)) for file in self.files())
        return {n: hashlib.sha256(data).hexdigest() for n, data in raws if data is not None}

    def size(self) -> int:
        """Bytes of all entries."""
        return sum(file.size for file in self.files())

    def prune(self, limit: float) -> list[str]:
        """Deletes what was used longest ago until at most `limit` bytes remain, and what dead
        writers left behind; the names of the entries that went.
        """
        now = self.clock()
        for name, status in self._scan(PART):
            if abs(now - status.st_mtime) > ABANDONED_SECONDS:
                self.delete_file(self.folder / f"{name}{PART}")
        files = self._in_order(now)
        total = sum(file.size for file in files)
        if total <= limit:
            return []
        gone: list[str] = []
        for file in files[:0:-1]:  # what was used last stays, however small the limit
            if total <= limit * EVICT_TO:
                break
            if self.delete(file.name):
                gone.append(file.name)
                total -= file.size
        return gone

    def _in_order(self, now: float) -> list[File]:
        """Files, last used first; times that lie ahead are set back to now."""
        files: list[File] = []
        for file in self.files():
            if file.used > now + RENEW_SECONDS:
                with contextlib.suppress(OSError, OverflowError):
                    os.utime(self.path(file.name), (now, now))
                file = dataclasses.replace(file, used=now)
            files.append(file)
        return sorted(files, key=lambda file: (-file.used, file.name))

    def delete(self, name: str) -> bool:
        """Deletes an entry; whether it is gone by this call."""
        return self.delete_file(self.path(name))

    def delete_file(self, path: Path) -> bool:
        """Deletes one file of the folder; False where that cannot be done."""
        try:
            os.unlink(path)
        except OSError:
            return False
        return True

    def problem(self) -> str | None:
        """Why nothing can be kept here, or None. Leaves nothing behind."""
        part = self.folder / f".probe.{os.getpid()}.{secrets.token_hex(4)}{PART}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            part.write_bytes(b"x")
            os.unlink(part)
        except OSError as error:
            return f"{self.folder}: {error.strerror or error}"
        return None

    def _scan(self, suffix: str) -> Iterator[tuple[str, os.stat_result]]:
        with contextlib.suppress(OSError), os.scandir(self.folder) as found:
            for item in found:
                if item.name.endswith(suffix):
                    with contextlib.suppress(OSError):
                        if item.is_file(follow_symlinks=False):
                            status = item.stat(follow_symlinks=False)
                            yield item.name.removesuffix(suffix), status

    def note(self, name: str, sentence: str, *, routine: bool = False) -> None:
        """Says once that an entry, or the folder, is not used and why."""
        about = str(self.path(name)) if name else ""
        with _noted_lock:
            if (about, sentence) in _noted:
                return
            _noted.add((about, sentence))
        text = f"cache: {about} {sentence}" if about else f"cache: {sentence}"
        _log.log(logging.INFO if routine else logging.WARNING, "%s", text)


def forget() -> None:
    """Lets every note be said again (for tests)."""
    with _noted_lock:
        _noted.clear()


def is_name(name: str) -> bool:
    """Whether a text can name an entry."""
    return len(name) == _NAME_DIGITS and set(name) <= set("0123456789abcdef")


def _not_for_everybody(path: str, flags: int) -> int:
    """Opens a new file that only its owner and group can write, as reading demands."""
    return os.open(path, flags, 0o664)


def _without_following(path: str, flags: int) -> int:
    """Opens a file that is no link and, should it be a pipe, without waiting for its writer."""
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    return os.open(path, flags)
