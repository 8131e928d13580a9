"""Choosing terms from a saturated e-graph: the cheapest forms of a program that differ from each
other.

In: a program. Out: `alternatives`: the program itself, then distinct equivalent programs, cheapest
first, each with its cost and the axioms that it needs. Costs are sharing-aware: a term used twice
is paid once. Extraction is greedy over sets of terms, then improved locally; among the alternatives
are forms without the axioms that change rounding, so that a refusal by the accuracy contract has
something to fall back on.

Invariant: an `exp` is chosen only if the user's program has that same `exp` or its argument is
proven not to exceed `EXP_LIMIT`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from prism_jax import axioms, device
from prism_jax.egraph import signature
from prism_jax.egraph.choose import Allowed, Chooser, Weigh
from prism_jax.egraph.contraction import ContractionOrder
from prism_jax.egraph.cost import Cost, CostModel
from prism_jax.egraph.decode import build
from prism_jax.egraph.improve import Selection
from prism_jax.egraph.language import Encoded, encode
from prism_jax.egraph.matching import AxiomRule
from prism_jax.egraph.run import Limits, Rule, Saturation, saturate
from prism_jax.ir.nodes import Node, Precision, Store
from prism_jax.ir.program import Program

OPERAND_PENALTY = 64.0
"""Instructions that one computed operand element is taken for when forms with plain operands are
asked for.
"""

TRIES = 4
"""Single changes that are decoded per alternative asked for: many are the same form in another
notation.
"""


@dataclass(frozen=True)
class Alternative:
    """An equivalent program, what the model says it costs, and the names of the axioms that lead to
    it.
    """

    program: Program
    cost: Cost
    axioms: tuple[str, ...]

    @property
    def risks(self) -> tuple[str, ...]:
        """What may round worse than in the user's own form."""
        known = {a.name: a.changes_rounding for a in axioms.DEFAULT}
        return tuple(dict.fromkeys(filter(None, (known.get(name, "") for name in self.axioms))))


@dataclass(frozen=True)
class Alternatives:
    """The result of one search over terms; iterate over it for the alternatives."""

    found: tuple[Alternative, ...]
    saturation: Saturation
    encoded: Encoded

    def __iter__(self) -> Iterator[Alternative]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, place: int) -> Alternative:
        return self.found[place]


