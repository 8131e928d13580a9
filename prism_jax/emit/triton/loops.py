"""Loops with accumulators: what is carried from step to step, and how each step changes it.

In: a `Loop` and the spans around it. Out: lines: initial values before the loop, the loop, and the
values of `Carried(name, "final")` after it.

Invariant (the sGraph's): at each step, for every accumulator in order, acc <- [live(old) ? rescale
(.) old : identity] (+) part; lanes beyond the axis contribute the identity.

An accumulator whose running value nobody reads keeps the loop's dimension and is reduced once,
after the loop, if its tile is small enough to stay in registers: no exchange between threads in
any step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from prism_jax.emit.triton import access, contractions
from prism_jax.emit.triton.describe import describe
from prism_jax.emit.triton.operators import literal, tl_dtype
from prism_jax.emit.triton.spans import Key
from prism_jax.emit.triton.tiles import Env, Span, Tiles, Value
from prism_jax.ir.nodes import REAL, Carried
from prism_jax.ir.ops import MONOIDS
from prism_jax.ir.program import walk
from prism_jax.ir.sgraph import Accumulator, Kernel, Loop

__all__ = ["LoopWriter"]

LATE_ELEMENTS = 64
"""Elements per thread that an accumulator may have while it keeps the loop's dimension."""


@dataclass
class _State:
    """An accumulator in the source: `name` holds it between steps, `place` the index of argmax and
    argmin.
    """

    accumulator: Accumulator
    value: Value
    late: Key | None
    place: Value | None = None


