"""What limits a search, as one value: each entry is a cut that can be switched off and so measured.

Sound: `worth` at 1 or above never loses the cheapest plan, because what is compared with the best
estimate is a lower bound on estimates; above 1 it keeps alternatives for the device to choose from.
`options` and `keep` never lose the cheapest plan either: they drop from the end of sorted lists.
Heuristic: `mappings`, `exhaustive_up_to` and, beyond that, `climb` can lose it;
`prism_jax.testing.pruning` measures how often and how much, and `kernels/search/pruning.json` is
its record.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Pruning:
    """Limits of one search.

    `worth`: a set of kernels is not costed if a lower bound on its estimate is this many times the
    best estimate so far. `mappings`: role assignments tried per kernel. `options`: ways kept per
    kernel. `exhaustive_up_to`: reductions up to which all sets of them are considered; beyond, a
    local search, in which `climb` stands for `worth`: most of a large program is the same in every
    set, and what its kernels may be beside the best is kept with each. `keep`: kinds of plans
    returned.
    """

    worth: float = 1.4
    mappings: int = 32
    options: int = 8
    exhaustive_up_to: int = 7
    climb: float = 1.2
    keep: int = 64


DEFAULT = Pruning()
NONE = Pruning(math.inf, 1 << 30, 1 << 30, 1 << 30, math.inf, 1 << 30)
"""Exhaustive enumeration."""
