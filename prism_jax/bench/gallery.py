"""`python -m prism_jax kernels`: what the search found for the suites, as files that can be read.

In: rows, and the committed records of a device. Out: for every region of a row a folder
`<device>/<row>` with the plan as text, the source of each kernel (it runs on its own), the evidence
for it (proof and field test; they need no device) and, where the plan was measured, its record.

A plan comes from the record; where there is none, it is the search's own best by the model, without
measuring. Everything but the record follows from `plan.txt`, which a test checks.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prism_jax.bench import suites
from prism_jax.bench.records import Run
from prism_jax.bench.table import TARGETS
from prism_jax.bench.workload import Workload
from prism_jax.instantiate.plan import Plan, Schedule
from prism_jax.instantiate.plan_text import parse_plan, print_plan
from prism_jax.instantiate.tune import alone
from prism_jax.ir.sgraph import SGraph

__all__ = ["files", "folder_of", "main", "sources"]

TRIES = 6
SUITES = ("mirage", "prism", "flash", "algebra")
FOLDER = Path("kernels")


def sources(plan: Plan) -> dict[str, str]:
    """The files that follow from a plan: its text, and every kernel as a module."""
    from prism_jax.emit import emit

    found = {"plan.txt": print_plan(plan)}
    for kernel in emit(plan).kernels:
        grid = " x ".join(map(str, kernel.grid))
        operands = ", ".join(f"{t.name} {t.dtype}{list(t.shape)}" for t in kernel.operands)
        results = ", ".join(f"{t.name} {t.dtype}{list(t.shape)}" for t in kernel.results)
        head = [
            f"# {kernel.source.name}: launched on {grid} blocks of {kernel.source.num_warps} warps,"
            f" {kernel.source.num_stages} stages.",
            f"# reads {operands}",
            f"# writes {results}",
        ]
        found[f"{kernel.name}.py"] = "\n".join([*head, kernel.source.text])
    return found


def folder_of(row: Workload, number: int = 0) -> str:
    """A row's (or its later region's) folder name.

    >>> from prism_jax.bench.suites import rows
    >>> folder_of(rows("mirage")[0])
    'mirage-gqa-b1'
    """
    name = re.sub(r"[^a-z0-9]+", "-", f"{row.suite} {row.key}".lower().replace("=", "")).strip("-")
    return f"{name}-{number + 1}" if number else name


def files(row: Workload, device: str, record: Mapping[str, Any] | None) -> Iterator[dict[str, str]]:
    """For each region of a row in turn, the files of its folder; none where XLA's version stays."""
    import jax

    from prism_jax import device as devices
    from prism_jax import extract
    from prism_jax.options import Options

    arrays = [jax.ShapeDtypeStruct(o.shape, o.dtype) for o in row.operands]
    function = row.function
    assert function is not None
    closed = jax.make_jaxpr(function)(*arrays)
    cut = extract.extract(closed, Options(), row.name)
    regions: list[Any] = [step for step in cut.steps if hasattr(step, "program")]
    known = list(record["regions"]) if record is not None else []
    for number, region in enumerate(regions):
        same = known[number] if len(known) == len(regions) else {}
        text = same.get("plan_text", "")
        if text:
            plan = parse_plan(text)
        elif same and "plan_text" in same:
            yield {}  # measured, and XLA's own version stayed
            continue
        else:
            plan = _ranked(region.program, devices.row(device))
        if plan is None or plan.backend != "triton":
            yield {}
            continue
        found = sources(plan)
        found["evidence.json"] = _evidence(region.program, plan, str(same.get("evidence", "")))
        if text and record is not None:
            kept = {k: record[k] for k in ("name", "size", "jit", "prism", "torch")}
            if device == TARGETS:
                kept["target_us"] = record["target_us"]
            found["record.json"] = json.dumps(kept, indent=1, sort_keys=True) + "\n"
        yield found


def _ranked(program: Any, device: Any) -> Plan | None:
    """The best structure with kernels of ours by the model, one without library calls first; for
    each kernel, of what is ranked first, what compiles without spilling and fits the device.
    """
    from prism_jax import explore
    from prism_jax.instantiate.rank import Ranking
    from prism_jax.options import Options

    found = explore.explore(program, device, Options())
    ours = [c for c in found.candidates if c.kernels]
    for candidate in sorted(ours, key=lambda c: c.kernels != len(c.sgraph.nodes))[:TRIES]:
        kernels, sizes = candidate.sgraph.kernels, dict(candidate.sizes)
        schedules: list[Schedule] = []
        for kernel in kernels:
            shared = {
                s: sizes[s] for s in kernel.symbols if sum(s in k.symbols for k in kernels) > 1
            }
            tries = Ranking(kernel, device, shared).first(TRIES)
            fitting = _fitting(alone(kernel, candidate.sgraph), tries, device)
            if fitting is None:
                break
            sizes |= dict(fitting[0])
            schedules.append(fitting[1])
        if schedules and len(schedules) == len(kernels):
            items = tuple(sorted(sizes.items()))
            return Plan(candidate.sgraph, "triton", device.name, items, tuple(schedules))
    return None


