"""Choosing one option per class: what terms cost, the cheapest selection, and what is next to it.

In: an encoded, saturated graph and a cost model. Out: selections (class to option) that have no
cycle and reach every output. Costs are sharing-aware: a term used twice is paid once. Choosing is
greedy over sets of terms, then improved locally.

Invariant: an `exp` is an option only if the user's program has that same `exp` or its argument is
proven not to exceed `EXP_LIMIT`; an option mentions no axis that its class does not have.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from functools import cached_property

from prism_jax.egraph import normal
from prism_jax.egraph.core import ENode
from prism_jax.egraph.cost import Cost, CostModel, Operand, power_work
from prism_jax.egraph.decode import Option, multiplied
from prism_jax.egraph.improve import Paid, Selection
from prism_jax.egraph.language import Encoded
from prism_jax.ir.nodes import REAL, Node, Pointwise, Reduce

EXP_LIMIT = 80.0
"""exp of this still fits float32 with room for sums of many."""

OWN_NOTATION = 0.8
"""What the user's own pointwise operations are taken to cost, so that they are rewritten only for a
reason.
"""

PATIENCE = 12
"""Visits per class before choosing settles for what it has: sharing makes sets cheaper in small
steps.
"""

Allowed = Callable[[Option], bool]
Weigh = Callable[[Cost], float]


def _seconds(cost: Cost) -> float:
    return cost.seconds


def _origins(*names: str) -> tuple[str, ...]:
    """The rules among the origins of some nodes."""
    return tuple(sorted({name for name in names if name != "given"}))


class Chooser:
    """Options and costs per class of one saturated graph."""

    def __init__(self, encoded: Encoded, model: CostModel) -> None:
        self.encoded, self.graph, self.model = encoded, encoded.graph, model
        self.roots = [self.graph.find(root) for root in encoded.roots]
        self.options: dict[int, list[Option]] = {}
        self.costs: dict[Option, Cost] = {}
        self._order: list[int] = []
        self._users: dict[int, list[int]] = {}
        self._collect()
        self._arrange()

    # ---- options

    def _collect(self) -> None:
        graph = self.graph
        for identifier in graph.reachable([*self.roots, *self.encoded.class_of.values()]):
            self.options[identifier] = []
        self._user_options = {node: self.user_option(node) for node in self.encoded.class_of}
        for node, identifier in self.encoded.class_of.items():
            self._offer(graph.find(identifier), self._user_options[node])
        for identifier in list(self.options):
            for node in graph.nodes(identifier):
                for option in self._node_options(node):
                    self._offer(identifier, option)

    def _arrange(self) -> None:
        """Operands before users as far as classes have no cycles; and who uses whom, by place in
        that order.
        """
        place: dict[int, int] = {}
        stack = [(root, False) for root in self.roots[::-1]]
        entered: set[int] = set()
        while stack:
            identifier, done = stack.pop()
            if done:
                place[identifier] = len(place)
            elif identifier not in entered:
                entered.add(identifier)
                stack.append((identifier, True))
                below = [c for option in self.options[identifier] for c in option.children]
                stack += [(child, False) for child in dict.fromkeys(below) if child not in entered]
        self._order = list(place)
        for identifier, number in place.items():
            for child in dict.fromkeys(c for o in self.options[identifier] for c in o.children):
                self._users.setdefault(child, []).append(number)

    def _offer(self, identifier: int, option: Option) -> None:
        if identifier in option.children or not self._closed(identifier, option):
            return
        if option not in self.costs:
            self.costs[option] = self.price(identifier, option)
        self.options[identifier].append(option)

    def _closed(self, identifier: int, option: Option) -> bool:
        """Whether the option mentions no axis that its class does not have (`x - x` is a number,
        and must be written as one).
        """
        graph = self.graph
        free = frozenset[normal.Axis]().union(
            *(graph.facts(child).free for child in option.children)
        )
        bound: tuple[normal.Axis, ...] = ()
        if isinstance(option.user, Reduce):
            bound = option.user.axes
        elif option.node is not None and option.node[0][0] == "reduce":
            bound = option.node[0][2]
        return free.issuperset(bound) and free.difference(bound) <= graph.facts(identifier).free

    def user_option(self, node: Node) -> Option:
        find, class_of = self.graph.find, self.encoded.class_of
        if isinstance(node, Reduce) and node.monoid == "sum" and node.sort == REAL:
            leaves = multiplied(node.body)
            if len(leaves) > 1:
                children = tuple(find(class_of[leaf]) for leaf in leaves)
                return Option(children, (), None, node, (Fraction(1),) * len(leaves))
        children = tuple(find(class_of[child]) for child in node.children)
        if not isinstance(node, Pointwise | Reduce):
            children = ()
        return Option(children, (), None, node)

    def _node_options(self, node: ENode) -> Iterable[Option]:
        graph = self.graph
        head, origins = node[0], _origins(graph.origin[node])
        children = tuple(graph.find(child) for child in node[1:])
        exponential = head[0] == "op" and head[1] in ("exp", "exp2")
        if exponential and origins and graph.facts(children[0]).high > EXP_LIMIT:
            return
        if head[0] != "reduce" or head[1] != "sum" or graph.facts(children[0]).sort != REAL:
            yield Option(children, origins, node)
            return
        bodies = graph.nodes(children[0])
        products = [body for body in bodies if body[0][0] == "prod"]
        for body in products:
            factors = tuple(graph.find(x) for x in body[1:])
            both = _origins(graph.origin[node], graph.origin[body])
            yield Option(factors, both, node, None, body[0][1])
        if len(products) < len(bodies):
            yield Option(children, origins, node)

    # ---- costs

    def price(self, identifier: int, option: Option) -> Cost:
        model, graph = self.model, self.graph
        axes = graph.facts(identifier).free
        frees = [graph.facts(child).free for child in option.children]
        if option.factors is not None:
            precision = graph.facts(identifier).precision
            operands = [
                Operand(free, e, self._computed(child))
                for free, e, child in zip(frees, option.factors, option.children, strict=True)
            ]
            return model.contraction(operands, axes, precision)
        if isinstance(option.user, Reduce) or (
            option.node is not None and option.node[0][0] == "reduce"
        ):
            return model.reduction(frees[0], axes)
        if isinstance(option.user, Pointwise):
            by_number = (
                option.user.op == "div" and graph.facts(option.children[1]).constant is not None
            )
            return model.operator("mul" if by_number else option.user.op, axes)
        if option.node is None:
            return model.load(axes) if option.user is not None and axes else Cost()
        return self._enode_cost(option.node, axes)

    def _computed(self, identifier: int) -> bool:
        """Whether a class is a pointwise result: neither an input nor a reduction."""
        return self.graph.founder[identifier][0][0] in ("op", "prod", "sum")

    def _enode_cost(self, node: ENode, axes: frozenset[normal.Axis]) -> Cost:
        model, head = self.model, node[0]
        match head[0]:
            case "load":
                return model.load(axes)
            case "op":
                return model.operator(head[1], axes)
            case "sum":
                scaled = sum(c not in (1, -1) for c in head[2])
                terms = len(head[2]) + (head[1] != 0)
                return self._folded(node, scaled + max(terms - 1, 0))
            case "prod":
                return self._folded(node, len(head[1]) - 1 + sum(map(power_work, head[1])))
            case _:
                return Cost()

    def _folded(self, node: ENode, operations: float) -> Cost:
        """An n-ary node: narrow children meet first, so that few operations have all the axes."""
        frees = sorted((self.graph.facts(child).free for child in node[1:]), key=len)
        total, seen = Cost(), frozenset[normal.Axis]()
        for free in frees:
            seen = seen | free
            total = total + self.model.pointwise(seen, operations / max(len(frees), 1))
        return total

    # ---- choosing

    def _prices(self, weigh: Weigh) -> dict[Option, float]:
        """What every option weighs; the user's own pointwise operations weigh a little less."""
        price = {option: max(weigh(cost), 1e-18) for option, cost in self.costs.items()}
        for option in price:
            if isinstance(option.user, Pointwise):
                price[option] *= OWN_NOTATION
        return price

    def choose(
        self, allowed: Allowed, weigh: Weigh = _seconds, paid: Selection | None = None
    ) -> Selection | None:
        """The cheapest selection by greedy sets of terms; None if a root cannot be built from
        allowed options. What `paid` uses costs nothing: then others are chosen to fit it.
        """
        best: dict[int, tuple[float, dict[int, float], Option]] = {}
        price = self._prices(weigh)
        for option in (paid or {}).values():
            price[option] = 1e-18
        usable = {i: [o for o in options if allowed(o)] for i, options in self.options.items()}
        queue = list(range(len(self._order)))  # a heap: operands first
        queued = set(queue)
        steps = 0
        while queue and steps < PATIENCE * len(self._order):
            steps += 1
            place = heapq.heappop(queue)
            queued.discard(place)
            identifier = self._order[place]
            if self._better(identifier, usable[identifier], price, best):
                for above in self._users.get(identifier, ()):
                    if above not in queued:
                        queued.add(above)
                        heapq.heappush(queue, above)
        if any(root not in best for root in self.roots):
            return None
        selection = {i: option for i, (_, _, option) in best.items()}
        return selection if self.walk(selection) is not None else None

    def _better(
        self,
        identifier: int,
        options: list[Option],
        price: Mapping[Option, float],
        best: dict[int, tuple[float, dict[int, float], Option]],
    ) -> bool:
        """Whether a class has found a cheaper set of terms, which `best` then holds."""
        improved = False
        for option in options:
            found = self._together(identifier, option, price[option], best)
            if found is None:
                continue
            total = sum(found.values())
            if identifier not in best or total < best[identifier][0] * (1 - 1e-9):
                best[identifier] = (total, found, option)
                improved = True
        return improved

    @staticmethod
    def _together(
        identifier: int,
        option: Option,
        price: float,
        best: Mapping[int, tuple[float, dict[int, float], Option]],
    ) -> dict[int, float] | None:
        found = {identifier: price}
        for child in option.children:
            below = best.get(child)
            if below is None or identifier in below[1]:
                return None
            found.update(below[1])
        found[identifier] = price
        return found

    def walk(self, selection: Mapping[int, Option]) -> list[int] | None:
        """The classes that a selection uses, operands first; None if it has a cycle."""
        order: list[int] = []
        state: dict[int, int] = {}
        stack = [(root, False) for root in self.roots[::-1]]
        while stack:
            identifier, done = stack.pop()
            if done:
                state[identifier] = 2
                order.append(identifier)
            elif state.get(identifier) != 2:
                if state.get(identifier) == 1 or identifier not in selection:
                    return None
                state[identifier] = 1
                stack.append((identifier, True))
                for child in selection[identifier].children[::-1]:
                    if state.get(child) == 1:
                        return None
                    if state.get(child) is None:
                        stack.append((child, False))
        return order

    def cost(self, selection: Selection) -> Cost:
        """The cost of what a selection uses, every class once."""
        total = Cost()
        for identifier in self.walk(selection) or ():
            total = total + self.costs[selection[identifier]]
        return total

    def improve(self, selection: Selection, allowed: Allowed, weigh: Weigh = _seconds) -> Selection:
        """Switches single classes to other allowed options while the whole gets cheaper."""
        price = self._prices(weigh)
        state = Paid(selection, self.roots, price.__getitem__)
        state.improve(lambda i: filter(allowed, self.options[i]), self._order[::-1])
        return state.selection

    def neighbours(self, selection: Selection, identifier: int) -> Iterable[Selection]:
        for option in self.options[identifier]:
            if option is not selection[identifier] and all(c in selection for c in option.children):
                other = {**selection, identifier: option}
                if self.walk(other) is not None:
                    yield other

    @cached_property
    def own(self) -> Selection:
        """The user's program as a selection."""
        selection: Selection = {}
        for node, identifier in self.encoded.class_of.items():
            identifier = self.graph.find(identifier)
            option = self._user_options[node]
            if identifier not in option.children and identifier not in selection:
                selection[identifier] = option
                self.costs.setdefault(option, self.price(identifier, option))
        return selection
