"""`python -m prism_jax doctor`: what is installed, what will be used, what is missing, what to do.

In: `Facts`, gathered once from the installation. Out: `Finding`s, then text.

Invariant: every finding that is not `ok` names an action, and gathering facts imports neither
triton nor jax_triton nor sympy (their versions come from their metadata), so the doctor can examine
an installation in which they do not import.

>>> facts = Facts(versions={"jax": "0.11.2"}, backend="cpu", devices=("cpu",), system="Linux")
>>> print(report(examine(facts)).splitlines()[0])
ok       jax 0.11.2 runs on cpu (cpu)
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from prism_jax import device
from prism_jax.cache.store import Store
from prism_jax.options import FIELDS, Options, cache_folder, current

#: Distributions the doctor asks for, and what each is for.
DISTRIBUTIONS: Mapping[str, str] = {
    "jax": "the programs",
    "jaxlib": "the programs",
    "numpy": "everything",
    "sympy": "closed forms of cost",
    "triton": "kernels on NVIDIA GPUs, and their interpreter on any machine",
    "jax-triton": "kernels of which there is only the source; compiled ones are launched directly",
    "flax": "the demo's transformer block",
    "equinox": "the `models` suite",
    "optax": "the `models` suite",
}

#: Distributions of jax's CUDA plugin, newest first.
PLUGINS = ("jax-cuda13-plugin", "jax-cuda12-plugin")

State = Literal["ok", "note", "missing", "broken"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What was found on this machine. `versions` maps installed distributions to their versions."""

    versions: Mapping[str, str]
    backend: str
    devices: tuple[str, ...]
    system: str
    settings: Options = dataclasses.field(default_factory=Options)
    cache_problem: str = ""
    cache: str = ""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report, with what to do unless all is well."""

    state: State
    text: str
    action: str = ""

    def __post_init__(self) -> None:
        if self.state != "ok" and not self.action:
            raise ValueError(f"a finding without an action: {self.text}")


def gather() -> Facts:
    """Looks at this installation. Initialises jax's default backend."""
    import jax  # so that a test of `examine` needs no backend

    versions: dict[str, str] = {}
    for name in (*DISTRIBUTIONS, *PLUGINS):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    settings = current()
    return Facts(
        versions=versions,
        backend=jax.default_backend(),
        devices=tuple(entry.device_kind for entry in jax.devices()),
        system=platform.system(),
        settings=settings,
        cache_problem=_cache_problem(settings),
        cache=_cache(settings),
    )


def _cache_problem(settings: Options) -> str:
    """Why plans cannot be kept where the settings say; empty where they can, or need not be."""
    folder = cache_folder(settings)
    if settings.cache == "off":
        return ""
    if folder is None:
        return "this user has no cache folder"
    if settings.cache == "read":
        return "" if Path(folder).is_dir() else f"{folder}: No such folder"
    return Store(Path(folder)).problem() or ""


def _cache(settings: Options) -> str:
    """Where plans are kept, how many, and how large they are; empty where none are."""
    folder = cache_folder(settings)
    if settings.cache == "off" or folder is None:
        return ""
    files = Store(Path(folder)).files()
    size = sum(file.size for file in files) / 2**20
    return f"{folder} ({len(files)} entries, {size:.1f} of {settings.cache_megabytes:g} MB)"


def examine(facts: Facts) -> tuple[Finding, ...]:
    """All findings, in the order of the report: what runs, what is missing, what does not fit."""
    return (
        *_programs(facts),
        *_kernels(facts),
        *_misfits(facts),
        *_optional(facts),
        *_settings(facts),
    )


def _programs(facts: Facts) -> Iterator[Finding]:
    kinds = ", ".join(sorted(set(facts.devices)))
    yield Finding("ok", f"jax {facts.versions.get('jax')} runs on {facts.backend} ({kinds})")
    if facts.settings.device is not None:
        yield Finding("ok", f"plans are made for the device row {facts.settings.device}")
    elif _on_gpu(facts):
        row = device.for_gpu(facts.devices[0])
        if row.name in device.ROWS:
            yield Finding("ok", f"device row {row.name}: bounds use measured rates")
        else:
            yield Finding(
                "note",
                f"no device row for {facts.devices[0]}: an A100's rates are scaled to it",
                "plans are still measured; a row in prism_jax/device.py sharpens the search",
            )