def _fitting(sgraph: SGraph, tries: Sequence[Any], device: Any) -> tuple[Any, Schedule] | None:
    from prism_jax.emit import emit
    from prism_jax.emit.binary import Binary, fits
    from prism_jax.emit.compile import compile_many

    plans = [Plan(sgraph, "triton", device.name, sizes, (how,)) for _, sizes, how in tries]
    sources = [emit(plan).kernels[0].source for plan in plans]
    made = compile_many(sources, device.compute_capability, workers=os.cpu_count() or 1)
    for plan, binary in zip(plans, made, strict=True):
        if isinstance(binary, Binary) and binary.stack == 0 and fits(binary, device) is None:
            return plan.sizes, plan.schedules[0]
    return None


def _evidence(program: Any, plan: Plan, measured: str) -> str:
    from prism_jax import verify

    found = verify.verify(program, plan.sgraph, plan.numbers)
    values = json.loads(found.to_json())
    if values.get("proof"):  # the same each time: how long it took is no part of it
        proof = json.loads(values["proof"])
        values["proof"] = {key: value for key, value in proof.items() if key != "seconds"}
    values["summary"] = re.sub(r", [0-9.]+ ms", "", str(found)).splitlines()
    values["on the device"] = measured.splitlines()
    return json.dumps(values, indent=1, sort_keys=True) + "\n"


def _records(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The committed records of a device by suite and row; later files replace earlier ones."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        run = Run.load(path).to_json()
        for record in run["records"]:
            if any(region.get("plan_text") is not None for region in record["regions"]):
                found[run["suite"], f"{record['name']} {record['size']}".strip()] = record
    return found


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    words = argparse.ArgumentParser(
        prog="python -m prism_jax kernels",
        description="Regenerate the gallery of kernels that were found for the suites.",
    )
    words.add_argument("--device", default="H100", help="whose records and model (default: H100)")
    words.add_argument("--suite", action="append", choices=SUITES, help="only this suite")
    words.add_argument("--row", action="append", metavar="NAME", help="only this name or key")
    words.add_argument("--folder", type=Path, default=FOLDER, help="where the gallery is")
    words.add_argument(
        "--records", type=Path, help="folder of records; default: those in the gallery's folder"
    )
    words.add_argument(
        "--sanitize",
        type=Path,
        metavar="FILE",
        help="regenerate nothing: run the gallery's kernels under compute-sanitizer on this GPU"
        " and store what it says as JSON",
    )
    chosen = words.parse_args(arguments)
    device = chosen.device.lower()
    if chosen.sanitize is not None:
        return _sanitized(chosen.folder / "found" / device, chosen)
    records = _records(chosen.records or chosen.folder / "records" / device)
    for suite in chosen.suite or SUITES:
        for row in suites.rows(suite):
            wanted = chosen.row is None or row.name in chosen.row or row.key in chosen.row
            if "gpu" not in row.platforms or row.function is None or not wanted:
                continue
            record = records.get((suite, row.key))
            for number, made in enumerate(files(row, chosen.device, record)):
                name = folder_of(row, number)
                _write(chosen.folder / "found" / device / name, made)
                print(f"{name}: {len(made)} files", file=sys.stderr, flush=True)
    return 0


def _sanitized(folder: Path, chosen: argparse.Namespace) -> int:
    """The plans of the rows asked for, under the sanitizer."""
    from prism_jax.bench import sanitize

    wanted = [
        folder / folder_of(row)
        for suite in chosen.suite or SUITES
        for row in suites.rows(suite)
        if chosen.row is None or row.name in chosen.row or row.key in chosen.row
    ]
    there = sorted({path for path in wanted if (path / "plan.txt").exists()})
    if not there:
        print(f"there are no plans of these rows in {folder}", file=sys.stderr)
        return 1
    return sanitize.main(there, chosen.sanitize)


def _write(folder: Path, made: Mapping[str, str]) -> None:
    """Makes the folder hold exactly these files."""
    for old in folder.glob("*"):
        if old.name not in made:
            old.unlink()
    if not made:
        if folder.exists():
            folder.rmdir()
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in made.items():
        (folder / name).write_text(text)
