"""Right variants: what the checker must accept.

Three sources, each of which makes different programs and not only other names:

* the hand-written pairs, and each of their operators written otherwise (`rewritten`);
* every structure that the explorer knows for a program, before any is dropped for its cost: all
  forms of the e-graph, all sets of materialised reductions, all mappings and splits;
* emitted kernels at other tiles and under other schedules, and with an operator of their source
  written otherwise.

Every variant has its own numbers for its sizes: tiles of one element, ragged ones, one tile for
all. None is taken on trust: its float64 value must be the program's at several sizes, and one that
is right over the reals only, because it cancels, is set aside (`exhaustive.loses`).
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from prism_jax import egraph
from prism_jax.device import row
from prism_jax.explore import Form, search
from prism_jax.explore.pruning import NONE
from prism_jax.instantiate.plan import Schedule
from prism_jax.ir.nodes import REAL, Node, Pointwise
from prism_jax.ir.program import walk
from prism_jax.ir.sgraph import SGraph
from tests.verify.exhaustive import LOST, TILES, differs, inputs, loses
from tests.verify.kernels import KernelMutant, Source, emitted, kernel_pairs
from tests.verify.pairs import Pair, all_pairs, square_pairs
from tests.verify.places import at_place, places

PER_PROGRAM = 45
"""Structures of the explorer taken of one program."""
TRIES = 6
"""Instances of each structure that are evaluated in float64, besides its own."""


@dataclass(frozen=True)
class Variant:
    """A right sGraph for the pair's program with numbers for its sizes; `made` says how."""

    pair: Pair
    made: str
    sgraph: SGraph
    sizes: dict[str, int]

    def __str__(self) -> str:
        return f"{self.pair.name}: {self.made}"


@dataclass
class Rights:
    """Right variants, and those that are right over the reals only."""

    variants: list[Variant] = field(default_factory=list[Variant])
    cancelling: list[Variant] = field(default_factory=list[Variant])


def rewritten(graph: SGraph) -> Iterator[tuple[str, SGraph]]:
    """One operator at one place written otherwise."""
    for place, (where, root) in enumerate(places(graph)):
        for node in walk([root]):
            if not isinstance(node, Pointwise) or len(node.args) != 2:
                continue
            a, b = node.args
            others: list[Node] = []
            if node.op in ("add", "mul", "max", "min", "and", "or"):
                others.append(Pointwise(node.op, (b, a)))
            if node.sort == REAL and node.op == "sub":
                others.append(Pointwise("add", (a, Pointwise("neg", (b,)))))
            if node.sort == REAL and node.op == "div":
                others.append(Pointwise("mul", (a, Pointwise("integer_pow", (b,), -1))))
            if node.op in ("lt", "le", "gt", "ge"):
                mirror = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}[node.op]
                others.append(Pointwise(mirror, (b, a)))
            for new in others:
                yield f"{node.op} rewritten in the {where}", at_place(graph, place, node, new)


def explored(pair: Pair, most: int) -> Iterator[tuple[str, SGraph]]:
    """Structures of every algebraic form, none dropped for its cost, spread evenly."""
    forms = [Form(a.program, a.axioms) for a in egraph.search(pair.program)]
    found = search(pair.program, forms, row("H100"), 60.0, pruning=NONE).candidates
    order = np.random.default_rng(3).permutation(len(found))
    for n in order[:most]:
        axioms = ", ".join(found[n].axioms) or "as written"
        yield f"{found[n].why} ({axioms})", found[n].sgraph


def right_variants(
    pairs: list[Pair] | None = None, structures: int = PER_PROGRAM, rewritings: int = 1 << 30
) -> Rights:
    """Each sGraph of a program once. Raises where float64 says that one is wrong.

    pairs: all of them if None; structures: of the explorer, and rewritings: of an operator, per
    program.
    """
    rights, known = Rights(), set[tuple[str, str]]()
    rng = np.random.default_rng(11)
    for pair in all_pairs() + square_pairs() if pairs is None else pairs:
        others = itertools.islice(rewritten(pair.sgraph), rewritings)
        made = [("as written", pair.sgraph), *others, *explored(pair, structures)]
        for how, graph in made:
            key = (pair.program.digest, graph.digest)
            if key in known:
                continue
            known.add(key)
            sizes = {s: int(rng.choice(TILES)) for s in graph.symbols}
            variant = Variant(pair, f"{how}, {sizes}", graph, sizes)
            _ascertain(variant, rng)
            lossy = loses(pair, graph, sizes) > LOST
            (rights.cancelling if lossy else rights.variants).append(variant)
    return rights


