"""Wrong candidates made to fool the checker: each was once accepted by some layer.

The proof must not prove them; where another layer can see the difference, it must.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from prism_jax.ir.evaluate import evaluate_sgraph
from prism_jax.ir.nodes import Axis, Const, Iota, Load, Node, Store, Tensor, affine, at
from prism_jax.ir.ops import numpy_dtype
from prism_jax.ir.program import Program
from prism_jax.ir.sgraph import Accumulator, GridAxis, Kernel, Loop, SGraph
from prism_jax.verify import Proof, field, prove, verify
from prism_jax.verify.rounded import Rounded, evaluate_rounded
from prism_jax.verify.shrink import as_sgraph
from tests.verify.build import add, exp, mul, op, out, program, red, square, sub, t, total

I, K, LONG = Axis("i", 12), Axis("k", 33), Axis("k", 300)  # noqa: E741
INF = float("inf")
X, W, R = t("x", I, K), t("w", I, K), t("r", I)
SEEN = t("seen", I, K, dtype="bool")
LOW = op("where", SEEN, X, -INF)
INT, OTHER, SHIFT = (
    t("a", I, K, dtype="int32"),
    t("b", I, K, dtype="int32"),
    t("c", I, dtype="int32"),
)
UINT, UINT2 = t("u", I, K, dtype="uint8"), t("v", I, K, dtype="uint8")


def integer(value: int, sort: str = "int32") -> Node:
    return Const(value, sort)


def counted(sort: str) -> Node:
    return total(op("cast", t("m", I, LONG, dtype="bool"), parameter=sort), LONG)


@dataclass(frozen=True)
class Attack:
    """Two programs that differ; `dtype` and `axes` of the output."""

    name: str
    right: Node
    wrong: Node
    axes: tuple[Axis, ...] = (I, K)
    dtype: str = "float32"

    def programs(self) -> tuple[Program, Program]:
        found = (out(v, *self.axes, name="y", dtype=self.dtype) for v in (self.right, self.wrong))
        return tuple(program("p", store) for store in found)  # type: ignore[return-value]


INTEGERS = [  # they wrap: x + 1 may be less than x, a count in 8 bits starts again
    Attack("a shift through less-than", op("lt", INT, OTHER),
           op("lt", op("add", INT, integer(1)), op("add", OTHER, integer(1))), dtype="bool"),
    Attack("a difference for less-than", op("lt", op("sub", UINT, UINT2), integer(1, "uint8")),
           op("lt", UINT, op("add", UINT2, integer(1, "uint8"))), dtype="bool"),
    Attack("a factor out of equality", op("eq", op("mul", INT, integer(2)),
           op("mul", OTHER, integer(2))), op("eq", INT, OTHER), dtype="bool"),
    Attack("a shift through a maximum", red("max", op("add", INT, SHIFT), K),
           op("add", SHIFT, red("max", INT, K)), (I,), "int32"),
    Attack("a factor through a maximum", red("max", op("mul", INT, integer(2)), K),
           op("mul", integer(2), red("max", INT, K)), (I,), "int32"),
    Attack("a shift through the larger of two", op("add", op("max", INT, OTHER), OTHER),
           op("max", op("add", INT, OTHER), op("add", OTHER, OTHER)), dtype="int32"),
    Attack("a factor out of an argmax", red("argmax", op("mul", INT, integer(1 << 30)), K),
           red("argmax", INT, K), (I,), "int32"),
    Attack("a count in 8 bits", op("cast", counted("int32"), parameter="float32"),
           op("cast", counted("int8"), parameter="float32"), (I,)),
    Attack("a count in 8 bits, compared", op("gt", counted("int32"), integer(100)),
           op("gt", counted("int8"), integer(100, "int8")), (I,), "bool"),
    Attack("an axis in 8 bits", op("cast", Iota(LONG, "int32"), parameter="float32"),
           op("cast", Iota(LONG, "int8"), parameter="float32"), (LONG,)),
]  # fmt: skip
DOMAINS = [  # the left side has no value for some inputs, the right one has
    Attack("the square of a root", mul(op("sqrt", X), op("sqrt", X)), X),
    Attack("a root times its inverse", mul(W, op("sqrt", X), op("rsqrt", X)), W),
    Attack("the square of a power", square(op("pow", X, 0.5)), X),
    Attack("powers that add up", mul(op("pow", X, 1.5), op("pow", X, 0.5)), square(X)),
    Attack("exp of log", exp(op("log", X)), X),
    Attack("log minus log", add(W, sub(op("log", X), op("log", X))), W),
    Attack("log of a product", add(op("log", X), op("log", W)), op("log", mul(X, W))),
    Attack("root of a product", mul(op("sqrt", X), op("sqrt", W)), op("sqrt", mul(X, W))),
    Attack("log of a square", mul(2.0, op("log", X)), op("log", square(X))),
]
INFINITE = [  # what a mask makes infinite has no algebra
    Attack("masked minus masked", add(W, sub(LOW, LOW)), W),
    Attack("zero times masked", add(W, mul(0.0, LOW)), W),
    Attack("a masked difference in a choice",
           op("where", op("le", sub(LOW, LOW), 0.0), X, W), X),
    Attack("masked values compared by their difference",
           op("eq", LOW, op("where", SEEN, W, -INF)),
           op("eq", sub(LOW, op("where", SEEN, W, -INF)), 0.0), dtype="bool"),
    Attack("a masked row out of an argmax",
           red("argmax", add(X, op("where", t("row", I, dtype="bool"), R, -INF)), K),
           red("argmax", X, K), (I,), "int32"),
    Attack("a factor that may be zero out of a masked maximum",
           red("max", mul(LOW, op("abs", R)), K), mul(op("abs", R), red("max", LOW, K)), (I,)),
    Attack("NaN times zero", add(W, mul(0.0, op("where", SEEN, X, float("nan")))), W),
]  # fmt: skip
BENT = [  # laws of functions and extremes without the condition that they have
    Attack("a factor of any sign out of the larger of two", op("max", mul(X, R), mul(W, R)),
           mul(R, op("max", X, W))),
    Attack("a negative factor out of the larger of two", op("max", mul(-2.0, X), mul(-2.0, W)),
           mul(-2.0, op("max", X, W))),
    Attack("minus through the smaller of two", op("min", X, W),
           op("neg", op("min", op("neg", X), op("neg", W)))),
    Attack("the root of the larger factor", op("max", X, mul(W, op("abs", R))),
           mul(op("abs", R), op("max", X, W))),
    Attack("a maximum through a falling exponential", red("max", exp(op("neg", X)), K),
           exp(op("neg", red("max", X, K))), (I,)),
    Attack("minus through the exponential of a maximum", red("max", op("neg", exp(X)), K),
           op("neg", exp(red("max", X, K))), (I,)),
    Attack("a maximum of the smaller ones", red("max", op("min", X, W), K),
           op("min", red("max", X, K), red("max", W, K)), (I,)),
    Attack("a product of sums", red("prod", add(X, W), K),
           add(red("prod", X, K), red("prod", W, K)), (I,)),
    Attack("a product of exponentials", red("prod", exp(X), K), exp(red("prod", X, K)), (I,)),
    Attack("a power of a sum", op("pow", add(op("abs", X), op("abs", W)), R),
           add(op("pow", op("abs", X), R), op("pow", op("abs", W), R))),
    Attack("powers of negative factors", op("pow", mul(X, W), R),
           mul(op("pow", X, R), op("pow", W, R))),
    Attack("a power of a power of any sign", op("pow", square(X), R),
           square(op("pow", X, R))),
    Attack("an exponential of a chosen value", exp(op("where", SEEN, X, 0.0)),
           op("where", SEEN, exp(X), 0.0)),
    Attack("the log of a factor that may be zero", op("log", mul(op("abs", X), W)),
           add(op("log", op("abs", X)), op("log", op("neg", W)))),
    Attack("the log of minus the reciprocal", op("log", mul(-1.0, op("integer_pow", X,
           parameter=-1))), op("neg", op("log", X))),
    Attack("tanh at half the place", op("tanh", X), sub(mul(2.0, op("logistic", X)), 1.0)),
    Attack("the cube of an absolute value", op("integer_pow", op("abs", X), parameter=3),
           op("integer_pow", X, parameter=3)),
]  # fmt: skip
ALL = INTEGERS + DOMAINS + INFINITE + BENT


def sides(attack: Attack):
    """The right program as the reference, and the wrong one as it would be computed."""
    right, wrong = attack.programs()

    def reference(*arrays):
        return evaluate_rounded(
            right, dict(zip((x.name for x in right.inputs), arrays, strict=True))
        )

    def candidate(*arrays):
        given = dict(zip((x.name for x in right.inputs), arrays, strict=True))
        values = evaluate_sgraph(as_sgraph(wrong), {}, given, domain=Rounded("float32"))
        return [
            np.asarray(v).astype(numpy_dtype(s.tensor.dtype))
            for v, s in zip(values, wrong.outputs, strict=True)
        ]

    return right, wrong, reference, candidate


@pytest.mark.parametrize("attack", ALL, ids=lambda a: a.name)
def test_the_proof_does_not_prove(attack):
    right, wrong = attack.programs()
    assert not prove(right, wrong).passed
    assert not prove(wrong, right).passed or attack in DOMAINS


@pytest.mark.parametrize("attack", ALL, ids=lambda a: a.name)
def test_all_layers_together_refuse(attack):
    right, wrong, reference, candidate = sides(attack)
    evidence = verify(right, as_sgraph(wrong), {}, reference, candidate)
    assert not evidence.accepted, str(evidence)


# ---- sGraphs

T_SMALL = Tensor("T", (12,), "float32")


def digits_out_of_range() -> tuple[Program, SGraph]:
    """T[4 a + b] = x[a + b] for b < 4, read at b = 4, which is the next row's first element."""
    a, short, long, few = Axis("a", 3), Axis("b", 4), Axis("b", 5), Axis("a", 2)
    x, y = Tensor("x", (8,), "float32"), Tensor("y", (2,), "float32")
    written = Store(T_SMALL, (affine([(a, 4), (short, 1)]),), _load(x, (a, 1), (short, 1)))
    acc = Accumulator("s", "sum", _load(T_SMALL, (few, 4), (long, 1)), (few,))
    kernels = (
        Kernel("one", (GridAxis(a, "T_a"),), (), (written,)),
        Kernel("two", (GridAxis(few, "T_a"),), (Loop(long, "T_b", (acc,)),),
               (Store(y, (at(few),), acc.carried()),)),
    )  # fmt: skip
    whole = Program(
        "digits", (x,), (Store(y, (at(few),), total(_load(x, (few, 1), (long, 1)), long)),)
    )
    return whole, SGraph("digits", (x,), kernels, (y,))


