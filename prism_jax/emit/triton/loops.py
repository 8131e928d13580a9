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

from prism_jax.emit.triton import access, contractions, reductions
from prism_jax.emit.triton.describe import describe
from prism_jax.emit.triton.operators import literal, tl_dtype
from prism_jax.emit.triton.phases import Phase, left_out, phases
from prism_jax.emit.triton.spans import Dimension, Key
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

    def __init__(
        self, tiles: Tiles, kernel: Kernel, num_warps: int, num_stages: int, cut: bool = False
    ) -> None:
        self.tiles, self.kernel, self.cut = tiles, kernel, cut
        self.threads, self.num_stages = 32 * num_warps, num_stages
        self.number = 0  # of the next loop, as in `all_loops`
        self.read = {(n.accumulator, n.phase) for n in walk(kernel.roots) if isinstance(n, Carried)}
        self.read |= {
            (name, "old") for x in kernel.all_loops for a in x.accumulators for name in a.depends
        }

    def run(self, loop: Loop, env: Env) -> None:
        """Writes the loop into the open scope."""
        tiles = self.tiles
        number = self.number
        dimension = tiles.layout.dimensions[(f"loop{number}", loop.axis.name)]
        states = [self._start(a, loop, env, dimension.key) for a in loop.accumulators]
        tiles.maxima |= {a.name: a.summand for a in loop.accumulators if a.monoid == "max"}
        low, high, single = self._bounds(loop, env)
        steps, rest = [Phase(low, high)], None
        if self.cut and not single:
            steps, rest = phases(tiles, loop, env, low, high)
        for phase in steps:
            self.number = number + 1
            self._phase(loop, env, states, dimension, phase, single)
        if rest is not None:
            maxima = {s.accumulator.name: s.value for s in states}
            self.number = number + 1
            phase = left_out(tiles, loop, rest, maxima)
            self._phase(loop, env, states, dimension, phase, False)
        for state in states:
            self._finish(state, dimension.key)

    def _phase(
        self,
        loop: Loop,
        env: Env,
        states: Sequence[_State],
        dimension: Dimension,
        phase: Phase,
        single: bool,
    ) -> None:
        """One `for`, or the only step."""
        tiles, outer = self.tiles, self.tiles.scope
        low, high = phase.low, phase.high
        counter = start = tiles.names.new(f"{loop.axis.name}_start")
        if single:
            start = None if low == "0" else low
        tiles.scope = outer.child()
        if phase.gap is not None:
            counter = tiles.names.new(f"{loop.axis.name}_at")
            at, width = phase.gap
            tiles.scope.add(f"{start} = tl.where({counter} < {at}, {counter}, {counter} + {width})")
        tiles.holds, tiles.apart = phase.holds, False
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
        body, tiles.scope, tiles.holds = tiles.scope, outer, None
        if single:
            outer.inline(body)
            return
        steps = f"{low}, {high}, {dimension.tile}"
        stages = 1 if phase.rare else self.num_stages
        pipelined = any("tl.dot(" in line for line in body.lines) or stages < 2
        plain = pipelined and not phase.rare and not tiles.apart
        extra = "" if plain else f", num_stages={stages}"
        outer.block(f"for {counter} in {'tl.' if extra else ''}range({steps}{extra}):", body)

    # --- the loop statement ---------------------------------------------------------------------

    def _bounds(self, loop: Loop, env: Env) -> tuple[str, str, bool]:
        """(first position, end, whether there is only one step) of this block's share of the
        loop.
        """
        tiles, size, tile = self.tiles, int(loop.axis.size), int(loop.tile)
        tile = min(tile, size)
        steps = -(-size // tile)
        splits = 1 if loop.split is None else int(loop.split.size)
        if splits == 1:
            return "0", str(size), steps == 1
        assert loop.split is not None
        share = -(-steps // splits)
        part = tiles.span(loop.split, env)
        first = f"{part.start or 0} * {share * tile}"
        low = tiles.assign(f"{loop.axis.name}_first", first, (), "int32", part.depth, "").text
        high = f"{low} + {share * tile}"
        if share * splits * tile > size:
            high = f"tl.minimum({high}, {size})"
        return low, high, share == 1 and steps == splits

    # --- accumulators ---------------------------------------------------------------------------

    def _start(self, accumulator: Accumulator, loop: Loop, env: Env, key: Key) -> _State:
        """The initial value: the monoid's identity."""
        tiles, name = self.tiles, accumulator.name
        sort = accumulator.summand.sort
        dims = tiles.dims(accumulator.axes, env)
        inside = {**env, loop.axis: tiles.open(tiles.layout.dimensions[key], None, 0)}
        late = None
        if not self._by_slices(accumulator, inside[loop.axis], inside):
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
        monoid = accumulator.monoid
        comment = f"{monoid} over the step"
        if self._by_slices(accumulator, span, env):
            start = "" if span.start is None else f"{span.start} + "
            starts = [f"({start}{n})" if start else str(n) for n in range(span.tile)]
            summand, deep = accumulator.summand, tiles.scope.depth
            part = reductions.combined(
                tiles, monoid, summand, span.axis, starts, deep, env, None, comment
            )
            return reductions.combination(tiles, monoid, sort, base, tiles.align(part, old.dims))
        if monoid in ("max", "min") and sort == REAL and state.late is None:
            part = reductions.extreme(tiles, monoid, accumulator.summand, env, [span.key], comment)
        else:
            part = tiles.number(accumulator.summand, env)
            if span.key not in part.dims and span.width > 1:
                part = self._spread(part, span)
            if state.late is None:
                part = reductions.fold(tiles, monoid, part, [span.key], sort, comment)
            else:
                part = tiles.masked(part, [span.key], MONOIDS[monoid].identity(sort))
        shown = tiles.align(part, old.dims)
        return reductions.combination(tiles, monoid, sort, base, shown)

    def _by_slices(self, accumulator: Accumulator, span: Span, env: Env) -> bool:
        """Whether a step combines the slices of its tile one by one (see `reductions`)."""
        whole = not span.ragged and 1 < span.tile <= reductions.UNROLL
        return whole and reductions.spreads(self.tiles, accumulator.summand, span.axis, env)

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
        best, index = reductions.fold_arg(tiles, accumulator.monoid, body, span, sort)
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

    def _finish(self, state: _State, key: Key) -> None:
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
            dims = tuple(k for k in value.dims if k != key)
            text = reductions.reduction(tiles, monoid, value.text, at, sort)
            wish, depth = f"{accumulator.name}_all", tiles.scope.depth
            value = tiles.assign(wish, text, dims, value.dtype, depth, f"{monoid} over the lanes")
        tiles.carried[accumulator.name, "final"] = value
