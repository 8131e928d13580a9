"""An instantiated sGraph as loops over tiles in plain JAX: its executable meaning on every
platform.

In: a kernel whose sizes are numbers. Out: an `ArrayFunction`. Blocks of the grid run one after the
other in a `lax.fori_loop` that updates the outputs in place; loops are `fori_loop`s inside; values
are whole tiles, with `dot_general` for products. Temporaries are tiles: nothing as large as an
unfused intermediate exists.

Ragged tiles: the last tile of an axis starts so early that it is full. Outputs are then written
twice with equal values; elements that a reduction has met already count as the identity. Nothing
is padded, and nothing outside an array is read.

One class in one file: names, scopes and carried values are the state of all its methods.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prism_jax.emit import array_access, cuts, lax_steps
from prism_jax.emit.array_terms import Env, Range, Terms, Value
from prism_jax.emit.jnp import RESERVED, ArrayFunction, axis_order, emit_call
from prism_jax.emit.names import Names
from prism_jax.emit.scopes import Scope, fitted, load_function
from prism_jax.ir.concrete import concrete
from prism_jax.ir.nodes import Axis, Store, Tensor
from prism_jax.ir.sgraph import Kernel, Loop, SGraph

__all__ = ["emit", "emit_kernel"]

HEADER = "import jax.numpy as jnp\nimport numpy as np\nfrom jax import lax\n"


def emit(
    sgraph: SGraph, sizes: Mapping[str, int], unroll: int = 0, cut: bool = False
) -> ArrayFunction:
    """The whole sGraph as one function of its inputs: its kernels blocked, library calls as jnp.

    Args:
      sgraph: what to run.
      sizes: a number for every symbol.
      unroll: longest reduction (of a body that is no product) to be written as a sum of slices.
      cut: leave out steps that an affine mask makes idle (`ir.idle` says when).

    Raises:
      ValueError: a symbol without a size.
    """
    graph = concrete(sgraph, sizes)
    names = Names(RESERVED)
    main = names.new(graph.name)
    parts: list[ArrayFunction] = []
    for node in graph.nodes:
        name = names.new(f"{node.name}_blocks" if isinstance(node, Kernel) else node.name)
        if isinstance(node, Kernel):
            parts.append(emit_kernel(node, graph.compute, unroll, name, cut))
        else:
            parts.append(emit_call(node, graph.compute, unroll, name))
    tensors = (*graph.inputs, *(t for part in parts for t in part.results))
    local = {t.name: names.new(t.name) for t in tensors}
    scope, outer = Scope[Any](), Scope[Any]()
    for part in parts:
        call = f"{part.name}({', '.join(local[t.name] for t in part.operands)})"
        scope.add(f"{_tuple([local[t.name] for t in part.results])} = {call}")
    scope.add(f"return {_tuple([local[t.name] for t in graph.outputs])}")
    outer.block(f"def {main}({', '.join(local[t.name] for t in graph.inputs)}):", scope)
    bodies = [part.source[part.source.index("\n\n\n") :].strip("\n") for part in parts]
    source = "\n\n\n".join([HEADER.strip("\n"), *bodies, outer.text()]) + "\n"
    return ArrayFunction(main, source, load_function(source, main), graph.inputs, graph.outputs)


def emit_kernel(
    kernel: Kernel, compute: str, unroll: int = 0, name: str | None = None, cut: bool = False
) -> ArrayFunction:
    """The kernel as a function of the tensors that it reads, in order of first use.

    Args:
      kernel: all its sizes must be numbers (`emit.concrete`).
      compute: dtype of real arithmetic.
      unroll: longest reduction (of a body that is no product) to be written as a sum of slices.
      name: of the function; by default the kernel's.
      cut: leave out steps that an affine mask makes idle.
    """
    return _Writer(kernel, compute, unroll, name or Names(RESERVED).new(kernel.name), cut).run()


class _Writer:
    def __init__(self, kernel: Kernel, compute: str, unroll: int, name: str, cut: bool) -> None:
        self.kernel, self.function, self.cut = kernel, name, cut
        self.names = Names((*RESERVED, name))
        tensors = {t.name: (self.names.new(t.name), 0) for t in kernel.reads}
        order = axis_order(kernel.all_stores)
        self.terms = Terms(
            compute,
            tensors,
            order,
            unroll,
            names=self.names,
            scope=Scope[Value](),
            arg_by_value=True,
        )
        self.buffers: dict[str, str] = {}
        self.env: dict[Axis, Range] = {}

    def run(self) -> ArrayFunction:
        terms, kernel = self.terms, self.kernel
        parameters = ", ".join(text for text, _ in terms.tensors.values())
        moving = [g for g in kernel.grid if int(g.tile) < int(g.axis.size)]
        blocks = 1
        for g in moving:
            blocks *= -(-int(g.axis.size) // int(g.tile))
        stepping = {x.axis for x in kernel.all_loops if int(x.tile) < int(x.axis.size)}
        terms.moving = frozenset({g.axis for g in moving} | stepping)
        self._allocate(terms.moving)
        outer = terms.scope
        block, step = self.names.new("block"), self.names.new("step")
        buffers = list(self.buffers.values())
        if blocks > 1:
            terms.scope = outer.child()
            terms.scope.add(f"{_tuple(buffers)} = buffers")
            self._starts(step, moving)
        for g in kernel.grid:
            if g not in moving and int(g.axis.size) == 1:
                self.env[g.axis] = Range(g.axis, None, None)
        for loop in kernel.loops:
            self._loop(loop, self.env)
        for store in kernel.stores:
            self._store(store, self.env)
        if blocks > 1:
            terms.scope.add(f"return {_tuple(buffers)}")
            inner, terms.scope = terms.scope, outer
            outer.block(f"def {block}({step}, buffers):", inner)
            call = f"lax.fori_loop(np.int32(0), np.int32({blocks}), {block}, {_tuple(buffers)})"
            outer.add(*fitted(f"{_tuple(buffers)} = {call}"))
        return self._function(parameters)

    def _function(self, parameters: str) -> ArrayFunction:
        kernel, scope = self.kernel, self.terms.scope
        results: list[str] = []
        for tensor in kernel.writes:
            name, shape = self.buffers[tensor.name], tuple(int(s) for s in tensor.shape)
            split = self._split(tensor)
            reshape = split is not None and tuple(n for _, n in split) != shape
            results.append(f"{name}.reshape({', '.join(map(str, shape))})" if reshape else name)
        scope.add(f"return {_tuple(results)}")
        outer = Scope[Any]()
        outer.block(f"def {self.function}({parameters}):", scope)
        source = f"{HEADER}\n\n{outer.text()}\n"
        call = load_function(source, self.function)
        return ArrayFunction(self.function, source, call, kernel.reads, kernel.writes)

    # --- outputs --------------------------------------------------------------------------------

    def _split(self, tensor: Tensor) -> list[tuple[Axis | None, int]] | None:
        store = next(s for s in self.kernel.all_stores if s.tensor == tensor)
        return array_access.split_shape([int(s) for s in tensor.shape], store.index)

    def _allocate(self, moving: frozenset[Axis]) -> None:
        """Outputs that are written piece by piece exist before the first block, split by axes."""
        for tensor in self.kernel.writes:
            split = self._split(tensor)
            shape = (
                tuple(int(s) for s in tensor.shape) if split is None else tuple(n for _, n in split)
            )
            name = self.names.new(tensor.name)
            self.buffers[tensor.name] = name
            stores = [s for s in self.kernel.all_stores if s.tensor == tensor]
            axes = {a for s in stores for index in s.index for a in index.axes_free}
            if axes & moving or split is None or len(stores) > 1:
                dtype = tensor.dtype.replace("bool", "bool_")
                self.terms.scope.add(f"{name} = jnp.zeros({shape}, jnp.{dtype})")

    def _store(self, store: Store, env: Env) -> None:
        terms, name = self.terms, self.buffers[store.tensor.name]
        value = terms.value(store.value, env)
        text = array_access.store(terms, store, value, env, name)
        split = self._split(store.tensor)
        if split is not None and not text.startswith("lax.dynamic_update_slice"):
            shape = tuple(n for _, n in split)
            if shape != tuple(int(s) for s in store.tensor.shape):
                text = f"{text}.reshape({', '.join(map(str, shape))})"
        terms.scope.add(*fitted(f"{name} = {text}"))

    # --- the grid and loops ---------------------------------------------------------------------

    def _starts(self, step: str, moving: Sequence[Any]) -> None:
        """Where the block's tile starts along each axis; the first grid axis runs fastest."""
        stride, total = 1, len(moving)
        for n, g in enumerate(moving):
            size, tile = int(g.axis.size), int(g.tile)
            count = -(-size // tile)
            number = step if stride == 1 else f"{step} // {stride}"
            number = f"{number} % {count}" if n < total - 1 else number
            self.env[g.axis] = self._range(g.axis, tile, number, counted=False)
            stride *= count

    def _range(self, axis: Axis, tile: int, number: str, *, counted: bool) -> Range:
        """The tile with this number along an axis, written into the open scope."""
        terms, size = self.terms, int(axis.size)
        depth = terms.scope.depth
        first = (
            number
            if tile == 1
            else f"({number}) * {tile}"
            if " " in number
            else f"{number} * {tile}"
        )
        if size % tile == 0:
            start = terms.assign(f"{axis.name}_start", first, (), "int32", depth).text
            return Range(axis, start, None if tile == 1 else tile, depth)
        start = terms.assign(
            f"{axis.name}_start", f"jnp.minimum({first}, {size - tile})", (), "int32", depth
        ).text
        live = None
        if counted:
            text = f"{start} + jnp.arange({tile}, dtype=jnp.int32) >= {first}"
            live = terms.assign(f"{axis.name}_live", text, (axis,), "bool", depth).text
        return Range(axis, start, tile, depth, live)

    def _loop(self, loop: Loop, env: Env) -> None:
        terms, outer = self.terms, self.terms.scope
        size = int(loop.axis.size)
        tile = min(int(loop.tile), size)
        steps = -(-size // tile)
        states = [lax_steps.start(terms, a, env) for a in loop.accumulators]
        stored = list(
            dict.fromkeys(self.buffers[s.tensor.name] for x in _nested(loop) for s in x.stores)
        )
        carried = [*(name for state in states for name in state.names), *stored]
        low, high = "np.int32(0)", f"np.int32({steps})"
        if loop.split is not None and int(loop.split.size) > 1:
            share = -(-steps // int(loop.split.size))
            part = terms.range_of(loop.split, env).start or "0"
            low = terms.assign(
                f"{loop.axis.name}_first", f"{part} * {share}", (), "int32", outer.depth
            ).text
            high = f"jnp.minimum({low} + {share}, {steps})"
        checks: tuple[tuple[str, float], ...] = ()
        if self.cut and steps > 1:
            low, high, checks = self._cut(loop, env, tile, low, high)
        terms.scope = outer.child()
        looping = steps > 1 or low != "np.int32(0)"
        body, step = self.names.new(f"over_{loop.axis.name}"), self.names.new("step")
        inside = dict(env)
        if looping:
            terms.scope.add(f"{_tuple(carried)} = carry")
            inside[loop.axis] = self._range(loop.axis, tile, step, counted=True)
        else:
            inside[loop.axis] = Range(loop.axis, None, tile, terms.scope.depth)
        for inner in loop.inner:
            self._loop(inner, inside)
        updates = lax_steps.step(terms, states, loop, inside)
        for store in loop.stores:
            self._store(store, inside)
        if looping:
            terms.scope.add(f"return {_tuple([*updates, *stored])}")
            inner_scope, terms.scope = terms.scope, outer
            outer.block(f"def {body}({step}, carry):", inner_scope)
            if checks:
                low, high, body = self._parts(loop, states, checks, low, high, steps, body)
            call = f"lax.fori_loop({low}, {high}, {body}, {_tuple(carried)})"
            outer.add(*fitted(f"{_tuple(carried)} = {call}"))
        else:
            pairs = zip([n for s in states for n in s.names], updates, strict=True)
            terms.scope.add(*(f"{name} = {text}" for name, text in pairs))
            inner_scope, terms.scope = terms.scope, outer
            outer.inline(inner_scope)
        for state in states:
            lax_steps.bind(terms, state.accumulator, "final", env, state.place or state.value)

    def _cut(
        self, loop: Loop, env: Env, tile: int, low: str, high: str
    ) -> tuple[str, str, tuple[tuple[str, float], ...]]:
        """The bounds of the steps without those that a mask makes idle, and what must hold for
        these to be left out.
        """
        spans = {a: self.terms.range_of(a, env) for a in env}
        extents = {a: cuts.Extent(r.start, r.size or 1) for a, r in spans.items()}
        found = cuts.find(loop, extents, tile, "jnp")
        if found is None or (found[1].checks and loop.split is not None):
            return low, high, ()
        _, cut = found
        first, last = low, high
        if cut.low is not None:
            first = f"jnp.maximum({low}, ({cut.low}) // {tile})"
        if cut.high is not None:
            last = f"jnp.minimum({high}, ({cut.high} + {tile - 1}) // {tile})"
        if cut.rows:
            terms = [(self.terms.value(node, env).text, floor) for node, floor in cut.rows]
            above = " & ".join(f"jnp.all({text} > {floor!r})" for text, floor in terms)
            first = f"jnp.where({above}, {first}, {low})" if first != low else first
            last = f"jnp.where({above}, {last}, {high})" if last != high else last
        depth, name = self.terms.scope.depth, loop.axis.name
        first, last = (x if x in (low, high) else f"({x}).astype(jnp.int32)" for x in (first, last))
        low = self.terms.assign(f"{name}_low", first, (), "int32", depth).text
        high = self.terms.assign(f"{name}_high", last, (), "int32", depth).text
        return low, high, cut.checks

    def _parts(
        self,
        loop: Loop,
        states: Sequence[lax_steps.State],
        checks: Sequence[tuple[str, float]],
        low: str,
        high: str,
        steps: int,
        body: str,
    ) -> tuple[str, str, str]:
        """Bounds and body of a loop over three parts of the steps: those that are not left out, and
        those before and after them, which run where a row's maximum is too low. One loop, so that
        XLA compiles the steps once.
        """
        outer, name = self.terms.scope, loop.axis.name
        parts, part = self.names.new(f"parts_of_{name}"), self.names.new("part")
        accumulators = {s.accumulator.name: s.value.text for s in states}
        idle = " & ".join(f"(jnp.min({accumulators[a]}) > {floor!r})" for a, floor in checks)
        inner = outer.child()
        inner.add(
            f"{_tuple([n for state in states for n in state.names])} = carry",
            f"idle = {idle}",
            f"first = jnp.asarray([{low}, 0, jnp.maximum({low}, {high})])[{part}]",
            f"last = jnp.asarray([{high}, {low}, {steps}])[{part}]",
            f"last = jnp.where(({part} > 0) & idle, first, last)",
            f"return lax.fori_loop(first, last, {body}, carry)",
        )
        outer.block(f"def {parts}({part}, carry):", inner)
        return "np.int32(0)", "np.int32(3)", parts


def _nested(loop: Loop) -> Iterable[Loop]:
    yield loop
    for inner in loop.inner:
        yield from _nested(inner)


def _tuple(names: Sequence[str]) -> str:
    return f"({', '.join(names)}{',' if len(names) == 1 else ''})"
