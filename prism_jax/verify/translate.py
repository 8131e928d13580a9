"""Kernels as terms with explicit parallel operators, and the typed axioms that eliminate them.

In: the kernels of an sGraph, in order. Out: for every tensor they write, its `Definition` over the
inputs, sizes symbolic; every axiom used is recorded as a `Step`. Raises `Illegal` (or `Unproven`).

A kernel is read literally. An accumulator over a loop axis k in tiles is
reduce_loop (+)_{k in part} f; a store is combine over every grid axis that its index has; a value
that a block does not vary with is replicate. The axioms, for all sizes (ragged tiles contribute
nothing) and for every monoid (+):

    reduce-partition   reduce_p (+)_{k in part_p} f(k) = (+)_k f(k)   [f does not depend on p]
    reduce-split       the same over one share s of the steps: (+)_k [k in share s] f(k)
    combine-partition  combine_p t(part_p) = t               [the store's index has p's axis]
    cascade-initial    the empty (+) is the identity; dropping a dead value drops neutral summands
    cascade-step       rescale (.) f(k, old) = f(k, new), and (.) distributes over (+)
    cascade-final      acc = (+)_k f(k, final)
    inline             a tensor that one kernel hands to another is its definition

There is no axiom replicate_p t = t: a grid axis that a store's index lacks makes blocks race, so a
sum that is split over the grid without a combining step cannot be stored. There is none for a
reduce over a loop that nothing depends on either, except the sum's own: sum_k c = n c.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from prism_jax.ir.nodes import Axis, Index, Load, Node, Size, Store, Tensor
from prism_jax.ir.program import walk
from prism_jax.ir.sgraph import Accumulator, Kernel, LibraryCall, Loop
from prism_jax.verify.algebra import times
from prism_jax.verify.binders import reduction, rename, replace
from prism_jax.verify.bounded import arguments, is_bounded, running
from prism_jax.verify.functions import masked
from prism_jax.verify.normal import Definition, Normal
from prism_jax.verify.obligations import Symbol, check_cascade
from prism_jax.verify.terms import Atom, Illegal, Poly, axis_value, element, of


@dataclass(frozen=True)
class Step:
    """One application of a named axiom. `after` is the digest of the term that it gives."""

    axiom: str
    subject: str
    after: str = ""

    def __str__(self) -> str:
        return f"{self.axiom:<20} {self.subject}" + (f"  => {self.after[:8]}" if self.after else "")


@dataclass
class Translation:
    """What is known so far: tensors written, steps taken, assumptions made."""

    normal: Normal = field(default_factory=Normal)
    steps: list[Step] = field(default_factory=list[Step])
    own: frozenset[str] = frozenset()
    """Keys of the arguments of the program's own exponentials."""
    unbounded: list[str] = field(default_factory=list[str])
    """Exponentials of the candidate that nothing bounds, by where they stand."""

    def exponentials(
        self,
        root: Node,
        where: str,
        settle: Callable[[Poly], Poly] = lambda p: p,
        monoids: Mapping[str, str] | None = None,
    ) -> None:
        """Notes the exponentials of a term that may overflow."""
        for argument in arguments(root):
            poly = settle(self.normal.poly(argument))
            if not is_bounded(poly, self.own, monoids or {}):
                self.unbounded.append(where)

    def step(self, axiom: str, subject: str, value: Poly | None = None) -> None:
        """Records a step."""
        self.steps.append(Step(axiom, subject, value.key if value is not None else ""))

    def library(self, call: LibraryCall) -> None:
        """A library call computes its terms."""
        made = {s.tensor.name: self.define(s) for s in call.stores}
        for store in call.stores:
            self.exponentials(store.value, store.tensor.name)
            self.add(store.tensor, made[store.tensor.name])
            self.step(
                "library", f"{store.tensor.name} by {call.library}", made[store.tensor.name].value
            )

    def kernel(self, kernel: Kernel) -> None:
        """A kernel computes its stores; accumulators are known to its own terms only."""
        _Kernel(self, kernel).run()

    def define(self, store: Store) -> Definition:
        """A store as a definition: its value over formal axes in place of its index."""
        value = self.normal.poly(store.value)
        layout, names = _layout(store)
        free = value.axes - names.keys()
        if free:
            raise Illegal(
                f"{store.tensor.name} is stored without an index for axis "
                f"{min(a.name for a in free)} of its value"
            )
        return Definition(layout, rename(value, names))

    def add(self, tensor: Tensor, made: Definition) -> None:
        """The tensor is written."""
        if tensor.name in self.normal.tensors:
            raise Illegal(f"{tensor.name} is written twice")
        self.normal.tensors[tensor.name] = made


