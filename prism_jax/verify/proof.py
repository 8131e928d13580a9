"""The proof for all sizes: an sGraph's outputs are equal to the program's.

In: a program and an sGraph (or another program). Out: a `Proof`, a list of named steps that
`replay` repeats, with the assumptions it rests on; or a `Refusal` that says what could not be
proved. The proof is over the extended reals: rounding is the contract's business, and so are
programs whose own exponentials overflow.

Kernels become definitions of tensors over the inputs (`translate`), both sides take the normal
form of `algebra`, `binders`, `functions` and `normal`, and equal normal forms are equal terms.
Where they differ, denominators are cleared once: a/(x + y) + b/(x + y) = (a + b)/(x + y).

A proof uses no size as a number, except that a sum of n equal terms is n times the term and that
constants of the program (1/n in a mean) are numbers already. Constants are numbers up to their own
rounding in float64: a folded 1/c is the inverse of c (`constants`).
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, replace
from fractions import Fraction

from prism_jax.ir.program import Program
from prism_jax.ir.sgraph import Kernel, SGraph
from prism_jax.verify.algebra import is_infinite, scale, times
from prism_jax.verify.bounded import arguments, shape_key
from prism_jax.verify.constants import spelled, terms
from prism_jax.verify.normal import Definition, Normal
from prism_jax.verify.shrink import as_sgraph
from prism_jax.verify.terms import Atom, Illegal, Poly, Unproven, collect, of
from prism_jax.verify.translate import Step, Translation

_CLEARINGS = 6


@dataclass(frozen=True)
class Proof:
    """The sGraph equals the program, for every size of tile, grid and loop."""

    steps: tuple[Step, ...]
    assumptions: tuple[str, ...]
    program: str
    """Digest of the program."""
    sgraph: str
    """Digest of the sGraph."""
    unbounded: tuple[str, ...]
    """Where exponentials stand that may overflow although the program's do not."""
    seconds: float

    @property
    def passed(self) -> bool:
        """True."""
        return True

    def __str__(self) -> str:
        head = f"proof for all sizes: {len(self.steps)} steps, {self.seconds * 1e3:.1f} ms"
        notes = [f"  assuming that {a}" for a in self.assumptions]
        notes += [f"  not shown to be bounded: an exponential in {u}" for u in self.unbounded]
        return "\n".join([head, *(f"  {step}" for step in self.steps), *notes])

    def to_json(self) -> str:
        """A text from which `from_json` makes an equal value."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Proof:
        """The value that `to_json` wrote."""
        data = json.loads(text)
        steps = tuple(Step(**s) for s in data["steps"])
        lists = {k: tuple(data[k]) for k in ("assumptions", "unbounded")}
        return Proof(**data | {"steps": steps} | lists)


@dataclass(frozen=True)
class Refusal:
    """No proof; `reason` says at what it stopped, `steps` what had been shown until then."""

    reason: str
    steps: tuple[Step, ...] = ()
    illegal: bool = False
    """Whether the sGraph breaks a rule, rather than being beyond what can be proved here."""

    @property
    def passed(self) -> bool:
        """False."""
        return False

    def __str__(self) -> str:
        return f"{'refused' if self.illegal else 'no proof'}: {self.reason}"

    def to_json(self) -> str:
        """A text from which `from_json` makes an equal value."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Refusal:
        """The value that `to_json` wrote."""
        data = json.loads(text)
        return Refusal(**data | {"steps": tuple(Step(**s) for s in data["steps"])})


def prove(program: Program, other: SGraph | Program) -> Proof | Refusal:
    """Proves that the two give equal outputs for equal inputs, or says what it cannot prove."""
    start = time.perf_counter()
    graph = as_sgraph(other) if isinstance(other, Program) else other
    plain = Translation(Normal(inputs=frozenset(program.inputs)))
    meaning = spelled([s.value for s in program.outputs], terms(graph))
    translation = Translation(Normal(inputs=frozenset(graph.inputs), spelled=meaning))
    try:
        _signature(program, graph)
        translation.own = _own(plain, program)
        for node in graph.nodes:
            if isinstance(node, Kernel):
                translation.kernel(node)
            else:
                translation.library(node)
        for store, tensor in zip(program.outputs, graph.outputs, strict=True):
            expected = plain.define(store)
            given = translation.normal.tensors.get(tensor.name)
            if given is None:
                raise Illegal(f"{tensor.name} is never written")
            translation.step("program", store.tensor.name, expected.value)
            _equal(translation, store.tensor.name, expected, given)
        assumptions = translation.normal.assumptions | plain.normal.assumptions
    except (Unproven, RecursionError) as stop:
        reason = "the term is nested too deeply" if isinstance(stop, RecursionError) else str(stop)
        return Refusal(reason, tuple(translation.steps), isinstance(stop, Illegal))
    seconds = time.perf_counter() - start
    return Proof(
        tuple(translation.steps),
        tuple(sorted(assumptions)),
        program.digest,
        graph.digest,
        tuple(dict.fromkeys(translation.unbounded)),
        seconds,
    )


def replay(proof: Proof, program: Program, other: SGraph | Program) -> bool:
    """Whether the proof's steps, repeated on this program and sGraph, give the recorded terms."""
    again = prove(program, other)
    return isinstance(again, Proof) and replace(again, seconds=proof.seconds) == proof


def _own(plain: Translation, program: Program) -> frozenset[str]:
    """The arguments of the program's own exponentials."""
    terms = [a for store in program.outputs for a in arguments(store.value)]
    return frozenset(shape_key(plain.normal.poly(a)) for a in terms)


def _signature(program: Program, graph: SGraph) -> None:
    known = {t.name: t for t in program.inputs}
    for tensor in graph.inputs:
        if known.get(tensor.name) != tensor:
            raise Illegal(f"{tensor} is no input of the program")
    if [(t.shape, t.dtype) for t in graph.outputs] != [
        (s.tensor.shape, s.tensor.dtype) for s in program.outputs
    ]:
        raise Illegal("the outputs have other shapes or dtypes")


def _equal(translation: Translation, name: str, a: Definition, b: Definition) -> None:
    if _shape(a) != _shape(b):
        raise Unproven(f"{name} is written by an index unlike the program's")
    if a.value == b.value:
        translation.step("normal-form", name, a.value)
        return
    if is_infinite(a.value) or is_infinite(b.value):
        raise Unproven(f"{name} differs from the program's")
    # Equal terms are equal also where both are infinite: here they may cancel unguarded.
    gap = collect([*a.value.terms, *scale(b.value, -1).terms])
    for _ in range(_CLEARINGS):
        if not gap.terms:
            translation.step("common-denominator", name, a.value)
            return
        found = _denominator(gap)
        if found is None:
            break
        gap = times(gap, of(*found))
    raise Unproven(f"{name} differs from the program's in {len(gap.terms)} terms")


def _shape(made: Definition) -> list[list[tuple[int, object]]]:
    return [[(c, a.size) for c, a in digits] for digits in made.layout]


def _denominator(poly: Poly) -> tuple[Atom, int] | None:
    """A sum in a denominator, and the whole power that clears it."""
    least: dict[Atom, Fraction] = {}
    for mono, _ in poly.terms:
        for atom, e in mono.factors:
            if atom.kind == "group" and e <= -1:
                least[atom] = min(e, least.get(atom, Fraction(0)))
    if not least:
        return None
    atom = min(least, key=lambda a: a.key)
    return atom, math.ceil(-least[atom])
