"""`python -m prism_jax bench SUITE`: choose rows, measure, print, store.

In: command-line words. Out: a table on standard output, a JSON file where asked for.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from prism_jax.bench import suites, table
from prism_jax.bench.counters import Counted, counted
from prism_jax.bench.records import DeviceTime, Protocol, Record, Run
from prism_jax.bench.workload import Workload

#: Where committed records live, below the root of a checkout: one folder per device.
RECORDS = Path("kernels") / "records"
#: What `--dtype` may ask for.
DTYPES = ("float16", "bfloat16", "float32")


def parser() -> argparse.ArgumentParser:
    """The command's words."""
    words = argparse.ArgumentParser(
        prog="python -m prism_jax bench",
        description="Measure jax.jit and prism.jit side by side on the programs of a suite.",
    )
    words.add_argument("suite", nargs="?", choices=suites.NAMES, help="which programs")
    words.add_argument("--row", action="append", metavar="NAME", help="only this name or key")
    words.add_argument("--json", type=Path, metavar="FILE", help="store the records here")
    words.add_argument("--seconds", type=float, default=2.0, help="host timing of one row")
    words.add_argument("--seeds", type=int, default=1, help="draws for the errors")
    words.add_argument(
        "--device",
        choices=("cpu", "gpu"),
        help="rows of this platform (they run on jax's default device); default: where jax runs",
    )
    words.add_argument("--no-oracle", action="store_true", help="no errors against float64")
    words.add_argument(
        "--memory", action="store_true", help="peak temporaries, in fresh processes (CPU only)"
    )
    words.add_argument(
        "--warm", type=int, metavar="N",
        help="instead: first calls of N new processes with a warm cache beside jax.jit's",
    )  # fmt: skip
    words.add_argument(
        "--torch", action="store_true", help="also torch.compile and cuDNN attention (GPU only)"
    )
    words.add_argument(
        "--cold", action="store_true", help="also a chain of distinct layers (GPU only)"
    )
    words.add_argument(
        "--counters",
        action="store_true",
        help="also what each kernel waits for, by Nsight Compute (GPU only)",
    )
    words.add_argument("--dtype", choices=DTYPES, help="of float operands; default: the suite's")
    words.add_argument(
        "--tries",
        type=Path,
        metavar="FILE",
        help="store everything that tuning measures (GPU only)",
    )
    words.add_argument(
        "--judge", type=Path, metavar="FILE", help="judge the closed form's ranking by stored tries"
    )
    words.add_argument("--list", action="store_true", help="only print the rows' names")
    words.add_argument(
        "--readme", type=Path, metavar="FILE", help="regenerate the README's table from the records"
    )
    return words


def select(
    suite: str, platform: str, wanted: Sequence[str] | None, dtype: str | None = None
) -> tuple[Workload, ...]:
    """The rows of a suite for a platform, by name or by key, with float operands of `dtype`. Raises
    SystemExit for none.
    """
    there = tuple(row for row in suites.rows(suite) if platform in row.platforms)
    if wanted:
        there = _named(suite, platform, wanted, there)
    if dtype is None:
        return there
    try:
        return tuple(row.retyped(dtype) for row in there)
    except ValueError as error:
        raise SystemExit(str(error)) from None


def _named(
    suite: str, platform: str, wanted: Sequence[str], there: Sequence[Workload]
) -> tuple[Workload, ...]:
    found = tuple(row for row in there if row.name in wanted or row.key in wanted)
    if not found:
        names = ", ".join(sorted({row.name for row in there}))
        asked = " or ".join(wanted)
        raise SystemExit(f"no row of {suite} on {platform} is called {asked}; there are {names}")
    return found


