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

    def minimum(self, other: Any) -> Any:
        """The smaller of two numbers."""
        return self.tape.record("min", self, other)


class Tape:
    """Symbols and operations, in the order in which they were first needed; equal operations are
    recorded once.
    """

    def __init__(self) -> None:
        self.symbols: dict[str, int] = {}
        self.steps: list[tuple[str, Any, Any]] = []
        self._known: dict[tuple[str, Any, Any], Any] = {}

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
        import numpy as np

        values: list[Any] = []
        for op, a, b in self.steps:
            if op == "symbol":
                values.append(numbers[a])
                continue
            x = values[a[0]] if type(a) is tuple else a
            y = values[b[0]] if type(b) is tuple else b
            if op == "mul":
                values.append(x * y)
            elif op == "add":
                values.append(x + y)
            elif op == "sub":
                values.append(x - y)
            elif op == "floordiv":
                values.append(x // y)
            elif isinstance(x, int) and isinstance(y, int):
                values.append(min(x, y))
            else:
                values.append(np.minimum(x, y))
        return [values[w.place] if isinstance(w, Traced) else w for w in wanted]


def _is(value: Any, number: int) -> bool:
    return type(value) is int and value == number


def _key(value: Any) -> Any:
    """A traced number is the tuple of its place, so that it is not mistaken for a plain one."""
    return (value.place,) if isinstance(value, Traced) else value
