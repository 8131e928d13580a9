"""The checker: samples pass, and every fault is named, with the text around it."""

# ruff: noqa: E501 - a table of faults reads best with a fault to a line

from __future__ import annotations

from dataclasses import replace

import pytest

from prism_jax.ir.check import IRError, check_program, check_sgraph
from prism_jax.ir.nodes import (
    Axis,
    Carried,
    Const,
    Iota,
    Load,
    Node,
    Reduce,
    Store,
    Tensor,
    Within,
    affine,
    at,
)
from prism_jax.ir.program import Program
from prism_jax.ir.sgraph import Accumulator, GridAxis, Kernel, LibraryCall, Loop, SGraph
from tests.ir import samples
from tests.ir.samples import op

A, K = Axis("a", 4), Axis("k", 8)
X = Tensor("x", (4, 8), "float16")
XAK = Load(X, (at(A), at(K)))
N = Tensor("n", (4,), "int32")
NA = Load(N, (at(A),))
Y = Tensor("y", (4, 8), "float32")
FALSE = Const(False, "bool")


def program(value: Node, tensor: Tensor | None = None, index=None, inputs=(X, N)) -> Program:
    """A program of one output, indexed by the value's free axes unless told otherwise."""
    axes = value.axes_free
    index = tuple(map(at, axes)) if index is None else index
    return Program(
        "p",
        inputs,
        (Store(tensor or Tensor("y", tuple(a.size for a in axes), "float32"), index, value),),
    )


@pytest.mark.parametrize("make", [samples.attention, samples.matmul, samples.gram])
def test_samples_are_well_formed(make):
    a_program, sgraph = make()
    check_program(a_program)
    check_sgraph(sgraph)


@pytest.mark.parametrize(
    "value",
    [
        Load(X, (affine([(A, -1)], 3), at(K))),
        Load(X, (affine([(Axis("u", 2), 2), (Axis("v", 2), 1)]), at(0))),
        Load(X, (at(A), affine([(K, 1)], -2)), (Within(affine([(K, 1)], -2), 0, 8),), Const(0.0)),
        Load(X, (at(A), affine([(K, 1)], 3)), (Within(at(K), 0, 5),), Const(0.0)),
        # read backwards: a - 2 is 0 or 1 where 0 <= 3 - a < 2
        Load(
            X,
            (affine([(A, 1)], -2), at(K)),
            (Within(at(A), 0, 4), Within(affine([(A, -1)], 3), 0, 2)),
            Const(0.0),
        ),
        Load(X, (at(NA), at(K))),
        Load(X, (at(op("min", op("max", NA, Const(0, "int32")), Const(3, "int32"))), at(K))),
        op("cast", op("lt", Iota(A), NA), p="float32"),
        op("where", op("eq", NA, Const(0, "int32")), XAK, Const(0.0)),
        op("cast", Reduce("argmax", (K,), XAK, index_sort="int32"), p="float32"),
        op("sub", XAK, Reduce("max", (K,), XAK)),
    ],
    ids=str,
)  # fmt: skip
def test_good_programs_pass(value):
    check_program(program(value))


