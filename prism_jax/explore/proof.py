"""What is known of everything that a search did not choose: its certificate, found when asked for.

In: the partitions that were cut and those that were costed. Their bounds are looked up again at the
search's sizes, since few ask for them: a search compares estimates only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prism_jax.device import Device
from prism_jax.explore.bounds import least_launch
from prism_jax.explore.costs import Costs
from prism_jax.explore.library import traffic
from prism_jax.explore.partition import Counts, Group
from prism_jax.explore.result import Candidate, Certificate

if TYPE_CHECKING:
    from prism_jax.explore.search import Instance, Search

Together = tuple[Group, ...]
"""The groups of one partition."""


@dataclass
class Rest:
    """What a search leaves behind at one size.

    `costed`: partitions whose estimates were within the limit; `cut`: the others; `unexplored`: the
    numbers of forms of which something was not looked at.
    """

    cut: list[Together] = field(default_factory=list[Together])
    costed: list[Together] = field(default_factory=list[Together])
    unexplored: set[int] = field(default_factory=set[int])

    def certificate(
        self, family: Search, instance: Instance, device: Device, counts: Counts,
        kept: tuple[Candidate, ...],
    ) -> Certificate:  # fmt: skip
        """What is proved, if `kept` was chosen."""
        left = counts.cut_by_limit + counts.cut_by_climbing + counts.cut_by_time
        floor = traffic(instance.program.outputs, device, certain=True)
        with family.lock:
            bounds = [*self._bounds(family, instance, device, counts), *(c.bound for c in kept[1:])]
        lowest = max(floor, min(bounds, default=floor))
        scope = f"{len(family.forms)} forms, mappings of one loop level, powers of two"
        if instance.rewriting is not None:
            scope += ", forms as at the family's first size"
        return Certificate(
            scope=scope,
            complete=not left,
            floor=floor,
            best_bound=lowest,
            heuristic_cuts=left + len(self.cut),
            saturated=family.saturated,
            incumbent="model",
            gap=max(1.0, kept[0].estimate / lowest),
            floor_gap=kept[0].estimate / floor,
        )

    def _bounds(
        self, family: Search, instance: Instance, device: Device, counts: Counts
    ) -> Iterator[float]:
        """Seconds that nothing of the rest can beat."""
        costs = Costs(family.structures, device, instance.sizes, Counts(), math.inf)
        for together in self.cut:
            yield floor(costs, together, device)
        for together in self.costed:
            yield sum(costs.lowest(group) for group in together)
        unexplored = set(range(len(family.forms))) if counts.cut_by_limit else self.unexplored
        for number in sorted(unexplored):  # it moves the form's inputs and outputs
            outputs = family.forms[number].form.program.outputs
            yield traffic(outputs, device, instance.sizes, certain=True) + least_launch(device)


def floor(costs: Costs, together: Iterable[Group], device: Device) -> float:
    """Seconds that no implementation of these groups can beat."""
    return sum(costs.traffic(group) + least_launch(device) for group in together)
