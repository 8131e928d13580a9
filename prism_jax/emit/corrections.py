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


def cut_to_tf32(values: Any) -> Any:
    """float32 numbers as a matrix unit reads them in TF32: the last 13 bits are cut off, not
    rounded (the PTX that Triton 3.6 makes converts nothing; errors on sm_90 agree).
    """
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return (bits & np.uint32(0xFFFFE000)).view(np.float32)


def correct(interpreter: Any, tl: Any, touch: Touch) -> None:
    """Patch `triton.runtime.interpreter`; `tl` is `triton.language`."""
    _correct_numbers(interpreter, tl)
    _correct_memory(interpreter, touch)
    _correct_reduce(interpreter)


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

    def dot(self: Any, a: Any, b: Any, c: Any, precision: Any = None, *_: Any) -> Any:
        left, right = wide(a), wide(b)
        if str(precision).endswith("TF32") and left.dtype == np.float32:
            left, right = cut_to_tf32(left), cut_to_tf32(right)
        return handle(np.matmul(left, right, dtype=c.data.dtype) + c.data, c.dtype.scalar)

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
        # A scalar comparison, broadcast, is an int32 in 3.9; 3.6 gives a descriptor's mask as an
        # array without a handle, whose `data` is a memoryview.
        return np.asarray(mask.data).astype(bool)

    # What else comes along are cache hints: by position from pointers, by name from descriptors.
    def load(self: Any, pointers: Any, mask: Any, other: Any, *_: Any, **__: Any) -> Any:
        touch(pointers.data, truth(mask), "load")
        kind = pointers.get_element_ty()
        dtype = interpreter._get_np_dtype(kind)
        fill = raw(np.zeros(pointers.data.shape, dtype) if other is None else other.data)
        data = machine.load(pointers.data, truth(mask), fill, fill.dtype)
        return interpreter.TensorHandle(data.view(dtype), kind)

    def store(self: Any, pointers: Any, value: Any, mask: Any, *_: Any, **__: Any) -> Any:
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


def _correct_reduce(interpreter: Any) -> None:
    # The stock reduction with a function of one's own calls it once per element: a 64 x 64 tile
    # took a second. Slices along the axis are combined whole instead, in the same order.
    def reduce(self: Any, inputs: Any) -> list[Any]:
        kinds = [tensor.dtype for tensor in inputs]
        arrays = [tensor.handle.data for tensor in inputs]
        rank, axis = arrays[0].ndim, self.axis
        if axis is None:
            arrays, axis = [array.reshape(-1) for array in arrays], 0
        slices = [np.moveaxis(array, axis, 0) for array in arrays]

        def at(i: int) -> list[Any]:
            return [self.to_tensor(s[i], kind) for s, kind in zip(slices, kinds, strict=True)]

        total = at(0)
        for i in range(1, len(slices[0])):
            result = self.combine_fn.fn(*total, *at(i))
            total = list(result) if isinstance(result, tuple) else [result]
        results: list[Any] = []
        for tensor, kind in zip(total, kinds, strict=True):
            data = tensor.handle.data
            data = data.item() if slices[0].ndim == 1 else data
            if self.keep_dims:
                flat = self.axis is None
                data = np.reshape(data, (1,) * rank) if flat else np.expand_dims(data, axis)
            results.append(self.to_tensor(data, kind))
        return results

    interpreter.ReduceOps.generic_reduce = reduce
