"""compute-sanitizer over the gallery: memory errors and races of every found kernel, on a GPU.

In: folders of the gallery. Out: for each tool and folder what the sanitizer said, as JSON. The
plans run in one process under the sanitizer (jax takes half a minute to start there), with a
memory allocation for each array, so that an access beyond it is seen; marks in its output tell
which plan a line belongs to. What the plans compute is not looked at here.

`memcheck` sees accesses outside of arrays and misaligned ones; `racecheck` sees threads of a block
that meet in shared memory without a barrier.

>>> lines = ["== begin a", "========= Invalid __global__ read", "== end a", "== begin b"]
>>> [(found.name, found.verdict) for found in parse(chr(10).join(lines), ["a", "b", "c"])]
[('a', 'errors'), ('b', 'did not end'), ('c', 'not run')]
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Found", "find", "main", "parse", "run"]

#: Tools and the words that each is asked with.
TOOLS: Mapping[str, tuple[str, ...]] = {
    "memcheck": ("--report-api-errors", "no"),
    "racecheck": ("--racecheck-report", "analysis"),
}
PLACES = ("/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer")
TIMEOUT_SECONDS = 1500.0
#: For compiling, for each plan.
COMPILE_SECONDS = 120.0
#: Lines that are kept of what the sanitizer says of one plan.
KEPT = 40
_QUIET = re.compile(r"=+ *(COMPUTE-SANITIZER|ERROR SUMMARY|RACECHECK SUMMARY|LEAK SUMMARY|$)")


@dataclasses.dataclass(frozen=True)
class Found:
    """What a tool said of one plan: `verdict` is `clean`, `errors`, `did not end` (the process died
    in it), `not run` (before it), or a sentence of ours; `lines` are the tool's own.
    """

    name: str
    verdict: str
    lines: tuple[str, ...] = ()


def find(tool: str = "compute-sanitizer") -> str:
    """The path of one of NVIDIA's tools.

    Raises:
      RuntimeError: it is not here.
    """
    packages = [Path(p) / "nvidia" for p in sys.path if (Path(p) / "nvidia").is_dir()]
    wheels = [str(f.parent) for p in packages for f in sorted(p.rglob(tool))]
    for folder in (None, *PLACES, *wheels):
        found = shutil.which(tool, path=folder)
        if found:
            return found
    raise RuntimeError(
        f"{tool} is not installed; it comes with the CUDA toolkit, whose bin folder has to be on"
        " PATH"
    )


def run(folders: Sequence[Path], tools: Sequence[str] = tuple(TOOLS)) -> dict[str, Any]:
    """Every plan under every tool. Raises RuntimeError where there is no sanitizer."""
    program = find()
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    report: dict[str, Any] = {"sanitizer": version.stdout.strip().splitlines()[-1:], "tools": {}}
    for tool in tools:
        start = time.monotonic()
        child = [sys.executable, "-m", __name__, *map(str, folders)]
        command = [program, "--tool", tool, "--target-processes", "application-only"]
        text = _output([*command, *TOOLS[tool], *child])
        report["tools"][tool] = {
            "seconds": round(time.monotonic() - start, 1),
            "summary": re.findall(r"=+ ((?:ERROR|RACECHECK) SUMMARY: .*)", text),
            "plans": [dataclasses.asdict(f) for f in parse(text, [f.name for f in folders])],
        }
        if not any(f["verdict"] == "clean" for f in report["tools"][tool]["plans"]):
            report["tools"][tool]["output"] = text.splitlines()[-KEPT:]
    return report


def _output(command: Sequence[str]) -> str:
    environment = {
        **os.environ,
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "XLA_PYTHON_CLIENT_ALLOCATOR": "platform",
    }
    try:
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=TIMEOUT_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        output = late.stdout or ""
        return output.decode(errors="replace") if isinstance(output, bytes) else output
    return done.stdout


def parse(text: str, names: Sequence[str]) -> list[Found]:
    """What a tool's output says of each plan, by the marks in it."""
    said: dict[str, list[str]] = {}
    verdicts: dict[str, str] = {}
    current: str | None = None
    for line in text.splitlines():
        mark = re.match(r"== (begin|end|refused) (\S+) ?(.*)", line)
        if mark is None:
            if current is not None and line.startswith("=====") and not _QUIET.match(line):
                said[current].append(line.lstrip("= "))
            continue
        word, name, rest = mark.groups()
        if word == "begin":
            current, said[name], verdicts[name] = name, [], "did not end"
        else:
            verdicts[name] = "clean" if word == "end" else f"refused: {rest}"
            current = None
    found: list[Found] = []
    for name in names:
        lines, verdict = said.get(name, []), verdicts.get(name, "not run")
        if lines and verdict == "clean":
            verdict = "errors"
        found.append(Found(name, verdict, tuple(lines[:KEPT])))
    return found


def main(folders: Sequence[Path], file: Path) -> int:
    """Runs both tools over the folders and stores the report; 1 where not all is clean."""
    try:
        report = run(folders)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(report, indent=1) + "\n")
    wrong = list(_wrong(report))
    print("\n".join(wrong) or f"{len(folders)} plans are clean under {', '.join(report['tools'])}")
    return int(bool(wrong))


def _wrong(report: Mapping[str, Any]) -> Iterator[str]:
    for tool, said in report["tools"].items():
        for plan in said["plans"]:
            if plan["verdict"] != "clean":
                yield " ".join([f"{tool}: {plan['name']}: {plan['verdict']}", *plan["lines"][:1]])


# --- the process under the sanitizer, or another of NVIDIA's tools --------------------------------


def _inside(folders: Sequence[Path]) -> int:
    import jax

    from prism_jax import device
    from prism_jax.instantiate.plan_text import parse_plan
    from prism_jax.launch.build import Builder, Built
    from prism_jax.measure.inputs import random_inputs

    here = device.current()
    plans = [parse_plan((folder / "plan.txt").read_text()) for folder in folders]
    deadline = time.monotonic() + COMPILE_SECONDS * len(plans)
    ready: Iterable[Built | str] = itertools.repeat("jax runs on no GPU here", len(plans))
    if here.kind == "gpu":
        ready = Builder(here).functions(plans, deadline)
    for folder, plan, built in zip(folders, plans, ready, strict=True):
        print(f"== begin {folder.name}", flush=True)
        if isinstance(built, str):
            print(f"== refused {folder.name} {built}", flush=True)
            continue
        try:
            jax.block_until_ready(jax.jit(built)(*random_inputs(plan.sgraph.inputs)))
        except jax.errors.JaxRuntimeError as error:
            first = (str(error).splitlines() or [""])[0]
            print(f"== refused {folder.name} {first}", flush=True)
            continue
        print(f"== end {folder.name}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(_inside([Path(word) for word in sys.argv[1:]]))
