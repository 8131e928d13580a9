"""The text of programs and sGraphs: round trips, the form itself, errors that name the line."""

from __future__ import annotations

import pytest

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
from prism_jax.ir.sgraph import Accumulator, GridAxis, Kernel, Loop, SGraph
from prism_jax.ir.text import (
    TextError,
    parse_program,
    parse_sgraph,
    print_program,
    print_sgraph,
)
from tests.ir import samples
from tests.ir.samples import op

A, K = Axis("i", 4), Axis("k", 8)
X = Tensor("x", (4, 8), "float16")
XAK = Load(X, (at(A), at(K)))


@pytest.mark.parametrize("make", [samples.attention, samples.matmul, samples.gram])
def test_samples_come_back_identical(make):
    program, sgraph = make()
    for annotate in (False, True):
        again = parse_program(print_program(program, annotate))
        assert again == program
        assert all(a.value is b.value for a, b in zip(again.outputs, program.outputs, strict=True))
        assert parse_sgraph(print_sgraph(sgraph, annotate)) == sgraph


def _returns(value: Node) -> Node:
    """The value, printed in a program and parsed again."""
    axes = value.axes_free
    y = Tensor("y", tuple(a.size for a in axes), "float32")
    program = Program(
        "p", (X, Tensor("n", (4,), "int32")), (Store(y, tuple(map(at, axes)), value),)
    )
    return parse_program(print_program(program)).outputs[0].value


@pytest.mark.parametrize(
    "value",
    [
        Const(0.0),
        Const(-0.0),
        Const(1e300),
        Const(5e-324),
        Const(float("-inf")),
        Const(float("nan")),
        Const(-3, "int8"),
        Const(2**63, "uint64"),
        Const(True, "bool"),
        Iota(A),
        Iota(A, "int64"),
        Iota(A, "real"),
        op("integer_pow", XAK, p=-2),
        op("cast", XAK, p="bfloat16"),
        op("cast", XAK, p="inf"),
        op("reduce_precision", XAK, p=(5, 10)),
        op("odd", XAK, p=(5,)),
        op("odd", XAK, p=()),
        op("odd", XAK, p=0.5),
        op("odd", p=float("inf")),
        Reduce("argmax", (K,), XAK, index_sort="int64"),
        Reduce("sum", (), XAK),
        Reduce("sum", (K, A), Const(2.0)),
        Load(X, (at(0), affine([(K, -1)], 7))),
        Load(X, (at(A), affine([(A, 2), (K, -3)], 21)), (Within(at(K), -1, 5),), Const(1.0)),
        Load(X, (at(Load(Tensor("n", (4,), "int32"), (at(A),))), at(K))),
        Load(X, (affine([(Const(2, "int32"), 3), (A, 1)], -4), at(0))),
        Load(Tensor("x", (4, 8), "float64"), (at(A), at(K))),
        op("add", Iota(Axis("i", 4), "real"), Reduce("sum", (Axis("i", 5),), Iota(Axis("i", 5)))),
        Iota(Axis("i'", "N")),
        Iota(Axis("odd name.1", 3)),
        Iota(Axis("inf", 3)),
        Iota(Axis("store", 3)),
        Carried("m", "old", "real", (A,)),
    ],
    ids=repr,
)
def test_every_form_of_node_comes_back(value):
    assert _returns(value) is value


def test_accumulator_forms_come_back():
    a = Accumulator("inf", "argmax", XAK, (A,), index_sort="int64")
    b = Accumulator("b", "sum", a.carried("new"), (A,), action="add", depends=("inf", "live"))
    c = Accumulator("c", "sum", XAK, (A,), Carried("inf", "new", "real", ()), "add", ("inf",))
    y = Tensor("y", (4,), "int64")
    kernel = Kernel(
        "k", (GridAxis(A, "T"),), (Loop(K, 3, (a, b, c)),), (Store(y, (at(A),), a.carried()),)
    )
    sgraph = SGraph("s", (X,), (kernel,), (y,), "float64")
    again = parse_sgraph(print_sgraph(sgraph))
    assert again == sgraph
    assert again.digest == sgraph.digest


def test_the_text_of_flash_attention():
    _, sgraph = samples.attention()
    assert (
        print_sgraph(sgraph)
        == """\
sgraph attention(q: f32[10,4], key: f32[13,4], v: f32[13,4]) -> (o: f32[10,4]) compute f32 {
  axes c=4 e=4 i=10 k=13
  kernel flash {
    grid i/T_i
    loop k/T_k {
      %0 = iota i
      %1 = iota k
      %2 = ge %0 %1
      %3 = load q[i, c]
      %4 = load key[k, c]
      %5 = mul %3 %4
      %6 = sum{c} %5 precision f32 f32 f32 highest
      %7 = where %2 %6 -inf
      acc m[i] = max %7
      %8 = sub %7 m.new
      %9 = exp %8
      %10 = sub m.old m.new
      %11 = exp %10
      acc l[i] = sum %9 rescale mul %11 live m
      %12 = load v[k, e]
      %13 = mul %9 %12
      acc a[i, e] = sum %13 rescale mul %11 live m
    }
    %14 = div a.final l.final
    store o: f32[10,4][i, e] = %14
  }
}"""
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected 'program'"),
        ("program p() compute f32 {\n  %0 = %1\n}", "line 2: %1 is not defined"),
        ("program p() compute f32 {\n  %0 = load x[0]\n}", "there is no tensor x"),
        ("program p() compute f32 {\n  %0 = iota i\n}", "axis i has no size"),
        ("program p() compute f32 {\n  %0 = 1.0\n  %0 = 2.0\n}", "line 3: %0 is defined twice"),
        ("program p() compute f32 {\n  %0 = 1.0 2.0\n}", "expected the end of the line"),
        ("program p() compute f32 {\n  %0 = mean{} 1.0\n}", "mean is not a monoid"),
        ("program p() compute f32 {\n  %0 = exp m.new\n}", "there is no accumulator m"),
        ("program p() compute f32 {\n", "found 'the end of the text'"),
        ("program p() compute f32 {\n  ?\n}", "line 2: cannot read '?"),
        ("program p(3) compute f32 {\n}", "expected a name, found '3' in: program p(3)"),
    ],
)
def test_errors_name_the_line(text, message):
    with pytest.raises(TextError) as error:
        parse_program(text)
    assert message in str(error.value)


def test_fill_must_be_a_number():
    text = print_program(
        Program(
            "p",
            (X,),
            (
                Store(
                    X, (at(A), at(K)), Load(X, (at(A), at(K)), (Within(at(A), 0, 2),), Const(0.0))
                ),
            ),
        )
    )
    assert "if 0 <= i < 2 else 0.0" in text
    with pytest.raises(TextError, match="fill of a load must be a number"):
        parse_program(text.replace("else 0.0", "else %0").replace("%0 =", "%0 = iota i\n  %1 =", 1))
