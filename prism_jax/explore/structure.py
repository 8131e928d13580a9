"""From terms to one kernel: loops, accumulators, cascades and an epilogue, for a given role of
every axis.

In: the stores that one kernel must write, and a *role* for each axis: "grid" (split over blocks),
"loop" (stepped through) or "held" (whole in every block). Out: a `Kernel` with symbolic tile sizes,
or `Unfit` with the reason. The roles are the mapping; everything else follows by rule:

* a reduction over a loop axis becomes an accumulator; over held axes it stays a reduction inside
  the tile;
* reductions that depend on nothing of each other share one loop; one that depends on another over
  the same axis joins its
  loop if the cascade rule allows, else it starts a loop of its own after it;
* a reduction inside a loop step over an axis of its own (the inner product of attention's scores)
  is held, or an inner loop;
* what a store needs after the last loop is the epilogue; a store over a loop axis is written step
  by step in a later loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from prism_jax.explore.cascade import Term, cascade
from prism_jax.explore.live import difference, while_live
from prism_jax.ir.nodes import Axis, Carried, Node, Pointwise, Reduce, Store
from prism_jax.ir.program import contents
from prism_jax.ir.rewrite import rebuild
from prism_jax.ir.sgraph import Accumulator, GridAxis, Kernel, Loop

Roles = Mapping[Axis, str]


class Unfit(Exception):
    """These stores cannot be one kernel under these roles; the text says why."""


@dataclass
class _LoopState:
    axis: Axis
    accumulators: list[Accumulator] = field(default_factory=list[Accumulator])
    stores: list[Store] = field(default_factory=list[Store])
    inner: list[_LoopState] = field(default_factory=list["_LoopState"])

    def frozen(self, number: int) -> Loop:
        inner = tuple(state.frozen(number * 10 + n) for n, state in enumerate(self.inner))
        return Loop(
            self.axis, tile_symbol(self.axis), tuple(self.accumulators), tuple(self.stores), inner
        )


def tile_symbol(axis: Axis) -> str:
    """The symbol of an axis's tile. One axis has one tile in a kernel, whatever dimension splits
    it.
    """
    return f"T_{axis.name}"


@dataclass(frozen=True)
class _Placed:
    """Where a top-level reduction runs: its loop's position, and the term for its final value."""

    level: int
    final: Node
    parts: tuple[tuple[Accumulator, Term], ...]


