"""The closed forms are exact: what an instrumented run of an instantiated sGraph counts, byte for
byte and operation for operation, ragged tiles and split loops included.
"""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sympy
from hypothesis import given, note
from hypothesis import strategies as st

from prism_jax import device
from prism_jax.explore import Form, search
from prism_jax.explore import mapping as mapping_room
from prism_jax.explore.bounds import least_launch
from prism_jax.extract import lift
from prism_jax.ir.counter import Counter
from prism_jax.ir.counts import distinct, width
from prism_jax.ir.evaluate import evaluate_sgraph
from prism_jax.ir.forms import Form as Counts
from prism_jax.ir.forms import forms
from prism_jax.ir.nodes import (
    REAL,
    Axis,
    Const,
    Load,
    Pointwise,
    Reduce,
    Store,
    Tensor,
    Within,
    affine,
    at,
    sort_of,
)
from prism_jax.ir.product import product_of
from prism_jax.ir.sgraph import GridAxis, Kernel, SGraph
from prism_jax.ir.tape import Tape
from prism_jax.ir.text import print_sgraph
from prism_jax.ir.values import Float64
from prism_jax.testing import program_inputs, programs
from tests.explore.functions import SMALL, program

H100 = device.row("H100")


def closed(sgraph: SGraph, sizes: dict[str, int]) -> list[Counts]:
    return [forms(kernel, sizes) for kernel in sgraph.kernels]


def totals(counts: list[Counts]) -> dict[str, int]:
    """Bytes read and written and operations by unit, of all kernels together."""
    found = {"read": 0, "written": 0, "dot": 0, "special": 0, "other": 0}
    for form in counts:
        found["read"] += form.loaded
        found["written"] += form.stored
        for unit, number in form.arithmetic.items():
            found["dot" if isinstance(unit, tuple) else unit] += number
    return found


def counted(sgraph: SGraph, sizes: dict[str, int], inputs: dict[str, Any]) -> dict[str, int]:
    """The same, by running the sGraph with an instrumented interpreter."""
    counter = Counter()
    evaluate_sgraph(sgraph, sizes, inputs, counter=counter)
    kinds = {"contraction": "dot", "special": "special"}
    found = {"read": sum(counter.read.values()), "written": sum(counter.written.values())}
    found |= {"dot": 0, "special": 0, "other": 0}
    for kind, number in counter.operations.items():
        found[kinds.get(kind, "other")] += number * (8 if kind == "slow" else 1)
    return found


def drawn_sizes(draw: Any, sgraph: SGraph) -> dict[str, int]:
    """Any sizes at all: tiles that divide nothing, more parts than steps."""
    number = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 16, 64])
    return {symbol: draw(number) for symbol in sgraph.symbols}


def check(sgraph: SGraph, sizes: dict[str, int], inputs: dict[str, Any]) -> None:
    if len(sgraph.kernels) < len(sgraph.nodes):
        return  # a library call moves what the library moves
    forms_of = closed(sgraph, sizes)
    assert totals(forms_of) == counted(sgraph, sizes, inputs)
    for kernel, form in zip(sgraph.kernels, forms_of, strict=True):
        taped(kernel, sizes, form)


def taped(kernel: Kernel, sizes: dict[str, int], expected: Counts) -> None:
    """The recorded closed form repeats the walked one."""
    tape = Tape()
    form = forms(kernel, {symbol: tape.symbol(symbol) for symbol in kernel.symbols})
    assert form.map(lambda n: tape.run(sizes, [n])[0]) == expected


@given(st.data())
def test_closed_forms_of_random_programs_are_exact(data: Any) -> None:
    source = data.draw(programs(largest=7))
    inputs = data.draw(program_inputs(source))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapping_room, "LOOP_AT_LEAST", 3)
        result = search(source, [Form(source)], H100)
    for sgraph in result.sgraphs[:6]:
        note(print_sgraph(sgraph))
        check(sgraph, drawn_sizes(data.draw, sgraph), inputs)


@given(st.sampled_from(sorted(SMALL)), st.data())
def test_closed_forms_of_known_programs_are_exact(name: str, data: Any) -> None:
    source, graphs = _known(name)
    random = np.random.default_rng(0)
    inputs = {t.name: random.standard_normal([int(s) for s in t.shape]) for t in source.inputs}
    sgraph = data.draw(st.sampled_from(graphs))
    note(print_sgraph(sgraph))
    check(sgraph, drawn_sizes(data.draw, sgraph), inputs)


_graphs: dict[str, Any] = {}


def _known(name: str) -> Any:
    if name not in _graphs:
        source = program(name)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mapping_room, "LOOP_AT_LEAST", 8)
            found = search(source, [Form(source)], H100, 30.0).sgraphs
        _graphs[name] = source, [g for g in found if len(g.kernels) == len(g.nodes)]
    return _graphs[name]


def test_one_definition_of_a_matrix_product() -> None:
    """A third factor does not make a product pointwise work: a mask or a weight of the summed axis
    belongs to one of its sides.
    """
    i, j, k = Axis("i", 32), Axis("j", 32), Axis("k", 64)
    x = Load(Tensor("x", (32, 64), "float16"), (at(i), at(k)))
    w = Load(Tensor("w", (64, 32), "float16"), (at(k), at(j)))
    s = Load(Tensor("s", (64,), "float16"), (at(k),))
    body = Pointwise("mul", (Pointwise("mul", (x, s)), w))
    assert product_of("sum", body, (k,)) is not None
    store = Store(Tensor("y", (32, 32), "float32"), (at(i), at(j)), Reduce("sum", (k,), body))
    kernel = Kernel("three", (GridAxis(i, 32), GridAxis(j, 16)), (), (store,))
    work = forms(kernel, {}).arithmetic
    assert work == {("dot", "float32"): 2 * 32 * 32 * 64, "other": 32 * 64}
    for file in ("library.py", "sizes.py"):
        text = (pathlib.Path(mapping_room.__file__).parent / file).read_text()
        assert "product_of" in text