def _layout(store: Store) -> tuple[tuple[tuple[tuple[int, Axis], ...], ...], dict[Axis, Axis]]:
    """The digits of every dimension, and the formal axes that replace the store's own."""
    names: dict[Axis, Axis] = {}
    layout: list[tuple[tuple[int, Axis], ...]] = []
    for n, (index, size) in enumerate(zip(store.index, store.tensor.shape, strict=True)):
        digits: list[tuple[int, Axis]] = []
        for m, (axis, coefficient) in enumerate(_radix(index, size, store)):
            if axis in names:
                raise Illegal(f"{store.tensor.name} is indexed twice by axis {axis}")
            names[axis] = Axis(f"#{n}.{m}", axis.size)
            digits.append((coefficient, names[axis]))
        layout.append(tuple(digits))
    return tuple(layout), names


def _radix(index: Index, size: Size, store: Store) -> list[tuple[Axis, int]]:
    """The axes of a store's index, largest coefficient first; they address every element once."""
    axis = index.axis
    if axis is not None and axis.size == size:
        return [(axis, 1)]
    unit, found = 1, list[tuple[Axis, int]]()
    for term, c in sorted(index.terms, key=lambda tc: tc[1]):
        if not isinstance(term, Axis) or not isinstance(term.size, int) or c != unit:
            break
        unit *= term.size
        found.append((term, c))
    else:
        if unit == size and not index.offset:
            return found[::-1]
    raise Illegal(f"the store of {store.tensor.name} does not address every element once")


