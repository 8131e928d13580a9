"""What a choice of forms rests on: comparisons of numbers that are made of sizes.

In: a saturation and an extraction, run while `recording`. Out: `Decisions`: every comparison that
was made on the way, with its answer, as a tape over the sizes of axes. Where all answers are the
same at other sizes, the same code takes the same way there: the e-graph holds the same classes, and
the same forms are chosen in the same order. Sizes that became numbers of a form (the sum of a term
over an axis that it does not have) are recorded as fixed.

>>> i, k = Axis("i", 128), Axis("k", 256)
>>> with recording() as made:
...     extent([i, k]) < 3 * extent([k])
False
>>> [made.hold(sizes) for sizes in ({"i": 4, "k": 9}, {"i": 2, "k": 9})]
[True, False]
"""

from __future__ import annotations

import contextlib
import functools
import math
import operator
from collections.abc import Callable, Generator, Iterable, Mapping
from contextvars import ContextVar
from typing import Any

from prism_jax.ir.counts import size_of
from prism_jax.ir.nodes import Axis
from prism_jax.ir.operations import OPERATIONS
from prism_jax.ir.tape import Tape, Traced, Values

__all__ = ["Decisions", "apply", "exactly", "extent", "plain", "recording"]

SYMBOLIC = 64
"""What a size that is a symbol counts as."""


class _Known(Traced):
    """A number of a tape whose value is known at the sizes that are recorded at."""

    __slots__ = ("record", "value")

    def __init__(self, record: Decisions, place: int, value: Any) -> None:
        super().__init__(record.tape, place)
        self.record, self.value = record, value

    def _operate(self, op: str, other: Any, turned: bool = False) -> Any:
        known = type(other) is _Known
        value = other.value if known else other
        place = other.place if known else self.tape.constant(other)
        if turned:
            return self.record.number(op, place, self.place, value, self.value)
        return self.record.number(op, self.place, place, self.value, value)

    def __add__(self, other: Any) -> Any:
        return self._operate("add", other)

    def __mul__(self, other: Any) -> Any:
        return self._operate("mul", other)

    __radd__, __rmul__ = __add__, __mul__

    def __sub__(self, other: Any) -> Any:
        return self._operate("sub", other)

    def __rsub__(self, other: Any) -> Any:
        return self._operate("sub", other, turned=True)

    def __truediv__(self, other: Any) -> Any:
        return self._operate("truediv", other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._operate("truediv", other, turned=True)

    def __neg__(self) -> Any:
        return self._operate("sub", 0, turned=True)

    def __abs__(self) -> Any:
        return apply("abs", abs, self)

    def __round__(self) -> Any:
        return apply("round", round, self)

    def __float__(self) -> float:
        raise TypeError("a number of a record would lose it; see `apply`")

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)

    def maximum(self, other: Any) -> Any:
        return self._operate("max", other)

    def _compare(self, op: str, other: Any) -> bool:
        known = type(other) is _Known
        value = other.value if known else other
        answer: bool = OPERATIONS[op].apply(self.value, value)
        if not known or other.place != self.place:
            place = other.place if known else self.tape.constant(other)
            self.record.answers[self.tape.join(op, self.place, place)] = answer
        return answer

    def __lt__(self, other: Any) -> bool:
        return self._compare("lt", other)

    def __le__(self, other: Any) -> bool:
        return self._compare("le", other)

    def __gt__(self, other: Any) -> bool:
        return not self._compare("le", other)

    def __ge__(self, other: Any) -> bool:
        return not self._compare("lt", other)

    def __eq__(self, other: object) -> bool:
        return self._compare("eq", other)

    __hash__ = None  # pyright: ignore[reportAssignmentType]


class Decisions:
    """Comparisons and their answers. `fixed`: sizes that are numbers of a form."""

    def __init__(self) -> None:
        self.tape = Tape()
        self.answers: dict[int, bool] = {}
        self.fixed: dict[str, int] = {}
        self.sizes: dict[str, int] = {}
        """Of the axes met, as they were."""
        self._values: dict[int, Any] = {}

    def number(self, op: str, a: int, b: int, x: Any, y: Any) -> _Known:
        """The result of an operation on the places a and b, whose values are x and y."""
        place = self.tape.join(op, a, b)
        value = self._values.get(place)
        if value is None:
            value = self._values[place] = OPERATIONS[op].apply(x, y)
        return _Known(self, place, value)

    def size(self, axis: Axis) -> Any:
        """The size of an axis."""
        if not isinstance(axis.size, int):
            return SYMBOLIC
        # an axis that was made by renaming has the size of the one it comes from
        name = axis.name.split("#")[0]
        if self.sizes.setdefault(name, axis.size) != axis.size:
            self.fixed[name] = -1  # one name for two sizes: nothing is known of other sizes
        return _Known(self, self.tape.symbol(name).place, axis.size)

    def hold(self, sizes: Mapping[str, int]) -> bool:
        """Whether every comparison has the same answer at these sizes of axes."""
        known = {name: size_of(name, sizes) for name in self.sizes}
        if any(known[name] != size for name, size in self.fixed.items()):
            return False
        if None in known.values():
            return False
        values = Values(self.tape, known.__getitem__).everything()
        return all(values[place] == answer for place, answer in self.answers.items())


_RECORD: ContextVar[Decisions | None] = ContextVar("decisions", default=None)


@contextlib.contextmanager
def recording() -> Generator[Decisions]:
    """Records what this thread decides by sizes until the end of the block."""
    token = _RECORD.set(made := Decisions())
    try:
        yield made
    finally:
        _RECORD.reset(token)


def recorded() -> bool:
    """Whether decisions are being recorded: then no earlier one may be taken from a memory."""
    return _RECORD.get() is not None


def extent(axes: Iterable[Axis]) -> Any:
    """The number of points of a set of axes; a symbolic size counts as 64."""
    record = _RECORD.get()
    if record is None:
        return math.prod(axis.size if isinstance(axis.size, int) else SYMBOLIC for axis in axes)
    sizes = [record.size(axis) for axis in sorted(axes)]
    return functools.reduce(operator.mul, sizes) if sizes else 1


def exactly(axes: Iterable[Axis]) -> None:
    """Notes that the sizes of these axes are used as numbers."""
    record = _RECORD.get()
    if record is not None:
        for axis in axes:
            if isinstance(axis.size, int):
                record.size(axis)
                record.fixed.setdefault(axis.name.split("#")[0], axis.size)


def apply(name: str, function: Callable[[Any], Any], number: Any) -> Any:
    """A function of a number; `name` stands for the function."""
    if type(number) is not _Known:
        return function(number)
    place = number.tape.call(name, function, number.place)
    return _Known(number.record, place, function(number.value))


def plain(number: Any) -> Any:
    """A number without its record."""
    return number.value if isinstance(number, _Known) else number
