"""What tuning measured is kept, and the ranking judged by it later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from prism_jax import device
from prism_jax.bench import cli, tries
from prism_jax.explore import Form, SearchResult, search
from prism_jax.explore.bounds import bound
from prism_jax.explore.sizes import evaluate
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
    assert list(again.found) == list(found.found)
    for key, measured in found.found.items():
        plans, times = zip(*again.found[key], strict=True)
        assert plans == tuple(plan for plan, _ in measured)
        assert times == pytest.approx([seconds for _, seconds in measured], abs=1e-10)
    rows, summary = tries.judged(again)
    assert list(rows) == ["gated n=64"]
    assert summary is not None
    assert summary.kernels == len(rows["gated n=64"]) > 0
    assert all(1 <= q.place <= q.tried for q in rows["gated n=64"])
    # The scripted device disagrees with the model, and the judgement says so.
    assert summary.loss > 1.1
    assert cli.main(["--judge", str(path)]) == 0
    assert str(summary) in capsys.readouterr().out


RECORDED = sorted(Path("kernels/tries").rglob("*.json"))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_ranking_and_the_bounds_stand_up_to_what_was_measured(path: Path) -> None:
    """Issue 6: the fastest try among the first ten for 90 %, and the first within 1.25x (it is well
    within). Issue 4: no kernel is faster than its bound, where the cache cannot hold what it moves
    from call to call.
    """
    found = tries.load(path)
    _, summary = tries.judged(found)
    assert summary is not None
    assert summary.in_top >= 0.9
    assert summary.loss <= 1.1
    compared = 0
    for measured in found.found.values():
        row = device.row(measured[0][0].device)
        [kernel] = measured[0][0].sgraph.kernels
        table, form = evaluate(kernel, row)
        columns = [np.broadcast_to(np.asarray(x, float), np.shape(form.blocks)) for x in (
            bound(form, row), form.compulsory + form.stored)]  # fmt: skip
        for plan, seconds in measured:
            here = np.ones(np.shape(form.blocks), np.bool_)
            for symbol, value in plan.sizes:
                here &= table.get(symbol, value) == value
            least, moved = (column[here] for column in columns)
            if moved.size and moved.min() > row.l2_bytes:
                compared += 1
                assert least.min() <= seconds, (kernel.name, plan.sizes)
    assert compared >= 20


def test_there_are_tries_of_a_real_device() -> None:
    assert len(RECORDED) >= 3


OLDER = '{"schema": 1, "tries": []}'


@pytest.mark.parametrize("text", ["", "[]", OLDER, '{"schema": 2, "kernels": [{}]}'])
def test_another_file_is_refused(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    assert cli.main(["--judge", str(path)]) == 1
    assert "holds no tries" in capsys.readouterr().err
    assert cli.main(["--judge", str(tmp_path / "missing.json")]) == 1
