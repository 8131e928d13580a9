"""What people do with a cache: look at it, check it, bound it, move it.

In: settings that name a folder (those in force, unless given). Out: plain values and texts. The
file that `export` writes and `load` reads is an uncompressed zip of entries, each under its own
checksum and, where the entries were signed, its signature; `load` checks every one of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prism_jax import errors
from prism_jax.cache.entry import MOST_BYTES, BadEntryError, Entry, decode
from prism_jax.cache.key import sources, versions
from prism_jax.cache.place import store
from prism_jax.cache.store import SUFFIX, Store, is_name
from prism_jax.options import Options, current

#: Bytes of an exported file; what claims to hold more is not read.
MOST_EXPORTED = 16 * 2**30


@dataclasses.dataclass(frozen=True)
class Row:
    """One entry as `entries` lists it.

    Attributes:
      name: 40 hexadecimal digits.
      bytes: of its file.
      used: when it was last used, Unix time.
      what: the function it was made for and the plan, in one line; or what is wrong with it.
      device: the kind of device it was made on.
      good: whether it can be used.
      stale: whether it belongs to other versions or sources than those in use, which may be again.
    """

    name: str
    bytes: int
    used: float
    what: str
    device: str = ""
    good: bool = True
    stale: bool = False

    def __str__(self) -> str:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(max(0.0, min(self.used, 4e9))))
        state = "bad  " if not self.good else "stale" if self.stale else "     "
        return f"{self.name[:12]} {self.bytes:>10} {when} {state} {self.device:<24} {self.what}"


def folder(options: Options | None = None) -> str | None:
    """The cache's folder; None where there is none to use."""
    place = store(options or current())
    return None if place is None else str(place.folder)


def entries(options: Options | None = None) -> tuple[Row, ...]:
    """Every entry, the one used last first, with what is wrong with those that cannot be used."""
    place = _store(options)
    return tuple(
        _row(file.name, file.size, file.used, _checked(place, file.name)) for file in place.files()
    )


def verify(options: Options | None = None) -> dict[str, str]:
    """What is wrong with entries, by name; empty where all are good. Kernels are checked too."""
    return {row.name: row.what for row in entries(options) if not row.good}


def show(name: str, options: Options | None = None) -> str:
    """An entry for people: what decided it, the report of what was found.

    Args:
      name: the entry's name, or its first digits.
      options: settings that name the cache; None: those in force.

    Raises:
      CacheFileError: there is no such entry, or several, or it is not valid.
    """
    place = _store(options)
    names = [file.name for file in place.files() if file.name.startswith(name)]
    if len(names) != 1:
        problem = f"has {len(names)} entries whose names begin with {name!r}"
        raise errors.CacheFileError(path=place.folder, problem=problem)
    found = _checked(place, names[0])
    if isinstance(found, str):
        raise errors.CacheFileError(path=place.path(names[0]), problem=found)
    from prism_jax.cache import plans

    kept, parts = plans.kept(found), found.values["key"]
    lines = [f"entry {names[0]}"]
    lines += [f"  {part}: {_flat(value)}" for part, value in sorted(parts.items())]
    return "\n".join([*lines, "", str(kept.report)])


def prune(
    megabytes: float | None = None, *, stale: bool = False, options: Options | None = None
) -> tuple[str, ...]:
    """Deletes entries that are not valid, and those used longest ago beyond a size.

    Args:
      megabytes: what may remain; None: the setting `cache_megabytes`.
      stale: also delete entries of other versions of this package, jax, triton, ...
      options: settings that name the cache; None: those in force.

    Returns:
      The names of the entries that went.
    """
    place = _store(options)
    unwanted = [row.name for row in entries(options) if not row.good or (stale and row.stale)]
    gone = [name for name in unwanted if place.delete(name)]
    return (*gone, *place.prune(place.limit if megabytes is None else megabytes * 2**20))


def export(path: str | os.PathLike[str], options: Options | None = None) -> int:
    """Writes every valid entry to one file; how many.

    Raises:
      CacheFileError: the file cannot be written.
    """
    place, target = _store(options), Path(path)
    part = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    count = 0
    try:
        with zipfile.ZipFile(part, "x", zipfile.ZIP_STORED) as file:
            for row in sorted(entries(options), key=lambda row: row.name):
                data = place.raw(row.name) if row.good else None
                if data is not None:
                    # No time of day in it: equal caches give equal files.
                    file.writestr(zipfile.ZipInfo(f"{row.name}{SUFFIX}"), data)
                    count += 1
        os.replace(part, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(part)
        problem = f"cannot be written: {error.strerror or error}"
        raise errors.CacheFileError(path=target, problem=problem) from None
    return count


def load(path: str | os.PathLike[str], options: Options | None = None) -> int:
    """Takes the entries of an exported file into the cache; how many. Invalid ones are noted and
    left out.

    Raises:
      CacheFileError: it is no such file.
    """
    place, count = _store(options), 0
    try:
        with zipfile.ZipFile(path) as file:
            for name, data in _members(file):
                problem = _problem(name, data, place)
                if problem:
                    place.note(name, f"is not loaded from {os.fspath(path)}: {problem}")
                elif place.write_raw(name, data):
                    count += 1
    except (OSError, zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        problem = f"is no exported cache: {getattr(error, 'strerror', None) or error}"
        raise errors.CacheFileError(path=os.fspath(path), problem=problem) from None
    return count


def _members(file: zipfile.ZipFile) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of what looks like entries; nothing is unpacked that says it is larger."""
    total = 0
    for member in file.infolist():
        name = member.filename.removesuffix(SUFFIX)
        plain = member.compress_type == zipfile.ZIP_STORED and member.file_size <= MOST_BYTES
        total += member.file_size
        if total > MOST_EXPORTED:
            return
        if plain and is_name(name) and member.filename.endswith(SUFFIX):
            yield name, file.read(member)


def _problem(name: str, data: bytes, place: Store) -> str:
    try:
        place.check_name(name, decode(data, place.secret))
    except BadEntryError as error:
        return str(error)
    return ""


def _store(options: Options | None) -> Store:
    place = store(options or current())
    if place is None:
        raise errors.CacheFileError(path="The cache", problem="is switched off, or has no folder")
    return place


def _checked(place: Store, name: str) -> Entry | str:
    """The entry, or the end of a sentence that says why it cannot be used."""
    from prism_jax.cache import plans
    from prism_jax.cache.data import ForeignError

    data = place.raw(name)
    if data is None:
        return "cannot be read"
    try:
        found = decode(data, place.secret)
        place.check_name(name, found)
        if not _is_stale(found):
            plans.kept(found)
    except (BadEntryError, ForeignError) as error:
        return str(error)
    return found


def _is_stale(found: Entry) -> bool:
    parts = found.values["key"]
    return parts.get("sources") != sources() or parts.get("versions") != versions()


def _row(name: str, size: int, used: float, found: Entry | str) -> Row:
    if isinstance(found, str):
        return Row(name, size, used, found, good=False)
    # What is stale was not compared with any type: it may be of a version that wrote otherwise.
    report, device = _fields(found.values.get("report")), _fields(found.values["key"].get("device"))
    what = f"{report.get('name')}: {report.get('plan') or 'left to XLA'}"
    kind = str(device.get("processor") or device.get("kind") or "")
    return Row(name, size, used, what, kind[:24], stale=_is_stale(found))


def _fields(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(item)}" for key, item in sorted(value.items()))
    return str(value)
