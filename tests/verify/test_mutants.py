"""The checker under mechanical mutation: everything wrong refused, right sGraphs accepted.

Wrong are changes of one place of a term of a right sGraph (`mutants`), or of the source of an
emitted kernel (`kernels`), which only the contract sees. The quick tests take a few of every class.
`mutation_report.json` holds the rates of at least 500 wrong and 500 right ones; made anew by
`pytest -m long tests/verify/test_mutants.py` (about a quarter of an hour).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
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
from tests.verify.kernels import KernelMutant, kernel_mutants, kernel_pairs
from tests.verify.kernels import is_wrong as kernel_is_wrong
from tests.verify.kernels import run as run_kernels
from tests.verify.mutants import CLASSES, Mutant, is_wrong, mutants, rewritten
from tests.verify.pairs import Pair, all_pairs, square_pairs

CANCELLING = ("rbf",)
"""Right over the reals, and refused by the contract: squares expanded where they cancel."""

REPORT = Path(__file__).with_name("mutation_report.json")


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
        return run_kernels(mutant.pair, given, mutant.node, mutant.text)

    try:
        whole = mutant.pair.program
        return check(whole, reference(whole), run_, seed=seed).passed
    except InterpretError:
        return False


Variant = tuple[Pair, SGraph, dict[str, int]]


def right_variants() -> Iterator[Variant]:
    """The pairs, each operator written otherwise, and what the explorer makes of every program;
    each sGraph once.
    """
    from prism_jax.device import row
    from prism_jax.explore import Form, search

    known: set[tuple[str, str]] = set()

    def new(pair: Pair, graph: SGraph) -> bool:
        key = (pair.program.digest, graph.digest)
        fresh = key not in known
        known.add(key)
        return fresh

    for pair in all_pairs() + square_pairs():
        if pair.name not in CANCELLING:
            for graph in (pair.sgraph, *(graph for _, graph in rewritten(pair.sgraph))):
                if new(pair, graph):
                    yield pair, graph, pair.sizes
        for device in ("H100", "A100"):
            found = search(pair.program, [Form(pair.program)], row(device), 3.0)
            for candidate in found.candidates:
                graph = candidate.sgraph
                if new(pair, graph):
                    yield pair, graph, {s: (2, 3)[n % 2] for n, s in enumerate(graph.symbols)}


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
    assert all(contract(pair, pair.sgraph, pair.sizes, seed) for seed in range(3))


@pytest.mark.parametrize("pair", [p for p in all_pairs() if p.name in CANCELLING], ids=str)
def test_right_over_the_reals_is_not_enough(pair):
    assert verify(pair.program, pair.sgraph, pair.sizes).accepted
    assert not any(contract(pair, pair.sgraph, pair.sizes, seed) for seed in range(3))


LAYERS = ("proof", "proof, as illegal", "field", "contract", "refused without a device", "refused")


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


def _totals(rows: dict[str, dict[str, int]]) -> dict[str, int]:
    names = next(iter(rows.values()))
    return {name: sum(row[name] for row in rows.values()) for name in names}


@pytest.mark.long
def test_mutation():
    """Writes `mutation_report.json` and asserts its numbers."""
    sgraphs = {kind: dict.fromkeys(("wrong", *LAYERS), 0) for kind in CLASSES}
    chosen = spread(MUTANTS, 90, is_wrong)
    for mutant in chosen.wrong:
        _count(sgraphs[mutant.kind], mutant)
    kernels = {kind: dict.fromkeys(("wrong", "refused"), 0) for kind in CLASSES}
    of_kernels = spread(list(kernel_mutants(KERNELS)), 45, kernel_is_wrong)
    survivors: list[str] = []
    for mutant in of_kernels.wrong:
        refused = not kernel_contract(mutant)
        kernels[mutant.kind]["wrong"] += 1
        kernels[mutant.kind]["refused"] += refused
        survivors += [] if refused else [str(mutant)]
    right, accepted, lost = 0, 0, list[str]()
    for pair, graph, sizes in right_variants():
        right += 1
        runs: list[str] = []
        for seed in range(3):
            run_ = in_float32(graph, sizes, pair)
            evidence = verify(pair.program, graph, sizes, reference(pair.program), run_, seed=seed)
            runs.append(evidence.reason)
        accepted += not any(runs)
        lost += [f"{pair.name}: {reason}" for reason in runs if reason]
    report = {
        "sgraphs": sgraphs,
        "sgraphs, total": _totals(sgraphs),
        "kernels": kernels,
        "kernels, total": _totals(kernels),
        "kernels accepted": survivors,
        "right": {"variants": right, "accepted in each of three runs": accepted, "refused": lost},
        "set aside as equivalent": {
            "sgraphs": chosen.equivalent,
            "kernels": of_kernels.equivalent,
        },
        "set aside because they do not run": {
            "sgraphs": chosen.not_executable,
            "kernels": of_kernels.not_executable,
        },
    }
    REPORT.write_text(json.dumps(report, indent=1) + "\n")
    assert not survivors
    assert len(chosen.wrong) >= 500
    assert min(row["wrong"] for row in sgraphs.values()) >= 40
    assert min(row["wrong"] for row in kernels.values()) >= 30
    assert right >= 500
    assert accepted >= 0.99 * right, lost


def test_the_report_is_of_these_rules():
    """What is committed has the numbers that the long test asserts."""
    report = json.loads(REPORT.read_text())
    total = report["sgraphs, total"]
    assert total["wrong"] == total["refused"] >= 500
    assert set(report["sgraphs"]) == set(report["kernels"]) == set(CLASSES)
    assert report["kernels, total"]["wrong"] == report["kernels, total"]["refused"] >= 210
    right = report["right"]
    assert right["accepted in each of three runs"] >= 0.99 * right["variants"] >= 0.99 * 500
