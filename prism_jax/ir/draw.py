"""An sGraph as a small SVG picture, for notebooks and reports.

Boxes inside boxes: kernels hold loops, loops hold accumulators; tensors are rounded, and arrows say
who reads and writes them. Text is XML-escaped; the picture needs no script and no style sheet, and
follows the reader's dark or light colours where it can.

>>> from prism_jax.ir.nodes import Axis, Load, Store, Tensor, at
>>> from prism_jax.ir.sgraph import LibraryCall
>>> i = Axis("i", 4)
>>> x, y = Tensor("x", (4,), "float32"), Tensor("y", (4,), "float32")
>>> copy = LibraryCall("copy", "xla", (Store(y, (at(i),), Load(x, (at(i),))),))
>>> svg = draw_sgraph(SGraph("copy", (x,), (copy,), (y,)))
>>> svg.startswith("<svg "), "x: f32[4]" in svg
(True, True)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from prism_jax.ir.lexer import short
from prism_jax.ir.nodes import Carried, Const, Iota, Load, Node, Pointwise, Reduce, Tensor
from prism_jax.ir.sgraph import Accumulator, Kernel, LibraryCall, Loop, SGraph

_LINE, _PAD, _WIDE, _CHAR = 18, 8, 460, 6.9  # pixels: a text line, a margin, a box, a character
_GAP, _TENSOR = 34, 190


def formula(node: Node, depth: int = 3) -> str:
    """A term as a formula in names; below `depth` operators it is an ellipsis."""
    match node:
        case Const(value=value):
            return f"{value:g}" if isinstance(value, float) else str(value)
        case Iota(axis=axis):
            return axis.name
        case Load(tensor=tensor, index=index):
            names = (
                i.axis.name if i.axis is not None else "…" if i.terms else str(i.offset)
                for i in index
            )
            return f"{tensor.name}[{','.join(names)}]"
        case Carried(accumulator=name, phase=phase):
            return name if phase == "final" else f"{name}.{phase}"
        case Pointwise() | Reduce() if depth == 0:
            return "…"
        case Pointwise(op=op, args=args):
            below = [formula(a, depth - 1) for a in args]
            sign = {"add": "+", "sub": "−", "mul": "·", "div": "/"}.get(op)
            return f"({below[0]} {sign} {below[1]})" if sign else f"{op}({', '.join(below)})"
        case Reduce(monoid=monoid, axes=axes, body=body):
            return f"{monoid}_{','.join(a.name for a in axes)} {formula(body, depth - 1)}"
        case _:
            raise AssertionError(f"{type(node).__name__} has no formula")


@dataclass
class _Box:
    """A box with a title, lines of text and boxes inside, all sized before they are placed."""

    title: str
    kind: str
    lines: list[str] = field(default_factory=list[str])
    inside: list[_Box] = field(default_factory=list["_Box"])

    @property
    def height(self) -> int:
        text = _LINE * (1 + len(self.lines))
        return text + sum(b.height + _PAD for b in self.inside) + 2 * _PAD

    def draw(self, x: int, y: int, width: int) -> list[str]:
        """The SVG of the box with its upper left corner at (x, y)."""
        found = [
            _rect(x, y, width, self.height, self.kind),
            _text(x + _PAD, y + _LINE, self.title, True),
        ]
        down = y + _LINE
        for box in self.inside:
            found += box.draw(x + _PAD, down + _PAD, width - 2 * _PAD)
            down += box.height + _PAD
        for line in self.lines:
            down += _LINE
            found.append(_text(x + _PAD, down + 2, _cut(line, width - 2 * _PAD)))
        return found


def draw_sgraph(sgraph: SGraph) -> str:
    """An SVG picture: kernels downwards, what they read on the left, and write on the right."""
    parts: list[str] = []
    y = 10
    middle = 10 + _TENSOR + _GAP
    for node in sgraph.nodes:
        box = _kernel(node) if isinstance(node, Kernel) else _library(node)
        sides = (
            (node.reads, 10, middle - _GAP, middle),
            (node.writes, middle + _WIDE + _GAP, middle + _WIDE, middle + _WIDE + _GAP),
        )
        tall = max(box.height, *((len(t) * (_LINE + 2 * _PAD)) for t, _, _, _ in sides))
        parts += box.draw(middle, y, _WIDE)
        for tensors, left, start, end in sides:
            for n, tensor in enumerate(tensors):
                top = y + n * (_LINE + 2 * _PAD)
                parts += _tensor(tensor, left, top)
                parts.append(_arrow(start, top + 14, end, min(top + 14, y + box.height - 6)))
        y += tall + 16
    width, title = middle + _WIDE + _GAP + _TENSOR + 10, escape(f"sGraph {sgraph.name}")
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" width="{width}" '
            f'height="{y}" font-family="monospace" font-size="11" role="img">',
            f"<title>{title}</title>",
            '<defs><marker id="tip" viewBox="0 0 6 6" refX="6" refY="3" markerWidth="7" '
            'markerHeight="7" orient="auto"><path d="M0,0 L6,3 L0,6 z" fill="#777"/></marker>'
            "</defs>",
            *parts,
            "</svg>",
        ]
    )


def _kernel(kernel: Kernel) -> _Box:
    grid = ", ".join(f"{g.axis}/{g.tile}" for g in kernel.grid) or "one block"
    lines = [f"{s.tensor.name} = {formula(s.value)}" for s in kernel.stores]
    return _Box(
        f"kernel {kernel.name}   grid {grid}", "kernel", lines, list(map(_loop, kernel.loops))
    )


def _loop(loop: Loop) -> _Box:
    split = f"   split over {loop.split}" if loop.split is not None else ""
    lines = list(map(_accumulator, loop.accumulators))
    lines += [f"{s.tensor.name} = {formula(s.value)}" for s in loop.stores]
    return _Box(f"loop {loop.axis}/{loop.tile}{split}", "loop", lines, list(map(_loop, loop.inner)))


def _accumulator(acc: Accumulator) -> str:
    sign = {"sum": "+", "prod": "·"}.get(acc.monoid, acc.monoid)
    scaled = acc.name
    if acc.rescale is not None:
        scaled = f"{formula(acc.rescale, 2)} {'·' if acc.action == 'mul' else '+'} {acc.name}"
    return f"{acc.name} ← {scaled} {sign} {formula(acc.summand)}"


def _library(call: LibraryCall) -> _Box:
    lines = [f"{s.tensor.name} = {formula(s.value)}" for s in call.stores]
    return _Box(f"{call.library} {call.name}", "library", lines)


_FILL = {"kernel": "#4c78a8", "loop": "#f58518", "library": "#54a24b", "tensor": "#9d9d9d"}


def _rect(x: int, y: int, width: int, height: int, kind: str) -> str:
    colour, round_ = _FILL[kind], 9 if kind == "tensor" else 3
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{round_}" fill="{colour}" '
        f'fill-opacity="0.12" stroke="{colour}"/>'
    )


def _text(x: int, y: int, text: str, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x}" y="{y}" fill="currentColor"{weight}>{escape(text)}</text>'


def _arrow(x1: int, y1: int, x2: int, y2: int) -> str:
    return f'<path d="M{x1},{y1} L{x2},{y2}" stroke="#777" marker-end="url(#tip)"/>'


def _cut(text: str, width: int) -> str:
    most = int(width / _CHAR)
    return text if len(text) <= most else text[: most - 1] + "…"


def _tensor(tensor: Tensor, x: int, y: int) -> list[str]:
    label = f"{tensor.name}: {short(tensor.dtype)}[{','.join(map(str, tensor.shape))}]"
    height = _LINE + _PAD
    return [
        _rect(x, y, _TENSOR, height, "tensor"),
        _text(x + _PAD, y + 17, _cut(label, _TENSOR - 16)),
    ]