def _ascertain(variant: Variant, rng: np.random.Generator) -> None:
    """That the float64 value is the program's, at the variant's own sizes and at others."""
    symbols, program = variant.sgraph.symbols, variant.pair.program
    tried = [variant.sizes]
    tried += [{s: int(rng.choice(TILES)) for s in symbols} for _ in range(TRIES if symbols else 0)]
    for n, sizes in enumerate(tried):
        given = inputs(variant.pair, n)
        assert not differs(program, variant.sgraph, sizes, given), f"{variant} at {sizes}"


# ---- kernels

SCHEDULES = (
    Schedule(),
    Schedule(products="mulsum"),
    Schedule(products="mulsum", cut=True),
    Schedule(cut=True),
    Schedule(exp2=False, swizzle=4, hints=True),
)
"""Not `exp2=True`: with inputs of 32 bits it rounds large arguments once more, and may be refused.
"""
_MIRROR: dict[type[ast.cmpop], str] = {ast.Lt: ">", ast.LtE: ">=", ast.Gt: "<", ast.GtE: "<="}


def _otherwise(source: Source) -> Iterator[tuple[str, str]]:
    """The source with the operands of one sum, product, comparison or maximum exchanged."""
    for n in source.nodes():
        if n in source.addresses:
            continue
        if isinstance(n, ast.BinOp) and isinstance(n.op, ast.Add | ast.Mult):
            sign = "+" if isinstance(n.op, ast.Add) else "*"
            a, b = source.of(n.left), source.of(n.right)
            yield f"{source.of(n)} exchanged", source.edit(n, f"(({b}) {sign} ({a}))")
        if isinstance(n, ast.Compare) and type(n.ops[0]) in _MIRROR:
            a, b = source.of(n.left), source.of(n.comparators[0])
            mirror = _MIRROR[type(n.ops[0])]
            yield f"{source.of(n)} mirrored", source.edit(n, f"(({b}) {mirror} ({a}))")
        if isinstance(n, ast.Call) and source.of(n.func) in ("tl.maximum", "max_nan"):
            a, b = map(source.of, n.args[:2])
            new = f"{source.of(n.func)}({b}, {a})"
            yield f"{source.of(n)} exchanged", source.edit(n, new)


def right_kernels(tiles: int = 1, texts: int = 4) -> list[KernelMutant]:
    """Kernels of every pair under every schedule at some tiles, each also with places of its source
    written otherwise; each text once.
    """
    made, seen = list[KernelMutant](), set[str]()
    rng = np.random.default_rng(13)
    for one in kernel_pairs():
        instances = [one]
        for _ in range(tiles):
            sizes = {s: int(rng.choice((1, 2, 4, 8, 16))) for s in one.sizes}
            instances.append(replace(one, sizes=sizes))
        for pair in instances:
            for schedule in SCHEDULES:
                for node, kernel in enumerate(emitted(pair, schedule)):
                    if not (hasattr(kernel, "source") and hasattr(kernel, "grid")):
                        continue
                    source = Source(kernel.source.text, kernel.source.name)
                    changed = list(_otherwise(source))
                    some = rng.permutation(len(changed))[:texts]
                    how = f"{schedule.summary()}, {pair.sizes}"
                    for change, text in [("", source.text), *(changed[n] for n in some)]:
                        key = f"{pair.program.digest} {kernel.grid} {text}"
                        if key not in seen:
                            seen.add(key)
                            what = f"{change or 'as emitted'} ({how})"
                            made.append(KernelMutant(pair, "right", what, node, text, schedule))
    return made
