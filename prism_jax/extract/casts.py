"""Which float-to-float casts are identities over the reals (design, section 4, "Casts").

A cast to a dtype that holds every value of some float input of the program rounds no further than
the user's own arrays do: rounding places are chosen at emission. Opaque stay casts to narrower
dtypes, to eight bits, and a deliberate rounding: `x - f32(bf16(x))`, where the rounded value is
widened again while the exact one is used as well.
"""

from __future__ import annotations

from collections import defaultdict

from prism_jax.extract.flat import Equation, Flat, Value
from prism_jax.ir.nodes import FLOATS

_BITS = {
    # dtype -> (exponent bits, mantissa bits)
    "float8_e4m3fn": (4, 3), "float8_e5m2": (5, 2), "float16": (5, 10), "bfloat16": (8, 7),
    "float32": (8, 23), "float64": (11, 52),
}  # fmt: skip


def holds(wide: str, narrow: str) -> bool:
    """Whether every number of one float dtype is a number of another.

    >>> holds("float32", "bfloat16"), holds("float16", "bfloat16")
    (True, False)
    """
    return all(a >= b for a, b in zip(_BITS[wide], _BITS[narrow], strict=True))


def identity_casts(flat: Flat) -> set[Equation]:
    """The `convert_element_type` equations between floats that may be left out."""
    inputs = {value.dtype for value in flat.inputs if value.dtype in FLOATS} or {"float32"}
    users: dict[Value, list[Equation | None]] = defaultdict(list)
    for equation in flat.equations:
        for atom in equation.inputs:
            if isinstance(atom, Value):
                users[atom].append(equation)
    for atom in flat.outputs:
        if isinstance(atom, Value):
            users[atom].append(None)
    found: set[Equation] = set()
    for equation in flat.equations:
        if equation.primitive != "convert_element_type":
            continue
        old, new = equation.inputs[0].dtype, equation.outputs[0].dtype
        if old not in FLOATS or new not in FLOATS:
            continue
        known = not new.startswith("float8") and any(holds(new, dtype) for dtype in inputs)
        if holds(new, old) or (known and not _deliberate(equation, users)):
            found.add(equation)
    return found


def _deliberate(narrowing: Equation, users: dict[Value, list[Equation | None]]) -> bool:
    exact, rounded = narrowing.inputs[0], narrowing.outputs[0]
    if not isinstance(exact, Value):
        return False
    others = any(user is None or not _converts(user, rounded.dtype) for user in users[exact])
    return others and any(
        user is not None and _converts(user) and holds(user.outputs[0].dtype, rounded.dtype)
        for user in users[rounded]
    )


def _converts(user: Equation, dtype: str | None = None) -> bool:
    """Whether an equation is a cast between floats (to `dtype`)."""
    to = user.outputs[0].dtype if user.primitive == "convert_element_type" else None
    return to in FLOATS and (dtype is None or to == dtype)