class Watching(Float64):
    """Float64 that remembers every element it was given."""

    def __init__(self) -> None:
        self.met: set[float] = set()

    def load(self, array: Any, sort: str) -> Any:
        if sort == REAL:
            self.met.update(np.asarray(array, np.float64).reshape(-1).tolist())
        return super().load(array, sort)


@given(st.data())
def test_compulsory_bytes_are_a_lower_bound(data: Any) -> None:
    """Every element of a tensor is a number of its own, so that what was read can be told apart."""
    source = data.draw(programs(largest=6))
    inputs = data.draw(program_inputs(source))
    start = 0
    for tensor in source.inputs:
        if sort_of(tensor.dtype) == REAL:
            count = int(np.size(inputs[tensor.name]))
            shape = np.shape(inputs[tensor.name])
            inputs[tensor.name] = np.arange(start, start + count, dtype=np.float64).reshape(shape)
            start += count
    widths = {t.name: width(t.dtype) for t in source.inputs if sort_of(t.dtype) == REAL}
    for sgraph in search(source, [Form(source)], H100).sgraphs[:4]:
        if len(sgraph.nodes) != 1 or not sgraph.kernels:
            continue
        kernel, sizes, domain = sgraph.kernels[0], drawn_sizes(data.draw, sgraph), Watching()
        with np.errstate(all="ignore"):
            evaluate_sgraph(sgraph, sizes, inputs, domain=domain)
        # every width counts as the widest: what was met cannot be attributed to a tensor below it
        met = len(domain.met) * max(widths.values(), default=0)
        real = [t for t in kernel.reads if t.name in widths]
        other = sum(
            width(t.dtype) * int(np.size(inputs[t.name])) for t in kernel.reads if t not in real
        )
        assert forms(kernel, sizes).compulsory <= met + other


def test_compulsory_bytes_of_windows_diagonals_and_pads() -> None:
    i, j = Axis("i", 6), Axis("j", 4)
    rows = [
        ((affine([(i, 1), (j, 1)]),), (12,), (), 9),  # a window
        ((affine([(i, 4), (j, 1)]),), (24,), (), 24),  # a merged dimension
        ((at(i), at(i)), (6, 6), (), 6),  # a diagonal
        ((affine([(i, 1)], -1),), (5,), (Within(affine([(i, 1)], -1), 0, 5),), 5),  # a pad
        ((affine([(i, 2)]), at(j)), (12, 4), (), 24),
    ]
    for index, shape, guard, expected in rows:
        load = Load(Tensor("x", shape, "float32"), index, guard, Const(0.0) if guard else None)
        assert distinct(load, lambda axis: axis.size) == expected, index


def test_a_bound_counts_no_byte_that_a_mask_spares() -> None:
    """Of x only a column is needed; what chooses among data is read whole."""

    def first_column(x: Any, where: Any) -> Any:
        return jnp.where(jnp.arange(4096) < 1, x, 0).sum(1), jnp.where(where, x[0], 1.0).sum()

    shapes = [jax.ShapeDtypeStruct((4096, 4096), jnp.float32), jax.ShapeDtypeStruct((4096,), bool)]
    source = lift(jax.make_jaxpr(first_column)(*shapes), "first_column")
    result = search(source, [Form(source)], H100, 60.0)
    needed = (4 * 4096 + 4 * 4096 + 4 * 4096 + 4096 + 4) / H100.dram_bytes_per_s
    assert 4 * 4096 / H100.dram_bytes_per_s < result.certificate.floor <= needed
    best = min(c.bound for c in result.candidates)
    assert best <= needed + 2 * least_launch(H100)


def test_a_floor_counts_what_is_read_of_an_input() -> None:
    shapes = [jax.ShapeDtypeStruct((4096, 4096), jnp.float32)]
    source = lift(jax.make_jaxpr(lambda x: x[:4, ::4].sum(1))(*shapes), "part")
    result = search(source, [Form(source)], H100, 60.0)
    assert result.certificate.floor == 4 * (4 * 1024 + 4) / H100.dram_bytes_per_s


@pytest.mark.parametrize("name", ["attention", "rms_norm_mlp", "kernel_sum", "nearest"])
def test_closed_forms_are_sympy_expressions(name: str) -> None:
    """Of the size symbols; with numbers in their place they are what integers give."""
    _, graphs = _known(name)
    random = np.random.default_rng(0)
    for kernel in {k for graph in graphs[:4] for k in graph.kernels}:
        symbols = {s: sympy.Symbol(s, positive=True, integer=True) for s in kernel.symbols}
        written = forms(kernel, symbols)
        assert any(
            isinstance(n, sympy.Expr) and n.free_symbols for n in (written.loaded, written.blocks)
        )
        for _ in range(3):
            sizes = {s: int(2 ** random.integers(0, 6)) for s in symbols}
            numbers = {symbols[s]: n for s, n in sizes.items()}
            found = written.map(lambda n, at=numbers: int(sympy.sympify(n).subs(at)))
            assert found == forms(kernel, sizes)