def _load(tensor: Tensor, *terms: tuple[Axis, int]) -> Node:
    return Load(tensor, (affine(list(terms)),))


def _cascade(body: Node) -> tuple[Program, SGraph]:
    """sum_k exp(x - m) with all k, also where m has seen nothing: those summands are lost."""
    top = red("max", body, K)
    whole = program("cascade", out(total(exp(sub(X, top)), K), I))
    m = Accumulator("m", "max", body, (I,))
    rescale = exp(sub(m.carried("old"), m.carried("new")))
    low = Accumulator("l", "sum", exp(sub(X, m.carried("new"))), (I,), rescale, "mul", ("m",))
    kernel = Kernel(
        "cascade", (GridAxis(I, "T_i"),), (Loop(K, "T_k", (m, low)),), (out(low.carried(), I),)
    )
    return whole, SGraph("cascade", whole.inputs, (kernel,), (whole.outputs[0].tensor,))


def masks_below_a_maximum() -> tuple[Program, SGraph]:
    return _cascade(op("max", LOW, op("where", t("kept", I, K, dtype="bool"), W, -INF)))


def a_mask_below_a_minus() -> tuple[Program, SGraph]:
    return _cascade(op("neg", op("where", SEEN, X, INF)))


def a_mask_below_a_choice() -> tuple[Program, SGraph]:
    return _cascade(op("where", t("kept", I, K, dtype="bool"), W, LOW))


