"""The sanitizer's report: read from what a stand-in says; the plans' process, on a host."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest

from prism_jax.__main__ import main
from prism_jax.bench import sanitize

OUTPUT = """========= COMPUTE-SANITIZER
== begin good
== end good
a line of jax's
== begin bad
========= Invalid __global__ write of size 4 bytes
=========     at bad_parts+0x1f0 in bad.py:31
=========
== end bad
== begin slow
== refused slow not compiled: no time left
== begin lost
========= Invalid __shared__ read of size 8 bytes
"""
END = "========= ERROR SUMMARY: 2 errors\n"

FAKE = """#!{python}
import sys
print("NVIDIA (R) Compute Sanitizer\\nVersion 2025.1" if "--version" in sys.argv else {text!r})
assert "--version" in sys.argv or sys.argv[sys.argv.index("--target-processes") + 1] == (
    "application-only")
"""


def stand_in(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program in the sanitizer's place, which says `text` whatever it is given."""
    program = folder / "compute-sanitizer"
    program.write_text(FAKE.format(python=sys.executable, text=text))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder))


def test_lines_belong_to_the_plan_that_ran() -> None:
    found = sanitize.parse(OUTPUT + END, ["good", "bad", "slow", "lost", "never"])
    assert [f.verdict for f in found] == [
        "clean", "errors", "refused: not compiled: no time left", "did not end", "not run",
    ]  # fmt: skip
    assert found[1].lines[0] == "Invalid __global__ write of size 4 bytes"
    assert len(found[1].lines) == 2
    assert found[3].lines == ("Invalid __shared__ read of size 8 bytes",)


def test_a_report_of_both_tools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(tmp_path, OUTPUT + END, monkeypatch)
    file = tmp_path / "out" / "report.json"
    assert sanitize.main([Path("good"), Path("bad")], file) == 1
    report = json.loads(file.read_text())
    assert report["sanitizer"] == ["Version 2025.1"]
    assert set(report["tools"]) == {"memcheck", "racecheck"}
    assert report["tools"]["memcheck"]["summary"] == ["ERROR SUMMARY: 2 errors"]
    assert "memcheck: bad: errors Invalid __global__ write" in capsys.readouterr().out
    assert sanitize.main([Path("good")], file) == 0
    assert "1 plans are clean under memcheck, racecheck" in capsys.readouterr().out


def test_without_the_sanitizer_there_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sanitize, "PLACES", ())
    command = ["kernels", "--sanitize", str(tmp_path / "x.json"), "--row", "lora b=1"]
    assert main(command) == 1
    assert "comes with the CUDA toolkit" in capsys.readouterr().err
    assert main([*command[:3], "--row", "nothing"]) == 1
    assert "no plans of these rows" in capsys.readouterr().err


def test_the_process_under_it_says_what_it_could_not_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On a host no plan of the gallery runs: each says so, and the next has its turn."""
    folders = sorted(Path("kernels/found/h100").glob("mirage-lora-*"))
    assert sanitize._inside(folders) == 0
    found = sanitize.parse(capsys.readouterr().out, [folder.name for folder in folders])
    assert folders
    assert all(f.verdict == "refused: jax runs on no GPU here" for f in found)
