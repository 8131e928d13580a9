"""Emitted Triton, run in the interpreter (guard bands, poisoned outputs) against the float64
oracle.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from prism_jax.emit.binary import KernelSource
from prism_jax.emit.interpret import interpret
from prism_jax.emit.triton import emit
from prism_jax.emit.triton.operators import HELPERS
from prism_jax.instantiate.plan import Schedule
from prism_jax.ir.parse import parse_sgraph

from .graphs import attention, cases, split_k
from .harness import agree, expected, inputs, interpreted

EVEN = [f"{n}-{c.name}" for n, c in enumerate(cases("float32"))]
ODD = [f"{n}-{c.name}" for n, c in enumerate(cases("float32", big=False))]


@pytest.mark.parametrize("number", range(len(EVEN)), ids=EVEN)
def test_whole_tiles(number: int) -> None:
    case = cases("float16")[number]
    given = inputs(case)
    agree(case, interpreted(case, given, Schedule()), expected(case, given), "float16")


@pytest.mark.parametrize("number", range(len(ODD)), ids=ODD)
@pytest.mark.parametrize("products", ["dot", "mulsum"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_ragged_tiles(number: int, dtype: str, products: str) -> None:
    case = cases(dtype, big=False)[number]
    given = inputs(case)
    found = interpreted(case, given, Schedule(products=products))
    agree(case, found, expected(case, given), dtype)


@pytest.mark.parametrize("computed", [False, True])
def test_one_tf32_pass_is_unbiased(computed: bool) -> None:
    """A matrix unit cuts float32 to ten bits. Of 64 positive terms the cut's error has one sign and
    adds up to 7e-4 of the sum; rounded operands err by less than 1e-4 on average, by 4e-4 at most.
    """
    case = attention(2, 32, 64, 32, "float32", False, -1e30)
    case = case if computed else split_k(32, 64, 32, 2, "float32")
    text = str(case.sgraph).replace("f32 f32 f32 high", "f32 f32 f32 default")
    case = replace(case, sgraph=parse_sgraph(text))
    [first, *_] = emit(case.sgraph, case.sizes, [Schedule()] * len(case.sgraph.kernels))
    assert "_tf32(" in first.source.text
    draw = np.random.default_rng(0)
    given = {
        t.name: draw.uniform(0.01, 0.99, tuple(map(int, t.shape))).astype(np.float32) * 0.3
        for t in case.sgraph.inputs
    }
    [found, *_] = interpreted(case, given, Schedule())
    [wanted, *_] = expected(case, given)
    error = found / wanted - 1
    assert 1e-6 < np.abs(error).max() < 4e-4
    assert abs(error.mean()) < 1e-4


def test_rounding_for_a_tf32_pass() -> None:
    """Halves away from zero, after the cut; numbers of ten bits, infinities and NaN stay."""
    helper = HELPERS["round_tf32"]
    text = f"""import triton
import triton.language as tl

{helper}

@triton.jit
def rounding(x_ptr, y_ptr, size: tl.constexpr):
    at = tl.arange(0, size)
    bits = round_tf32(tl.load(x_ptr + at)).to(tl.int32, bitcast=True) & -0x2000
    tl.store(y_ptr + at, bits.to(tl.float32, bitcast=True))
"""
    source = KernelSource(
        name="rounding",
        text=text,
        signature=(("x_ptr", "*fp32"), ("y_ptr", "*fp32"), ("size", "constexpr")),
        constexprs=(("size", 4096),),
    )
    draw = np.random.default_rng(0)
    x = (draw.normal(size=4096) * 10.0 ** draw.integers(-30, 30, 4096)).astype(np.float32)
    nans = np.array([0x7FFFFFFF, 0x7FC00000, 0xFFFFFFFF, 0xFFC00000], np.uint32).view(np.float32)
    x[:12] = [*nans, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.5, 1 + 2.0**-11, -1 - 2.0**-11]
    with np.errstate(invalid="ignore"):
        (found,) = interpret(source, (1,), [x], [((4096,), "float32")])
    assert np.isnan(found[:4]).all()
    np.testing.assert_array_equal(found[4:8], x[4:8])
    fraction, exponent = np.frexp(x[8:].astype(np.float64))
    bits = np.sign(fraction) * np.floor(np.abs(fraction) * 2048 + 0.5)
    np.testing.assert_array_equal(found[8:], np.ldexp(bits, exponent - 11).astype(np.float32))
