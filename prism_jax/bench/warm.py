"""`python -m prism_jax bench SUITE --warm N`: what new processes take beyond jax, cache warm.

In: rows. Out: a `Warm` for each: the first call of `jax.jit` and of `prism.jit` in fresh processes,
what was imported, whether every process lowered the same bytes (apart from whether jax's own
persistent cache is on), and whether that cache knows what another process compiled.

Protocol: one process fills an empty cache; then processes with `jax.jit` and with `prism.jit` take
turns, and of each kind the least counts, since what other work on the machine adds is nobody's
here. The clock starts when jax is imported, its backend has compiled something and the arguments
are there; `import prism_jax` is ours and is added. Hash seeds differ from process to process.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from prism_jax.bench.workload import Workload

LIMIT_SECONDS = 0.150
"""What a warm process may take above `jax.jit`: the project's own target."""
HEAVY = ("sympy", "triton", "jax_triton")
"""What a warm process does not import."""
Side = Literal["jit", "prism"]

CHILD = """
import json, sys, time
suite, key, side = sys.argv[1:]
import jax, jax.numpy as jnp
jax.block_until_ready(jax.jit(lambda x: x + 1)(jnp.zeros(8)))
heard = []
jax.monitoring.register_event_listener(lambda event, **_: heard.append(event))
def now():
    return time.perf_counter(), time.process_time()
start, jit = now(), jax.jit
if side == "prism":
    import prism_jax
    jit = prism_jax.jit
imported = [b - a for a, b in zip(start, now())]
from prism_jax.bench import suites
platform = "cpu" if jax.default_backend() == "cpu" else "gpu"
row = next(r for r in suites.rows(suite) if r.key == key and platform in r.platforms)
function, arguments = row.build(0)
function = jit(function)
jax.block_until_ready(arguments)
before, start = len(heard), now()
jax.block_until_ready(function(*arguments))
called = [b - a for a, b in zip(start, now())]
hits = sum("cache_hit" in event for event in heard[before:])
modules = sorted(sys.modules)
text = function.lower(*arguments).as_text()
print(json.dumps([imported, called, hits, modules, text]))
"""


@dataclasses.dataclass(frozen=True)
class First:
    """One process's first call: seconds by the clock and of processor time, the import's with it;
    the import's alone; hits of jax's own cache; modules; what was lowered.
    """

    wall_s: float
    cpu_s: float
    import_s: float
    hits: int
    modules: frozenset[str]
    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Warm:
    """One row.

    Attributes:
      row: its key.
      device: what it ran on.
      runs: processes of each kind.
      cold_s: the first call with an empty cache.
      jit_s, prism_s: the least first call, import included.
      jit_cpu_s, prism_cpu_s: the same in processor time.
      import_s: the least `import prism_jax`.
      imported: of `HEAVY`, what some warm process imported.
      same_bytes: whether all warm processes of one setting of jax's persistent cache lowered the
        same text.
      jax_cache_hits: whether a process finds what another compiled in that cache.
      found_s: the first call, import included, of a process that does.
    """

    row: str
    device: str
    runs: int
    cold_s: float
    jit_s: float
    prism_s: float
    jit_cpu_s: float
    prism_cpu_s: float
    import_s: float
    imported: tuple[str, ...]
    same_bytes: bool
    jax_cache_hits: bool
    found_s: float

    @property
    def above_s(self) -> float:
        """Seconds above `jax.jit`."""
        return self.prism_s - self.jit_s

    @property
    def good(self) -> bool:
        """Whether the row keeps to everything that is promised of a warm process."""
        kept = self.same_bytes and self.jax_cache_hits and not self.imported
        return kept and self.above_s <= LIMIT_SECONDS


def measure(row: Workload, runs: int, device: str) -> Warm:
    """One row, in 2 x `runs` + 4 processes.

    Raises:
      RuntimeError: a process failed; the message is the end of what it said.
    """
    with tempfile.TemporaryDirectory(prefix="prism_jax_warm_") as folder:
        ours = {"PRISM_JAX_CACHE": "on", "PRISM_JAX_CACHE_DIR": f"{folder}/plans"}
        cold = first(row, "prism", ours)
        pairs = [
            (first(row, "jit", {}), first(row, "prism", {**ours, "PYTHONHASHSEED": str(number)}))
            for number in range(1, runs + 1)
        ]
        jit, prism = zip(*pairs, strict=True)
        kept = {
            "JAX_COMPILATION_CACHE_DIR": f"{folder}/jax",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        # On a GPU plans are kept apart for either setting: the first process finds this one's.
        first(row, "prism", {**ours, **kept, "JAX_COMPILATION_CACHE_DIR": f"{folder}/other"})
        some, again = (
            first(row, "prism", {**ours, **kept, "PYTHONHASHSEED": seed}) for seed in ("77", "78")
        )
    return Warm(
        row=row.key,
        device=device,
        runs=runs,
        cold_s=cold.wall_s,
        jit_s=min(one.wall_s for one in jit),
        prism_s=min(one.wall_s for one in prism),
        jit_cpu_s=min(one.cpu_s for one in jit),
        prism_cpu_s=min(one.cpu_s for one in prism),
        import_s=min(one.import_s for one in prism),
        imported=tuple(name for name in HEAVY if any(name in one.modules for one in prism)),
        same_bytes=len({one.text for one in prism}) == 1 and some.text == again.text,
        jax_cache_hits=again.hits > some.hits,
        found_s=again.wall_s,
    )


def first(row: Workload, side: Side, variables: Mapping[str, str]) -> First:
    """What a fresh process says about its first call.

    Raises:
      RuntimeError: it failed.
    """
    paths = {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, row.suite, row.key, side],
        env={**os.environ, **paths, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it said nothing"])[-1])
    imported, called, hits, modules, text = json.loads(done.stdout.splitlines()[-1])
    wall, cpu = (a + b for a, b in zip(imported, called, strict=True))
    return First(wall, cpu, imported[0], hits, frozenset(modules), text)


HEAD = ("program", "cold", "jax.jit", "prism", "above", "cpu", "import", "bytes", "jax's cache", "")


def line(found: Warm) -> list[str]:
    """A row as a line of the table: milliseconds, save `cold`; what is not kept is marked."""
    return [
        found.row,
        f"{found.cold_s:.1f} s",
        *(
            f"{seconds * 1e3:.0f}"
            for seconds in (
                found.jit_s, found.prism_s, found.above_s, found.prism_cpu_s - found.jit_cpu_s,
                found.import_s,
            )
        ),
        "same" if found.same_bytes else "differ",
        f"hits, {found.found_s * 1e3:.0f}" if found.jax_cache_hits else "misses",
        " ".join(("" if found.good else "!", *found.imported)).strip(),
    ]  # fmt: skip


def save(path: Path, found: Sequence[Warm], versions: Mapping[str, str]) -> None:
    """Writes what was found as JSON."""
    rows: list[dict[str, Any]] = [dataclasses.asdict(one) for one in found]
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"versions": dict(versions), "rows": rows}, indent=1, sort_keys=True)
    path.write_text(text + "\n")