class KernelBuilder:
    """Builds one kernel. `fuse=False` never applies the cascade rule (each dependent reduction gets
    a loop of its own).
    """

    def __init__(
        self, name: str, stores: tuple[Store, ...], roles: Roles, fuse: bool = True
    ) -> None:
        self.name, self.stores, self.roles, self.fuse = name, stores, roles, fuse
        self.loops: dict[tuple[int, Axis], _LoopState] = {}
        self.placed: dict[Reduce, _Placed] = {}
        self.level_of: dict[str, int] = {}
        self._finals: dict[Node, Node] = {}

    def build(self) -> Kernel:
        """The kernel. Raises `Unfit`."""
        grid = self._grid()
        epilogue: list[Store] = []
        for store in self.stores:
            axes = [a for index in store.index for a in index.axes_free if self._role(a) == "loop"]
            if not axes:
                epilogue.append(replace(store, value=self._outside(store.value)))
            elif len(set(axes)) == 1:
                self._store_in_loop(store, axes[0])
            else:
                raise Unfit(f"{store.tensor.name} would be stored over two loops")
        order = sorted(self.loops.items(), key=lambda item: (item[0][0], item[0][1].name))
        loops = tuple(state.frozen(n) for n, (_, state) in enumerate(order))
        return Kernel(self.name, grid, loops, tuple(epilogue))

    def _grid(self) -> tuple[GridAxis, ...]:
        grid = [a for a, role in self.roles.items() if role == "grid"]
        for store in self.stores:
            indexed = {a for index in store.index for a in index.axes_free}
            missing = [a.name for a in grid if a not in indexed]
            if missing:
                raise Unfit(
                    f"{store.tensor.name} has no axis {missing[0]}: blocks would write it twice"
                )
        return tuple(GridAxis(a, tile_symbol(a)) for a in grid)

    def _role(self, axis: Axis) -> str:
        return self.roles.get(axis, "held")

    def _loop_axis(self, reduction: Reduce) -> Axis | None:
        """The axis whose loop a reduction runs in. A grid axis that is reduced over is stepped
        through again.
        """
        stepped = [a for a in reduction.axes if self._role(a) in ("loop", "grid")]
        if len(stepped) > 1:
            raise Unfit(f"a reduction would loop over both {stepped[0]} and {stepped[1]}")
        return stepped[0] if stepped else None

    # --- terms outside all loops ------------------------------------------------------------

    def _outside(self, root: Node) -> Node:
        """The term with every top-level reduction replaced by its accumulators' final value."""
        found = self._finals.get(root)
        if found is None:
            if isinstance(root, Reduce) and self._loop_axis(root) is not None:
                found = self._place(root).final
            else:
                found = rebuild(root, self._outside)
            self._finals[root] = found
        return found

    def _place(self, reduction: Reduce) -> _Placed:
        """Makes the accumulators of a top-level reduction, after those of everything that it
        depends on.
        """
        if reduction not in self.placed:
            axis = self._loop_axis(reduction)
            assert axis is not None
            body, monoid = reduction.body, reduction.monoid
            rest = tuple(a for a in reduction.axes if a != axis)
            if rest:
                body = Reduce(monoid, rest, body, reduction.precision, reduction.index_sort)
            earlier = self._dependencies(body, axis)
            placed = self._cascaded(reduction, body, axis, earlier) if self.fuse else None
            self.placed[reduction] = placed or self._own_loop(reduction, body, axis, earlier)
        return self.placed[reduction]

    def _dependencies(self, body: Node, axis: Axis) -> tuple[Reduce, ...]:
        """Top-level looped reductions that a loop step over `axis` uses, none inside another."""
        found: dict[Reduce, None] = {}
        seen: set[Node] = set()
        stack = [body]
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            if (
                isinstance(node, Reduce)
                and axis not in node.axes_free
                and self._loop_axis(node) is not None
            ):
                found[node] = None
            else:
                stack += node.children[::-1]
        return tuple(found)

    def _after(self, earlier: tuple[Reduce, ...]) -> int:
        return max((self._place(r).level + 1 for r in earlier), default=0)

    def _own_loop(
        self, reduction: Reduce, body: Node, axis: Axis, earlier: tuple[Reduce, ...]
    ) -> _Placed:
        level = self._after(earlier)
        summand = self._inside(body, axis, level, {})
        part = self._accumulate(reduction, level, axis, summand, Term(None, None, body))
        return _Placed(level, part.carried(), ((part, Term(None, None, body)),))

    def _cascaded(
        self, reduction: Reduce, body: Node, axis: Axis, earlier: tuple[Reduce, ...]
    ) -> _Placed | None:
        """The reduction in the same loop as the ones that it depends on, if the rule allows."""
        here = tuple(r for r in earlier if axis in r.axes and r.axes == (axis,))
        if not here:
            return None
        level = max(self._place(r).level for r in here)
        here = tuple(r for r in here if self._place(r).level == level)
        before = tuple(r for r in earlier if r not in here)
        if self._after(before) > level:
            return None
        terms = cascade(reduction.monoid, body, axis, here)
        if terms is None:
            return None
        parts: list[tuple[Accumulator, Term]] = []
        total: Node | None = None
        for term in terms:
            whole = len(terms) == 1 and term.outside is None
            part = self._streamed(reduction, body, term, axis, level, here, whole)
            if part is None:
                return None
            parts.append((part, term))
            value: Node = part.carried()
            if term.outside is not None:
                value = Pointwise("mul", (self._outside(term.outside), value))
            total = value if total is None else Pointwise("add", (total, value))
        assert total is not None
        return _Placed(level, total, tuple(parts))

    def _streamed(
        self, reduction: Reduce, body: Node, term: Term, axis: Axis, level: int,
        here: tuple[Reduce, ...], whole: bool,
    ) -> Accumulator | None:  # fmt: skip
        """One term's accumulator: the summand at the running values, and the rescaling from the old
        to the new ones.

        Where the term is the whole summand, the user's own expression is kept: exp(s - max) is more
        accurate than exp(s) exp(-max).
        """
        if term.stabiliser is None:
            source = body if whole else term.summand()
            return self._accumulate(
                reduction, level, axis, self._inside(source, axis, level, {}), term
            )
        phases: dict[str, dict[Node, Node]] = {"old": {}, "new": {}}
        depends: list[str] = []
        running: list[tuple[Reduce, Carried]] = []
        for r in here:
            parts = self._place(r).parts
            if len(parts) != 1 or parts[0][1].outside is not None:
                return None
            accumulator = parts[0][0]
            if r not in contents(term.stabiliser).reductions:
                continue
            depends.append(accumulator.name)
            for phase, values in phases.items():
                values[r] = accumulator.carried(phase)
            running.append((r, accumulator.carried("new")))
        old, new = (
            self._inside(term.stabiliser, axis, level, values) for values in phases.values()
        )
        if reduction.monoid == "sum":
            rescale: Node = Pointwise("exp", (difference(new, old),))
            source = body if whole else term.summand()
            summand = self._inside(source, axis, level, phases["new"])
        else:
            rescale = difference(new, old)
            summand = self._inside(body, axis, level, phases["new"])
        summand = while_live(summand, reduction.monoid, running)
        action = "mul" if reduction.monoid == "sum" else "add"
        return self._accumulate(
            reduction, level, axis, summand, term, rescale, action, tuple(depends)
        )

    def _accumulate(
        self, reduction: Reduce, level: int, axis: Axis, summand: Node, term: Term,
        rescale: Node | None = None, action: str = "mul", depends: tuple[str, ...] = (),
    ) -> Accumulator:  # fmt: skip
        loop = self._loop(level, axis)
        axes = tuple(a for a in summand.axes_free if a != axis)
        for known in loop.accumulators:
            same = (known.monoid, known.summand, known.rescale) == (
                reduction.monoid,
                summand,
                rescale,
            )
            if same and known.index_sort == reduction.index_sort:
                return known
        name = f"{reduction.monoid}{len(self.level_of)}"
        self.level_of[name] = level
        made = Accumulator(
            name,
            reduction.monoid,
            summand,
            axes,
            rescale,
            action,
            depends,
            reduction.precision,
            reduction.index_sort,
        )
        loop.accumulators.append(made)
        return made

    def _loop(self, level: int, axis: Axis) -> _LoopState:
        return self.loops.setdefault((level, axis), _LoopState(axis))

    # --- terms inside a loop step -----------------------------------------------------------

    def _inside(self, root: Node, axis: Axis, level: int, values: Mapping[Node, Node]) -> Node:
        """The term as a step of the loop over `axis` computes it: earlier reductions are final, or
        as `values` says.
        """
        return _Step(self, axis, level, values)(root)

    def final_before(self, reduction: Reduce, level: int) -> Node:
        """The final value of a reduction whose loop comes before that of this level."""
        placed = self._place(reduction)
        if placed.level >= level:
            raise Unfit("a loop would need the final value of a reduction in its own loop")
        return placed.final

    def looped(self, node: Node) -> bool:
        """Whether a node is a reduction that is stepped through."""
        return isinstance(node, Reduce) and self._loop_axis(node) is not None

    def inner(self, reduction: Reduce, outer: Axis, level: int) -> Node:
        """A reduction that every step of an outer loop runs to its end: an inner loop over its own
        axis.
        """
        axis = self._loop_axis(reduction)
        assert axis is not None
        if axis == outer or self._role(axis) == "grid":
            raise Unfit(f"axis {axis} would be looped over inside its own loop")
        if any(self._loop_axis(n) is not None for n in contents(reduction.body).reductions):
            raise Unfit("loops would be nested three deep")
        rest = tuple(a for a in reduction.axes if a != axis)
        body = reduction.body
        if rest:
            body = Reduce(reduction.monoid, rest, body, reduction.precision, reduction.index_sort)
        state = self._loop(level, outer)
        inner = next((s for s in state.inner if s.axis == axis), None)
        if inner is None:
            inner = _LoopState(axis)
            state.inner.append(inner)
        axes = tuple(a for a in body.axes_free if a != axis)
        for known in inner.accumulators:
            if (known.monoid, known.summand) == (reduction.monoid, body):
                return known.carried()
        name = f"{reduction.monoid}{len(self.level_of)}"
        self.level_of[name] = level
        made = Accumulator(
            name,
            reduction.monoid,
            body,
            axes,
            None,
            "mul",
            (),
            reduction.precision,
            reduction.index_sort,
        )
        inner.accumulators.append(made)
        return made.carried()

    def _store_in_loop(self, store: Store, axis: Axis) -> None:
        level = self._after(self._dependencies(store.value, axis))
        value = self._inside(store.value, axis, level, {})
        self._loop(level, axis).stores.append(replace(store, value=value))


class _Step:
    """Terms as a step of a loop computes them; remembers what it has seen."""

    def __init__(
        self, builder: KernelBuilder, axis: Axis, level: int, values: Mapping[Node, Node]
    ) -> None:
        self.builder, self.axis, self.level = builder, axis, level
        self._memo = dict(values)

    def __call__(self, node: Node) -> Node:
        found = self._memo.get(node)
        if found is None:
            if not isinstance(node, Reduce) or not self.builder.looped(node):
                found = rebuild(node, self)
            elif self.axis not in node.axes_free:
                found = self.builder.final_before(node, self.level)
            else:
                found = self.builder.inner(node, self.axis, self.level)
            self._memo[node] = found
        return found
