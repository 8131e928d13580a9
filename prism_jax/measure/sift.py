"""Separates what runs from what does not, where one bad item destroys the whole attempt.

In: items, and a way to attempt several at once that either reads all of them or fails as a whole.
Out: for each item its reading, or a sentence that says why it has none. Knows nothing of devices.

How the guilty one is found: a batch that failed is tried item by item (cheaply, without readings);
what fails alone is refused, and the rest is attempted again. Where everything runs alone, the fault
needs company (an out-of-bounds write that hits a neighbour's memory): then the batch is halved.

Invariant: results are in the order of the items, and which items are refused depends only on what
the attempts answer. At most `most_losses` attempts may cost the worker; what is undecided then is
refused, as is everything after the deadline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")


class FailureError(Exception):
    """An attempt failed. The message is the sentence; `lost`: it took the worker with it."""

    def __init__(self, sentence: str, *, lost: bool) -> None:
        super().__init__(sentence)
        self.lost = lost


class HopelessError(Exception):
    """No attempt can succeed, whatever the items. The message is the sentence."""


class Sieve(Generic[Item, Read]):
    """One sifting; `run` does it once."""

    def __init__(
        self,
        read: Callable[[Sequence[Item]], Sequence[Read]],
        probe: Callable[[Item], None],
        *,
        deadline: float,
        most_losses: int,
    ) -> None:
        """What `run` calls.

        Args:
          read: reads all of a batch, or raises `FailureError` or `HopelessError`.
          probe: runs one item without reading it, or raises likewise.
          deadline: `time.monotonic()` after which nothing is attempted.
          most_losses: how many workers may be lost.
        """
        self._read, self._probe = read, probe
        self._deadline, self._losses_left = deadline, most_losses
        self._verdict: dict[int, Read | str] = {}
        self._items: Sequence[Item] = ()

    def run(self, items: Sequence[Item], batch: int) -> list[Read | str]:
        """Readings or sentences, in order; `batch` items are attempted at once."""
        self._items = items
        try:
            for start in range(0, len(items), batch):
                self._settle(range(start, min(start + batch, len(items))))
        except HopelessError as error:
            return [self._verdict.get(n, str(error)) for n in range(len(items))]
        return [self._verdict[n] for n in range(len(items))]

    def _settle(self, numbers: Sequence[int]) -> None:
        """Gives each of `numbers` its verdict."""
        if not numbers or self._stopped(numbers):
            return
        try:
            readings = self._read([self._items[n] for n in numbers])
        except FailureError as failure:
            self._count(failure)
            if len(numbers) == 1:
                self._verdict[numbers[0]] = str(failure)
                return
        else:
            self._verdict.update(zip(numbers, readings, strict=True))
            return
        rest = [n for n in numbers if not self._fails(n)]
        if len(rest) < len(numbers):
            self._settle([n for n in rest if n not in self._verdict])
        else:
            half = len(numbers) // 2
            self._settle(numbers[:half])
            self._settle(numbers[half:])

    def _fails(self, number: int) -> bool:
        if self._stopped([number]):
            return False
        try:
            self._probe(self._items[number])
        except FailureError as failure:
            self._count(failure)
            self._verdict[number] = str(failure)
            return True
        return False

    def _count(self, failure: FailureError) -> None:
        self._losses_left -= failure.lost

    def _stopped(self, numbers: Sequence[int]) -> bool:
        """Whether nothing may be attempted any more; refuses `numbers` if so."""
        if time.monotonic() >= self._deadline:
            sentence = "not measured: no time left"
        elif self._losses_left <= 0:
            sentence = "not measured: too many kernels beside it ended the worker"
        else:
            return False
        self._verdict.update(dict.fromkeys(numbers, sentence))
        return True
