"""Pictures of an e-graph and of an explanation: Graphviz text, and an SVG that needs no tool.

In: an e-graph and roots, or an explanation. Out: text. Classes are boxes, in layers (a class stands
below everything that uses it), nodes are lines of text in them; of an explanation, both terms are
boxes and the rules between them arrows. Deterministic, so pictures can be compared.

>>> from prism_jax.egraph.plain import add_term
>>> g = EGraph()
>>> root = add_term(g, "(f (g x) x)")
>>> print(to_dot(g, [root]).splitlines()[1])
  c2 [shape=box, label="f(c1, c0)"];
>>> to_svg(g, [root]).count("<rect")
3
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from prism_jax.egraph.core import EGraph
from prism_jax.egraph.explain import Explanation, term_text

LINE, MARGIN, GAP, CHARACTER = 14, 8, 28, 6.6


def to_dot(graph: EGraph, roots: Iterable[int]) -> str:
    """Graphviz text of what the roots reach; one edge per pair of classes."""
    lines = ["digraph egraph {"]
    edges: dict[tuple[int, int], None] = {}
    for identifier in graph.reachable(roots):
        texts = [graph.node_text(node) for node in graph.nodes(identifier)]
        label = "\\n".join(text.replace('"', '\\"') for text in texts)
        lines.append(f'  c{identifier} [shape=box, label="{label}"];')
        for node in graph.nodes(identifier):
            edges.update(dict.fromkeys((identifier, graph.find(child)) for child in node[1:]))
    lines += [f"  c{a} -> c{b};" for a, b in edges]
    return "\n".join([*lines, "}"]) + "\n"


def layers(graph: EGraph, roots: Iterable[int]) -> list[list[int]]:
    """Classes by their distance above the leaves (longest path through founders, which has no
    cycle).
    """
    height: dict[int, int] = {}
    reached = graph.reachable(roots)

    def measure(identifier: int) -> int:
        stack = [identifier]
        while stack:
            here = stack[-1]
            below = [graph.find(child) for child in graph.founder[here][1:]]
            missing = [child for child in below if child not in height and child < here]
            if missing:
                stack += missing
                continue
            height[here] = 1 + max((height[c] for c in below if c in height), default=-1)
            stack.pop()
        return height[identifier]

    rows: dict[int, list[int]] = {}
    for identifier in sorted(reached):
        rows.setdefault(measure(identifier), []).append(identifier)
    return [rows[n] for n in sorted(rows)]


def to_svg(graph: EGraph, roots: Iterable[int]) -> str:
    """A drawing of what the roots reach: leaves at the bottom."""
    roots = list(roots)
    place: dict[int, tuple[float, float, float, float]] = {}
    texts: dict[int, list[str]] = {}
    y, width = float(GAP), 0.0
    for row in reversed(layers(graph, roots)):
        x, tallest = float(GAP), 0.0
        for identifier in row:
            texts[identifier] = [f"c{identifier}"]
            texts[identifier] += [graph.node_text(node) for node in graph.nodes(identifier)]
            w = max(map(len, texts[identifier])) * CHARACTER + 2 * MARGIN
            h = len(texts[identifier]) * LINE + 2 * MARGIN
            place[identifier] = (x, y, w, h)
            x, tallest = x + w + GAP, max(tallest, h)
        y, width = y + tallest + GAP, max(width, x)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{y:.0f}" '
        'font-family="monospace" font-size="11">'
    ]
    for identifier, (x, top, w, h) in place.items():
        targets = dict.fromkeys(graph.find(c) for n in graph.nodes(identifier) for c in n[1:])
        for target in targets:
            tx, ty, tw, _ = place[target]
            parts.append(
                f'<line x1="{x + w / 2:.1f}" y1="{top + h:.1f}" x2="{tx + tw / 2:.1f}" '
                f'y2="{ty:.1f}" stroke="#bbb"/>'
            )
    for identifier, (x, top, w, h) in place.items():
        parts.append(
            f'<rect x="{x:.1f}" y="{top:.1f}" width="{w:.1f}" height="{h:.1f}" rx="4" '
            'fill="#f6f6ff" stroke="#557"/>'
        )
        for number, text in enumerate(texts[identifier]):
            base = top + MARGIN + (number + 0.8) * LINE
            weight = ' font-weight="bold"' if number == 0 else ""
            parts.append(f'<text x="{x + MARGIN:.1f}" y="{base:.1f}"{weight}>{escape(text)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def chain(explanation: Explanation) -> list[str]:
    """The two terms with the steps between them: what the pictures of an explanation show."""

    def term(identifier: int) -> str:
        return term_text(explanation.graph, identifier)

    steps = [f"{rule.name}: {rule.describe(match, term)}" for rule, match in explanation.steps]
    return [term(explanation.left), *(steps or ["normal form"]), term(explanation.right)]


def chain_to_dot(explanation: Explanation) -> str:
    """Graphviz text of an explanation: terms are boxes, steps are rounded."""
    texts = [text.replace('"', '\\"') for text in chain(explanation)]
    ends = (0, len(texts) - 1)
    lines = ["digraph explanation {"]
    for n, text in enumerate(texts):
        style = "shape=box" if n in ends else "shape=box, style=rounded"
        lines.append(f'  s{n} [{style}, label="{text}"];')
    lines += [f"  s{n} -> s{n + 1};" for n in range(len(texts) - 1)]
    return "\n".join([*lines, "}"]) + "\n"


def chain_to_svg(explanation: Explanation) -> str:
    """A drawing of an explanation, from its first term down to its last."""
    texts = chain(explanation)
    width = max(map(len, texts)) * CHARACTER + 2 * MARGIN + 2 * GAP
    tall = LINE + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" '
        f'height="{len(texts) * (tall + GAP) + GAP}" font-family="monospace" font-size="11">'
    ]
    for n, text in enumerate(texts):
        top = GAP + n * (tall + GAP)
        wide = len(text) * CHARACTER + 2 * MARGIN
        left = (width - wide) / 2
        if n:
            parts.append(
                f'<line x1="{width / 2:.1f}" y1="{top - GAP}" x2="{width / 2:.1f}" y2="{top}" '
                'stroke="#557"/>'
            )
        round_ = 0 if n in (0, len(texts) - 1) else 8
        parts.append(
            f'<rect x="{left:.1f}" y="{top}" width="{wide:.1f}" height="{tall}" rx="{round_}" '
            'fill="#f6f6ff" stroke="#557"/>'
        )
        base = top + MARGIN + 0.8 * LINE
        parts.append(f'<text x="{left + MARGIN:.1f}" y="{base:.1f}">{escape(text)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
