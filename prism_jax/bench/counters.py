"""Hardware counters of the kernels of plans, by Nsight Compute: what a kernel waits for.

In: plans by name, on a machine with a GPU and `ncu`. Out: for each name one `Counted` per kernel of
ours. All plans run in one process under the profiler (that of `sanitize`), each once; clocks and
caches are left as they are in use. Library calls are not looked at.

>>> kernel = Counted("parts", 21.1, 0.31, 1.9, 0.28, 0.25, 0.36, 0.97, 240, "registers")
>>> print(kernel)
parts waits (L2 cache 36 % busy, issue slots 31 %; 1.9 of 16 warps on a scheduler, by registers)
"""

from __future__ import annotations

import csv
import dataclasses
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prism_jax.bench import sanitize
from prism_jax.bench.records import Record, Run
from prism_jax.instantiate.plan import Plan
from prism_jax.instantiate.plan_text import parse_plan, print_plan

__all__ = ["Counted", "counted", "measured", "parse"]

SECTIONS = ("SpeedOfLight", "SchedulerStats", "Occupancy", "LaunchStats")
BUSY = 0.7
"""What is busy for this share of the time is what a kernel is limited by."""
MOST_WARPS = 16
"""On one scheduler."""
TIMEOUT_SECONDS = 500.0


@dataclasses.dataclass(frozen=True)
class Counted:
    """One kernel.

    Attributes:
      kernel: its name.
      us: microseconds, with the profiler's clocks.
      issue: share of cycles in which a scheduler issues an instruction.
      warps: on one scheduler, on average.
      compute, dram, l2: shares of the throughput of the computing units, of memory, of its cache.
      waves: grids are so many times as large as what runs at once.
      registers: of a thread.
      limit: what keeps more warps from running.
    """

    kernel: str
    us: float
    issue: float
    warps: float
    compute: float
    dram: float
    l2: float
    waves: float
    registers: int
    limit: str

    def __str__(self) -> str:
        parts = [("issue slots", self.issue), ("computing units", self.compute),
                 ("memory", self.dram), ("L2 cache", self.l2)]  # fmt: skip
        (first, most), (second, less) = sorted(parts, key=lambda part: -part[1])[:2]
        if most >= BUSY:
            return f"{self.kernel} is limited by {first}, {100 * most:.0f} % busy"
        return (
            f"{self.kernel} waits ({first} {100 * most:.0f} % busy, {second} {100 * less:.0f} %;"
            f" {self.warps:.1f} of {MOST_WARPS} warps on a scheduler, by {self.limit})"
        )


def counted(run: Run) -> Run:
    """The run with hardware counters of the kernels of the plans that were chosen; as it is, with a
    warning, where there is no profiler.
    """
    texts = {
        f"{record.key} {number}": region["plan_text"]
        for record in run.records
        for number, region in enumerate(record.regions)
    }
    plans = {name: parse_plan(text) for name, text in texts.items() if text}
    try:
        found = measured({n: plan for n, plan in plans.items() if plan.backend == "triton"})
    except RuntimeError as error:
        warnings.warn(f"no counters: {error}", stacklevel=2)
        return run

    def of(record: Record) -> tuple[dict[str, Any], ...]:
        names = (f"{record.key} {number}" for number in range(len(record.regions)))
        return tuple(dataclasses.asdict(k) for name in names for k in found.get(name, ()))

    records = tuple(dataclasses.replace(r, counters=of(r)) for r in run.records)
    return dataclasses.replace(run, records=records)


def measured(plans: Mapping[str, Plan]) -> dict[str, tuple[Counted, ...]]:
    """The kernels of each plan, in order; a plan that did not run has none.

    Raises:
      RuntimeError: there is no profiler, or it says nothing.
    """
    from prism_jax.emit import emit

    wanted = {name: [k.source.name for k in emit(plan).kernels] for name, plan in plans.items()}
    kernels = sorted({kernel for names in wanted.values() for kernel in names})
    if not kernels:
        return dict.fromkeys(plans, ())
    with tempfile.TemporaryDirectory() as folder:
        folders = [Path(folder) / str(number) for number in range(len(plans))]
        for place, plan in zip(folders, plans.values(), strict=True):
            place.mkdir()
            (place / "plan.txt").write_text(print_plan(plan))
        command = [sanitize.find("ncu"), "--csv", "--page", "details", "--clock-control", "none"]
        command += ["--cache-control", "none", "--kernel-name", f"regex:^({'|'.join(kernels)})$"]
        command += [word for section in SECTIONS for word in ("--section", section)]
        command += [sys.executable, "-m", sanitize.__name__, *map(str, folders)]
        text = _output(command)
    ran = sanitize.parse(text, [place.name for place in folders])
    order = [
        (name, wanted[name]) for name, one in zip(plans, ran, strict=True) if one.verdict == "clean"
    ]
    if not order:
        last = (text.strip().splitlines() or ["nothing"])[-1]
        raise RuntimeError(f"the profiler ran no plan; it says: {last}")
    return dict.fromkeys(plans, ()) | parse(text, order)


def _output(command: Sequence[str]) -> str:
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    try:
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=TIMEOUT_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"the profiler took longer than {TIMEOUT_SECONDS:g} s") from None
    return done.stdout


def parse(text: str, order: Iterable[tuple[str, Sequence[str]]]) -> dict[str, tuple[Counted, ...]]:
    """What the profiler's CSV says of the kernels of each plan, given in the order in which they
    ran.
    """
    launches: dict[str, tuple[str, dict[str, float]]] = {}
    lines = [line for line in text.splitlines() if line.startswith('"')]
    for row in csv.DictReader(lines):
        _, metrics = launches.setdefault(row["ID"], (row["Kernel Name"], {}))
        value = (row["Metric Value"] or "").replace(",", "")
        if row["Metric Name"] and re.fullmatch(r"[\d.]+", value):
            scale = {"%": 0.01, "ns": 1e-3, "ms": 1e3}.get(row["Metric Unit"], 1.0)
            metrics[row["Metric Name"]] = float(value) * scale
    left = list(launches.values())
    found: dict[str, tuple[Counted, ...]] = {}
    for name, kernels in order:
        counted: list[Counted] = []
        for kernel in kernels:
            at = next((n for n, (seen, _) in enumerate(left) if seen == kernel), None)
            if at is None:
                break
            counted.append(_counted(*left[at]))
            left = left[at + 1 :]
        found[name] = tuple(counted)
    return found


def _counted(kernel: str, metrics: Mapping[str, float]) -> Counted:
    def value(name: str) -> float:
        return metrics.get(name, 0.0)

    limits = {
        "registers": value("Block Limit Registers"),
        "shared memory": value("Block Limit Shared Mem"),
        "warps": value("Block Limit Warps"),
    }
    waves = value("Waves Per SM")
    least = min(limits, key=lambda name: limits[name])
    return Counted(
        kernel=kernel,
        us=value("Duration"),
        issue=value("One or More Eligible"),
        warps=value("Active Warps Per Scheduler"),
        compute=value("Compute (SM) Throughput"),
        dram=value("DRAM Throughput"),
        l2=value("L2 Cache Throughput"),
        waves=waves,
        registers=int(value("Registers Per Thread")),
        limit="the size of the grid" if waves < 0.5 else least,
    )