def _on_gpu(facts: Facts) -> bool:
    return facts.backend in ("gpu", "cuda")


def _kernels(facts: Facts) -> Iterator[Finding]:
    triton = facts.versions.get("triton")
    plugin = next((name for name in PLUGINS if name in facts.versions), None)
    if not _on_gpu(facts):
        yield Finding("ok", "plans run as blocked lax or plain jnp on this machine")
        if plugin and triton and facts.system == "Linux":
            yield Finding("ok", f"triton {triton} and {plugin}: kernels can be compiled, not run")
        return
    if triton is None:
        yield Finding(
            "missing",
            "triton: no kernel can be made, plans run as blocked lax or plain jnp",
            "pip install 'prism-jax[gpu]'" if facts.system == "Linux" else "use Linux",
        )
        return
    by_xla = _number(facts, "jaxlib") >= (0, 11, 2)
    how = "by XLA itself" if by_xla else "through jaxlib's kernel call"
    yield Finding("ok", f"triton {triton}: kernels are launched {how}")


def _misfits(facts: Facts) -> Iterator[Finding]:
    """Combinations of versions that are known not to work together."""
    triton, numpy = _number(facts, "triton"), _number(facts, "numpy")
    if _number(facts, "jax") < (0, 10, 2):
        yield Finding(
            "broken",
            f"jax {facts.versions.get('jax')} is older than this package supports",
            "pip install 'jax>=0.10.2'",
        )
    if (0,) < triton < (3, 7) and numpy >= (2, 4):
        yield Finding(
            "note",
            f"triton {facts.versions['triton']}'s interpreter fails with numpy"
            f" {facts.versions['numpy']} (kernels on a GPU are not affected)",
            "pip install 'numpy<2.4', or triton>=3.7.1",
        )
    if _number(facts, "jax-triton") >= (0, 4) and (
        (0,) < triton < (3, 7) or _number(facts, "jax") >= (0, 12)
    ):
        yield Finding(
            "note",
            f"jax-triton {facts.versions['jax-triton']} does not fit jax {facts.versions['jax']}"
            f" with triton {facts.versions.get('triton')}: kernels are launched directly",
            "nothing, or pip install jax-triton==0.3.1",
        )


def _number(facts: Facts, name: str) -> tuple[int, ...]:
    """The version as numbers; () where it is not installed.

    >>> _number(Facts(versions={"a": "3.6.0rc1"}, backend="", devices=(), system=""), "a")
    (3, 6)
    """
    numbers: list[int] = []
    for part in facts.versions.get(name, "").split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def _optional(facts: Facts) -> Iterator[Finding]:
    for name in ("flax", "equinox", "optax"):
        if name not in facts.versions:
            yield Finding(
                "missing", f"{name}: {DISTRIBUTIONS[name]}", f"pip install {name} (optional)"
            )
    if "sympy" not in facts.versions:
        yield Finding("broken", f"sympy: {DISTRIBUTIONS['sympy']}", "pip install sympy")


def _settings(facts: Facts) -> Iterator[Finding]:
    if not facts.settings.enabled:
        yield Finding("note", "prism_jax is switched off", "unset PRISM_JAX to switch it on")
    if facts.cache_problem:
        yield Finding(
            "missing",
            f"no plans can be kept: {facts.cache_problem}",
            "set PRISM_JAX_CACHE_DIR to a folder that can be written",
        )
    elif facts.settings.cache == "off":
        yield Finding("ok", "plans are not kept: the cache is switched off")
    elif facts.cache:
        kept = "kept in" if facts.settings.cache == "on" else "read from"
        yield Finding("ok", f"plans are {kept} {facts.cache}")
    defaults = {name: field.metadata["default"] for name, field in FIELDS.items()}
    changed = [
        f"{name}={getattr(facts.settings, name)!r}"
        for name, default in sorted(defaults.items())
        if getattr(facts.settings, name) != default
    ]
    yield Finding("ok", f"settings: {', '.join(changed) or 'all at their defaults'}")


def report(findings: Sequence[Finding]) -> str:
    """The findings as text, one line each and its action below."""
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{finding.state:<8} {finding.text}")
        if finding.action:
            lines.append(f"{'':<8} -> {finding.action}")
    return "\n".join(lines)


def main() -> int:
    """Prints the report; 1 where something is broken, so that a script can ask."""
    findings = examine(gather())
    print(report(findings))
    return int(any(finding.state == "broken" for finding in findings))
