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

    __slots__ = ("key", "place", "tape")

    def __init__(self, tape: Tape, place: int) -> None:
        self.tape, self.place = tape, place
        self.key = (place,)  # so that it is not mistaken for a plain number

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
        self.symbols: dict[str, Traced] = {}
        self.steps: list[tuple[str, Any, Any]] = []
        self._known: dict[tuple[str, Any, Any], Any] = {}
        self._places: dict[int, int] = {}
        self._straight: tuple[list[str], list[Any], list[tuple[Any, int, int]]] = ([], [], [])

    def symbol(self, name: str) -> Traced:
        """The number that `run` is told under this name."""
        found = self.symbols.get(name)
        if found is None:
            found = self.symbols[name] = Traced(self, len(self.steps))
            self.steps.append(("symbol", name, None))
        return found

    def record(self, op: str, a: Any, b: Any) -> Any:
        """The result of an operation on traced or plain numbers."""
        x, y = (a.key if type(a) is Traced else a), (b.key if type(b) is Traced else b)
        if op == "mul":
            if type(y) is int and y == 1:
                return a
            if type(x) is int and x == 1:
                return b
        elif op == "add":
            if type(y) is int and y == 0:
                return a
            if type(x) is int and x == 0:
                return b
        key = (op, x, y)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = Traced(self, len(self.steps))
            self.steps.append(key)
        return found

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
        first, constants = list(self.symbols), list[Any]()
        known: dict[tuple[type, Any], int] = {}
        self._places = places = {t.place: n for n, t in enumerate(self.symbols.values())}
        for op, *operands in self.steps:
            for operand in operands if op != "symbol" else ():
                if type(operand) is not tuple and (type(operand), operand) not in known:
                    known[type(operand), operand] = len(first) + len(constants)
                    constants.append(operand)
        line: list[tuple[Any, int, int]] = []
        start = len(first) + len(constants)
        for n, (op, a, b) in enumerate(self.steps):
            if op != "symbol":
                places[n] = start + len(line)
                x = places[a[0]] if type(a) is tuple else known[type(a), a]
                y = places[b[0]] if type(b) is tuple else known[type(b), b]
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