class _Kernel:
    def __init__(self, translation: Translation, kernel: Kernel) -> None:
        self.t, self.kernel, self.normal = translation, kernel, translation.normal
        self.grid = {g.axis: n for n, g in enumerate(kernel.grid)}
        self.written: dict[str, tuple[Tensor, Definition]] = {}

    def run(self) -> None:
        kernel = self.kernel
        if len(self.grid) != len(kernel.grid):
            raise Illegal(f"{kernel.name} splits one axis over the grid twice")
        self.normal.carried.clear()
        self.normal.forget()
        for loop in kernel.loops:
            self.loop(loop, ())
        for store in kernel.stores:
            self.store(store, ())
        for tensor, made in self.written.values():
            self.t.add(tensor, made)
        self.normal.carried.clear()
        self.normal.forget()

    # ---- loops

    def loop(self, loop: Loop, outer: tuple[Loop, ...]) -> None:
        where = f"{self.kernel.name}, loop over {loop.axis}"
        if loop.split is not None and (loop.split not in self.grid or outer):
            raise Illegal(f"{where}: its steps are shared by {loop.split}, which is no grid axis")
        if loop.axis in {o.axis for o in outer}:
            raise Illegal(f"{where}: nested in itself")
        outside = dict(self.normal.carried)
        for inner in loop.inner:
            self.loop(inner, (*outer, loop))
        before = dict(self.normal.carried)
        known: dict[str, tuple[Accumulator, Poly, Definition]] = {}
        for acc in loop.accumulators:
            if (acc.name, "final") in before or acc.name in known:
                raise Illegal(f"{where}: accumulator {acc.name} is defined twice")
            known[acc.name] = self.accumulate(loop, acc, known, where)
        self.normal.carried = before
        for name, (acc, _, final) in known.items():
            self.normal.carried[name, "final"] = final
            self.t.step(
                "cascade-final" if acc.rescale else "reduced", f"{where}: {name}", final.value
            )
        self.normal.forget()
        # a store in a step must not see the final values of its own loop
        for name in known:
            del self.normal.carried[name, "final"]
        for store in loop.stores:
            self.store(store, (*outer, loop))
        self.normal.carried = outside  # what inner loops left belongs to one step
        for name, (_, _, final) in known.items():
            self.normal.carried[name, "final"] = final
        self.normal.forget()

    def accumulate(
        self,
        loop: Loop,
        acc: Accumulator,
        known: Mapping[str, tuple[Accumulator, Poly, Definition]],
        where: str,
    ) -> tuple[Accumulator, Poly, Definition]:
        """The accumulator's summand over symbols for earlier ones, and its final value."""
        self.normal.forget()
        summand = self.normal.poly(acc.summand)
        stray = summand.axes - {*acc.axes, loop.axis}
        if stray or loop.axis in acc.axes:
            raise Illegal(
                f"{where}: {acc.name} lacks axis {min(a.name for a in stray or acc.axes)}"
            )
        symbols = {n: Symbol(a, p) for n, (a, p, _) in known.items()}
        if acc.rescale is not None or acc.depends or _mentions(summand, "new"):
            rescale = self.rescaling(loop, acc, known)
            for note in check_cascade(acc, summand, rescale, symbols, where):
                self.normal.assumptions.add(note)
            self.t.step("cascade-initial", f"{where}: {acc.name}")
            self.t.step("cascade-step", f"{where}: {acc.name}", summand)
        self.t.exponentials(
            acc.summand, f"{where}: summand of {acc.name}", lambda p: _settled(p, known)
        )
        final = self.final(loop, acc, _settled(summand, known))
        formal = Definition(tuple(((1, a),) for a in acc.axes), final)
        self.normal.carried[acc.name, "new"] = _symbol(acc, "new")
        return acc, summand, formal

    def rescaling(
        self,
        loop: Loop,
        acc: Accumulator,
        known: Mapping[str, tuple[Accumulator, Poly, Definition]],
    ) -> Poly | None:
        """The rescaling over symbols for the old and new values of earlier accumulators."""
        if acc.rescale is None:
            return None
        for name, (earlier, _, _) in known.items():
            self.normal.carried[name, "old"] = _symbol(earlier, "old")
        self.normal.forget()
        result = self.normal.poly(acc.rescale)
        monoids = {name: earlier.monoid for name, (earlier, _, _) in known.items()}
        where = f"{self.kernel.name}, loop over {loop.axis}: rescaling of {acc.name}"
        self.t.exponentials(acc.rescale, where, monoids=monoids)
        for name in known:
            del self.normal.carried[name, "old"]
        self.normal.forget()
        if loop.axis in result.axes or result.axes - set(acc.axes):
            raise Illegal(f"the rescaling of {acc.name} varies with an axis that it lacks")
        return result

    def final(self, loop: Loop, acc: Accumulator, summand: Poly) -> Poly:
        """(+)_k summand, or its share: reduce-partition and reduce-split."""
        k = loop.axis
        if loop.split is not None:
            member = of(Atom("member", (axis_value(k), loop.split, str(loop.tile))))
            if acc.monoid == "sum":
                summand = times(member, summand)
            elif acc.monoid in ("max", "min"):
                summand = masked(member, summand, -1 if acc.monoid == "max" else 1)
            else:
                raise Illegal(f"the shares of a {acc.monoid} are not combined by any axiom here")
        axiom = "reduce-split" if loop.split is not None else "reduce-partition"
        result = reduction(acc.monoid, (k,), summand, acc.summand.sort, acc.index_sort)
        self.t.step(
            axiom, f"{self.kernel.name}: {acc.monoid} of {acc.name} over {k}/{loop.tile}", result
        )
        return result

    # ---- stores

    def store(self, store: Store, loops: tuple[Loop, ...]) -> None:
        name = store.tensor.name
        indexed = {a for index in store.index for a in index.axes_free}
        for axis, n in self.grid.items():
            if axis not in indexed:
                raise Illegal(
                    f"{name} is stored by every block of grid dimension {n} ({axis}) alike"
                )
        for loop in loops:
            if loop.axis not in indexed or loop.axis in self.grid:
                raise Illegal(f"{name} is stored in every step over {loop.axis} to the same place")
            if loop.split is not None:
                raise Illegal(f"{name} is stored in a loop whose steps are shared")
        made = self.t.define(store)
        self.t.exponentials(store.value, f"{self.kernel.name}: {name}")
        if name in self.written:
            raise Illegal(f"{name} is written twice")
        self.written[name] = (store.tensor, made)
        for axis, n in self.grid.items():
            self.t.step("combine-partition", f"{name} along {axis}, grid dimension {n}")
        for tensor in _handed(store.value, self.normal.tensors):
            self.t.step("inline", f"{tensor} in {name}")
        self.t.step("stored", f"{name} by {self.kernel.name}", made.value)


def _symbol(acc: Accumulator, phase: str) -> Definition:
    value = element(f"{phase} {acc.name}", [axis_value(a) for a in acc.axes])
    return Definition(tuple(((1, a),) for a in acc.axes), value)


def _mentions(poly: Poly, phase: str) -> bool:
    found: list[str] = []

    def look(atom: Atom) -> None:
        name = running(atom, f"{phase} ")
        if name is not None:
            found.append(name)

    replace(poly, look)
    return bool(found)


def _settled(summand: Poly, known: Mapping[str, tuple[Accumulator, Poly, Definition]]) -> Poly:
    """The summand with every running value replaced by the final one: cascade-final."""

    def change(atom: Atom) -> Poly | None:
        name = running(atom, "new ")
        if name is None or name not in known:
            return None
        acc, _, final = known[name]
        indices = atom.fields[1]
        assert isinstance(indices, tuple)
        polys = [i for i in indices if isinstance(i, Poly)]
        return final.at(polys, Tensor(acc.name, (), "float32"))

    return replace(summand, change)


def _handed(root: Node, tensors: Mapping[str, Definition]) -> Sequence[str]:
    loads = [n.tensor.name for n in walk([root]) if isinstance(n, Load)]
    return sorted({n for n in loads if n in tensors})
