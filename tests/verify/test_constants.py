"""A candidate's folded constants are what the program's constants make them, nothing else."""

from __future__ import annotations

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import prism_jax as prism
from prism_jax.extract import lift
from prism_jax.ir.nodes import REAL, Const
from prism_jax.ir.program import Program
from prism_jax.ir.text import parse_program
from prism_jax.verify import field, proof
from prism_jax.verify.constants import spelled
from prism_jax.verify.modular import log2_multiple, rational

ROOT = float(np.float32(math.sqrt(8)))


def _program(fun: object, *shapes: tuple[int, ...]) -> Program:
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return lift(jax.make_jaxpr(fun)(*arrays), "f")  # type: ignore[arg-type]


def _scaled(inverse: float) -> tuple[Program, Program]:
    """x @ y / c, and (c' x) @ y."""
    plain = _program(lambda x, y: x @ y / ROOT, (6, 5), (5, 4))
    folded = _program(lambda x, y: x @ y * 7.25, (6, 5), (5, 4))
    text = str(folded).replace("7.25", repr(inverse))
    return plain, parse_program(text)


def test_a_folded_inverse_is_the_inverse() -> None:
    plain, folded = _scaled(1 / ROOT)
    assert isinstance(proof.prove(plain, folded), proof.Proof)
    assert field.test(plain, folded).passed


@pytest.mark.parametrize("error", [1e-6, 1e-9, 1e-13, -1e-13])
def test_what_is_only_near_it_is_not(error: float) -> None:
    plain, wrong = _scaled((1 + error) / ROOT)
    assert isinstance(proof.prove(plain, wrong), proof.Refusal)
    assert field.test(plain, wrong).outcome == "different"


@example([math.log(2)], 1, Fraction(1, 60))
@given(
    st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=3),
    st.sampled_from([1, -1, 2, -2]),
    st.fractions(Fraction(1, 60), 60, max_denominator=60),
)
def test_products_of_powers_are_found_up_to_rounding(
    own: list[float], power: int, factor: Fraction
) -> None:
    value = float(factor) * own[0] ** power
    table = spelled([Const(c, REAL) for c in own], [Const(value, REAL)])
    for number, meaning in table.items():
        assert abs(Fraction(number) - meaning) <= Fraction(1, 2**50) * abs(meaning)
    # Small fractions and multiples of log 2 are read without a table.
    odd = (rational(c).denominator > 10**5 and log2_multiple(c) is None for c in (own[0], value))
    if value not in own and all(odd):
        assert value in table


@pytest.mark.parametrize("head", [8, 32, 80, 128])
def test_attention_over_the_root_of_any_head_size_is_proved(head: int) -> None:
    """`/ np.sqrt(d)` is how attention is written; the search multiplies by the inverse."""

    def attention(q, k, v):
        return jax.nn.softmax(q @ k.T / np.sqrt(head), axis=-1) @ v

    arrays = [jax.ShapeDtypeStruct((256, head), jnp.float32)] * 3
    with prism.options(search_seconds=60.0):  # complete on a busy machine, too
        [found] = prism.search(attention, *arrays, device="H100")
    program = lift(jax.make_jaxpr(attention)(*arrays), "attention")
    folded = 0
    for graph in found.sgraphs[:3]:
        folded += bool(spelled([s.value for s in program.outputs], proof.terms(graph)))
        assert isinstance(proof.prove(program, graph), proof.Proof)
    assert folded, "no candidate folds the scale: the test has lost its subject"
