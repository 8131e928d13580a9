"""What tuning measured is kept, and the ranking judged by it later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import pytest

from prism_jax import device
from prism_jax.bench import cli, tries
from prism_jax.explore import Form, SearchResult, search
from prism_jax.extract import lift
from prism_jax.instantiate import Plan
from prism_jax.ir.program import Program
from tests.instantiate.test_choose import SHAPES, Bench, gated


@pytest.fixture(scope="module")
def searched() -> tuple[Program, SearchResult]:
    program = lift(jax.make_jaxpr(gated)(*SHAPES), "gated")
    return program, search(program, [Form(program)], device.row("H100"))


def seconds(plan: Plan) -> float:
    """Small tiles are fast, whatever the model says."""
    return 0.001 * dict(plan.sizes).get("T_j", 1)


def kept(searched: tuple[Program, Any]) -> tuple[tries.Tries, int]:
    found = tries.Tries("gated n=64")
    with found.watching():
        outcome = Bench(seconds).choose(searched)
    measured = outcome.trials.measured
    Bench(seconds).choose(searched)  # nobody watches
    return found, measured


def test_what_was_measured_is_kept_and_judged(
    searched: tuple[Program, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, measured = kept(searched)
    assert sum(map(len, found.found.values())) == measured > 20
    path = tmp_path / "tries.json"
    found.save(path)
    again = tries.load(path)
    assert again.found == found.found
    rows, summary = tries.judged(again)
    assert list(rows) == ["gated n=64"]
    assert summary is not None
    assert summary.kernels == len(rows["gated n=64"]) > 0
    assert all(1 <= q.place <= q.tried for q in rows["gated n=64"])
    # The scripted device disagrees with the model, and the judgement says so.
    assert summary.loss > 1.1
    assert cli.main(["--judge", str(path)]) == 0
    assert str(summary) in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 7}', '{"schema": 1, "tries": [{}]}'])
def test_another_file_is_refused(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    assert cli.main(["--judge", str(path)]) == 1
    assert "holds no tries" in capsys.readouterr().err
    assert cli.main(["--judge", str(tmp_path / "missing.json")]) == 1
