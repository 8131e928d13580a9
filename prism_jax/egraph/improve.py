"""Local improvement of a selection: single classes switch to other options while the whole gets
cheaper.

In: a selection without cycles, what each option costs, and what may replace it. Out: a selection
that no single switch makes cheaper (within a number of passes). Terms are counted as users come and
go, so that one switch costs what it changes, not the size of the program.

>>> a, b = Option(()), Option((1,))
>>> state = Paid({0: b, 1: a}, [0], {a: 1.0, b: 2.0}.__getitem__)
>>> state.total, state.switch(0, a), state.total
(3.0, True, 1.0)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prism_jax.egraph.decode import Option

Selection = dict[int, Option]


class Paid:
    """A selection with the number of users of every class, and the sum of what is used."""

    def __init__(
        self, selection: Selection, roots: Iterable[int], price: Callable[[Option], float]
    ) -> None:
        self.selection, self.price = dict(selection), price
        self.users: dict[int, int] = {}
        self.total = 0.0
        self._take(roots)

    def _take(self, identifiers: Iterable[int]) -> None:
        stack = list(identifiers)
        while stack:
            identifier = stack.pop()
            count = self.users.get(identifier, 0)
            self.users[identifier] = count + 1
            if count == 0:
                option = self.selection[identifier]
                self.total += self.price(option)
                stack += option.children

    def _drop(self, identifiers: Iterable[int]) -> None:
        stack = list(identifiers)
        while stack:
            identifier = stack.pop()
            self.users[identifier] -= 1
            if self.users[identifier] == 0:
                option = self.selection[identifier]
                self.total -= self.price(option)
                stack += option.children

    def switch(self, identifier: int, option: Option) -> bool:
        """Uses another option for a class; False (and nothing changed) if that makes a cycle."""
        old = self.selection[identifier]
        if any(child not in self.selection for child in option.children):
            return False
        if self._reaches(option.children, identifier):
            return False
        if self.users.get(identifier, 0):
            self._take(option.children)
            self.total += self.price(option) - self.price(old)
            self._drop(old.children)
        self.selection[identifier] = option
        return True

    def _reaches(self, start: Iterable[int], target: int) -> bool:
        seen: set[int] = set()
        stack = list(start)
        while stack:
            identifier = stack.pop()
            if identifier == target:
                return True
            if identifier not in seen:
                seen.add(identifier)
                stack += self.selection[identifier].children
        return False

    def improve(
        self, options: Callable[[int], Iterable[Option]], order: list[int], passes: int = 3
    ) -> None:
        """Tries every option of every used class, in the given order, until nothing changes."""
        for _ in range(passes):
            before = self.total
            for identifier in order:
                if self.users.get(identifier, 0):
                    self._best(identifier, options(identifier))
            if self.total >= before * (1 - 1e-12):
                return

    def _best(self, identifier: int, options: Iterable[Option]) -> None:
        for option in options:
            old, before = self.selection[identifier], self.total
            if option is old or not self.switch(identifier, option):
                continue
            if self.total >= before * (1 - 1e-9):
                self.switch(identifier, old)
                self.total = before
