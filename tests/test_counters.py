"""Hardware counters, read from what a stand-in for the profiler says."""

from __future__ import annotations

import dataclasses
import stat
import sys
from pathlib import Path

import pytest

from prism_jax.bench import cli, counters, sanitize
from prism_jax.bench.counters import Counted
from prism_jax.bench.records import Run
from prism_jax.instantiate.plan import Plan
from prism_jax.instantiate.plan_text import parse_plan

FOUND = Path("kernels/found/h100")
RECORDS = Path("kernels/records/h100")
HEAD = (
    "ID","Kernel Name","Section Name","Metric Name","Metric Unit","Metric Value","Rule Name",
)  # fmt: skip
#: As Nsight Compute 2025.3 said it of a kernel of gqa b=8 on an H100, other columns left out.
METRICS = (
    ("GPU Speed Of Light Throughput", "Duration", "ns", "21,120"),
    ("GPU Speed Of Light Throughput", "DRAM Throughput", "%", "25.02"),
    ("GPU Speed Of Light Throughput", "L2 Cache Throughput", "%", "35.90"),
    ("GPU Speed Of Light Throughput", "Compute (SM) Throughput", "%", "27.83"),
    ("Scheduler Statistics", "One or More Eligible", "%", "31.24"),
    ("Scheduler Statistics", "Active Warps Per Scheduler", "warp", "1.88"),
    ("Launch Statistics", "Registers Per Thread", "register/thread", "240"),
    ("Launch Statistics", "Function Cache Configuration", "", "CachePreferShared"),
    ("Launch Statistics", "Waves Per SM", "", "0.97"),
    ("Occupancy", "Block Limit Registers", "block", "2"),
    ("Occupancy", "Block Limit Shared Mem", "block", "3"),
    ("Occupancy", "Block Limit Warps", "block", "16"),
)


def quoted(*words: str) -> str:
    return ",".join(f'"{word}"' for word in words)


def said(*kernels: str) -> str:
    """The profiler's output for these launches, the later ones twice as long as those before."""
    lines = ["==PROF== Connected to process 1161 (/usr/bin/python3.12)", quoted(*HEAD)]
    for number, kernel in enumerate(kernels):
        for section, name, unit, value in METRICS:
            shown = str(21120 * 2**number) if name == "Duration" else value
            lines.append(quoted(str(number), kernel, section, name, unit, shown, ""))
        lines.append(quoted(str(number), kernel, "Occupancy", "", "", "", "TheoreticalOccupancy"))
    return "\n".join(lines)


def stand_in(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in the profiler's place, which says `text` and keeps what it is asked."""
    program, asked = folder / "ncu", folder / "asked.txt"
    program.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"open({str(asked)!r}, 'w').write(chr(10).join(sys.argv[1:]))\nprint({text!r})\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder))
    return asked


def plans(*patterns: str) -> dict[str, Plan]:
    files = [sorted(FOUND.glob(pattern))[0] / "plan.txt" for pattern in patterns]
    return {file.parent.name: parse_plan(file.read_text()) for file in files}


def test_what_a_kernel_waits_for() -> None:
    order = [("a", ["parts", "combine"]), ("b", ["parts"]), ("c", ["never"])]
    found = counters.parse(said("parts", "combine", "parts"), order)
    assert [[k.kernel for k in found[name]] for name in "abc"] == [
        ["parts", "combine"],
        ["parts"],
        [],
    ]
    first, second, third = *found["a"], *found["b"]
    assert [k.us for k in (first, second, third)] == [21.12, 42.24, 84.48]
    assert first == Counted(
        "parts", 21.12, 0.3124, 1.88, 0.2783, 0.2502, 0.359, 0.97, 240, "registers"
    )
    assert str(first).startswith("parts waits (L2 cache 36 % busy, issue slots 31 %; 1.9 of 16")
    busy = dataclasses.replace(first, dram=0.91)
    assert str(busy) == "parts is limited by memory, 91 % busy"


def test_every_plan_in_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = plans("mirage-lora-b1", "mirage-ntrans-b1")
    kernels = [k.name for plan in two.values() for k in plan.sgraph.kernels]
    ran = "== begin 0\n== end 0\n== begin 1\n== end 1\n"
    asked = stand_in(tmp_path, ran + said(*kernels), monkeypatch)
    found = counters.measured(two)
    assert [k.kernel for some in found.values() for k in some] == kernels
    words = asked.read_text().splitlines()
    assert words[words.index("--kernel-name") + 1] == f"regex:^({'|'.join(sorted(set(kernels)))})$"
    assert words[-2].endswith("/0")
    assert words[-1].endswith("/1")

    stand_in(
        tmp_path, "== begin 0\n== end 0\n== refused 1 spills\n" + said(kernels[0]), monkeypatch
    )
    assert [len(some) for some in counters.measured(two).values()] == [1, 0]
    stand_in(tmp_path, "==ERROR== no permission", monkeypatch)
    with pytest.raises(RuntimeError, match="ran no plan; it says: ==ERROR== no permission"):
        counters.measured(two)
    assert counters.measured({}) == {}


def test_a_run_with_counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They stand in the records, and are printed beside how far the row is from its floor."""
    run = Run.load(RECORDS / "mirage.json")
    rows = [record for record in run.records if record.name == "lora"][:1]
    run = dataclasses.replace(run, records=tuple(rows))
    plan = parse_plan(rows[0].regions[0]["plan_text"])
    names = [kernel.name for kernel in plan.sgraph.kernels]
    stand_in(tmp_path, "== begin 0\n== end 0\n" + said(*names), monkeypatch)
    counted = counters.counted(run)
    counted.save(tmp_path / "run.json")
    assert Run.load(tmp_path / "run.json").to_json() == counted.to_json()
    assert [values["kernel"] for values in counted.records[0].counters] == names
    shown = [line for line in cli.render(counted).splitlines() if f"{names[0]} waits" in line]
    assert len(shown) == 1
    assert "of the floor" in shown[0]

    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sanitize, "PLACES", ())
    with pytest.warns(UserWarning, match="no counters: ncu is not installed"):
        assert counters.counted(run) == run
