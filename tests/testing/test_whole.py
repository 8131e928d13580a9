"""Random programs through everything that keeps a value over the reals: written as jax, traced, cut
into regions, lifted, saturated, extracted again.

Each example has a random program with a given operator at its root beside an instance of an axiom,
so that every operator and every axiom is reached; that they are is asserted. 300 examples or more;
under the `long` profile 10,000.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_jax import compat
from prism_jax.axioms import DEFAULT, Axiom
from prism_jax.egraph import search
from prism_jax.emit import jnp as emit_jnp
from prism_jax.extract import Region, extract
from prism_jax.ir.evaluate import evaluate
from prism_jax.ir.nodes import FLOATS, REAL, Load, Node, Pointwise, Reduce, Store, Tensor, at
from prism_jax.ir.ops import MONOIDS, OPS, numpy_dtype
from prism_jax.ir.program import Program, walk
from prism_jax.ir.rewrite import rebuild
from prism_jax.testing import program_inputs, programs
from tests.egraph.instances import Instance
from tests.egraph.noise import assert_same

EXAMPLES = 300
ROWS = (*OPS, *MONOIDS)
WIDE = "float64"


@st.composite
def examples(draw: st.DrawFn, row: str, axiom: Axiom) -> Program:
    """A program in float64 that applies the row, and whose last output is the axiom's left side."""
    random = draw(programs(root=row, dtypes=(WIDE,), depth=3, outputs=1))
    instance = Instance(axiom, np.random.default_rng(draw(st.integers(0, 2**16))))
    value = _wide(instance.side(axiom.left))
    axes = value.axes_free
    dtype = WIDE if value.sort == REAL else value.sort
    store = Store(Tensor("law", tuple(a.size for a in axes), dtype), tuple(map(at, axes)), value)
    tensors = {n.tensor.name: n.tensor for n in walk([value]) if isinstance(n, Load)}
    return replace(
        random,
        inputs=(*random.inputs, *tensors.values()),
        outputs=(*random.outputs, store),
        compute=WIDE,
    )


def _wide(root: Node) -> Node:
    """The term over tensors of float64, called otherwise than those of random programs."""
    memo: dict[Node, Node] = {}

    def visit(node: Node) -> Node:
        if node not in memo:
            new = rebuild(node, visit)
            if isinstance(new, Load):
                dtype = WIDE if new.tensor.dtype in FLOATS else new.tensor.dtype
                tensor = Tensor(f"law_{new.tensor.name}", new.tensor.shape, dtype)
                new = Load(tensor, new.index, new.guard, new.fill)
            memo[node] = new
        return memo[node]

    return visit(root)


def through_jax(program: Program, given: dict[str, Any]) -> tuple[list[Any], list[Region]]:
    """The program as a jax function, traced and cut; the value of the steps, each region's by its
    program.
    """
    function = emit_jnp.emit(program).call
    with jax.enable_x64(True):
        arrays = [
            jnp.asarray(np.asarray(given[t.name]).astype(numpy_dtype(t.dtype)))
            for t in program.inputs
        ]
        closed = jax.make_jaxpr(lambda *xs: function(*xs))(*arrays)
        cut = extract(closed, None, "f")
        env = dict(zip(closed.jaxpr.constvars, compat.constants(closed), strict=True))
        env.update(zip(closed.jaxpr.invars, arrays, strict=True))
        for step in cut.steps:
            if isinstance(step, Region):
                values = [np.asarray(env[v]) for v in step.invars]
                names = [t.name for t in step.program.inputs]
                found = evaluate(step.program, dict(zip(names, values, strict=True)))
                made = (
                    jnp.asarray(x, numpy_dtype(s.tensor.dtype))
                    for x, s in zip(found, step.program.outputs, strict=True)
                )
                env.update(zip(step.outvars, made, strict=True))
                continue
            for eqn in step.eqns:
                values = [compat.read(env, atom) for atom in eqn.invars]
                env.update(zip(eqn.outvars, compat.bind_equation(eqn, values), strict=True))
        results = [np.asarray(compat.read(env, atom)) for atom in closed.jaxpr.outvars]
    return results, list(cut.regions)


def rows_of(program: Program) -> set[str]:
    """Rows of the tables of operators and monoids that a program uses."""
    found = {n.op for n in program.nodes if isinstance(n, Pointwise)}
    return found | {n.monoid for n in program.nodes if isinstance(n, Reduce)}


COUNT = max(len(ROWS), len(DEFAULT))
PAIRS = [(ROWS[n % len(ROWS)], DEFAULT[n % len(DEFAULT)]) for n in range(COUNT)]
EACH = -(-max(EXAMPLES, settings().max_examples) // COUNT)


@pytest.mark.parametrize(("row", "axiom"), PAIRS, ids=[f"{r}-{a.name}" for r, a in PAIRS])
def test_values_are_kept_through_trace_extract_saturate_extract(row: str, axiom: Axiom) -> None:
    reached, fired = set[str](), set[str]()

    @settings(max_examples=EACH)
    @given(examples(row, axiom), st.data())
    def check(program: Program, data: st.DataObject) -> None:
        values = data.draw(program_inputs(program))
        want = evaluate(program, values)
        results, regions = through_jax(program, values)
        assert_same(program, values, want, results, "traced and lifted")
        reached.update(rows_of(program))
        for part in (program, *(region.program for region in regions)):
            found = search(part, limit=4)
            fired.update(n for n, r in found.saturation.rules.items() if r.matches)
            if len(found) > 1:
                values = data.draw(program_inputs(part))
                want = evaluate(part, values)
                for other in found.found[1:]:
                    assert_same(part, values, want, evaluate(other.program, values), other.axioms)

    check()
    assert row in reached
    # The others are no rewrites of the search: the normal form has them built in.
    assert axiom.name in fired or "search" not in axiom.levels


def test_every_row_and_axiom_is_among_them() -> None:
    assert {row for row, _ in PAIRS} == {*OPS, *MONOIDS}
    assert {axiom.name for _, axiom in PAIRS} == {axiom.name for axiom in DEFAULT}
    assert COUNT * EACH >= EXAMPLES
