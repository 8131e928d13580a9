"""The strategies reach everything, make only well-formed programs, and the ir holds on what they
make.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st

from prism_jax.ir.check import check_program
from prism_jax.ir.evaluate import evaluate, evaluate_sgraph
from prism_jax.ir.nodes import FLOATS, Iota, Load, Node, Pointwise, Reduce
from prism_jax.ir.ops import MONOIDS, OPS
from prism_jax.ir.program import Program
from prism_jax.ir.sgraph import LibraryCall, SGraph
from prism_jax.ir.text import parse_program, parse_sgraph, print_program, print_sgraph
from prism_jax.testing import arrays, program_inputs, programs, shapes

QUIET = settings(
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def _rows(program: Program) -> set[str]:
    """The rows of the tables that a program uses."""
    found = {f"op {n.op}" for n in program.nodes if isinstance(n, Pointwise)}
    return found | {f"monoid {n.monoid}" for n in program.nodes if isinstance(n, Reduce)}


@pytest.mark.parametrize("name", [*OPS, *MONOIDS])
def test_programs_reach_every_row_and_are_well_formed(name):
    reached: set[str] = set()

    @settings(QUIET, max_examples=15)
    @given(programs(operators=(name,), tame=False))
    def collect(program: Program) -> None:
        check_program(program)
        reached.update(_rows(program))

    collect()
    assert f"op {name}" in reached or f"monoid {name}" in reached


def test_programs_have_loads_of_every_form():
    forms: set[str] = set()

    @settings(QUIET, max_examples=60)
    @given(programs())
    def collect(program: Program) -> None:
        check_program(program)
        for node in program.nodes:
            if isinstance(node, Load):
                forms.update(["guard"] * bool(node.guard) + ["gather"] * bool(node.index_nodes))
                forms.update("affine" for i in node.index if i.axis is None and len(i.terms) > 1)
            forms.update(["iota"] * isinstance(node, Iota))
            forms.update(["precision"] * bool(isinstance(node, Reduce) and node.precision))

    collect()
    assert forms == {"guard", "gather", "affine", "iota", "precision"}


@given(programs(tame=False))
def test_text_comes_back_identical(program):
    again = parse_program(print_program(program))
    assert again == program
    assert all(a.value is b.value for a, b in zip(again.outputs, program.outputs, strict=True))


def _as_sgraph(program: Program) -> SGraph:
    call = LibraryCall("all", "xla", program.outputs)
    return SGraph("s", program.inputs, (call,), tuple(s.tensor for s in program.outputs))


@given(programs(tame=False))
def test_text_of_sgraphs_comes_back_identical(program):
    sgraph = _as_sgraph(program)
    assert parse_sgraph(print_sgraph(sgraph)) == sgraph


def _same(a: Any, b: Any) -> None:
    np.testing.assert_allclose(np.asarray(a, float), np.asarray(b, float), rtol=1e-9, atol=1e-9)


@given(st.data())
def test_sampled_elements_are_those_of_the_whole(data):
    program = data.draw(programs())
    inputs = data.draw(program_inputs(program))
    whole = evaluate(program, inputs)
    points = [np.argwhere(np.ones(o.shape, bool)) for o in whole]
    for some, o in zip(evaluate(program, inputs, points), whole, strict=True):
        _same(some, o.ravel())
    for some, o in zip(evaluate_sgraph(_as_sgraph(program), {}, inputs), whole, strict=True):
        _same(some, o)


@given(st.data())
def test_the_interpreter_agrees_with_the_definition(data):
    """Element by element in plain Python, straight from the meaning of each node."""
    program = data.draw(programs(largest=3, depth=3, outputs=1))
    inputs = data.draw(program_inputs(program))
    (whole,) = evaluate(program, inputs)
    store = program.outputs[0]
    axes = store.value.axes_free
    for position in np.ndindex(*(int(a.size) for a in axes)):
        at = dict(zip(axes, position, strict=True))
        where = tuple(
            i.offset + sum(c * at[t] for t, c in i.terms if not isinstance(t, Node))
            for i in store.index
        )
        _same(whole[where], _element(store.value, at, inputs))


def _index(index, at, inputs) -> int:
    terms = ((_element(t, at, inputs) if isinstance(t, Node) else at[t], c) for t, c in index.terms)
    return index.offset + sum(int(value) * c for value, c in terms)


def _element(node: Node, at, inputs) -> Any:
    if isinstance(node, Load):
        inside = all(g.low <= _index(g.index, at, inputs) < g.high for g in node.guard)
        if not inside:
            assert node.fill is not None
            return np.asarray(node.fill.value, np.float64 if node.sort == "real" else node.sort)
        value = inputs[node.tensor.name][tuple(_index(i, at, inputs) for i in node.index)]
        return np.asarray(value, np.float64 if node.sort == "real" else node.sort)
    if isinstance(node, Pointwise):
        return OPS[node.op].f64(node.parameter, *(_element(a, at, inputs) for a in node.args))
    if isinstance(node, Reduce):
        sizes = [int(a.size) for a in node.axes]
        found = [
            _element(node.body, {**at, **dict(zip(node.axes, p, strict=True))}, inputs)
            for p in np.ndindex(*sizes)
        ]
        result = MONOIDS[node.monoid].reduce(np.stack(found), (0,))
        return result.astype(node.index_sort) if node.index_sort else result
    if isinstance(node, Iota):
        return np.asarray(at[node.axis], np.float64 if node.sort == "real" else node.sort)
    dtype = np.float64 if node.sort == "real" else np.dtype(node.sort)
    return np.asarray(getattr(node, "value"), dtype)  # noqa: B009 - only a Const is left


OPERATORS = ("add", "mul", "exp", "div", "sum", "argmax", "log")


@given(st.data())
def test_tame_programs_of_chosen_operators_are_finite(data):
    """What keeps arguments in their domains (max, sub, ...) and casts of iotas are let in too."""
    program = data.draw(programs(tame=True, operators=OPERATORS))
    guards = {"op sub", "op min", "op abs", "monoid max", "op max", "op cast"}
    chosen = {f"op {n}" for n in OPERATORS} | {f"monoid {n}" for n in OPERATORS}
    assert _rows(program) <= chosen | guards
    inputs = {
        t.name: np.ones([int(n) for n in t.shape], np.float64 if t.dtype in FLOATS else t.dtype)
        for t in program.inputs
    }
    assert all(np.isfinite(np.asarray(o, float)).all() for o in evaluate(program, inputs))


def _sums(program: Program) -> bool:
    return any(isinstance(n, Reduce) and n.monoid == "sum" for n in program.nodes)


def test_programs_shrink_to_something_readable():
    found = find(programs(), _sums, settings=settings(QUIET, max_examples=1000))
    assert len(found.nodes) <= 3
    assert len(found.outputs) == 1
    assert len(print_program(found).split("\n")) <= 8


@given(
    arrays(shapes(), st.sampled_from(["float32", "float16", "bfloat16", "int32", "uint8", "bool"]))
)
def test_arrays_are_finite_and_of_the_dtype_asked_for(array):
    assert array.size
    assert np.isfinite(array.astype(np.float64)).all()


@given(arrays((4,), "float32", low=0.5, high=2.0), arrays((4,), "int32", low=1, high=3))
def test_arrays_stay_in_bounds(reals, integers):
    assert ((reals >= 0.5) & (reals <= 2)).all()
    assert ((integers >= 1) & (integers <= 3)).all()
