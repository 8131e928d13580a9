"""The checker under mechanical mutation: every wrong sGraph refused, right ones accepted.

The quick tests take a few mutants of every class. `make test-long` takes at least 500 wrong and 500
right ones, runs every layer on each, asserts the rates and writes `mutation_report.json`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prism_jax.ir.evaluate import evaluate_sgraph
from prism_jax.ir.program import Program
from prism_jax.ir.sgraph import SGraph
from prism_jax.verify import Evidence, Refusal, check, field, prove, verify
from prism_jax.verify.rounded import Rounded, evaluate_rounded
from tests.verify.mutants import CLASSES, Mutant, is_wrong, mutants, rewritten
from tests.verify.pairs import Pair, all_pairs, square_pairs

CANCELLING = ("rbf",)
"""Right over the reals, and refused by the contract: squares expanded where they cancel."""

REPORT = Path(__file__).with_name("mutation_report.json")


def spread(per_class: int) -> list[Mutant]:
    """Wrong mutants, up to so many of each class, spread evenly over where they come from."""
    found = list(mutants(all_pairs() + square_pairs()))
    chosen: list[Mutant] = []
    for kind in CLASSES:
        many = [m for m in found if m.kind == kind]
        order = np.random.default_rng(7).permutation(len(many))
        wrong = (many[n] for n in order if is_wrong(many[n]))
        chosen += [m for m, _ in zip(wrong, range(per_class), strict=False)]
    return chosen


def in_float32(graph: SGraph, pair: Pair) -> Callable[..., list[Any]]:
    """The sGraph executed tile by tile with every value rounded to float32."""

    def run(*arrays: Any) -> list[Any]:
        given = {t.name: a for t, a in zip(pair.program.inputs, arrays, strict=True)}
        values = evaluate_sgraph(graph, pair.sizes, given, domain=Rounded("float32"))
        return [np.asarray(v).astype(t.dtype) for v, t in zip(values, graph.outputs, strict=True)]

    return run


def reference(program: Program) -> Callable[..., list[Any]]:
    def run(*arrays: Any) -> list[Any]:
        return evaluate_rounded(
            program, dict(zip((t.name for t in program.inputs), arrays, strict=True))
        )

    return run


def contract(pair: Pair, graph: SGraph, seed: int = 0) -> bool:
    """Whether the accuracy contract accepts the sGraph; one that cannot run is not accepted."""
    try:
        run = in_float32(graph, pair)
        return check(pair.program, reference(pair.program), run, seed=seed).passed
    except (AssertionError, IndexError, ValueError):
        return False


def right_variants() -> Iterator[tuple[Pair, SGraph]]:
    """The pairs, each operator written otherwise, and what the explorer makes of every program."""
    from prism_jax.device import row
    from prism_jax.explore import Form, search

    for pair in all_pairs() + square_pairs():
        yield pair, pair.sgraph
        yield from ((pair, graph) for _, graph in rewritten(pair.sgraph))
        for device in ("H100", "A100"):
            found = search(pair.program, [Form(pair.program)], row(device), 3.0)
            known = {pair.sgraph.digest}
            for candidate in found.candidates:
                if candidate.sgraph.digest not in known:
                    known.add(candidate.sgraph.digest)
                    yield pair, candidate.sgraph


@pytest.mark.parametrize("mutant", spread(3), ids=str)
def test_wrong_sgraphs_are_refused(mutant):
    evidence = verify(mutant.pair.program, mutant.sgraph, mutant.pair.sizes)
    assert not evidence.accepted, str(evidence)


def test_every_class_has_enough_wrong_mutants_to_choose_from():
    kinds = [m.kind for m in mutants(all_pairs() + square_pairs())]
    assert min(kinds.count(kind) for kind in CLASSES) >= 100
    assert len(kinds) >= 2000


@pytest.mark.parametrize("pair", all_pairs()[:8], ids=lambda p: p.name)
def test_right_sgraphs_in_float32_keep_the_contract(pair):
    assert all(contract(pair, pair.sgraph, seed) for seed in range(3))


@pytest.mark.parametrize("pair", [p for p in all_pairs() if p.name in CANCELLING], ids=str)
def test_right_over_the_reals_is_not_enough(pair):
    assert verify(pair.program, pair.sgraph, pair.sizes).accepted
    assert not any(contract(pair, pair.sgraph, seed) for seed in range(3))


@pytest.mark.long
def test_mutation():
    wrong = spread(90)
    caught: dict[str, dict[str, int]] = {
        kind: dict.fromkeys(("wrong", *LAYERS), 0) for kind in CLASSES
    }
    for mutant in wrong:
        pair = mutant.pair
        row = caught[mutant.kind]
        proof = prove(pair.program, mutant.sgraph)
        tested = field.test(pair.program, mutant.sgraph)
        kept = contract(pair, mutant.sgraph)
        row["wrong"] += 1
        row["proof"] += not proof.passed
        row["proof, as illegal"] += isinstance(proof, Refusal) and proof.illegal
        row["field"] += tested.outcome == "different"
        row["contract"] += not kept
        evidence = Evidence(pair.program.digest, mutant.sgraph.digest, (), proof, tested)
        refused = not evidence.accepted or not kept
        row["refused without a device"] += not evidence.accepted
        row["refused"] += refused
        assert refused, str(mutant)
    accepted, right, unstable = 0, 0, 0
    lost: list[str] = []
    for pair, graph in right_variants():
        right += 1
        evidence = verify(pair.program, graph)
        accepted += evidence.accepted
        if not evidence.accepted:
            lost.append(f"{pair.name}: {evidence.reason}")
        if graph is pair.sgraph and pair.name not in CANCELLING:
            unstable += not all(contract(pair, graph, seed) for seed in range(3))
    report = {
        "wrong": {k: caught[k] for k in CLASSES},
        "total": {k: sum(row[k] for row in caught.values()) for k in ("wrong", *LAYERS)},
        "right": {"variants": right, "accepted": accepted, "refused": lost, "noisy": unstable},
    }
    REPORT.write_text(json.dumps(report, indent=1) + "\n")
    assert len(wrong) >= 500
    assert min(row["wrong"] for row in caught.values()) >= 40
    assert right >= 500
    assert accepted >= 0.99 * right, lost
    assert not unstable


LAYERS = ("proof", "proof, as illegal", "field", "contract", "refused without a device", "refused")
