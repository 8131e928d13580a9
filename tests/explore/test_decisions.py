"""What a choice of forms rests on: where every recorded comparison of sizes has the same answer,
the e-graph offers the same forms in the same order.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_jax import device
from prism_jax.egraph import extract
from prism_jax.egraph.decisions import Decisions, exactly, extent, recording
from prism_jax.explore.family import skeleton
from prism_jax.extract import lift
from prism_jax.ir.nodes import Axis
from prism_jax.ir.program import Program
from prism_jax.testing import programs
from prism_jax.verify.shrink import as_sgraph, shrink
from tests.explore import functions

H100 = device.row("H100")


def sizes(program: Program) -> dict[str, int]:
    return {axis.name: int(axis.size) for axis in program.axes}


def offered(program: Program) -> tuple[list[Any], Decisions]:
    with recording() as made:
        found = extract.search(program, H100)
    return [skeleton(a.program) for a in found], made


def lifted(function: Any, *shapes: tuple[int, ...]) -> Program:
    structs = [jax.ShapeDtypeStruct(shape, jnp.float16) for shape in shapes]
    return lift(jax.make_jaxpr(function)(*structs), "f")


@given(programs(largest=2048, depth=6), st.integers(0, 99))
def test_what_holds_is_offered(program: Program, seed: int) -> None:
    """Random programs at two assignments of sizes, either taken for the recorded one."""
    other = shrink(program, as_sgraph(program), np.random.default_rng(seed)).program
    if skeleton(other) != skeleton(program):
        return  # a size is a number of the program
    (first, made), (second, again) = offered(program), offered(other)
    assert made.hold(sizes(program))
    assert again.hold(sizes(other))
    if made.hold(sizes(other)) or again.hold(sizes(program)):
        assert first == second


CHAINS = {
    "rms_norm_mlp": lambda n: lifted(functions.rms_norm_mlp, (n, 4096), (4096, 4096), (4096, 4096)),
    "low_rank": lambda n: lifted(lambda x, a, b: (x @ a) @ b, (n, 256), (256, 8), (8, 256)),
    "chain": lambda n: lifted(lambda a, b, x: (a @ b) @ x, (256, 64), (64, 256), (256, n)),
}


@pytest.mark.parametrize("name", CHAINS)
def test_where_forms_change_an_answer_changes(name: str) -> None:
    """And most often only there."""
    first, made = offered(CHAINS[name](8))
    held = changed = 0
    for n in (2, 12, 24, 64, 256, 1024, 4096):
        program = CHAINS[name](n)
        same = offered(program)[0] == first
        holds = made.hold(sizes(program))
        assert same or not holds, n
        held += holds
        changed += not same
    assert held
    assert bool(changed) == (name == "rms_norm_mlp"), "the test has lost its subject"


def test_recording_changes_nothing() -> None:
    for name in ("attention", "qk_norm_attention", "layer_norm_linear", "lora", "kernel_sum"):
        program = functions.program(name, large=True, dtype=jnp.float16)
        plain = extract.search(program, H100)
        with recording():
            recorded = extract.search(program, H100)
        assert [(a.program, a.cost, a.axioms) for a in recorded] == [
            (a.program, a.cost, a.axioms) for a in plain
        ]
        assert all(type(a.cost.seconds) is float for a in recorded)


def test_sequence_lengths_are_not_fixed() -> None:
    """The range of a sum of exponentials ends at the number of its terms, which decides nothing."""
    first, made = offered(lifted(functions.attention, (2, 256, 64), (2, 64, 4096), (2, 4096, 64)))
    longer = lifted(functions.attention, (4, 256, 64), (4, 64, 16384), (4, 16384, 64))
    assert made.hold(sizes(longer))
    assert offered(longer)[0] == first


def test_a_size_that_became_a_number_is_fixed() -> None:
    i, j = Axis("i", 4), Axis("j", 6)
    with recording() as made:
        assert extent([i, j]) > extent([i])
        exactly([j])
    assert made.hold({"i": 5, "j": 6})
    assert not made.hold({"i": 5, "j": 7})


def test_one_name_for_two_sizes_holds_nowhere() -> None:
    with recording() as made:
        assert extent([Axis("i", 4)]) < extent([Axis("i", 6)])
    assert not made.hold({"i": 4})
    assert not made.hold({"i": 6})