def a_share_stands_for_all() -> tuple[Program, SGraph]:
    """Blocks share a loop, and the combining kernel reads one of them twice."""
    share, part = Axis("s", 2), Tensor("part", (2, 12), "float32")
    acc = Accumulator("acc", "sum", X, (I,))
    first = Kernel("first", (GridAxis(share, 1), GridAxis(I, "T_i")),
                   (Loop(K, "T_k", (acc,), split=share),),
                   (Store(part, (at(share), at(I)), acc.carried()),))  # fmt: skip
    value = mul(2.0, Load(part, (at(0), at(I))))
    second = Kernel("second", (GridAxis(I, "T_i"),), (), (out(value, I),))
    whole = program("share", out(total(X, K), I))
    return whole, SGraph("share", whole.inputs, (first, second), (whole.outputs[0].tensor,))


def a_bias_in_every_share() -> tuple[Program, SGraph]:
    share, part = Axis("s", 2), Tensor("part", (2, 12), "float32")
    acc = Accumulator("acc", "sum", X, (I,))
    first = Kernel("first", (GridAxis(share, 1), GridAxis(I, "T_i")),
                   (Loop(K, "T_k", (acc,), split=share),),
                   (Store(part, (at(share), at(I)), add(acc.carried(), R)),))  # fmt: skip
    both = Accumulator("both", "sum", Load(part, (at(share), at(I))), (I,))
    second = Kernel(
        "second", (GridAxis(I, "T_i"),), (Loop(share, "T_s", (both,)),), (out(both.carried(), I),)
    )
    whole = program("bias", out(add(R, total(X, K)), I))
    return whole, SGraph("bias", whole.inputs, (first, second), (whole.outputs[0].tensor,))


