"""Every row of the operator table, in every back end, on values that are hard for it."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from prism_jax.emit import jnp as emit_jnp
from prism_jax.emit.interpret import interpret
from prism_jax.emit.triton import emit_kernel
from prism_jax.instantiate.plan import Schedule
from prism_jax.ir.evaluate import evaluate
from prism_jax.ir.nodes import REAL, Axis, Load, Pointwise, Store, Tensor, at
from prism_jax.ir.ops import OPS, numpy_dtype
from prism_jax.ir.program import Program
from prism_jax.ir.sgraph import GridAxis, Kernel

REALS = np.array(
    [0.0, -0.0, 1.0, -1.0, 0.3, -0.3, 1e-3, -1e-3, 2.5, -2.5, 7.0, -7.0, 1e-8, 0.6, 20.0, -20.0],
    np.float32,
)
SECOND = np.array(
    [1.0, 2.0, -1.0, 3.0, 0.5, 2.0, -2.0, 1.5, 2.0, 3.0, 0.25, -3.0, 1.0, 0.1, 2.0, 0.7],
    np.float32,
)
SPECIAL = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, 1.0, 3e38, -3e38], np.float32)
COUNTS = np.array([0, 1, -1, 5, -7, 2**31 - 1, 1 - 2**31, 12], np.int32)
OTHERS = np.array([3, 0, 2, -2, 4, 31, 40, 1], np.int32)
BITS = np.array([True, False, True, False, True, True, False, False])

REAL_ONLY = sorted(
    set(OPS)
    - {"and", "or", "xor", "not", "shift_left", "shift_right_arithmetic", "shift_right_logical"}
    - {"cast", "reduce_precision", "where", "integer_pow"}
)
INTEGER_OPS = (
    *("add", "sub", "mul", "div", "rem", "max", "min", "abs", "neg", "sign", "lt", "ge", "ne"),
    *("and", "or", "xor", "not", "shift_left", "shift_right_arithmetic", "shift_right_logical"),
)
#: Relative error allowed beyond one unit in the last place of float32 (2^-23).
LOOSE = {"pow": 40, "tan": 20, "cbrt": 20, "erfc": 4, "erf": 4}


def run(op: str, arrays: list[Any], parameter: Any = None) -> tuple[np.ndarray[Any, Any], ...]:
    """(oracle, Triton, jnp) of one operator on vectors."""
    n = len(arrays[0])
    i = Axis("i", n)
    inputs = [Tensor(f"x{k}", (n,), str(a.dtype)) for k, a in enumerate(arrays)]
    node = Pointwise(op, tuple(Load(t, (at(i),)) for t in inputs), parameter)
    dtype = "float32" if node.sort == REAL else node.sort
    y = Tensor("y", (n,), dtype)
    item = Store(y, (at(i),), node)
    program = Program("one", tuple(inputs), (item,))
    (oracle,) = evaluate(program, {t.name: a for t, a in zip(inputs, arrays, strict=True)})
    emitted = emit_kernel(Kernel("one", (GridAxis(i, 8),), (), (item,)), "float32", Schedule())
    given = {t.name: a for t, a in zip(inputs, arrays, strict=True)}
    operands = [given[t.name] for t in emitted.operands]
    kind = [((n,), numpy_dtype(dtype))]
    (triton,) = interpret(emitted.source, emitted.grid, operands, kind)
    (array,) = jax.jit(emit_jnp.emit(program).call)(*arrays)
    return oracle, triton, np.asarray(array)


def close(op: str, oracle: Any, found: Any) -> None:
    if not np.issubdtype(oracle.dtype, np.floating):
        np.testing.assert_array_equal(found, oracle, err_msg=op)
        return
    with np.errstate(all="ignore"):
        wanted = oracle.astype(np.float32)
    tolerance = 4 * LOOSE.get(op, 1) * 2.0**-23
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=2e-38, err_msg=op)


@pytest.mark.parametrize("op", REAL_ONLY)
def test_reals(op: str) -> None:
    arrays = [REALS, SECOND][: OPS[op].arity]
    oracle, triton, array = run(op, arrays)
    close(op, oracle, triton)
    close(op, oracle, array)


@pytest.mark.parametrize(
    "op", ["add", "sub", "mul", "max", "min", "abs", "neg", "exp", "sqrt", "lt", "eq", "is_finite"]
)
def test_special_values(op: str) -> None:
    arrays = [SPECIAL, SPECIAL[::-1].copy()][: OPS[op].arity]
    oracle, triton, array = run(op, arrays)
    close(op, oracle, triton)
    close(op, oracle, array)


@pytest.mark.parametrize(
    "op",
    sorted(set(INTEGER_OPS)),
)
def test_integers(op: str) -> None:
    arrays = [COUNTS, OTHERS][: OPS[op].arity]
    oracle, triton, array = run(op, arrays)
    close(op, oracle, triton)
    close(op, oracle, array)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint32", "int64"])
@pytest.mark.parametrize("op", ["add", "mul", "max", "div", "shift_right_logical"])
def test_narrow_and_unsigned_integers(op: str, dtype: str) -> None:
    with jax.enable_x64(True):
        arrays = [np.array([3, 100, 127, 7], dtype), np.array([5, 2, 3, 1], dtype)]
        oracle, triton, array = run(op, arrays)
    close(op, oracle, triton)
    close(op, oracle, array)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "uint16", "uint32", "int64"])
@pytest.mark.parametrize("op", ["shift_left", "shift_right_arithmetic", "shift_right_logical"])
def test_shifts_of_the_highest_bit_and_by_more_than_the_width(op: str, dtype: str) -> None:
    with jax.enable_x64(True):
        values = np.array([3, -1, -1, -1, 100, -3]).astype(dtype)
        arrays = [values, np.array([1, 0, 1, 70, 99, 7], dtype)]
        oracle, triton, array = run(op, arrays)
    close(op, oracle, triton)
    close(op, oracle, array)


@pytest.mark.parametrize("op", ["and", "or", "xor", "not", "eq"])
def test_booleans(op: str) -> None:
    arrays = [BITS, BITS[::-1].copy()][: OPS[op].arity]
    oracle, triton, array = run(op, arrays)
    close(op, oracle, triton)
    close(op, oracle, array)


@pytest.mark.parametrize("exponent", [-3, -1, 0, 1, 2, 3, 4, 5, 7, 10])
def test_integer_powers(exponent: int) -> None:
    oracle, triton, array = run("integer_pow", [SECOND], exponent)
    close("pow", oracle, triton)
    close("pow", oracle, array)


@pytest.mark.parametrize("target", ["float16", "bfloat16", "int32", "int8", "uint8", "bool"])
def test_casts_of_reals(target: str) -> None:
    values = np.concatenate([REALS * 3, SPECIAL, [1e5, -1e5, 300.7, 2147483648.0]])
    values = values.astype(np.float32)
    oracle, triton, array = run("cast", [values], target)
    close("cast", oracle, triton)
    close("cast", oracle, array)


@pytest.mark.parametrize("target", ["float32", "float16", "int8", "int64", "uint8", "bool"])
def test_casts_of_integers(target: str) -> None:
    with jax.enable_x64(True):
        oracle, triton, array = run("cast", [COUNTS], target)
    close("cast", oracle, triton)
    close("cast", oracle, array)


@pytest.mark.parametrize("bits", [(5, 10), (8, 7), (4, 3), (8, 23)])
def test_reduce_precision(bits: tuple[int, int]) -> None:
    values = np.concatenate(
        [REALS, SPECIAL, np.array([1 / 3, 70000.0, 1e-6, 0.0078125], np.float32)]
    )
    oracle, triton, array = run("reduce_precision", [values], bits)
    close("reduce_precision", oracle, triton)
    close("reduce_precision", oracle, array)


def test_choice() -> None:
    oracle, triton, array = run("where", [BITS, REALS[:8], SECOND[:8]])
    close("where", oracle, triton)
    close("where", oracle, array)


def test_every_row_is_tested() -> None:
    here = {
        *REAL_ONLY,
        "and",
        "or",
        "xor",
        "not",
        "integer_pow",
        "cast",
        "reduce_precision",
        "where",
    }
    here |= {"shift_left", "shift_right_arithmetic", "shift_right_logical"}
    assert here == set(OPS)
