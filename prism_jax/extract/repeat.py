"""Cheap equations are repeated in the regions that read them, not handed over in memory.

A transpose or a broadcast is only an index inside a program, and a mask of iotas is arithmetic that
later stages want to see (to skip masked tiles); as an array between two regions it would be written
and read. An equation may be repeated if it only moves elements and reads no more bytes than it
writes, or if it depends on no input at all and is small.
"""

from __future__ import annotations

from collections.abc import Sequence

from prism_jax import compat
from prism_jax.extract.items import Item, nbytes

MAX_CONSTANT = 16
"""How many equations a value that depends on no input may take and still be repeated."""


class Cheap:
    """Which variables of a jaxpr are cheap, and what they are made of."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.source: dict[compat.Var, Item] = {}
        self._below: dict[compat.Var, tuple[Item, ...]] = {}
        constant: set[compat.Var] = set()
        for item in items:
            if item.refused is not None or item.ordered:
                continue
            below = self._closure(item)
            if constant.issuperset(item.reads) and len(below) <= MAX_CONSTANT:
                constant.update(item.writes)
            elif item.weight or sum(map(nbytes, item.reads)) > sum(map(nbytes, item.writes)):
                continue
            for var in item.writes:
                self.source[var] = item
                self._below[var] = below

    def _closure(self, item: Item) -> tuple[Item, ...]:
        below = dict.fromkeys(each for var in item.reads for each in self._below.get(var, ()))
        return (*below, item)

    def behind(self, items: Sequence[Item]) -> list[Item]:
        """The cheap equations that a run reads through and does not have, in program order."""
        mine = set(map(id, items))
        found = {
            id(each): each
            for item in items
            for var in item.reads
            for each in self._below.get(var, ())
            if id(each) not in mine
        }
        return sorted(found.values(), key=lambda item: item.number)

    def roots(self, item: Item) -> tuple[compat.Var, ...]:
        """The arrays that an item needs in memory, looking through cheap equations."""
        found: dict[compat.Var, None] = {}
        for var in item.reads:
            for each in self._below.get(var, ()):
                found.update(dict.fromkeys(each.reads))
            found[var] = None
        return tuple(var for var in found if var not in self.source)
