"""What the table of axioms says of the proof is so: the checker, whose algebra is code of its own,
proves instances of every axiom of the level "proof", and the field test contradicts none.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from prism_jax.axioms import DEFAULT, Axiom, for_level
from prism_jax.ir.nodes import REAL, Axis, Node
from prism_jax.ir.program import Program
from prism_jax.verify import field, prove
from tests.egraph.instances import Instance
from tests.verify.build import out, program


def sides(axiom: Axiom, seed: int) -> tuple[Program, Program]:
    """Both sides of an instance, as programs of the same inputs; a side may lack an axis."""
    instance = Instance(axiom, np.random.default_rng(seed))
    values = [instance.side(axiom.left), instance.side(axiom.right)]
    axes = tuple(dict.fromkeys(a for value in values for a in value.axes_free))
    made = [_stored(value, axes) for value in values]
    inputs = tuple(dict.fromkeys(t for p in made for t in p.inputs))
    one, other = (replace(p, inputs=inputs) for p in made)
    return one, other


def _stored(value: Node, axes: tuple[Axis, ...]) -> Program:
    dtype = "float32" if value.sort == REAL else value.sort
    return program("law", out(value, *axes, name="out", dtype=dtype))


@pytest.mark.parametrize("axiom", for_level("proof"), ids=lambda a: a.name)
def test_instances_of_axioms_are_proved_both_ways(axiom: Axiom) -> None:
    for seed in range(6):
        left, right = sides(axiom, seed)
        for one, other in ((left, right), (right, left)):
            result = prove(one, other)
            assert result.passed, f"seed {seed}: {result}"


@pytest.mark.parametrize("axiom", DEFAULT, ids=lambda a: a.name)
def test_instances_of_axioms_pass_the_field_test(axiom: Axiom) -> None:
    for seed in range(3):
        assert field.test(*sides(axiom, seed)).outcome != "different"
