"""The `for` loops that one loop of the sGraph becomes where a mask leaves some of its steps idle.

In: a loop, its bounds, the spans around it. Out: phases in order: the steps that the mask leaves
whole, the steps at its edge, and, where it is not proved that the others change nothing, these, to
be done only if some row's maximum says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prism_jax.emit import cuts
from prism_jax.emit.triton.operators import literal
from prism_jax.ir.nodes import Pointwise
from prism_jax.ir.sgraph import Loop

if TYPE_CHECKING:
    from prism_jax.emit.triton.tiles import Env, Tiles, Value

__all__ = ["Phase", "left_out", "phases"]


MOST_LOOKED_AT = 64
"""Elements of a thread that a kernel looks at to see whether steps can be left out."""


@dataclass(frozen=True)
class Phase:
    """Steps from `low` to `high` (text). `holds`: a selection that takes its first value
    throughout. `gap`: a position and how many from there on are not among the steps. `rare`: there
    are steps only if something unlikely happened.
    """

    low: str
    high: str
    holds: Pointwise | None = None
    gap: tuple[str, str] | None = None
    rare: bool = False


@dataclass(frozen=True)
class LeftOut:
    """What is left out: all but the steps from `low` (None: from the first) to `high` (None: to the
    last), if the maxima pass `checks`.
    """

    low: str | None
    high: str | None
    checks: tuple[tuple[str, float], ...]


def phases(
    tiles: Tiles, loop: Loop, env: Env, low: str, high: str
) -> tuple[list[Phase], LeftOut | None]:
    """The steps that a mask leaves: first those that it leaves whole, then the others."""
    size = int(loop.axis.size)
    tile = min(int(loop.tile), size)
    extents = {a: cuts.Extent(s.start, s.tile) for a, s in env.items()}
    found = cuts.find(loop, extents, tile)
    if found is None:
        return [Phase(low, high)], None
    mask, cut = found
    if cut.checks and (low, high) != ("0", str(size)):
        return [Phase(low, high)], None  # a block's share may be masked as a whole
    for node, _ in cut.rows:
        dims = tiles.dims(node.axes_free, env)
        if math.prod(map(tiles.width, dims)) > MOST_LOOKED_AT * tiles.threads:
            return [Phase(low, high)], None
    begin, end = low, high
    if cut.low is not None:
        text = cut.low if low == "0" else f"tl.maximum({low}, {cut.low})"
        begin = _let(tiles, loop, "low", text)
    if cut.high is not None:
        plain = high == str(size)
        end = _let(tiles, loop, "high", cut.high if plain else f"tl.minimum({high}, {cut.high})")
    if cut.rows:
        rows = [(tiles.number(node, env), floor) for node, floor in cut.rows]
        above = _let(tiles, loop, "idle", " & ".join(_all(tiles, *row) for row in rows), "bool")
        begin, end = (
            new if new == old else _let(tiles, loop, name, f"tl.where({above}, {new}, {old})")
            for name, new, old in (("low", begin, low), ("high", end, high))
        )
    rest = None
    if cut.checks:
        rest = LeftOut(
            None if cut.low is None else begin, None if cut.high is None else end, cut.checks
        )
    if loop.inner or (cut.full is None and cut.whole is None):
        return [Phase(begin, end)], rest
    if cut.whole is not None:
        whole = f"tl.minimum({end}, tl.maximum({begin}, {cut.whole}))"
        whole = _let(tiles, loop, "whole", whole)
        return [Phase(begin, whole), Phase(whole, end, mask)], rest
    assert cut.full is not None
    full = _let(tiles, loop, "full", cut.full if low == "0" else f"tl.maximum({low}, {cut.full})")
    if low != "0":  # a block's share of the loop may end before
        text = f"tl.minimum({full}, tl.maximum({low}, {end} // {tile} * {tile}))"
        full = _let(tiles, loop, "full", text)
    return [Phase(begin, full, mask), Phase(full, end)], rest


def left_out(tiles: Tiles, loop: Loop, rest: LeftOut, maxima: Mapping[str, Value]) -> Phase:
    """The steps that were left out, none of them if all maxima are above their numbers."""
    size = int(loop.axis.size)
    tile = min(int(loop.tile), size)
    few = " & ".join(_above(tiles, maxima[name], floor) for name, floor in rest.checks)
    few = _let(tiles, loop, "idle", few, "bool")
    done = str(size)
    if rest.high is not None:
        done = _let(tiles, loop, "done", f"({rest.high} + {tile - 1}) // {tile} * {tile}")
    if rest.low is None:
        end = _let(tiles, loop, "end", f"tl.where({few}, {done}, {size})")
        return Phase(done, end, rare=True)
    if rest.high is None:
        end = _let(tiles, loop, "end", f"tl.where({few}, 0, {rest.low})")
        return Phase("0", end, rare=True)
    gap = _let(tiles, loop, "gap", f"tl.maximum({done} - {rest.low}, 0)")
    end = _let(tiles, loop, "end", f"tl.where({few}, 0, {size} - {gap})")
    return Phase("0", end, gap=(rest.low, gap), rare=True)


def _all(tiles: Tiles, value: Value, floor: float) -> str:
    """Text: whether all elements of a term are above a number, none of them NaN."""
    text = f"{value.text} > {literal(floor)}"
    masks = [m for m in map(tiles.inside, value.dims) if m is not None]
    if masks:
        mask = " & ".join(tiles.align(m, value.dims) for m in masks)
        text = f"({text}) | ~({mask})"
    if not value.dims:
        return f"({text})"
    return f"(tl.min(tl.where({text}, 1, 0){', 0' if len(value.dims) == 1 else ''}) > 0)"


def _above(tiles: Tiles, value: Value, floor: float) -> str:
    """Text: whether all elements of a running maximum are above a number."""
    text = value.text
    masks = [m for m in map(tiles.inside, value.dims) if m is not None]
    if masks:
        mask = " & ".join(tiles.align(m, value.dims) for m in masks)
        text = f"tl.where({mask}, {text}, {literal(float('inf'))})"
    if value.dims:
        text = f"tl.min({text})" if len(value.dims) > 1 else f"tl.min({text}, 0)"
    return f"({text} > {literal(floor)})"


def _let(tiles: Tiles, loop: Loop, name: str, text: str, dtype: str = "int32") -> str:
    depth = tiles.scope.depth
    return tiles.assign(f"{loop.axis.name}_{name}", text, (), dtype, depth, "").text
