"""Evidence: at least two layers, none of which rejects; a value that is stored and replayed."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from prism_jax.ir.evaluate import evaluate_sgraph
from prism_jax.ir.nodes import Axis
from prism_jax.verify import Evidence, verify
from tests.verify.build import exp, mul, op, out, program, t
from tests.verify.holes import HOLES
from tests.verify.pairs import attention_split, matmul, rmsnorm_linear, softmax_two_loops

I, K = Axis("i", 12), Axis("k", 33)  # noqa: E741


def product(a, b):
    return a @ b


def test_all_layers_apply_to_a_right_plan():
    one = matmul()
    evidence = verify(
        one.program, one.sgraph, one.sizes, jax.jit(product), jax.jit(lambda a, b: jnp.dot(a, b))
    )
    assert evidence.accepted, str(evidence)
    assert evidence.layers == ("proof", "field", "contract")
    assert Evidence.from_json(evidence.to_json()) == evidence
    assert "accepted" in str(evidence)


def test_the_contract_alone_can_reject():
    one = matmul()
    wrong = jax.jit(lambda a, b: (a @ b) * 1.001)
    evidence = verify(one.program, one.sgraph, one.sizes, jax.jit(product), wrong)
    assert evidence.rejected_by == ("contract",)
    assert not evidence.accepted


@pytest.mark.parametrize(
    "one", [matmul(), attention_split(), softmax_two_loops()], ids=lambda p: p.name
)
def test_proof_and_field_suffice_without_a_device_and_replay(one):
    evidence = verify(one.program, one.sgraph, one.sizes)
    assert evidence.accepted
    assert evidence.replay(one.program, one.sgraph)
    assert Evidence.from_json(evidence.to_json()) == evidence
    other = rmsnorm_linear()
    assert not evidence.replay(other.program, other.sgraph)


@pytest.mark.parametrize("hole", HOLES, ids=[h.__name__ for h in HOLES])
def test_holes_are_refused(hole):
    evidence = verify(*hole())
    assert not evidence.accepted
    assert "field" in evidence.rejected_by
    assert Evidence.from_json(evidence.to_json()) == evidence


def test_one_layer_is_not_enough():
    """exp of exp of a quotient is outside the field test; with a function that the proof does not
    know either, only the contract is left.
    """
    x = t("x", I, K)
    whole = program("p", out(exp(exp(op("sin", mul(x, 2.0)))), I, K))
    form = program("p", out(exp(exp(mul(2.0, mul(op("sin", x), op("cos", x))))), I, K))
    from prism_jax.verify.shrink import as_sgraph

    good = jax.jit(lambda x: jnp.exp(jnp.exp(jnp.sin(x * 2.0))))
    evidence = verify(whole, as_sgraph(form), {}, good, good)
    assert evidence.layers == ("contract",)
    assert not evidence.accepted
    assert "only 1 of 2" in evidence.reason


def test_sizes_must_be_an_instance():
    one = matmul()
    assert "T_k" in verify(one.program, one.sgraph, {"T_i": 2, "T_j": 2}).reason
    split = attention_split()
    [first, second] = split.sgraph.kernels
    grid = (replace(first.grid[0], tile=2), *first.grid[1:])
    bad = replace(split.sgraph, nodes=(replace(first, grid=grid), second))
    assert "sizes" in verify(split.program, bad, split.sizes).rejected_by


def test_the_sgraph_itself_can_be_the_candidate():
    """The executable meaning of an sGraph passes the contract like any other implementation."""
    one = softmax_two_loops()

    def run(x):
        return evaluate_sgraph(one.sgraph, one.sizes, {"x": x})[0].astype("float32")

    evidence = verify(
        one.program, one.sgraph, one.sizes, jax.jit(lambda x: jax.nn.softmax(x, 1)), run
    )
    assert evidence.accepted, str(evidence)