class _Extractor(Chooser):
    """Selections of one saturated graph as programs."""

    def decode(self, selection: Selection) -> Program:
        """The program that a selection spells."""
        nodes: dict[int, Node] = {}
        default = self.encoded.precision
        for identifier in self.walk(selection) or ():
            option = selection[identifier]
            precision: Precision | None = self.graph.facts(identifier).precision or default
            nodes[identifier] = build(option, [nodes[c] for c in option.children], precision)
        program = self.encoded.program
        stores = tuple(
            Store(store.tensor, store.index, nodes[root])
            for store, root in zip(program.outputs, self.roots, strict=True)
        )
        return Program(program.name, program.inputs, stores, program.compute)

    def _used(self, selection: Selection) -> tuple[str, ...]:
        return tuple(sorted({o for i in self.walk(selection) or () for o in selection[i].origins}))

    def alternatives(self, limit: int) -> list[Alternative]:
        """See the module's text."""
        program = self.encoded.program
        own = signature.of(store.value for store in program.outputs)
        found: dict[str, Alternative] = {own: Alternative(program, self.cost(self.own), ())}
        selections = self._requests()
        for selection in selections:
            self._note(found, selection)
        # what was asked for keeps its place; single changes to the best forms, cheapest first, fill
        # what is left
        near = self._around(selections[:2])[: TRIES * limit] if len(found) < limit else []
        for selection in near:
            self._note(found, selection)
            if len(found) == limit:
                break
        kept = list(found.values())[:limit]
        ranked = [kept[0], *sorted(kept[1:], key=_rank)]
        return [replace(found, cost=found.cost.plain) for found in ranked]

    def _around(self, selections: list[Selection]) -> list[Selection]:
        """Selections that differ in one class from one of the given, cheapest first. Only changes
        that a rule made or that regroup a contraction: others are mere notation.
        """
        near: list[tuple[float, int, Selection]] = []
        for selection in selections:
            for identifier in self.walk(selection) or ():
                for other in self.neighbours(selection, identifier):
                    option = other[identifier]
                    if option.origins or option.factors is not None:
                        near.append((self.cost(other).seconds, len(near), other))
        return [other for _, _, other in sorted(near, key=lambda n: n[:2])]

    def _requests(self) -> list[Selection]:
        """The forms that are always offered, where they exist and differ: fastest, plain operands
        for every contraction (scales and shifts hoisted), each with and without the axioms that
        change rounding; and least arithmetic.
        """
        risky = {a.name for a in axioms.DEFAULT if a.changes_rounding}
        peak = self.model.device.rate("f32")
        without: list[Allowed] = [
            lambda o: True,
            lambda o: "square-of-sum" not in o.origins,
            lambda o: not risky.intersection(o.origins),
        ]
        weights: list[Weigh] = [
            lambda c: c.seconds,
            lambda c: c.seconds + OPERAND_PENALTY * c.operands / peak,
        ]
        wanted = [(allowed, weigh) for weigh in weights for allowed in without]
        wanted.append((without[0], lambda c: c.flops + 1e-3 * c.bytes))
        found = [self._best(*one) for one in wanted]
        return [selection for selection in found if selection is not None]

    def _best(self, allowed: Allowed, weigh: Weigh) -> Selection | None:
        """The better of two: the greedy choice, and the user's program, both improved. The second
        keeps shared terms shared, which a greedy choice does not see. None if there is neither.
        """
        fitting = self.choose(allowed, weigh, self.own) or {}
        # Not every node of the user is an option: `x - x` mentions axes that its class has not.
        offered = {i: o for i, o in self.own.items() if o in self.options.get(i, ())}
        starts = [{**fitting, **offered}, self.choose(allowed, weigh) or {}]
        whole = [start for start in starts if self.walk(start) is not None]
        ends = [self.improve(start, allowed, weigh) for start in whole]
        return min(ends, key=lambda end: weigh(self.cost(end)), default=None)

    def _note(self, found: dict[str, Alternative], selection: Selection) -> None:
        program = self.decode(selection)
        name = signature.of(store.value for store in program.outputs)
        if name not in found:
            found[name] = Alternative(program, self.cost(selection), self._used(selection))


def _rank(alternative: Alternative) -> tuple[float, int]:
    """Of equal ones the one found first: nothing but costs may depend on sizes."""
    return alternative.cost.seconds, len(alternative.axioms)


def default_rules() -> list[Rule]:
    """Fresh rules for one saturation: the contraction order, then the axioms of level "search" in
    the table's order.
    """
    return [ContractionOrder(), *map(AxiomRule, axioms.for_level("search"))]


def search(
    program: Program,
    on: device.Device | None = None,
    *,
    limit: int = 8,
    limits: Limits | None = None,
) -> Alternatives:
    """Encodes, saturates and extracts. `limit` counts the program itself; raises ValueError if it
    is below 1.
    """
    if limit < 1:
        raise ValueError(f"limit counts the program itself, so it is at least 1, not {limit}")
    encoded = encode(program)
    record = saturate(encoded.graph, default_rules(), limits)
    model = CostModel(on or device.row("H100"), _width(program))
    return Alternatives(tuple(_Extractor(encoded, model).alternatives(limit)), record, encoded)


def alternatives(
    program: Program,
    on: device.Device | None = None,
    *,
    limit: int = 8,
    limits: Limits | None = None,
) -> list[Alternative]:
    """The program itself, then distinct cheaper or comparable forms, cheapest first."""
    return list(search(program, on, limit=limit, limits=limits).found)


def _width(program: Program) -> int:
    widths = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
    return max((widths.get(t.dtype, 1) for t in program.inputs), default=4)
