"""`python -m prism_jax demo`: the main job on real programs, on whatever device is there.

The six programs of Mirage's artifact, the programs that only a rewrite saves, and a transformer
block of an installed library. For each: the time of a warm call under `jax.jit` and under
`prism.jit`, the error of both against float64, and what was found. A library that is absent costs
its row only, which says what to install.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from prism_jax.bench import runner, suites, table
from prism_jax.bench.records import Record, Run
from prism_jax.bench.workload import Workload

#: Suites in the order of the demo, and the rows of each (None: all of this platform).
PARTS: tuple[tuple[str, str, tuple[str, ...] | None], ...] = (
    ("mirage", "the six programs of Mirage's artifact", None),
    ("algebra", "programs that only a rewrite saves", None),
    ("models", "code from installed libraries", ("flax_block", "equinox_block")),
)
WIDTHS = (28, 8, 8, 9, 8, 10, 8)


def main(seconds: float = 1.0) -> int:
    """Runs the demo, printing each line as it is measured; 1 where a contract or a stage broke.

    Args:
      seconds: host timing of each program.
    """
    start = time.perf_counter()
    settings = runner.Settings(seconds=seconds)
    protocol = runner.protocol(settings)
    versions = ", ".join(f"{name} {v}" for name, v in sorted(protocol.versions.items()))
    _say(f"prism_jax demo on {protocol.device}\n{versions}")
    runs = [_part(suite, title, names, settings) for suite, title, names in PARTS]
    records = [record for run in runs for record in run.records]
    _say(summary(records, time.perf_counter() - start))
    return int(any(record.broken or record.note for record in records))


def _part(suite: str, title: str, names: tuple[str, ...] | None, settings: runner.Settings) -> Run:
    _say(f"\n{suite}: {title}")
    _say(line(table.HOST_HEAD))
    run = runner.run(
        suite,
        chosen(suite, names),
        settings,
        done=lambda run: _say(line(table.host_row(run.records[-1]))),
    )
    for record in run.records:
        if record.note:
            _say(f"{record.name}: {record.note}")
    for key, reason in run.skipped.items():
        _say(f"{key}: not run; {reason}")
    return run


def chosen(suite: str, names: tuple[str, ...] | None) -> tuple[Workload, ...]:
    """This platform's rows of a suite with one of these names."""
    return tuple(
        row
        for row in suites.rows(suite)
        if runner.platform() in row.platforms and (names is None or row.name in names)
    )


def line(cells: Sequence[str]) -> str:
    """A line whose columns have their place before the other lines are known."""
    padded = [cells[0].ljust(WIDTHS[0])]
    padded += [cell.rjust(width) for cell, width in zip(cells[1:7], WIDTHS[1:], strict=True)]
    return "  ".join([*padded, *cells[7:]]).rstrip()


def summary(records: Sequence[Record], elapsed: float) -> str:
    """Three sentences: how much faster, how accurate, how long it took."""
    if not records:
        return "\nNo program could be run."
    faster = [record for record in records if record.host.low > 1.03]
    slower = [record for record in records if record.slower]
    kept = sum(r.contract is not None and r.contract.kept for r in records)
    parts = [
        f"\n{len(records)} programs: {len(faster)} faster than jax.jit,"
        f" {len(records) - len(faster) - len(slower)} left as fast, {len(slower)} slower.",
        f"{kept} of {len(records)} keep the accuracy contract (at most twice jax.jit's error"
        " against float64, plus 4 ulp).",
        f"Took {elapsed:.0f} s. `first` is the first call: search, measuring, compilation."
        " ~ marks a ratio whose 95 % interval holds 1, ! a broken contract.",
    ]
    return "\n".join(parts)


def _say(text: str) -> None:
    print(text, flush=True, file=sys.stdout)