BAD_PROGRAMS = [
    (program(XAK, inputs=(N,)), "x is read before it is written"),
    (program(XAK, inputs=(Tensor("x", (4, 8), "float32"),)), "but it was declared as x: float32"),
    (program(XAK, inputs=(X, X)), "two inputs are named x"),
    (program(Const(1.0), inputs=(Tensor("z", (0,), "int8"),)), "z: int8[0] has an empty dimension"),
    (program(Const(1.0), inputs=(Tensor("z", (1,), "float12"),)), "z has dtype float12"),
    (replace(program(XAK), compute="float16"), "computes in float16"),
    (replace(program(XAK), outputs=()), "p has no output"),
    (program(Load(X, (at(A),))), "has 2 dimensions, not 1"),
    (program(Load(X, (at(A), affine([(K, 1)], 1)))), "index k + 1 of dimension 1 of x: float16[4,8] runs over 1 .. 8"),
    (program(Load(X, (affine([(A, -1)], 2), at(K)))), "runs over -1 .. 2"),
    (program(Load(X, (at(A), affine([(K, 1)], -2)), (Within(affine([(K, 1)], -2), -1, 8),), Const(0.0))), "runs over -1 .. 5"),
    (program(Load(X, (affine([(A, 1)], -2), at(K)), (Within(at(A), 0, 4), Within(affine([(A, -1)], 3), 0, 3)), Const(0.0))), "runs over -1 .. 1"),
    (program(Load(X, (at(A), affine([(NA, 0), (Const(9, "int32"), 1)])))), "runs over 9 .. 9"),
    (program(Load(X, (at(A), at(K)), (Within(at(K), 0, 5),))), "a guarded load has no fill"),
    (program(Load(X, (at(A), at(K)), (Within(at(K), 0, 5),), FALSE)), "a fill of sort bool"),
    (program(Load(X, (at(A), at(Load(Tensor("r", (), "float32"), ())))), inputs=(X, Tensor("r", (), "float32"))), "an index of sort real"),
    (program(op("frobnicate", XAK), Y, (at(A), at(K))), "there is no operator frobnicate"),
    (program(op("add", XAK), Y), "add takes 2 arguments"),
    (program(op("add", XAK, NA), Y), "add of unlike sorts real and int32"),
    (program(op("exp", NA)), "exp does not take values of sort int32"),
    (program(op("and", XAK, XAK), Y), "and does not take values of sort real"),
    (program(op("where", XAK, XAK, XAK), Y), "where chooses by a bool, not by real"),
    (program(op("where", FALSE, XAK, NA), Y), "where of unlike sorts"),
    (program(op("integer_pow", XAK), Y), "integer_pow cannot have the parameter None"),
    (program(op("exp", XAK, p=2), Y), "exp cannot have the parameter 2"),
    (program(op("cast", XAK, p="float12"), Y), "cast cannot have the parameter 'float12'"),
    (program(op("reduce_precision", XAK, p=5), Y), "cannot have the parameter 5"),
    (program(Const(1.0, "decimal"), Tensor("y", (), "float32")), "there is no sort decimal"),
    (program(op("not", Iota(A, "bool")), Tensor("y", (4,), "bool")), "an iota is an integer, not a bool"),
    (program(Reduce("mean", (K,), XAK)), "mean is not a monoid"),
    (program(Reduce("sum", (), XAK), Y), "sum reduces over no axis"),
    (program(Reduce("sum", (K, Axis("k", 3)), XAK)), "two axes of different sizes are named k"),
    (program(Reduce("argmax", (A, K), XAK, index_sort="int32"), Tensor("y", (), "int32")), "argmax is over one axis"),
    (program(Reduce("argmax", (K,), XAK)), "argmax gives an index of sort None"),
    (program(Reduce("sum", (K,), XAK, index_sort="int32"), Tensor("y", (4,), "int32")), "sum has no index"),
    (program(Reduce("any", (K,), XAK)), "any does not take values of sort real"),
    (program(op("add", XAK, Reduce("sum", (A,), op("cast", Iota(Axis("k", 3)), p="float32")))), "two axes of different sizes are named k"),
    (program(op("cast", Iota(Axis("e", 0)), p="float32")), "axis e is empty"),
    (program(Carried("m", "new", "real", ())), "m.new stands outside a kernel"),
    (program(XAK, Tensor("y", (4,), "float32"), (at(A),)), "axes k of the value are not indexed"),
    (program(XAK, Y, (at(A),)), "has 2 dimensions, not 1"),
    (program(NA, Tensor("y", (4,), "float32")), "a value of sort int32 is stored in y: float32[4]"),
    (program(XAK, Tensor("y", (4, 8, 4), "float32"), (at(A), at(K), at(A))), "a store indexes a twice"),
    (program(NA, Tensor("y", (4,), "int32"), (at(NA),)), "a store is indexed by axes alone"),
    (program(XAK, Tensor("y", (4, 9), "float32"), (at(A), at(K))), "leaves out elements of dimension 1"),
    (program(XAK, Tensor("y", (4, 7), "float32"), (at(A), at(K))), "runs over 0 .. 7"),
    (program(XAK, Tensor("y", (32,), "float32"), (affine([(A, 2), (K, 1)]),)), "addresses elements of dimension 0 of y: float32[32] twice"),
    (program(XAK, Tensor("y", (39,), "float32"), (affine([(A, 9), (K, 1)]),)), "leaves out elements"),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "message"), BAD_PROGRAMS, ids=[m for _, m in BAD_PROGRAMS])
def test_faulty_programs(bad, message):
    with pytest.raises(IRError) as error:
        check_program(bad)
    assert message in str(error.value)


def test_the_excerpt_points_at_the_line():
    bad = program(op("exp", op("neg", op("exp", op("add", NA, NA)))))
    with pytest.raises(IRError) as error:
        check_program(bad)
    assert (
        str(error.value)
        == """\
exp does not take values of sort int32
    program p(x: f16[4,8], n: i32[4]) compute f32 {
      axes a=4
      %0 = load n[a]
      %1 = add %0 %0
  >   %2 = exp %1
      %3 = neg %2
      %4 = exp %3
      store y: f32[4][a] = %4
    }"""
    )


