"""Limits of the search: sound ones never lose the cheapest plan, and the loss of each of the others
is measured.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prism_jax import device
from prism_jax.explore import search
from prism_jax.explore.pruning import NONE
from prism_jax.explore.search import Form
from prism_jax.ir.program import Program
from prism_jax.testing import pruning

RECORD = Path(__file__).parents[2] / "kernels" / "search" / "pruning.json"
COUNT = 200


@pytest.fixture(scope="module")
def drawn() -> list[Program]:
    return pruning.corpus(COUNT)


def test_sound_limits_lose_nothing(drawn: list[Program]) -> None:
    """Branch and bound returns the optimum of exhaustive enumeration, by the same sGraph at the
    same sizes, and cuts something. Its certificate holds for everything that was enumerated.
    """
    assert len({program.digest for program in drawn}) == COUNT
    cut = with_kernels = several = 0
    for program in drawn:
        every, *others = pruning.found_with(program, NONE).candidates
        found = pruning.found_with(program, pruning.SOUND)
        best, proof = found.candidates[0], found.certificate
        assert (best.estimate, best.sizes) == (every.estimate, every.sizes), program
        assert best.sgraph.digest == every.sgraph.digest, program
        assert proof.complete
        assert all(proof.best_bound <= c.bound <= c.estimate for c in others), program
        assert proof.floor <= min(c.bound for c in (every, *others)), program
        cut += found.statistics["cut_by_model"]
        with_kernels += best.kernels > 0
        several += found.statistics["partitions"] > 2
    assert cut > COUNT
    assert with_kernels > COUNT / 3
    assert several > COUNT / 2


def test_a_measured_time_cuts_only_what_cannot_beat_it(drawn: list[Program]) -> None:
    """Whatever the enumeration finds with a bound below the time, branch and bound finds too."""
    cut = 0
    for program in drawn[::4]:
        plans = [c for c in pruning.found_with(program, NONE).candidates if c.kernels]
        if not plans:
            continue
        for time in (plans[len(plans) // 2].bound, plans[0].bound * (1 + 1e-9)):
            found = search(
                program, [Form(program)], device.row("H100"), 60.0, pruning=NONE, incumbent=time
            )
            cut += found.statistics["cut_by_bound"]
            kept = {c.sgraph.digest for c in found.candidates}
            assert all(c.sgraph.digest in kept for c in plans if c.bound < time)
    assert cut > 0


def test_losses_are_measured(drawn: list[Program]) -> None:
    """The committed record holds what every limit of the default costs, and a part of the corpus
    is measured again here. `python -m prism_jax.testing.pruning --json FILE` makes it.
    """
    record: dict[str, Any] = json.loads(RECORD.read_text())
    rows = {row["limit"]: row for row in record["limits"]}
    assert list(rows) == list(pruning.LIMITS)
    for name, row in rows.items():
        assert row["programs"] >= COUNT
        if name == "none" or name.startswith("sound"):
            assert (row["lost"], row["worst"]) == (0, 1.0)
    assert rows["default"]["worst"] < 1.1
    for again in pruning.losses(drawn[:20]):  # other programs than the record's: a bound, no copy
        tighter = again.limit.endswith((" 2", " 0"))
        assert again.worst <= (1.5 if tighter else rows[again.limit]["worst"] + 0.05)
