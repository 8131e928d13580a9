"""One kernel of an sGraph, executed on a host: block by block, step by step (the meaning stated in
`sgraph`).

In: a kernel, the tensors written so far, numbers for the symbols. Out: the tensors it writes, added
to the same dict. Ragged tiles are short tiles. Outputs are poisoned first, and every element must
be written exactly once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from prism_jax.ir.counter import Counter
from prism_jax.ir.interpret import Env, Interpreter
from prism_jax.ir.nodes import Axis, Carried, Node, Size, Store
from prism_jax.ir.program import walk
from prism_jax.ir.sgraph import Accumulator, Kernel, Loop
from prism_jax.ir.values import Array, Binding, Domain, Named, align, union


def write(interpreter: Interpreter, store: Store, env: Env, result: Array, written: Array) -> None:
    """Writes the elements that the environment addresses, and counts them in `written`."""
    value = interpreter.value(store.value, env)
    plain = interpreter.slices(store.index, env)
    if plain is not None:
        where, labels = plain
        _indexed(store, value, labels)
        for piece, size in zip(where, result.shape, strict=True):
            low, high = (
                (piece.start, piece.stop) if isinstance(piece, slice) else (piece, piece + 1)
            )
            assert 0 <= low < high <= size, f"a store leaves {store.tensor}"
        ordered = tuple(sorted(labels))
        moved = np.broadcast_to(
            align([value], ordered)[0], tuple(len(interpreter.bound(x, env)) for x in ordered)
        ).transpose([ordered.index(x) for x in labels])
        result[where] = moved
        written[where] += 1
        count = moved.size
    else:
        indices = [interpreter.index(i, env) for i in store.index]
        labels = union(i.labels for i in indices)
        _indexed(store, value, labels)
        at = tuple(np.broadcast_arrays(*align(indices, labels)))
        for position, size in zip(at, result.shape, strict=True):
            assert ((position >= 0) & (position < size)).all(), f"a store leaves {store.tensor}"
        result[at] = align([value], labels)[0]
        np.add.at(written, at, 1)
        count = at[0].size
    if interpreter.counter is not None:
        interpreter.counter.move(
            interpreter.counter.written, store.tensor.name, store.tensor.dtype, count
        )


def _indexed(store: Store, value: Named, labels: tuple[Axis, ...]) -> None:
    lost = [x.name for x in value.labels if x not in labels]
    assert not lost, (
        f"axes {lost} of the value stored in {store.tensor} are not indexed by the store"
    )


def run_kernel(
    kernel: Kernel,
    tensors: dict[str, Array],
    domain: Domain,
    symbols: Mapping[str, int],
    *,
    blocks: bool = True,
    counter: Counter | None = None,
) -> None:
    """Runs a kernel and adds what it writes to `tensors`."""
    _Run(kernel, tensors, domain, symbols, blocks, counter).run()


@dataclass
class _State:
    """An accumulator while its loop runs; argmax and argmin also carry the place of the best
    value.
    """

    value: Named
    place: Named = field(default_factory=lambda: Named((), np.asarray(0, np.int64)))
    seen: bool = False


class _Run:
    def __init__(
        self,
        kernel: Kernel,
        tensors: dict[str, Array],
        domain: Domain,
        symbols: Mapping[str, int],
        blocks: bool,
        counter: Counter | None,
    ) -> None:
        self.kernel, self.tensors, self.domain = kernel, tensors, domain
        self.symbols, self.blocks, self.counter = symbols, blocks, counter
        # The accumulators' values that each term is made of.
        self.made_of: dict[Node, frozenset[tuple[str, str]]] = {}
        for node in walk(kernel.roots):
            index_nodes: tuple[Node, ...] = getattr(node, "index_nodes", ())
            below = (self.made_of.get(c, frozenset()) for c in (*node.children, *index_nodes))
            found = frozenset[tuple[str, str]]().union(*below)
            if isinstance(node, Carried):
                found |= {(node.accumulator, node.phase)}
            if found:
                self.made_of[node] = found
        splits = {loop.split for loop in kernel.all_loops if loop.split is not None}
        self.splits = frozenset(splits)

    def size(self, size: Size) -> int:
        return self.symbols[size] if isinstance(size, str) else size

    def tile(self, axis: Axis, tile: Size) -> int:
        whole = not self.blocks and axis not in self.splits
        return self.size(axis.size) if whole else self.size(tile)

    def run(self) -> None:
        results: dict[str, Array] = {}
        written: dict[str, Array] = {}
        for store in self.kernel.all_stores:
            shape = tuple(self.size(s) for s in store.tensor.shape)
            assert store.tensor.name not in self.tensors, f"{store.tensor} is written twice"
            results[store.tensor.name] = self.domain.poison(shape, store.value.sort)
            written[store.tensor.name] = np.zeros(shape, np.uint8)
        for env in self.grid():
            block = Interpreter(dict(self.tensors), self.domain, self.symbols, counter=self.counter)
            block.over_carried = self.made_of.keys()
            for loop in self.kernel.loops:
                self.loop(block, loop, env, results, written)
            for store in self.kernel.stores:
                write(block, store, env, results[store.tensor.name], written[store.tensor.name])
        for store in self.kernel.all_stores:
            counts = written[store.tensor.name]
            assert (counts == 1).all(), (
                f"kernel {self.kernel.name} writes {(counts == 0).sum()} elements of "
                f"{store.tensor} not at all and {(counts > 1).sum()} more than once"
            )
        self.tensors.update(results)

    def grid(self) -> Iterator[dict[Axis, Binding]]:
        """The environment of every block."""
        spans: list[list[tuple[Axis, int, int]]] = []
        for g in self.kernel.grid:
            size, tile = self.size(g.axis.size), self.tile(g.axis, g.tile)
            spans.append(
                [(g.axis, start, min(size, start + tile)) for start in range(0, size, tile)]
            )
        for block in itertools.product(*spans):
            yield {axis: Binding.span(axis, start, stop) for axis, start, stop in block}

    def steps(self, loop: Loop, env: Env) -> Iterator[Binding]:
        size, tile = self.size(loop.axis.size), self.tile(loop.axis, loop.tile)
        steps = range(math.ceil(size / tile))
        if loop.split is not None:
            share = math.ceil(len(steps) / self.size(loop.split.size))
            assert len(env[loop.split]) == 1, (
                f"a block must have one share of the loop over {loop.axis}"
            )
            first = int(env[loop.split].values[0]) * share
            steps = steps[first : first + share]
        for step in steps:
            yield Binding.span(loop.axis, step * tile, min(size, (step + 1) * tile))

    def loop(
        self,
        block: Interpreter,
        loop: Loop,
        env: Env,
        results: dict[str, Array],
        written: dict[str, Array],
    ) -> None:
        states = {
            a.name: _State(Named((), self.domain.identity(a.monoid, a.summand.sort)))
            for a in loop.accumulators
        }
        for binding in self.steps(loop, env):
            inside = {**env, loop.axis: binding}
            for inner in loop.inner:
                self.loop(block, inner, inside, results, written)
            for accumulator in loop.accumulators:
                block.carried.pop((accumulator.name, "new"), None)
            self._set(
                block, {(a.name, "old"): _shown(a, states[a.name]) for a in loop.accumulators}
            )
            old = dict(states)
            for accumulator in loop.accumulators:
                states[accumulator.name] = self.step(block, accumulator, loop, inside, old)
                self._set(
                    block,
                    {(accumulator.name, "new"): _shown(accumulator, states[accumulator.name])},
                )
            for store in loop.stores:
                write(block, store, inside, results[store.tensor.name], written[store.tensor.name])
        for name in states:
            block.carried.pop((name, "old"), None)
            block.carried.pop((name, "new"), None)
        self._set(block, {(a.name, "final"): _shown(a, states[a.name]) for a in loop.accumulators})

    def _set(self, block: Interpreter, values: dict[tuple[str, str], Named]) -> None:
        """Gives accumulators new values, and forgets the terms that are made of the old ones."""
        block.carried.update(values)
        for key in [k for k in block.volatile if self.made_of[k[0]] & values.keys()]:
            del block.volatile[key]

    def step(
        self, block: Interpreter, acc: Accumulator, loop: Loop, env: Env, states: dict[str, _State]
    ) -> _State:
        """acc <- [live(old) ? rescale (.) old : identity] (+) (+)_{tile} summand."""
        old, sort = states[acc.name], acc.summand.sort
        if acc.monoid in ("argmax", "argmin"):
            best, place = block.reduce_arg(acc.monoid, loop.axis, acc.summand, env)
            if old.seen:
                best, place = block.better(acc.monoid, sort, (old.value, old.place), (best, place))
            return _State(best, place, True)
        kept = old.value
        if acc.rescale is not None:
            factor = block.value(acc.rescale, env)
            labels = union([factor.labels, kept.labels])
            pair = align([factor, kept], labels)
            kept = Named(labels, self.domain.pointwise(acc.action, None, pair))
            self._count(block, acc, env)
        if acc.depends:
            kept = self._only_live(acc, loop, kept, states)
        part = block.reduce(acc.monoid, (loop.axis,), acc.summand, env)
        return _State(block.combine(acc.monoid, sort, kept, part))

    def _only_live(
        self, acc: Accumulator, loop: Loop, kept: Named, states: dict[str, _State]
    ) -> Named:
        by_name = {a.name: a for a in loop.accumulators}
        live = Named((), np.asarray(True))
        for name in acc.depends:
            value = states[name].value
            test = Named(value.labels, ~_is(value.array, self.identity(by_name[name])))
            labels = union([live.labels, test.labels])
            live = Named(labels, np.logical_and(*align([live, test], labels)))
        identity = Named((), self.identity(acc))
        labels = union([live.labels, kept.labels])
        return Named(labels, np.where(*align([live, kept, identity], labels)))

    def identity(self, acc: Accumulator) -> Array:
        return self.domain.identity(acc.monoid, acc.summand.sort)

    def _count(self, block: Interpreter, acc: Accumulator, env: Env) -> None:
        if block.counter is not None:
            block.counter.count("combine", block.elements(acc.axes, env))


def _is(array: Array, identity: Array) -> Array:
    return np.asarray(array == identity)


def _shown(acc: Accumulator, state: _State) -> Named:
    """What `Carried` gives of a state: the place for argmax and argmin, else the value."""
    if acc.monoid in ("argmax", "argmin"):
        return Named(state.place.labels, state.place.array.astype(acc.index_sort or "int32"))
    return state.value