def test_an_output_is_written_once():
    twice = program(XAK)
    twice = replace(twice, outputs=(*twice.outputs, *twice.outputs))
    with pytest.raises(IRError, match="y is written twice"):
        check_program(twice)


TOP = Accumulator("m", "max", XAK, (A,))
WEIGHT = op("exp", op("sub", XAK, TOP.carried("new")))
TOTAL = Accumulator(
    "l", "sum", WEIGHT, (A,), op("sub", TOP.carried("old"), TOP.carried("new")), "mul", ("m",)
)
OUT = Tensor("out", (4,), "float32")


GRID = (GridAxis(A, "T"),)


def sgraph(
    *loops: Loop, grid=GRID, stores=None, value=None, inputs=(X, N), more=(), outputs=(OUT,)
):
    if stores is None:
        stores = (Store(OUT, (at(A),), TOTAL.carried() if value is None else value),)
    return SGraph("s", inputs, (Kernel("kern", grid, loops, stores), *more), outputs)


GOOD = Loop(K, "T_k", (TOP, TOTAL))
S = Axis("s", 3)
PART = Tensor("part", (3, 4), "float32")
SPLIT = Loop(K, 2, (Accumulator("t", "sum", XAK, (A,)),), split=S)
PARTS = (Store(PART, (at(S), at(A)), Carried("t", "final", "real", (A,))),)
SUM = LibraryCall(
    "sum", "xla", (Store(OUT, (at(A),), Reduce("sum", (S,), Load(PART, (at(S), at(A))))),)
)
SPLIT_GRID = (GridAxis(S, 1), GridAxis(A, 4))


def test_good_sgraphs_pass():
    check_sgraph(sgraph(GOOD))
    check_sgraph(sgraph(SPLIT, grid=SPLIT_GRID, stores=PARTS, more=(SUM,)))
    # A single block may hold a whole axis that its store does not mention.
    held = GridAxis(Axis("z", 2), 2)
    check_sgraph(sgraph(GOOD, grid=(GridAxis(A, "T"), held)))
    # A loop shadows the grid axis of its name: every block sums the whole axis.
    total = Accumulator("t", "sum", FIRST, ())
    value = op("div", FIRST, total.carried())
    check_sgraph(sgraph(Loop(A, 3, (total,)), value=value))
    halves = [
        Store(Tensor("out", (8,), "float32"), (affine([(A, 1)], 4 * n),), TOTAL.carried())
        for n in (0, 1)
    ]
    check_sgraph(sgraph(GOOD, stores=tuple(halves), outputs=(halves[0].tensor,)))


