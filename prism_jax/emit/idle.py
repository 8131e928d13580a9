"""What makes leaving out masked steps of a loop exact, as conditions to be checked at run time.

In: a loop and the mask by which `emit.cuts` would shorten it. Out: `Conditions` on the
accumulators' values after the steps that do run; where they hold, the steps left out would have
changed nothing, to the last bit. Where they fail (a row that is masked whole, a maximum that is
no larger than the stand-in for minus infinity, a NaN anywhere) the rest must run.

Why that is enough: in a step whose mask is false everywhere, the masked value is the constant. A
maximum stays if it is at least the summand at that constant. A sum stays if the factors of its
summand that do not vary along the loop have the product 0 and the others are finite; its rescaling
must be neutral. Steps may run in any order, so these may run last, from the final values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce

from prism_jax.emit.product import factors
from prism_jax.ir.nodes import FLOATS, Carried, Load, Node, Pointwise, Tensor
from prism_jax.ir.program import walk
from prism_jax.ir.rewrite import replace
from prism_jax.ir.sgraph import Accumulator, Loop

__all__ = ["Conditions", "conditions"]


@dataclass(frozen=True)
class Conditions:
    """All must hold, for all elements, with `Carried(..., "final")` the values so far.

    Attributes:
      at_least: the accumulator is not below the term.
      equal: the term is the number.
      live: the accumulator is not its monoid's identity.
      finite: the whole tensor is finite.
    """

    at_least: tuple[tuple[Accumulator, Node], ...]
    equal: tuple[tuple[Node, float], ...]
    live: tuple[Accumulator, ...]
    finite: tuple[Tensor, ...]


def conditions(loop: Loop, mask: Pointwise) -> Conditions | None:
    """When steps of `loop` in which `mask` (a `where`) selects its constant everywhere change
    nothing; None if there is no telling.
    """
    if loop.inner or loop.stores or loop.axis in mask.args[2].axes_free:
        return None
    finals: dict[Node, Node] = {}
    known = {a.name: a for a in loop.accumulators}
    for accumulator in loop.accumulators:
        for root in (accumulator.summand, accumulator.rescale):
            for node in walk([root] if root is not None else []):
                if isinstance(node, Carried) and node.accumulator in known:
                    finals[node] = known[node.accumulator].carried("final")
    at_least: list[tuple[Accumulator, Node]] = []
    equal: dict[tuple[Node, float], None] = {}
    finite: dict[Tensor, None] = {}
    for accumulator in loop.accumulators:
        masked = replace(replace(accumulator.summand, {mask: mask.args[2]}), finals)
        if accumulator.rescale is not None:
            neutral = {"mul": 1.0, "add": 0.0}[accumulator.action]
            equal[replace(accumulator.rescale, finals), neutral] = None
        if accumulator.monoid == "max" and loop.axis not in masked.axes_free:
            at_least.append((accumulator, masked))
        elif accumulator.monoid == "sum":
            fixed = [f for f in factors(masked) if loop.axis not in f.axes_free]
            moving = [f for f in factors(masked) if loop.axis in f.axes_free]
            loads = [f for f in moving if isinstance(f, Load) and _finite_fill(f)]
            if not fixed or len(loads) < len(moving):
                return None
            product = reduce(lambda a, b: Pointwise("mul", (a, b)), fixed)
            equal[product, 0.0] = None
            finite.update((f.tensor, None) for f in loads if f.tensor.dtype in FLOATS)
        else:
            return None
    live = {name: None for a in loop.accumulators for name in a.depends}
    return Conditions(tuple(at_least), tuple(equal), tuple(known[n] for n in live), tuple(finite))


def _finite_fill(load: Load) -> bool:
    return load.fill is None or math.isfinite(float(load.fill.value))
