"""Arithmetic recorded once and run often: closed forms as a straight line of operations.

In: code that computes with numbers. Run it on the symbols of a `Tape`, and the tape keeps what it
did; `Values` repeats it on numbers or NumPy arrays without the code. A closed form takes a walk
over a kernel's terms; its tape is a hundred operations, most of which the kernels beside it do too:
all forms of a family share one tape, on which equal operations are recorded, and run, once.

>>> tape = Tape()
>>> n, t = tape.symbol("n"), tape.symbol("T")
>>> blocks = -(-n // t)
>>> tape.run({"n": 100, "T": 16}, [blocks, blocks * t - n])
[7, 12]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from prism_jax.ir.operations import ADD, MUL, OPERATIONS, Operation, choice, direct

__all__ = ["Tape", "Traced", "Values"]


class Traced:
    """A number of a tape that is not known yet: the place of its value."""

    __slots__ = ("place", "tape")

    def __init__(self, tape: Tape, place: int) -> None:
        self.tape, self.place = tape, place

    @property
    def varies(self) -> int:
        """The dimensions in which this number varies, as a bit mask; see `Tape.symbol`."""
        return self.tape.varies[self.place]

    def __add__(self, other: Any) -> Any:
        return self._with(ADD, other, 0)

    def __mul__(self, other: Any) -> Any:
        return self._with(MUL, other, 1)

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

    def __rtruediv__(self, other: Any) -> Any:
        return self.tape.record("truediv", other, self)

    def __le__(self, other: Any) -> Any:
        return self.tape.record("le", self, other)

    def __lt__(self, other: Any) -> Any:
        return self.tape.record("lt", self, other)

    def __gt__(self, other: Any) -> Any:
        return self.tape.record("lt", other, self)

    def __and__(self, other: Any) -> Any:
        return self.tape.record("and", self, other)

    __rand__ = __and__

    def _with(self, operation: Operation, other: Any, neutral: int) -> Any:
        """A sum or a product, in either order; most of what is recorded is recorded already."""
        tape, x = self.tape, self.place
        if type(other) is Traced:
            y = other.place
        elif type(other) is int and other == neutral:
            return self
        else:
            y = tape.constant(other)
        if y < x:
            x, y = y, x
        key = (operation.number << 30 | x) << 30 | y
        found = tape.known.get(key)
        if found is None:
            found = tape.known[key] = tape.step(operation.apply, x, y, 0)
        return Traced(tape, found)

    def minimum(self, other: Any) -> Any:
        """The smaller of two numbers."""
        return self.tape.record("min", self, other)

    def maximum(self, other: Any) -> Any:
        """The larger of two numbers."""
        return self.tape.record("max", self, other)

    def ceil(self) -> Any:
        """The least integer that is not smaller."""
        return self.tape.record("ceil", self)

    def choose(self, yes: Any, no: Any) -> Any:
        """One of two numbers, by this condition."""
        return self.tape.record("choose", self, yes, no)


class Tape:
    """Symbols and operations, in the order in which they were first needed; equal operations are
    recorded once.

    Steps are kept in columns of plain numbers: a search holds ten thousands of them, and Python's
    collector would visit every container again and again.
    """

    def __init__(self) -> None:
        self.symbols: dict[str, Traced] = {}
        self.operations: list[Callable[..., Any] | None] = []
        """None: a symbol or a constant."""
        self.operands: tuple[list[int], list[int], list[int]] = ([], [], [])
        self.varies: list[int] = []
        self.uses: list[int] = []
        """Of how many operations a number is an operand."""
        self.constants: dict[int, Any] = {}
        self.names: dict[int, str] = {}
        self.known: dict[int, int] = {}
        self.products: dict[tuple[Any, ...], Any] = {}
        """For `ir.monomials`."""
        self.orders: dict[int, list[int]] = {}
        """For `Values`: what was computed for a number, in order."""
        self._called: dict[tuple[str, int], int] = {}
        self._numbers: dict[tuple[type, Any], int] = {}

    def __len__(self) -> int:
        return len(self.operations)

    def symbol(self, name: str, varies: int = 0) -> Traced:
        """The number that `run` is told under this name. `varies`: a bit for each dimension of the
        array that it will be; 0 for a number.
        """
        found = self.symbols.get(name)
        if found is None:
            found = self.symbols[name] = Traced(self, self.step(None, 0, 0, 0))
            self.names[found.place] = name
            self.varies[found.place] = varies
        return found

    def step(self, operation: Callable[..., Any] | None, a: int, b: int, c: int) -> int:
        """A new place, for the result of an operation on three others."""
        self.operations.append(operation)
        first, second, third = self.operands
        first.append(a)
        second.append(b)
        third.append(c)
        varies, uses = self.varies, self.uses
        uses.append(0)
        if operation is None:
            varies.append(0)
        else:
            varies.append(varies[a] | varies[b] | varies[c])
            uses[a] += 1
            uses[b] += 1
            uses[c] += 1
        return len(first) - 1

    def constant(self, value: Any) -> int:
        """The place of a plain number."""
        key = (type(value), value)
        found = self._numbers.get(key)
        if found is None:
            found = self._numbers[key] = self.step(None, 0, 0, 0)
            self.constants[found] = value
        return found

    def record(self, op: str, a: Any, b: Any = 0, c: Any = 0) -> Any:
        """The result of an operation on traced or plain numbers."""
        x = a.place if type(a) is Traced else self.constant(a)
        y = b.place if type(b) is Traced else self.constant(b)
        z = c.place if type(c) is Traced else self.constant(c) if op == "choose" else 0
        return Traced(self, self.join(op, x, y, z))

    def join(self, op: str, x: int, y: int, z: int = 0) -> int:
        """The place of the result of an operation on what is at these places."""
        number, operation, commutes = OPERATIONS[op]
        if commutes and y < x:
            x, y = y, x
        key = (number << 30 | x) << 30 | y
        if z:
            key |= z << 90
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = self.step(operation, x, y, z)
        return found

    def call(self, name: str, function: Callable[[Any], Any], x: int) -> int:
        """The place of a function of one number; `name` stands for the function."""
        key = name, x
        found = self._called.get(key)
        if found is None:
            found = self._called[key] = self.step(lambda value, _: function(value), x, x, 0)
        return found

    def run(self, numbers: Mapping[str, Any], wanted: Sequence[Any]) -> list[Any]:
        """The wanted values, as the recorded code would compute them from these numbers."""
        return Values(self, numbers.__getitem__).of(wanted)


KEPT_BYTES = 1 << 26
"""What the values of one evaluation may hold in memory; beyond it, large ones are computed again
for every form that needs them.
"""
SMALL_BYTES = 1024


class Values:
    """The numbers of a tape at given values of its symbols; each is computed when first needed."""

    def __init__(self, tape: Tape, number: Callable[[str], Any], arrays: bool = True) -> None:
        """`arrays`: whether symbols that vary have arrays for values, or numbers as others do."""
        self.tape, self._number, self._arrays = tape, number, arrays
        self._values: list[Any] = []
        self._held = 0

    def of(self, wanted: Sequence[Any]) -> list[Any]:
        """The values of traced or plain numbers."""
        tape, values = self.tape, self._values
        if len(values) < len(tape):
            values += [None] * (len(tape) - len(values))
        large: list[int] = []
        results: list[Any] = []
        for one in wanted:
            if isinstance(one, Traced):
                if values[one.place] is None:
                    self._compute(one.place, large)
                one = values[one.place]
            results.append(one)
        if self._held > KEPT_BYTES:
            for place in large:
                self._drop(place)
        return results

    def _missing(self, root: int) -> list[int]:
        """The places whose values a number needs and that have none, in order."""
        values, operations = self._values, self.tape.operations
        first, second, third = self.tape.operands
        found, stack = {root}, [root]
        while stack:
            place = stack.pop()
            operation = operations[place]
            if operation is None:
                continue
            x, y = first[place], second[place]
            if values[x] is None and x not in found:
                found.add(x)
                stack.append(x)
            if values[y] is None and y not in found:
                found.add(y)
                stack.append(y)
            if operation is choice:
                z = third[place]
                if values[z] is None and z not in found:
                    found.add(z)
                    stack.append(z)
        return sorted(found)

    def _compute(self, root: int, large: list[int]) -> None:
        """Computes a value, its operands first; `large` is told of those that take much memory.

        What was missing when a number was first computed on this tape is mostly what is missing at
        other sizes.
        """
        orders = self.tape.orders
        order = orders.get(root)
        if order is None:
            order = orders[root] = self._missing(root)
        if not self._fill(order, large):
            self._fill(self._missing(root), large)

    def everything(self) -> list[Any]:
        """The value of every place."""
        self._values += [None] * (len(self.tape) - len(self._values))
        self._fill(range(len(self.tape)), [])
        return self._values

    def _fill(self, places: Iterable[int], large: list[int]) -> bool:
        """Computes what has no value of these places, in order; False if an operand has none. An
        array that nothing else needs is dropped: its memory is at hand for the next one.
        """
        tape, values, uses = self.tape, self._values, self.tape.uses
        operations, varies, arrays = tape.operations, tape.varies, self._arrays
        first, second, third = tape.operands
        at_once = direct() if arrays else {}
        for place in places:
            if values[place] is not None:
                continue
            operation = operations[place]
            if operation is None:
                values[place] = self._leaf(place)
                continue
            x, y = values[first[place]], values[second[place]]
            if x is None or y is None:
                return False
            if operation is choice:
                z = values[third[place]]
                if z is None:
                    return False
            else:
                z = None
            if not arrays or not varies[place]:
                values[place] = operation(x, y) if z is None else choice(x, y, z)
                continue
            operation = at_once.get(operation, operation)
            found = operation(x, y) if z is None else operation(x, y, z)
            values[place] = found
            if found.nbytes > SMALL_BYTES:
                large.append(place)
                self._held += found.nbytes
                for below in (first[place], second[place]):
                    if uses[below] == 1 and varies[below]:
                        self._drop(below)
        return True

    def _drop(self, place: int) -> None:
        found = self._values[place]
        if found is not None:
            if found.nbytes > SMALL_BYTES:
                self._held -= found.nbytes
            self._values[place] = None

    def _leaf(self, place: int) -> Any:
        name = self.tape.names.get(place)
        return self.tape.constants[place] if name is None else self._number(name)