FIRST = Load(X, (at(A), at(0)))
TOP_OF_K = Load(X, (at(0), at(K)))
BAD_SGRAPHS = [
    (sgraph(Loop(K, 2, (TOTAL, TOP))), "m.new is read where it has no value: it has one in its loop"),
    (sgraph(Loop(K, 2, (TOP,)), value=TOP.carried("new")), "m.new is read where it has no value"),
    (sgraph(Loop(K, 2, (TOP,))), "l.final is read where it has no value: it has one after its loop"),
    (sgraph(GOOD, value=Carried("l", "last", "real", (A,))), "l has no phase last"),
    (sgraph(GOOD, value=Carried("l", "final", "real", ())), "does not have the sort and axes of its accumulator"),
    (sgraph(Loop(K, 2, (TOP, replace(TOTAL, name="m")))), "two accumulators are named m"),
    (sgraph(GOOD, Loop(K, 2, (TOP,))), "two accumulators are named m"),
    (sgraph(Loop(K, 2, (replace(TOP, axes=(A, K)), TOTAL))), "accumulator m has axes ['a', 'k'], its summand ['a']"),
    (sgraph(Loop(K, 2, (replace(TOP, monoid="mean"),))), "mean is not a monoid"),
    (sgraph(Loop(K, 2, (replace(TOP, monoid="argmax"),))), "argmax gives an index of sort None"),
    (sgraph(Loop(K, 2, (TOP, replace(TOTAL, action="pow")))), "rescaled by pow, not mul or add"),
    (sgraph(Loop(K, 2, (TOP, replace(TOTAL, depends=("l",))))), "l depends on l, not accumulated before it"),
    (sgraph(Loop(K, 2, (TOP, replace(TOTAL, rescale=NA)))), "l of sort real is rescaled by a value of sort int32"),
    (sgraph(Loop(K, 2, (TOP, replace(TOTAL, rescale=XAK)))), "has axes ['k'] that l has not"),
    (sgraph(Loop(K, 2)), "the loop over k computes nothing"),
    (sgraph(Loop(K, 0, (TOP,))), "k has a tile of 0"),
    (sgraph(Loop(K, 2, (Accumulator("c", "sum", TOP_OF_K, ()),), inner=(Loop(K, 2, (Accumulator("d", "max", XAK, (A,)),)),))), "a loop over k is inside a loop over k"),
    (sgraph(Loop(A, 2, (Accumulator("c", "sum", XAK, (K,)),), (Store(OUT, (at(A),), FIRST),)), stores=()), "out is written again for every a"),
    (sgraph(GOOD, grid=(GridAxis(A, "T"), GridAxis(A, 2))), "the grid of kern names an axis twice"),
    (sgraph(GOOD, grid=(GridAxis(A, -1),)), "axis a has a tile of -1"),
    (sgraph(replace(GOOD, split=S), grid=(GridAxis(S, 2), GridAxis(A, 2))), "not a grid axis with tile 1"),
    (sgraph(replace(GOOD, split=S), grid=SPLIT_GRID), "out is written again for every s"),
    (sgraph(SPLIT, grid=SPLIT_GRID, stores=PARTS, outputs=(PART,)), "nothing combines the parts in part"),
    (sgraph(Loop(K, 2, (TOP, TOTAL), (Store(OUT, (at(A),), TOP.carried("new")),)), stores=()), "out is written again for every k"),
    (sgraph(GOOD, stores=()), "kern writes nothing"),
    (sgraph(GOOD, inputs=(X, N, OUT)), "out is written by kern, but it exists already"),
    (sgraph(GOOD, outputs=(OUT, PART)), "output part: float32[3,4] is never written"),
    (sgraph(GOOD, value=Load(OUT, (at(A),))), "out is read before it is written"),
    (sgraph(SPLIT, grid=SPLIT_GRID, stores=PARTS, more=(SUM, SUM)), "out is written by sum, but it exists already"),
    (sgraph(GOOD, stores=(Store(OUT, (at(A),), TOTAL.carried()), Store(Tensor("out", (8,), "float32"), (at(A),), TOTAL.carried()))), "out is written with two shapes"),
    (sgraph(GOOD, stores=(Store(Tensor("out", (8,), "float32"), (at(A),), TOTAL.carried()),)), "leaves out elements"),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "message"), BAD_SGRAPHS, ids=[m for _, m in BAD_SGRAPHS])
def test_faulty_sgraphs(bad, message):
    with pytest.raises(IRError) as error:
        check_sgraph(bad)
    assert message in str(error.value)


def test_an_accumulator_is_read_over_the_tiles_it_was_made_of():
    """m was accumulated with k whole; in a later loop over k it would be the wrong tile."""
    held = Accumulator("h", "max", Load(Tensor("w", (8, 4), "float32"), (at(K), at(A))), (K,))
    later = Accumulator("l", "sum", op("mul", XAK, held.carried()), (A,))
    bad = sgraph(
        Loop(A, 2, (held,)),
        Loop(K, 2, (later,)),
        grid=(),
        inputs=(X, Tensor("w", (8, 4), "float32")),
        stores=(Store(OUT, (at(A),), later.carried()),),
    )
    with pytest.raises(IRError, match="h was accumulated over other tiles of k"):
        check_sgraph(bad)
    # The same where the grid splits k, and the later loop shadows it.
    with pytest.raises(IRError, match="h was accumulated over other tiles of k"):
        check_sgraph(replace(bad, nodes=(replace(bad.kernels[0], grid=(GridAxis(K, 4),)),)))


def test_a_fault_in_the_second_kernel_shows_the_second_kernel():
    value = TOTAL.carried()
    other = Tensor("other", (4,), "float32")
    second = Kernel(
        "second",
        (GridAxis(A, "T"),),
        (Loop(K, 2, (TOP,)),),
        (Store(other, (at(A),), op("neg", value)),),
    )
    bad = sgraph(GOOD, value=op("neg", value), more=(second,), outputs=(OUT, other))
    with pytest.raises(IRError) as error:
        check_sgraph(bad)
    marked = [line for line in str(error.value).split("\n") if line.startswith("  >")]
    assert marked == ["  >     %1 = carried l.final: real[a]"]