class LoopWriter:
    """Writes the loops of one kernel."""

    def __init__(self, tiles: Tiles, kernel: Kernel, num_warps: int, num_stages: int) -> None:
        self.tiles, self.kernel = tiles, kernel
        self.threads, self.num_stages = 32 * num_warps, num_stages
        self.numbers = {id(loop): n for n, loop in enumerate(kernel.all_loops)}
        self.read = {(n.accumulator, n.phase) for n in walk(kernel.roots) if isinstance(n, Carried)}
        self.read |= {
            (name, "old") for x in kernel.all_loops for a in x.accumulators for name in a.depends
        }

    def run(self, loop: Loop, env: Env) -> None:
        """Writes the loop into the open scope."""
        tiles = self.tiles
        dimension = tiles.layout.dimensions[(f"loop{self.numbers[id(loop)]}", loop.axis.name)]
        outer = tiles.scope
        states = [self._start(a, loop, env, dimension.key) for a in loop.accumulators]
        header, start = self._header(loop, env)
        tiles.scope = outer.child()
        span = tiles.open(dimension, start, tiles.scope.depth)
        inside = {**env, loop.axis: span}
        for inner in loop.inner:
            self.run(inner, inside)
        for state in states:
            name = state.accumulator.name
            if (name, "old") in self.read:
                tiles.carried[name, "old"] = replace(state.value, depth=tiles.scope.depth)
        after: list[str] = []
        for state in states:
            after += self._step(state, inside, span)
        for store in loop.stores:
            access.store(tiles, store, inside)
        tiles.scope.add(*after)
        body, tiles.scope = tiles.scope, outer
        if header is None:
            outer.inline(body)
        else:
            outer.block(header, body)
        for state in states:
            self._finish(state, span)

    # --- the loop statement ---------------------------------------------------------------------

    def _header(self, loop: Loop, env: Env) -> tuple[str | None, str | None]:
        """The `for` line and the text of the tile's start; no line if there is only one step."""
        tiles, size, tile = self.tiles, int(loop.axis.size), int(loop.tile)
        tile = min(tile, size)
        steps = -(-size // tile)
        splits = 1 if loop.split is None else int(loop.split.size)
        if splits > 1:
            assert loop.split is not None
            share = -(-steps // splits)
            part = tiles.span(loop.split, env)
            first = f"{part.start or 0} * {share * tile}"
            if share == 1 and steps == splits:
                return None, tiles.assign(
                    f"{loop.axis.name}_start", first, (), "int32", part.depth, ""
                ).text
            low = tiles.assign(f"{loop.axis.name}_first", first, (), "int32", part.depth, "").text
            high = f"{low} + {share * tile}"
            if share * splits * tile > size:
                high = f"tl.minimum({high}, {size})"
        elif steps == 1:
            return None, None
        else:
            low, high = "0", str(size)
        start = tiles.names.new(f"{loop.axis.name}_start")
        bounds = f"{low}, {high}, {tile}"
        if self._uses_dot(loop) or self.num_stages < 2:
            return f"for {start} in range({bounds}):", start
        return f"for {start} in tl.range({bounds}, num_stages={self.num_stages}):", start

    def _uses_dot(self, loop: Loop) -> bool:
        """Whether the compiler finds a product to pipeline for; else the depth is told to it."""
        products = self.tiles.layout.products
        names = {a.name for a in loop.accumulators}
        return any(
            found is not None and isinstance(site[0], Accumulator) and site[0].name in names
            for site, found in products.items()
        )

    # --- accumulators ---------------------------------------------------------------------------

    def _start(self, accumulator: Accumulator, loop: Loop, env: Env, key: Key) -> _State:
        """The initial value: the monoid's identity."""
        tiles, name = self.tiles, accumulator.name
        sort = accumulator.summand.sort
        dims = tiles.dims(accumulator.axes, env)
        late = key if self._keeps(accumulator, loop, dims, key) else None
        if late is not None:
            dims = tiles.sorted((*dims, late))
        monoid = accumulator.monoid.removeprefix("arg")
        identity = MONOIDS[monoid].identity(sort)
        dtype = tiles.compute if sort == REAL else sort
        if dims and identity == 0 and dtype != "bool":
            text = f"tl.zeros({tiles.shape(dims)}, {tl_dtype(dtype)})"
        else:
            text = f"tl.full({tiles.shape(dims)}, {literal(identity)}, {tl_dtype(dtype)})"
        depth = tiles.scope.depth
        comment = f"{accumulator.monoid}[{loop.axis.name}] {describe(accumulator.summand)}"
        value = tiles.assign(name, text, dims, dtype, depth, comment)
        place = None
        if accumulator.index_sort is not None:
            text = f"tl.full({tiles.shape(dims)}, 0, tl.int32)"
            place = tiles.assign(f"{name}_at", text, dims, "int32", depth, "")
        return _State(accumulator, value, late, place)

    def _keeps(self, accumulator: Accumulator, loop: Loop, dims: Sequence[Key], key: Key) -> bool:
        """Whether the accumulator keeps the loop's dimension until after the loop."""
        tiles, name = self.tiles, accumulator.name
        running = (name, "old") in self.read or (name, "new") in self.read
        if running or accumulator.rescale is not None or accumulator.index_sort is not None:
            return False
        if self._product(accumulator, loop) is not None or tiles.width(key) == 1:
            return False
        elements = tiles.width(key)
        for dim in dims:
            elements *= tiles.width(dim)
        return elements <= LATE_ELEMENTS * self.threads

    def _product(self, accumulator: Accumulator, loop: Loop) -> object:
        """The sides if the accumulator is a `tl.dot` (by the layout's decision)."""
        for (what, _), found in self.tiles.layout.products.items():
            if what == accumulator:
                return found
        return None

    def _step(self, state: _State, env: Env, span: Span) -> list[str]:
        """Lines of one step; returns those that end the step."""
        tiles, accumulator, old = self.tiles, state.accumulator, state.value
        if accumulator.index_sort is not None:
            return self._step_arg(state, env, span)
        base = self._rescaled(state, env)
        text = self._combined(state, base, env, span)
        depth = tiles.scope.depth
        name = accumulator.name
        if (name, "new") not in self.read and (name, "old") not in self.read:
            tiles.scope.add(f"{old.text} = {text}")
            return []
        new = tiles.assign(f"{name}_new", text, old.dims, old.dtype, depth)
        tiles.carried[name, "new"] = new
        return [f"{old.text} = {new.text}"]

    def _combined(self, state: _State, base: str, env: Env, span: Span) -> str:
        tiles, accumulator, old = self.tiles, state.accumulator, state.value
        where = {a: s.key for a, s in env.items()}
        site = tiles.layout.site(accumulator, accumulator.summand.axes_free, where)
        found = tiles.layout.products.get(site)
        if found is not None:
            return contractions.accumulate(tiles, found, env, accumulator.precision, old.dims, base)
        sort = accumulator.summand.sort
        part = tiles.number(accumulator.summand, env)
        monoid = accumulator.monoid
        if span.key not in part.dims and span.width > 1:
            part = self._spread(part, span)
        if state.late is None:
            comment = f"{monoid} over the step"
            part = tiles.fold(monoid, part, [span.key], sort, comment)
        else:
            part = tiles.masked(part, [span.key], MONOIDS[monoid].identity(sort))
        texts = (base, tiles.align(part, old.dims))
        if monoid in ("max", "min") and sort == REAL:
            tiles.helpers.add(f"{monoid}_nan")
            return f"{monoid}_nan({texts[0]}, {texts[1]})"
        text = MONOIDS[monoid].triton.format(*texts)
        narrow = sort in ("int8", "int16", "uint8", "uint16")
        return f"({text}).to({tl_dtype(sort)})" if narrow else text

    def _spread(self, part: Value, span: Span) -> Value:
        """A summand that does not depend on the loop's axis counts once for each of its
        elements.
        """
        tiles = self.tiles
        dims = tiles.sorted((*part.dims, span.key))
        typed = tiles.convert(part, part.dtype or tiles.compute)
        text = f"tl.broadcast_to({tiles.align(typed, dims)}, {tiles.shape(dims)})"
        return tiles.assign("spread", text, dims, part.dtype or tiles.compute, part.depth)

    def _rescaled(self, state: _State, env: Env) -> str:
        """Text of the old value, rescaled; where an accumulator it depends on is not live, the
        identity.
        """
        tiles, accumulator, old = self.tiles, state.accumulator, state.value
        if accumulator.rescale is None and not accumulator.depends:
            return old.text
        live = self._live(accumulator)
        identity = MONOIDS[accumulator.monoid].identity(accumulator.summand.sort)
        if accumulator.rescale is None:
            assert live is not None
            return f"tl.where({tiles.align(live, old.dims)}, {old.text}, {literal(identity)})"
        factor = tiles.number(accumulator.rescale, env)
        sign = {"mul": "*", "add": "+"}[accumulator.action]
        if live is None:
            return f"{old.text} {sign} {tiles.align(factor, old.dims)}"
        if accumulator.action == "mul" and accumulator.monoid == "sum":
            # The old value is zero where it is not live: a factor of zero keeps it so, and is
            # smaller.
            dims = tiles.sorted((*live.dims, *factor.dims))
            mark = ("live", live.text, factor.text)
            known = tiles.scope.find(mark)
            if known is None:
                text = f"tl.where({tiles.align(live, dims)}, {tiles.align(factor, dims)}, 0.0)"
                known = tiles.assign("scale", text, dims, tiles.compute, tiles.scope.depth)
                tiles.scope.know(mark, known)
            return f"{old.text} * {tiles.align(known, old.dims)}"
        moved = f"{old.text} {sign} {tiles.align(factor, old.dims)}"
        return f"tl.where({tiles.align(live, old.dims)}, {moved}, {literal(identity)})"

    def _live(self, accumulator: Accumulator) -> Value | None:
        """The mask of elements whose earlier accumulators have met something already."""
        tiles = self.tiles
        parts: list[Value] = []
        for name in accumulator.depends:
            old = tiles.carried[name, "old"]
            mark = ("met", old.text)
            known = tiles.scope.find(mark)
            if known is None:
                monoid = self._monoid(name)
                identity = literal(MONOIDS[monoid].identity(REAL))
                text = f"{old.text} != {identity}"
                known = tiles.assign(f"{name}_live", text, old.dims, "bool", tiles.scope.depth)
                tiles.scope.know(mark, known)
            parts.append(known)
        if len(parts) < 2:
            return parts[0] if parts else None
        dims = tiles.sorted(k for p in parts for k in p.dims)
        text = " & ".join(tiles.align(p, dims) for p in parts)
        return tiles.assign("live", text, dims, "bool", tiles.scope.depth)

    def _monoid(self, name: str) -> str:
        found = [a.monoid for x in self.kernel.all_loops for a in x.accumulators if a.name == name]
        return found[0]

    def _step_arg(self, state: _State, env: Env, span: Span) -> list[str]:
        """The step's best against the best so far: an earlier index wins ties, a NaN wins all."""
        tiles, accumulator, old = self.tiles, state.accumulator, state.value
        assert state.place is not None
        sort = accumulator.summand.sort
        body = tiles.number(accumulator.summand, env)
        best, index = tiles.fold_arg(accumulator.monoid, body, span, sort)
        sign = ">" if accumulator.monoid == "argmax" else "<"
        value, place = tiles.align(best, old.dims), tiles.align(index, old.dims)
        text = f"{value} {sign} {old.text}"
        if sort == REAL:
            text = f"({text}) | (({value} != {value}) & ({old.text} == {old.text}))"
        depth = tiles.scope.depth
        better = tiles.assign(f"{accumulator.name}_better", text, old.dims, "bool", depth)
        tiles.scope.add(
            f"{state.place.text} = tl.where({better.text}, {place}, {state.place.text})"
        )
        tiles.scope.add(f"{old.text} = tl.where({better.text}, {value}, {old.text})")
        return []

    def _finish(self, state: _State, span: Span) -> None:
        """The final value, after the loop."""
        tiles, accumulator = self.tiles, state.accumulator
        for phase in ("old", "new"):
            tiles.carried.pop((accumulator.name, phase), None)
        value = replace(state.value, depth=tiles.scope.depth)
        if state.place is not None:
            value = tiles.convert(state.place, accumulator.index_sort or "int32")
        elif state.late is not None:
            sort, monoid = accumulator.summand.sort, accumulator.monoid
            at = value.dims.index(state.late)
            dims = tuple(k for k in value.dims if k != state.late)
            text = tiles.reduction(monoid, value.text, at, sort)
            wish, depth = f"{accumulator.name}_all", tiles.scope.depth
            value = tiles.assign(wish, text, dims, value.dtype, depth, f"{monoid} over the lanes")
        tiles.carried[accumulator.name, "final"] = value
