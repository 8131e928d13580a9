"""Corrections of Triton's interpreter, applied once to a worker that interprets.

In: the interpreter's module and a `touch` function. Out: nothing; from then on bf16 and fp8 are
real `ml_dtypes` types and `touch(addresses, mask, kind)` is called before every load, store and
atomic operation. `interpret.py` says what was wrong. Tested with triton 3.6 and 3.9: a new Triton
that mends a fault makes its correction harmless, one that renames a method makes the tests fail.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

#: Addresses, mask, and which of "load", "store", "atomic".
Touch = Callable[[Any, Any, str], None]

_TYPES = {
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "fp8e4nv": np.dtype(ml_dtypes.float8_e4m3fn),
    "fp8e5": np.dtype(ml_dtypes.float8_e5m2),
    "fp8e4b8": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "fp8e5b16": np.dtype(ml_dtypes.float8_e5m2fnuz),
}
_NARROW = frozenset(_TYPES.values())


def correct(interpreter: Any, tl: Any, touch: Touch) -> None:
    """Patch `triton.runtime.interpreter`; `tl` is `triton.language`."""
    _correct_numbers(interpreter, tl)
    _correct_memory(interpreter, touch)


def _correct_numbers(interpreter: Any, tl: Any) -> None:
    builder, handle = interpreter.InterpreterBuilder, interpreter.TensorHandle
    stock_type, stock_convert = interpreter._get_np_dtype, interpreter._convert_float
    stock_patch = interpreter._patch_lang_tensor

    def numpy_type(kind: Any) -> np.dtype[Any]:
        scalar = getattr(kind, "scalar", kind)
        known = None if isinstance(scalar, tl.pointer_type) else _TYPES.get(str(scalar))
        return stock_type(kind) if known is None else known

    def convert(value: Any, source: Any, target: Any, rounding: Any) -> Any:
        if str(rounding).endswith("RTZ"):
            return stock_convert(value, source, target, rounding)
        return value.astype(numpy_type(target))

    def cast(self: Any, value: Any, kind: Any) -> Any:
        return handle(value.data.astype(numpy_type(kind)), kind.scalar)

    def wide(value: Any) -> Any:
        return value.data.astype(np.float32) if value.data.dtype in _NARROW else value.data

    def dot(self: Any, a: Any, b: Any, c: Any, *_: Any) -> Any:
        return handle(np.matmul(wide(a), wide(b), dtype=c.data.dtype) + c.data, c.dtype.scalar)

    def pairwise(function: Any) -> Any:
        return lambda self, a, b: self.binary_op(a, b, function)

    def patch_tensor(tensor: Any, *scope: Any) -> None:
        stock_patch(tensor, *scope)
        tensor.__index__ = lambda self: int(self.handle.data.item())  # the stock one: int(array)

    interpreter._get_np_dtype = numpy_type
    interpreter._convert_float = convert
    interpreter._patch_lang_tensor = patch_tensor
    builder.cast_impl = cast
    builder.create_dot = dot
    builder.create_maxnumf = pairwise(np.fmax)
    builder.create_minnumf = pairwise(np.fmin)


def _correct_memory(interpreter: Any, touch: Touch) -> None:
    builder, machine = interpreter.InterpreterBuilder, interpreter._interpreter
    stock_rmw, stock_cas = builder.create_atomic_rmw, builder.create_atomic_cas

    def raw(array: Any) -> Any:
        # The C++ load and store know no ml_dtypes; they only move bytes.
        array = np.ascontiguousarray(array)
        return array.view(f"u{array.dtype.itemsize}") if array.dtype in _NARROW else array

    def truth(mask: Any) -> Any:
        return mask.data.astype(bool)  # a scalar comparison, broadcast, is an int32 in 3.9

    def load(self: Any, pointers: Any, mask: Any, other: Any, *_: Any) -> Any:
        touch(pointers.data, truth(mask), "load")
        kind = pointers.get_element_ty()
        dtype = interpreter._get_np_dtype(kind)
        fill = raw(np.zeros(pointers.data.shape, dtype) if other is None else other.data)
        data = machine.load(pointers.data, truth(mask), fill, fill.dtype)
        return interpreter.TensorHandle(data.view(dtype), kind)

    def store(self: Any, pointers: Any, value: Any, mask: Any, *_: Any) -> Any:
        touch(pointers.data, truth(mask), "store")
        return machine.store(pointers.data, raw(value.data), truth(mask))

    def atomic_rmw(
        self: Any, operation: Any, pointers: Any, value: Any, mask: Any, *rest: Any
    ) -> Any:
        touch(pointers.data, truth(mask), "atomic")
        return stock_rmw(self, operation, pointers, value, mask, *rest)

    def atomic_cas(self: Any, pointers: Any, *rest: Any) -> Any:
        touch(pointers.data, np.ones_like(pointers.data, bool), "atomic")
        return stock_cas(self, pointers, *rest)

    builder.create_masked_load = load
    builder.create_masked_store = store
    builder.create_atomic_rmw = atomic_rmw
    builder.create_atomic_cas = atomic_cas
