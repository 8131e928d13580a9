"""Which matrix instruction a precision record allows.

>>> dot_precision(Precision("float16", "float32", "float16"), "float32")
DotPrecision(operand='float16', input_precision=None)
>>> dot_precision(Precision("float32", "float32", "float32"), "float32")
DotPrecision(operand='float32', input_precision='tf32')
>>> dot_precision(None, "float32")
DotPrecision(operand='float32', input_precision='ieee')
>>> dot_precision(None, "float64") is None
True
"""

from __future__ import annotations

from dataclasses import dataclass

from prism_jax.ir.nodes import Precision

__all__ = ["NARROW", "DotPrecision", "dot_precision"]

#: What `tl.dot` does to float32 operands, by the record's algorithm. All accumulate in float32.
_FLOAT32 = {
    "default": "tf32",
    "tf32": "tf32",
    "tf32_tf32_f32": "tf32",
    "high": "tf32x3",
    "tf32_tf32_f32_x3": "tf32x3",
    "highest": "ieee",
    "f32_f32_f32": "ieee",
}
_HALVES = {
    "f16_f16_f32": "float16",
    "f16_f16_f16": "float16",
    "bf16_bf16_f32": "bfloat16",
    "bf16_bf16_bf16": "bfloat16",
}
NARROW = ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
"""Dtypes that a result is rounded to with a far larger error than float32 arithmetic has."""


@dataclass(frozen=True)
class DotPrecision:
    """Dtype of the operands of a `tl.dot`, and its `input_precision` (None: it has no effect)."""

    operand: str
    input_precision: str | None


def dot_precision(record: Precision | None, compute: str) -> DotPrecision | None:
    """How the matrix unit computes a product with this record; None if it cannot."""
    if compute != "float32":
        return None
    if record is None:
        return DotPrecision("float32", "ieee")
    if record.accumulate == "float64" or record.operand == "float64":
        return None
    algorithm = record.algorithm.lower()
    if algorithm in _HALVES:
        return DotPrecision(_HALVES[algorithm], None)
    if record.operand in NARROW:
        return DotPrecision(record.operand, None)
    return DotPrecision("float32", _FLOAT32.get(algorithm, "ieee"))
