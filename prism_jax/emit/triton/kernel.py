"""One kernel as a Triton module: grid, loops, epilogue; the text and what a launch needs to know.

In: a kernel whose sizes are numbers, and its schedule. Out: an `EmittedKernel`.

Grid axes: up to three counts become `program_id(0..2)`, the first grid axis the fastest; where
there are more (or a count is too large for its place) all are folded into `program_id(0)` by
division.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from prism_jax.emit import cuts
from prism_jax.emit.binary import KernelSource, pointer_type
from prism_jax.emit.names import Names, identifier
from prism_jax.emit.scopes import Scope
from prism_jax.emit.triton import access
from prism_jax.emit.triton.early import early
from prism_jax.emit.triton.loops import LoopWriter
from prism_jax.emit.triton.operators import HELPERS, needed
from prism_jax.emit.triton.precision import NARROW
from prism_jax.emit.triton.spans import Dimension, Layout, lay_out
from prism_jax.emit.triton.tiles import Span, Tiles, Value
from prism_jax.ir.nodes import Axis, Tensor
from prism_jax.ir.sgraph import Kernel

__all__ = ["EmittedKernel", "ScheduleLike", "emit_kernel"]

GRID_LIMIT = 65535


class ScheduleLike(Protocol):
    """What emission reads of a schedule (`instantiate.plan.Schedule`)."""

    @property
    def num_warps(self) -> int: ...
    @property
    def num_stages(self) -> int: ...
    @property
    def products(self) -> str: ...
    @property
    def cut(self) -> bool: ...
    @property
    def exp2(self) -> bool | None: ...
    @property
    def swizzle(self) -> int: ...
    @property
    def hints(self) -> bool: ...


@dataclass(frozen=True)
class EmittedKernel:
    """A kernel to compile and launch.

    Attributes:
      name: of the kernel in the sGraph.
      source: text, signature and compile-time options.
      grid: numbers of blocks, one to three.
      operands: tensors read, in the order of the first pointers.
      results: tensors written, in the order of the last pointers.
    """

    name: str
    source: KernelSource
    grid: tuple[int, ...]
    operands: tuple[Tensor, ...]
    results: tuple[Tensor, ...]


def emit_kernel(kernel: Kernel, compute: str, schedule: ScheduleLike) -> EmittedKernel:
    """The kernel as Triton source. All its sizes must be numbers."""
    return _Writer(kernel, compute, schedule).run()


class _Writer:
    def __init__(self, kernel: Kernel, compute: str, schedule: ScheduleLike) -> None:
        self.kernel, self.compute, self.schedule = kernel, compute, schedule
        read = all(t.dtype not in ("float32", "float64") for t in kernel.reads)
        written = all(t.dtype in NARROW for t in kernel.writes)
        exp2 = read or written if schedule.exp2 is None else schedule.exp2
        self.cut = schedule.cut
        self.layout: Layout = lay_out(kernel, compute, schedule.products, exp2=exp2, cut=self.cut)
        self.names = Names(("tl", "triton", "range", "float", *HELPERS))
        self.function = self.names.new(identifier(kernel.name))
        self.pointers = {
            t.name: self.names.new(f"{t.name}_ptr") for t in (*kernel.reads, *kernel.writes)
        }
        threads = 32 * schedule.num_warps
        self.tiles = Tiles(compute, self.layout, self.pointers, self.names, exp2, written, threads)

    def run(self) -> EmittedKernel:
        tiles, kernel = self.tiles, self.kernel
        env, grid = self._grid()
        if self.schedule.hints:
            spread = (g.axis for g in kernel.grid)
            tiles.blocks = frozenset(
                a for a in spread if self.layout.dimensions["grid", a.name].count > 1
            )
        warps, stages = self.schedule.num_warps, self.schedule.num_stages
        writer = LoopWriter(tiles, kernel, warps, stages, self.cut)
        for loop in kernel.loops:
            writer.run(loop, env)
        for store in kernel.stores:
            access.store(tiles, store, env)
        tensors = (*kernel.reads, *kernel.writes)
        signature = tuple((self.pointers[t.name], pointer_type(t.dtype)) for t in tensors)
        source = KernelSource(
            name=self.function,
            text=self._module(),
            signature=signature,
            num_warps=self.schedule.num_warps,
            num_stages=self.schedule.num_stages,
        )
        return EmittedKernel(kernel.name, source, grid, kernel.reads, kernel.writes)

    def _module(self) -> str:
        helpers = "".join(f"\n{HELPERS[name]}" for name in needed(self.tiles.helpers))
        parameters = ", ".join(self.pointers.values())
        outer = Scope[Value]()
        outer.add("@triton.jit")
        body = Scope[Value](outer)
        body.add(*self._docstring(), *early(self.tiles.scope.lines, self.tiles.elements))
        outer.block(f"def {self.function}({parameters}):", body)
        return f"import triton\nimport triton.language as tl\n{helpers}\n\n{outer.text()}\n"

    def _docstring(self) -> list[str]:
        """What is written, and how the axes are spread."""
        kernel, layout = self.kernel, self.layout
        outputs = ", ".join(f"{t.name}[{', '.join(map(str, t.shape))}]" for t in kernel.writes)
        parts = [
            f"{g.axis.name} by {layout.dimensions['grid', g.axis.name].tile}" for g in kernel.grid
        ]
        loops = [f"{x.axis.name} by {min(int(x.tile), int(x.axis.size))}" for x in kernel.all_loops]
        lines = [f'"""{outputs}.', ""]
        lines.append(f"Blocks: {', '.join(parts) or 'one'}. Loops: {', '.join(loops) or 'none'}.")
        return [*lines, '"""']

    # --- the grid -------------------------------------------------------------------------------

    def _grid(self) -> tuple[dict[Axis, Span], tuple[int, ...]]:
        """The spans of the grid axes, and the numbers of blocks."""
        tiles = self.tiles
        dims = [(g.axis, self.layout.dimensions["grid", g.axis.name]) for g in self.kernel.grid]
        many = [(a, d) for a, d in dims if d.count > 1]
        growing = cuts.growing(self.kernel.all_loops) if self.cut else frozenset[Axis]()
        many.sort(key=lambda ad: ad[0] in growing)  # all blocks of the longest rows first
        env: dict[Axis, Span] = {a: tiles.open(d, None, 0) for a, d in dims if d.count == 1}
        counts = [d.count for _, d in many]
        swizzle = self.schedule.swizzle
        plain = len(many) <= 3 and all(c <= GRID_LIMIT for c in counts[1:])
        if plain and (swizzle <= 1 or len(many) < 2):
            blocks = [f"tl.program_id({n})" for n in range(len(many))]
            grid = tuple(counts) or (1,)
        else:
            blocks, total = self._folded(many, swizzle), 1
            for count in counts:
                total *= count
            grid = (total,)
        for (axis, dimension), block in zip(many, blocks, strict=True):
            if axis in growing:
                block = f"({dimension.count - 1} - {block})"
            text = block if dimension.tile == 1 else f"{block} * {dimension.tile}"
            name = f"{axis.name}_start" if dimension.width > 1 else axis.name
            start = tiles.assign(name, text, (), "int32", 0, f"{dimension.count} blocks").text
            env[axis] = tiles.open(dimension, start, 0)
        return env, grid

    def _folded(self, many: list[tuple[Axis, Dimension]], swizzle: int) -> list[str]:
        """Block numbers of all axes from one program number; the first two in groups if
        swizzled.
        """
        tiles = self.tiles
        rest = tiles.assign("pid", "tl.program_id(0)", (), "int32", 0, "").text
        blocks: list[str] = []
        if swizzle > 1 and len(many) > 1:
            (_, first), (_, second) = many[:2]
            blocks = self._swizzled(rest, first.count, second.count, swizzle)
            if len(many) > 2:
                text = f"{rest} // {first.count * second.count}"
                rest = tiles.assign("pid", text, (), "int32", 0, "").text
        remaining = many[len(blocks) :]
        for n, (_, dimension) in enumerate(remaining):
            last = n == len(remaining) - 1
            blocks.append(rest if last else f"({rest} % {dimension.count})")
            if not last:
                rest = tiles.assign("pid", f"{rest} // {dimension.count}", (), "int32", 0, "").text
        return blocks

    def _swizzled(self, pid: str, first: int, second: int, group: int) -> list[str]:
        """Blocks of the first axis in groups, so that a group reuses what it reads of the
        second.
        """
        tiles = self.tiles

        def let(name: str, text: str) -> str:
            return tiles.assign(name, text, (), "int32", 0, "").text

        group = min(group, first)
        within = let("within", f"{pid} % {first * second}")
        start = let("group", f"({within} // {group * second}) * {group}")
        width = f"tl.minimum({group}, {first} - {start})" if first % group else str(group)
        width = let("group_size", width) if first % group else width
        place = let("place", f"{within} % {group * second}")
        return [f"({start} + {place} % {width})", f"({place} // {width})"]
