"""What a tape can record: operations on numbers or NumPy arrays.

>>> OPERATIONS["min"].apply(3, 5), choice(3 < 5, "yes", "no"), ceiling(2.5)
(3, 'yes', 3)
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

PLAIN = (int, float, bool)


def least(x: Any, y: Any) -> Any:
    """The smaller of two numbers or arrays."""
    if isinstance(x, PLAIN) and isinstance(y, PLAIN):
        return min(x, y)
    import numpy as np

    return np.minimum(x, y)


def most(x: Any, y: Any) -> Any:
    """The larger of two numbers or arrays."""
    if isinstance(x, PLAIN) and isinstance(y, PLAIN):
        return max(x, y)
    import numpy as np

    return np.maximum(x, y)


def ceiling(x: Any, _: Any = None) -> Any:
    """A number or an array rounded up."""
    if isinstance(x, PLAIN):
        return math.ceil(x)
    import numpy as np

    return np.ceil(x)


def choice(condition: Any, yes: Any, no: Any) -> Any:
    """One of two numbers or arrays."""
    if isinstance(condition, bool):
        return yes if condition else no
    import numpy as np

    return np.where(condition, yes, no)


@functools.cache
def direct() -> Mapping[Callable[..., Any], Callable[..., Any]]:
    """What does the same where one operand is known to be an array."""
    import numpy as np

    return {
        least: np.minimum, most: np.maximum, ceiling: lambda x, _: np.ceil(x), choice: np.where,
    }  # fmt: skip


COMMUTATIVE = ("mul", "add", "min", "max", "and", "eq")
_OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "mul": operator.mul, "add": operator.add, "sub": operator.sub, "min": least, "max": most,
    "floordiv": operator.floordiv, "truediv": operator.truediv, "le": operator.le,
    "lt": operator.lt, "eq": operator.eq, "and": operator.and_, "ceil": ceiling, "choose": choice,
}  # fmt: skip


class Operation(NamedTuple):
    """A number that stands for it, what is done, and whether operands may change places."""

    number: int
    apply: Callable[..., Any]
    commutes: bool


OPERATIONS = {
    name: Operation(number, apply, name in COMMUTATIVE)
    for number, (name, apply) in enumerate(_OPERATIONS.items())
}
ADD, MUL = OPERATIONS["add"], OPERATIONS["mul"]