def main(arguments: Sequence[str]) -> int:
    """Runs the command; 1 where a row could not be run or broke the accuracy contract."""
    words = parser().parse_args(arguments)
    if words.readme:
        folder = words.readme.parent / RECORDS
        words.readme.write_text(table.readme(words.readme.read_text(), folder))
        return 0
    if words.judge:
        return _judge(words.judge)
    if words.suite is None:
        parser().error(f"which suite? {', '.join(suites.NAMES)}")
    others = _others(words.suite, words.row, words.dtype) if words.torch else None
    from prism_jax.bench import runner  # initialises jax, which --readme and --help need not

    rows = select(words.suite, words.device or runner.platform(), words.row, words.dtype)
    if words.list:
        print("\n".join(row.key for row in rows))
        return 0
    if words.warm:
        return _warm(rows, words.warm, words.json, runner.protocol(runner.Settings()))
    settings = runner.Settings(
        seeds=tuple(range(words.seeds)),
        seconds=words.seconds,
        oracle=not words.no_oracle,
        memory=words.memory,
        cold=words.cold,
        tries=words.tries,
    )

    def done(run: Run) -> None:
        record = run.records[-1]
        print(f"{record.name} {record.size}: {record.speedup:.2f}x", file=sys.stderr, flush=True)
        if words.json:
            run.save(words.json)

    run = runner.run(words.suite, rows, settings, done, others)
    run = counted(run) if words.counters else run
    if words.json:
        run.save(words.json)
    print(render(run))
    broken = [record for record in run.records if record.broken]
    return int(bool(run.skipped or broken))


def _judge(path: Path) -> int:
    """Prints what the ranking makes of stored tries; 1 where the file holds none."""
    from prism_jax.bench import tries

    try:
        rows, summary = tries.judged(tries.load(path))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    lines = [
        (row, q.kernel, str(q.tried), str(q.place), f"{q.loss:.2f}x")
        for row, qualities in rows.items()
        for q in qualities
    ]
    print(table.text(("row", "kernel", "tries", "best is", "first takes"), lines))
    print(f"\n{summary}" if summary else "\nno kernel has two tries that the ranking knows")
    return int(summary is None)


def _warm(rows: Sequence[Workload], runs: int, path: Path | None, where: Protocol) -> int:
    """New processes with a warm cache; 1 where one takes too long or does what it should not."""
    from prism_jax.bench import warm

    found: list[warm.Warm] = []
    for row in rows:
        if row.missing:
            print(f"{row.key}: not run; needs {' '.join(row.missing)}", file=sys.stderr)
            continue
        found.append(warm.measure(row, runs, where.device))
        print(" ".join(warm.line(found[-1])), file=sys.stderr, flush=True)
        if path:
            warm.save(path, found, where.versions)
    print(table.text(warm.HEAD, [warm.line(one) for one in found]))
    print(f"\nmilliseconds of a new process's first call on {where.device}, least of {runs};"
          f" at most {warm.LIMIT_SECONDS * 1e3:.0f} above jax.jit is the target")  # fmt: skip
    return int(not all(one.good for one in found))


def _others(
    suite: str, wanted: Sequence[str] | None, dtype: str | None
) -> dict[str, dict[str, DeviceTime]]:
    """torch.compile's and cuDNN's times of GPU rows, taken before jax takes the GPU's memory."""
    from prism_jax.bench import torch_baseline

    rows = select(suite, "gpu", wanted, dtype)
    try:
        return torch_baseline.measure(suite, [row.key for row in rows], dtype=dtype)
    except RuntimeError as error:
        print(f"{error}; going on without it", file=sys.stderr)
        return {}


def _reason(record: Record) -> str:
    """How far a row is from its floor, and what its kernels wait for."""
    kernels = [str(Counted(**values)) for values in record.counters]
    return "; ".join([record.remainder, *kernels] if record.remainder else kernels)


def render(run: Run) -> str:
    """The run for a terminal: the host's table, the device's, the mean, what was skipped."""
    parts = [table.text(table.HOST_HEAD, [table.host_row(r) for r in run.records])]
    if any(record.jit is not None for record in run.records):
        parts.append(table.text(*table.device_table(run)))
    if any(record.jit_peak_bytes is not None for record in run.records):
        parts.append(table.text(table.MEMORY_HEAD, [table.memory_row(r) for r in run.records]))
    mean = f"geometric mean {table.means(run)} on {run.protocol.device}"
    parts.append(f"{mean}.{table.caveats(run)}")
    parts += [str(ranking)] if (ranking := table.ranking(run)) else []
    if any(record.split_s for record in run.records):
        parts.append(table.text(table.SPLIT_HEAD, [table.split_row(r) for r in run.records]))
    parts += [f"{record.key}: {reason}" for record in run.records if (reason := _reason(record))]
    parts += [f"{record.name}: {record.note}" for record in run.records if record.note]
    parts += [f"{key}: not run; {reason}" for key, reason in run.skipped.items()]
    return "\n\n".join(parts)
