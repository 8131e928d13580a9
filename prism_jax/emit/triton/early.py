r"""Loads as early as they can be, so that they are all on their way at once.

In: the lines of a kernel's body, and how many elements of each tile a thread has. Out: the same
lines in another order. A line computes what it is made of when it is first needed, which would put
a load behind the products and reductions before it: threads wait at those, so that a short kernel
would pay the memory's latency once for each of its operands.

Loads (and the addresses they need) move to before the first statement that makes threads wait, in
their own order, as far as registers allow; past a loop only small ones, since they then occupy
registers all through it. Nothing is moved that depends on a loop or on a reduction.

>>> print("\n".join(early([
...     "x = tl.load(x_ptr)", "top = tl.max(x, 0)", "at = row * 8", "# y[i]",
...     "y = tl.load(y_ptr + at)"], {"x": 4, "y": 4})))
x = tl.load(x_ptr)
at = row * 8
# y[i]
y = tl.load(y_ptr + at)
top = tl.max(x, 0)
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["early"]

MOST_ELEMENTS = 160
"""Elements per thread of all loads that move; 16-bit ones are two to a register."""
MOST_PAST_A_LOOP = 16
WAITS = frozenset({"dot", "reduce", "sum", "max", "min", "xor_sum", "associative_scan", "cumsum"})
"""Functions of `tl` in which threads of a block exchange values."""


@dataclass(frozen=True)
class _Statement:
    lines: tuple[str, ...]
    makes: frozenset[str]
    needs: frozenset[str]
    calls: frozenset[str]
    plain: bool

    @property
    def load(self) -> bool:
        return self.plain and "load" in self.calls

    @property
    def waits(self) -> bool:
        return not self.plain or bool(self.calls & WAITS)


def early(lines: Sequence[str], elements: Mapping[str, int]) -> list[str]:
    """See the module. `elements`: of one thread, by name; a name that is missing has one."""
    statements = _statements(lines)
    first = next((n for n, s in enumerate(statements) if s.waits), len(statements))
    made = [name for s in statements for name in s.makes]
    once = {name for name in made if made.count(name) == 1}
    by_name = {name: n for n, s in enumerate(statements) for name in s.makes if name in once}
    moved: set[int] = set()
    room, small = MOST_ELEMENTS, MOST_PAST_A_LOOP
    for n, statement in enumerate(statements):
        if n < first or not statement.load:
            continue
        size = sum(elements.get(name, 1) for name in statement.makes)
        past = any(not s.plain for s in statements[first:n])
        needed = _needed(n, statements, by_name, once, set(made), first)
        if needed is None or size > room or (past and size > small):
            continue
        room -= size
        small -= size if past else 0
        moved |= needed
    order = [*range(first), *sorted(moved)]
    order += [n for n in range(first, len(statements)) if n not in moved]
    return [line for n in order for line in statements[n].lines]


def _needed(
    start: int,
    statements: Sequence[_Statement],
    by_name: Mapping[str, int],
    once: set[str],
    made: set[str],
    first: int,
) -> set[int] | None:
    """The statements from `first` on that must move with one; None where one of them cannot."""
    found: set[int] = set()
    stack = [start]
    while stack:
        n = stack.pop()
        if n in found or n < first:
            continue
        statement = statements[n]
        if statement.waits or any(name in made - once for name in statement.needs):
            return None
        found.add(n)
        stack += [by_name[name] for name in statement.needs if name in by_name]
    return found


def _statements(lines: Sequence[str]) -> list[_Statement]:
    """The statements with the comments before them."""
    tree = ast.parse("\n".join(lines))
    found: list[_Statement] = []
    start = 0
    for node in tree.body:
        end = node.end_lineno or node.lineno
        names = [n for n in ast.walk(node) if isinstance(n, ast.Name)]
        calls = [
            n.func.attr
            for n in ast.walk(node)
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)
        ]
        found.append(
            _Statement(
                lines=tuple(lines[start:end]),
                makes=frozenset(n.id for n in names if isinstance(n.ctx, ast.Store)),
                needs=frozenset(n.id for n in names if isinstance(n.ctx, ast.Load)),
                calls=frozenset(calls),
                plain=isinstance(node, ast.Assign),
            )
        )
        start = end
    if start < len(lines):
        found.append(_Statement(tuple(lines[start:]), frozenset(), frozenset(), frozenset(), False))
    return found
