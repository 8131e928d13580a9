"""Arithmetic recorded once and run often: closed forms as a straight line of operations.

In: code that computes with numbers. Run it on the symbols of a `Tape`, and the tape keeps what it
did; `run` repeats it on numbers or NumPy arrays without the code. A closed form takes a walk over a
kernel's terms; its tape is a hundred operations, so that a second shape of the same structure costs
no walk.

>>> tape = Tape()
>>> n, t = tape.symbol("n"), tape.symbol("T")
>>> blocks = -(-n // t)
>>> tape.run({"n": 100, "T": 16}, [blocks, blocks * t - n])
[7, 12]
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Tape", "Traced"]


class Traced:
    """A number of a tape that is not known yet: the place of its value."""

    __slots__ = ("place", "tape")

    def __init__(self, tape: Tape, place: int) -> None:
        self.tape, self.place = tape, place

    def __add__(self, other: Any) -> Any:
        return self.tape.record("add", self, other)

    def __mul__(self, other: Any) -> Any:
        return self.tape.record("mul", self, other)

    __radd__, __rmul__ = __add__, __mul__

    def __sub__(self, other: Any) -> Any:
        return self.tape.record("sub", self, other)

    def __rsub__(self, other: Any) -> Any:
        return self.tape.record("sub", other, self)

    def __floordiv__(self, other: Any) -> Any:
        return self.tape.record("floordiv", self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return self.tape.record("floordiv", other, self)

    def __neg__(self) -> Any:
        return self.tape.record("sub", 0, self)

    def __truediv__(self, other: Any) -> Any:
        return self.tape.record("truediv", self, other)

    def minimum(self, other: Any) -> Any:
        """The smaller of two numbers."""
        return self.tape.record("min", self, other)

    def maximum(self, other: Any) -> Any:
        """The larger of two numbers."""
        return self.tape.record("max", self, other)


class Tape:
    """Symbols and operations, in the order in which they were first needed; equal operations are
    recorded once.
    """

    def __init__(self) -> None:
        self.symbols: dict[str, int] = {}
        self.steps: list[tuple[str, Any, Any]] = []
        self._known: dict[tuple[str, Any, Any], Any] = {}
        self._places: dict[int, int] = {}
        self._straight: tuple[list[str], list[Any], list[tuple[Any, int, int]]] = ([], [], [])

    def symbol(self, name: str) -> Traced:
        """The number that `run` is told under this name."""
        if name not in self.symbols:
            self.symbols[name] = len(self.steps)
            self.steps.append(("symbol", name, None))
        return Traced(self, self.symbols[name])

    def record(self, op: str, a: Any, b: Any) -> Any:
        """The result of an operation on traced or plain numbers."""
        if op == "mul" and (_is(a, 1) or _is(b, 1)):
            return b if _is(a, 1) else a
        if op == "add" and (_is(a, 0) or _is(b, 0)):
            return b if _is(a, 0) else a
        key = (op, _key(a), _key(b))
        if key not in self._known:
            self._known[key] = Traced(self, len(self.steps))
            self.steps.append(key)
        return self._known[key]

    def run(self, numbers: Mapping[str, Any], wanted: Sequence[Any]) -> list[Any]:
        """The wanted values, as the recorded code would compute them from these numbers."""
        first, constants, line = self._line()
        values = [numbers[name] for name in first]
        values += constants
        append = values.append
        for operation, a, b in line:
            append(operation(values[a], values[b]))
        places = self._places
        return [values[places[w.place]] if isinstance(w, Traced) else w for w in wanted]

    def _line(self) -> tuple[list[str], list[Any], list[tuple[Any, int, int]]]:
        """The symbols, the constants, and every operation with the places of its operands, when
        the symbols and constants come first.
        """
        if len(self._places) == len(self.steps):
            return self._straight
        first = list(self.symbols)
        constants: list[Any] = []
        known: dict[tuple[type, Any], int] = {}
        self._places = places = dict[int, int]()
        for op, a, b in self.steps:
            for operand in (a, b):
                key = (type(operand), operand)
                if op != "symbol" and type(operand) is not tuple and key not in known:
                    known[key] = len(first) + len(constants)
                    constants.append(operand)
        line: list[tuple[Any, int, int]] = []
        for n, (op, a, b) in enumerate(self.steps):
            if op == "symbol":
                places[n] = first.index(a)
                continue
            x, y = (places[v[0]] if type(v) is tuple else known[type(v), v] for v in (a, b))
            places[n] = len(first) + len(constants) + len(line)
            line.append((OPERATIONS[op], x, y))
        self._straight = first, constants, line
        return self._straight


PLAIN = (int, float)


def _least(x: Any, y: Any) -> Any:
    if isinstance(x, PLAIN) and isinstance(y, PLAIN):
        return min(x, y)
    import numpy as np

    return np.minimum(x, y)


def _most(x: Any, y: Any) -> Any:
    if isinstance(x, PLAIN) and isinstance(y, PLAIN):
        return max(x, y)
    import numpy as np

    return np.maximum(x, y)


OPERATIONS = {
    "mul": operator.mul, "add": operator.add, "sub": operator.sub, "min": _least, "max": _most,
    "floordiv": operator.floordiv, "truediv": operator.truediv,
}  # fmt: skip


def _is(value: Any, number: int) -> bool:
    return type(value) is int and value == number


def _key(value: Any) -> Any:
    """A traced number is the tuple of its place, so that it is not mistaken for a plain one."""
    return (value.place,) if isinstance(value, Traced) else value