def an_input_that_the_program_has_not() -> tuple[Program, SGraph]:
    whole = program("other", out(X, I, K))
    return whole, as_sgraph(program("other", out(add(X, W), I, K)))


GRAPHS = (
    digits_out_of_range,
    masks_below_a_maximum,
    a_mask_below_a_minus,
    a_mask_below_a_choice,
    a_share_stands_for_all,
    a_bias_in_every_share,
    an_input_that_the_program_has_not,
)


@pytest.mark.parametrize("make", GRAPHS, ids=lambda m: m.__name__)
def test_wrong_sgraphs_are_not_proved_and_not_accepted(make):
    whole, graph = make()
    proof = prove(whole, graph)
    assert not isinstance(proof, Proof), str(proof)
    assert not verify(whole, graph).accepted


def test_ill_formed_sgraphs_are_refused_whatever_the_layers_say():
    """The IR's own checker is asked too: here a value is stored under another sort's dtype."""
    whole = program("p", out(X, I, K))
    graph = as_sgraph(program("p", out(X, I, K, dtype="int32")))
    evidence = verify(whole, graph)
    assert "form" in evidence.rejected_by
    assert evidence.reason.startswith("form: ")


# ---- what must still be accepted

RIGHT = [
    Attack("roots of squares", op("sqrt", square(X)), op("abs", X)),
    Attack("the square of a root of a mean of squares",
           square(op("sqrt", total(square(X), K))), total(square(X), K), (I,)),
    Attack("one mask below another", op("where", SEEN, LOW, -INF), LOW),
    Attack("masks of lengths, mirrored", op("where", op("lt", Iota(K), SHIFT), X, 0.0),
           op("where", op("gt", SHIFT, Iota(K)), X, 0.0)),
    Attack("masks of lengths, the other way round",
           op("where", op("lt", Iota(K), SHIFT), X, 0.0),
           op("where", op("le", SHIFT, Iota(K)), 0.0, X)),
    Attack("integer sums in any order", op("add", INT, op("mul", OTHER, integer(3))),
           op("add", op("mul", integer(3), OTHER), INT), dtype="int32"),
    Attack("nested maxima of integers", red("max", INT, K), red("max", red("max", INT, K), K),
           (I,), "int32"),
    Attack("a positive factor out of a masked maximum",
           red("max", mul(LOW, exp(R)), K), mul(exp(R), red("max", LOW, K)), (I,)),
    Attack("exp of a masked value", exp(LOW), op("where", SEEN, exp(X), 0.0)),
    Attack("exp of a chosen value", exp(op("where", SEEN, X, W)),
           op("where", SEEN, exp(X), exp(W))),
    Attack("a nonnegative factor out of the smaller of three",
           op("min", op("min", mul(X, op("abs", R)), mul(2.0, op("abs", R))), mul(op("abs", R), W)),
           mul(op("abs", R), op("min", X, op("min", W, 2.0)))),
    Attack("GELU by tanh and by the logistic", mul(X, 0.5, add(1.0, op("tanh", W))),
           mul(X, op("logistic", mul(2.0, W)))),
]  # fmt: skip


@pytest.mark.parametrize("attack", RIGHT, ids=lambda a: a.name)
def test_right_ones_are_still_proved(attack):
    right, other = attack.programs()
    proof = prove(right, other)
    assert isinstance(proof, Proof), str(proof)
    assert field.test(right, other).outcome != "different"
