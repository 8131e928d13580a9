"""What is counted of one launch: the record that `ir.forms` fills, with numbers of any kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from prism_jax.ir.counts import Number

__all__ = ["Form"]


@dataclass(frozen=True)
class Form:
    """Counts for one launch. Bytes are bytes; `arithmetic` counts operations by unit.

    `loaded` is what all blocks read together (reloads by other blocks included), `compulsory` what
    is read at least once, `certain` what of this no mask over the values of axes can spare. Units:
    ("dot", operand dtype) multiply-adds x 2; "other"; "special". `accumulators` (elements),
    `operands` (bytes loaded in one step) and `widest` (elements of the largest intermediate tile)
    are one block's footprint. `masked`: a loop has an affine mask, so that an emitter may skip
    steps: then `loaded` and `arithmetic` are no lower bounds.
    """

    blocks: Number
    steps: Number
    loaded: Number
    compulsory: Number
    stored: Number
    arithmetic: dict[Any, Number] = field(default_factory=dict[Any, Any])
    accumulators: Number = 0
    operands: Number = 0
    widest: Number = 0
    certain: Number = 0
    masked: bool = False

    def left(self, share: Number) -> Form:
        """The form of a kernel that takes this share of its steps."""
        return replace(
            self,
            steps=self.steps * share,
            loaded=self.loaded * share,
            arithmetic={unit: count * share for unit, count in self.arithmetic.items()},
        )

    def map(self, change: Callable[[Number], Number]) -> Form:
        """The form with every number changed in the same way."""
        return Form(
            blocks=change(self.blocks),
            steps=change(self.steps),
            loaded=change(self.loaded),
            compulsory=change(self.compulsory),
            stored=change(self.stored),
            arithmetic={unit: change(count) for unit, count in self.arithmetic.items()},
            accumulators=change(self.accumulators),
            operands=change(self.operands),
            widest=change(self.widest),
            certain=change(self.certain),
            masked=self.masked,
        )
