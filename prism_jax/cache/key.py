"""What decides a plan, as one value: the name of an entry is the hash of all of it.

In: a program's digest, the device, the settings. Out: a `Key`. Two processes with equal keys may
use each other's plans: the same program with the same sizes and dtypes, on the same kind of device
and driver, with the same versions of everything that makes code, the same flags, and the same
sources of ours. Nothing heavy is imported: versions come from metadata, and our sources (the axioms
among them) are hashed as files.

Budgets are not in it: a longer search is better, not different. An entry remembers them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prism_jax import compat
from prism_jax.cache.entry import SCHEMA
from prism_jax.options import Options, compiler_environment

#: Distributions whose versions decide what code a plan becomes, or which plan is found.
DISTRIBUTIONS = ("jax", "jaxlib", "numpy", "triton", "jax-triton")
PLUGINS = ("jax-cuda13-plugin", "jax-cuda12-plugin", "jax-rocm7-plugin")
#: What of this package has no part in finding, building or checking a plan.
_UNINVOLVED = frozenset(
    {
        "api.py", "background.py", "bench", "cache", "demo.py", "doctor.py", "progress.py",
        "report", "swap.py", "testing", "__main__.py",
    }
)  # fmt: skip
#: Settings that only say how much time may be spent.
BUDGETS = ("search_seconds", "tune_seconds")


@dataclasses.dataclass(frozen=True)
class Key:
    """`parts` is all that decides; `name` its hash, which names the entry's file."""

    parts: Mapping[str, Any]

    @functools.cached_property
    def name(self) -> str:
        """40 hexadecimal digits."""
        text = json.dumps(self.parts, sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:40]


def key(program: str, device: Mapping[str, Any], options: Options) -> Key:
    """The key of a program's plan.

    Args:
      program: its digest, which covers sizes and dtypes.
      device: what is known of the device: JSON types.
      options: settings; of `tune` only whether plans are measured or ranked.
    """
    settings = {name: value for name, value in options.key() if name not in BUDGETS}
    settings["tune"] = "ranked" if options.tune == "off" else "measured"
    return Key(
        {
            "schema": SCHEMA,
            "program": program,
            "device": dict(device),
            "versions": versions(),
            "sources": sources(),
            "environment": compiler_environment(),
            "jax": compat.numerics(),
            "options": settings,
        }
    )


@functools.cache
def versions() -> dict[str, str]:
    """Versions of what makes code; what is not installed is left out."""
    found: dict[str, str] = {}
    for name in (*DISTRIBUTIONS, *PLUGINS):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            text = importlib.metadata.distribution(name).read_text("METADATA") or ""
            # The library's own parser reads all of it, a README too, which takes milliseconds.
            version = re.search(r"^Version: *(\S+)", text, re.MULTILINE)
            found[name] = version[1] if version else importlib.metadata.version(name)
    return found


@functools.cache
def sources() -> str:
    """A hash of our own sources that have a part in plans: search, axioms, checks, emission, ..."""
    root = Path(__file__).parents[1]
    state = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if name.parts[0] not in _UNINVOLVED:
            state.update(f"{name.as_posix()}\n".encode() + path.read_bytes() + b"\0")
    return state.hexdigest()
