"""The checker under mechanical mutation: everything wrong refused, everything right accepted.

Wrong are changes of one place of a term of a right sGraph (`mutants`), or of the source of an
emitted kernel (`kernels`), which only the contract sees; right ones are in `right`. The quick tests
take a few of each. The folder `mutation` holds the rates of at least 500 wrong and 500 right ones;
made anew by `pytest -m long tests/verify/test_mutants.py` (half an hour of processor time).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field as field_
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prism_jax.emit.interpret import InterpretError
from prism_jax.ir.evaluate import evaluate_sgraph
from prism_jax.ir.program import Program
from prism_jax.ir.sgraph import SGraph
from prism_jax.verify import Evidence, Refusal, check, field, prove, verify
from prism_jax.verify.rounded import Rounded, evaluate_rounded
from tests.verify.exhaustive import is_wrong
from tests.verify.kernels import KernelMutant, kernel_mutants, kernel_pairs
from tests.verify.kernels import is_wrong as kernel_is_wrong
from tests.verify.kernels import run as run_kernels
from tests.verify.mutants import CLASSES, Mutant, mutants
from tests.verify.pairs import Pair, all_pairs, square_pairs
from tests.verify.right import Variant, right_kernels, right_variants

REPORTS = Path(__file__).with_name("mutation")
SEEDS = range(3)
Rates = dict[str, dict[str, int]]
"""By class of mutants: how many there are, and how many each layer refuses."""


@dataclass
class Chosen:
    """Wrong mutants, up to so many of each class; by class what was set aside on the way."""

    wrong: list[Any] = field_(default_factory=list[Any])
    equivalent: dict[str, list[str]] = field_(default_factory=dict[str, list[str]])
    not_executable: dict[str, int] = field_(default_factory=dict[str, int])


def spread(found: list[Any], per_class: int, wrong: Callable[[Any], bool | None]) -> Chosen:
    """Spread evenly over where they come from, each judged by evaluation."""
    chosen = Chosen()
    for kind in CLASSES:
        many = [m for m in found if m.kind == kind]
        equivalent, broken, count = list[str](), 0, 0
        for n in np.random.default_rng(7).permutation(len(many)):
            if count == per_class:
                break
            verdict = wrong(many[n])
            if verdict:
                chosen.wrong.append(many[n])
                count += 1
            elif verdict is None:
                broken += 1
            else:
                equivalent.append(str(many[n]).removeprefix(f"{kind}: "))
        chosen.equivalent[kind], chosen.not_executable[kind] = sorted(equivalent), broken
    return chosen


def in_float32(graph: SGraph, sizes: dict[str, int], pair: Pair) -> Callable[..., list[Any]]:
    """The sGraph executed tile by tile with every value rounded to float32."""

    def run(*arrays: Any) -> list[Any]:
        given = {t.name: a for t, a in zip(pair.program.inputs, arrays, strict=True)}
        values = evaluate_sgraph(graph, sizes, given, domain=Rounded("float32"))
        return [np.asarray(v).astype(t.dtype) for v, t in zip(values, graph.outputs, strict=True)]

    return run


def reference(program: Program) -> Callable[..., list[Any]]:
    def run(*arrays: Any) -> list[Any]:
        return evaluate_rounded(
            program, dict(zip((t.name for t in program.inputs), arrays, strict=True))
        )

    return run


def contract(pair: Pair, graph: SGraph, sizes: dict[str, int], seed: int = 0) -> bool:
    """Whether the accuracy contract accepts the sGraph; one that cannot run is not accepted."""
    try:
        run = in_float32(graph, sizes, pair)
        return check(pair.program, reference(pair.program), run, seed=seed).passed
    except (AssertionError, IndexError, ValueError):
        return False


def kernel_contract(mutant: KernelMutant, seed: int = 0) -> bool:
    """Whether the contract accepts a changed kernel; one that breaks a rule of memory is not."""

    def run_(*arrays: Any) -> list[Any]:
        given = dict(zip((t.name for t in mutant.pair.program.inputs), arrays, strict=True))
        return run_kernels(mutant.pair, given, mutant.node, mutant.text, mutant.schedule)

    try:
        whole = mutant.pair.program
        return check(whole, reference(whole), run_, seed=seed).passed
    except InterpretError:
        return False


def refusals(variant: Variant) -> list[str]:
    """What all layers together say against a right variant in each of three runs."""
    found: list[str] = []
    for seed in SEEDS:
        pair, graph, sizes = variant.pair, variant.sgraph, variant.sizes
        run_ = in_float32(graph, sizes, pair)
        evidence = verify(pair.program, graph, sizes, reference(pair.program), run_, seed=seed)
        found.append(evidence.reason)
    return [f"{variant}: {reason}" for reason in found if reason]


MUTANTS = list(mutants(all_pairs() + square_pairs()))
KERNELS = kernel_pairs()


@pytest.mark.parametrize("mutant", spread(MUTANTS, 3, is_wrong).wrong, ids=str)
def test_wrong_sgraphs_are_refused(mutant):
    evidence = verify(mutant.pair.program, mutant.sgraph, mutant.pair.sizes)
    assert not evidence.accepted, str(evidence)


def test_wrong_kernels_are_refused():
    """The contract sees what runs: one mutant of each class of an emitted kernel."""
    few = [pair for pair in KERNELS if pair.name in ("attention", "masked")][:2]
    chosen = spread(list(kernel_mutants(few)), 1, kernel_is_wrong)
    assert {m.kind for m in chosen.wrong} == set(CLASSES)
    for mutant in chosen.wrong:
        assert not kernel_contract(mutant), str(mutant)


def test_every_class_has_enough_wrong_mutants_to_choose_from():
    kinds = [m.kind for m in MUTANTS]
    assert min(kinds.count(kind) for kind in CLASSES) >= 100
    assert len({m.sgraph.digest for m in MUTANTS}) == len(kinds) >= 2000


def test_stale_tiles_read_the_step_before():
    """The class is what it is called: an earlier step's value in place of this one's."""
    stale = [m.change for m in MUTANTS if m.kind == "stale tile"]
    assert all("of the last step" in c or " late along " in c for c in stale)
    assert sum("of the last step" in c for c in stale) >= 10


@pytest.mark.parametrize("pair", all_pairs()[:8], ids=lambda p: p.name)
def test_right_sgraphs_in_float32_keep_the_contract(pair):
    assert all(contract(pair, pair.sgraph, pair.sizes, seed) for seed in SEEDS)


def test_right_over_the_reals_is_not_enough():
    [pair] = [p for p in all_pairs() if p.name == "rbf"]  # squares expanded where they cancel
    assert verify(pair.program, pair.sgraph, pair.sizes).accepted
    assert not any(contract(pair, pair.sgraph, pair.sizes, seed) for seed in SEEDS)


def test_right_variants_are_accepted():
    """A few of every source, each in three runs; all the others in the long tests."""
    names = ("layernorm", "attention_split", "rbf", "split_k", "two_kernels", "masked")
    found = right_variants([p for p in all_pairs() if p.name in names], 4, 2)
    assert len(found.variants) >= 25
    assert found.cancelling
    assert not [reason for v in found.variants[::2] for reason in refusals(v)]


LAYERS: tuple[str, ...] = (
    "proof",
    "proof, as illegal",
    "field",
    "contract",
    "refused without a device",
    "refused",
)


def _count(row: dict[str, int], mutant: Mutant) -> None:
    """Adds what each layer says of one wrong sGraph."""
    pair = mutant.pair
    proof = prove(pair.program, mutant.sgraph)
    tested = field.test(pair.program, mutant.sgraph)
    kept = contract(pair, mutant.sgraph, pair.sizes)
    evidence = Evidence(pair.program.digest, mutant.sgraph.digest, (), proof, tested)
    row["wrong"] += 1
    row["proof"] += not proof.passed
    row["proof, as illegal"] += isinstance(proof, Refusal) and proof.illegal
    row["field"] += tested.outcome == "different"
    row["contract"] += not kept
    row["refused without a device"] += not evidence.accepted
    row["refused"] += not evidence.accepted or not kept
    assert not evidence.accepted or not kept, str(mutant)


def _totals(rows: Rates) -> dict[str, int]:
    names = next(iter(rows.values()))
    return {name: sum(row[name] for row in rows.values()) for name in names}


def _write(name: str, report: dict[str, Any]) -> None:
    REPORTS.mkdir(exist_ok=True)
    (REPORTS / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")


def _aside(chosen: Chosen) -> dict[str, Any]:
    return {
        "set aside as equivalent": chosen.equivalent,
        "set aside because they do not run": chosen.not_executable,
    }


@pytest.mark.long
def test_mutation_of_sgraphs():
    """Writes `mutation/sgraphs.json`: of 630 wrong sGraphs, what each layer refuses."""
    rows: Rates = {kind: dict.fromkeys(("wrong", *LAYERS), 0) for kind in CLASSES}
    chosen = spread(MUTANTS, 90, is_wrong)
    for mutant in chosen.wrong:
        _count(rows[mutant.kind], mutant)
    _write("sgraphs", {"classes": rows, "total": _totals(rows), **_aside(chosen)})
    assert len(chosen.wrong) >= 500
    assert min(row["wrong"] for row in rows.values()) >= 40


@pytest.mark.long
def test_mutation_of_kernels():
    """Writes `mutation/kernels.json`: changed sources of emitted kernels, interpreted."""
    rows: Rates = {kind: dict.fromkeys(("wrong", "refused"), 0) for kind in CLASSES}
    chosen = spread(list(kernel_mutants(KERNELS)), 45, kernel_is_wrong)
    survivors: list[str] = []
    for mutant in chosen.wrong:
        refused = not kernel_contract(mutant)
        rows[mutant.kind]["wrong"] += 1
        rows[mutant.kind]["refused"] += refused
        survivors += [] if refused else [str(mutant)]
    _write(
        "kernels",
        {"classes": rows, "total": _totals(rows), "accepted": survivors, **_aside(chosen)},
    )
    assert not survivors
    assert min(row["wrong"] for row in rows.values()) >= 40


@pytest.mark.long
def test_right_sgraphs_in_three_runs():
    """Writes `mutation/right_sgraphs.json`: how many variants all layers accept."""
    found = right_variants()
    lost = {str(v): reasons for v in found.variants if (reasons := refusals(v))}
    kept = [str(v) for v in found.cancelling if not refusals(v)]
    _write(
        "right_sgraphs",
        {
            "variants": len(found.variants),
            "programs": len({v.pair.program.digest for v in found.variants}),
            "accepted in each of three runs": len(found.variants) - len(lost),
            "refused": lost,
            "set aside because they cancel": [str(v) for v in found.cancelling],
            "of these accepted": kept,
        },
    )
    assert len(found.variants) >= 500
    assert len(lost) <= 0.01 * len(found.variants), lost


@pytest.mark.long
def test_right_kernels_in_three_runs():
    """Writes `mutation/right_kernels.json`: the same for emitted kernels, by the contract."""
    variants = right_kernels()
    lost = [str(v) for v in variants if not all(kernel_contract(v, seed) for seed in SEEDS)]
    _write("right_kernels", {"variants": len(variants), "refused": lost})
    assert len(variants) >= 200
    assert len(lost) <= 0.01 * len(variants), lost


def test_the_reports_are_of_these_rules():
    """What is committed has the numbers that the long tests assert."""
    sgraphs, kernels, right, right_too = (
        json.loads((REPORTS / f"{name}.json").read_text())
        for name in ("sgraphs", "kernels", "right_sgraphs", "right_kernels")
    )
    for report, least in ((sgraphs, 500), (kernels, 280)):
        assert set(report["classes"]) == set(CLASSES)
        assert min(row["wrong"] for row in report["classes"].values()) >= 40
        assert report["total"]["wrong"] == report["total"]["refused"] >= least
    assert right["accepted in each of three runs"] >= 0.99 * right["variants"] >= 0.99 * 500
    assert len(right_too["refused"]) <= 0.01 * right_too["variants"]
