"""Random programs keep their value through saturation and extraction, every axiom is reached."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from prism_jax.axioms import DEFAULT, Axiom, for_level
from prism_jax.egraph import search
from prism_jax.egraph.core import EGraph
from prism_jax.egraph.extract import default_rules
from prism_jax.egraph.language import encode_node
from prism_jax.egraph.normal import TensorLanguage
from prism_jax.egraph.run import saturate
from prism_jax.ir.evaluate import evaluate
from prism_jax.ir.nodes import Node
from prism_jax.ir.program import Program, walk
from prism_jax.testing.programs import programs
from tests.egraph.forms import algebra, inputs, program
from tests.egraph.instances import Instance
from tests.egraph.noise import assert_same

EXAMPLES = 300


def assert_equivalent(p: Program, limit: int = 8) -> set[str]:
    """Every alternative has the program's value; the names of the axioms in them."""
    found = search(p, limit=limit)
    if len(found) > 1:
        given_inputs = inputs(p)
        want = evaluate(p, given_inputs)
        for other in found.found[1:]:
            got = evaluate(other.program, given_inputs)
            assert_same(p, given_inputs, want, got, other.axioms)
    return {name for other in found for name in other.axioms}


@settings(max_examples=max(EXAMPLES, settings().max_examples))
@given(programs(depth=4))
def test_random_programs_keep_their_value(p: Program) -> None:
    assert_equivalent(p)


@settings(max_examples=max(EXAMPLES // 3, settings().max_examples))
@given(algebra())
def test_random_algebra_keeps_its_value(p: Program) -> None:
    assert_equivalent(p)


def names(axioms: tuple[Axiom, ...]) -> list[str]:
    return [axiom.name for axiom in axioms]


def together(*nodes: Node) -> tuple[EGraph, list[int]]:
    graph, known = EGraph(TensorLanguage()), dict[Node, int]()
    for node in walk(nodes):
        known[node] = encode_node(graph, node, known)
    graph.rebuild()
    return graph, [known[node] for node in nodes]


@pytest.mark.parametrize("axiom", for_level("search"), ids=names(for_level("search")))
def test_search_reaches_every_axiom(axiom: Axiom) -> None:
    """Instances of the left side: the rule fires, every form keeps the value, and the right side is
    found (not always: a right side that is itself rewritten below a sum is another class, because
    sums are not flattened through merges).
    """
    fired = equal = 0
    for seed in range(60):
        instance = Instance(axiom, np.random.default_rng(seed))
        left, right = instance.side(axiom.left), instance.side(axiom.right)
        graph, (a, b) = together(left, right)
        record = saturate(graph, default_rules())
        if record.rules[axiom.name].matches:
            fired += 1
            equal += graph.find(a) == graph.find(b)
            assert_equivalent(program("instance", left))
        if fired >= 5 and equal >= 3:
            return
    pytest.fail(f"{axiom.name} fired in {fired} instances, {equal} right sides were found")


@pytest.mark.parametrize("axiom", for_level("normal"), ids=names(for_level("normal")))
def test_normal_form_has_every_axiom_built_in(axiom: Axiom) -> None:
    for seed in range(20):
        instance = Instance(axiom, np.random.default_rng(seed))
        graph, (a, b) = together(instance.side(axiom.left), instance.side(axiom.right))
        assert graph.find(a) == graph.find(b), f"{axiom.name} at seed {seed}\n{graph}"


@pytest.mark.parametrize("axiom", for_level("order"), ids=names(for_level("order")))
def test_orders_of_contraction_cover_their_axioms(axiom: Axiom) -> None:
    """Whichever side is written, about the same least cost is found."""
    for seed in range(10):
        instance = Instance(axiom, np.random.default_rng(seed))
        sides = [program("side", instance.side(side)) for side in (axiom.left, axiom.right)]
        left, right = (min(a.cost.seconds for a in search(p)) for p in sides)
        assert max(left, right) <= 2 * min(left, right), f"{axiom.name} at seed {seed}"
        for p in sides:
            assert_equivalent(p)


def test_every_axiom_is_of_some_level_that_a_test_reaches() -> None:
    reached = {a.name for level in ("search", "normal", "order", "proof") for a in for_level(level)}
    assert reached == {a.name for a in DEFAULT}
