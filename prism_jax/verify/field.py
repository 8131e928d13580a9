"""The finite-field test: program against sGraph at small random sizes, with no tolerance.

In: a program and an sGraph (or another program). Out: a `FieldResult`: equal on every draw,
different (with the draw), or outside the fragment, with the operator named. The model of the reals
is that of `residues`.

When is a difference conclusive? Residues keep the laws of fields, exp, log, roots and of
semilattices. They do not keep monotonicity (max(2 x) = 2 max(x)), and sqrt(x)^2 = x only on
squares. A draw that differs is therefore repeated on draws where all roots are of squares; and
where a maximum, a minimum or a comparison of reals takes arguments on one side that it does not
take on the other, the result is "outside" instead of "different". Constants are exact rationals and
do not follow the shrunk sizes: where the candidate has a constant of its own (n from a sum of n
equal terms), the summed axes keep their real sizes.

The error probability is that of calling different things equal. Without exponentials it is the
bound of Schwartz and Zippel, degree / q per draw. With them it is Mirage's theorem 2,
8 d k^4 / q + q^(-1/k^2), k the number of exponentials in an output element, which is weak for long
sums (and says so by being near 1); `heuristic` is d / q, which treats powers of a random root of
unity as random.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np

from prism_jax.ir.evaluate import evaluate, evaluate_sgraph
from prism_jax.ir.nodes import FLOATS, REAL, Const, Node, Pointwise
from prism_jax.ir.program import Program, walk
from prism_jax.ir.sgraph import SGraph
from prism_jax.verify.arithmetic import Met, Outside, Redraw
from prism_jax.verify.constants import spelled
from prism_jax.verify.constants import terms as terms_of
from prism_jax.verify.degrees import degree, exponentials
from prism_jax.verify.domains import domains
from prism_jax.verify.draws import any_integers
from prism_jax.verify.modular import ABSENT, LARGE, PAIR, SMALL
from prism_jax.verify.residues import Residues
from prism_jax.verify.sample import cost
from prism_jax.verify.shrink import Shrunk, as_sgraph, shrink
from prism_jax.verify.sides import sides

Array: TypeAlias = Any
TRIALS = 4
_REDRAWS = 40
_HOPEFUL_REDRAWS = 150
_MOST_REDRAWS = 300
_WORK, _TOTAL_WORK = 1 << 20, 1 << 22


@dataclass(frozen=True)
class FieldResult:
    """`outcome` is "equal", "different" or "outside"; `reason` says where or why."""

    outcome: str
    reason: str
    trials: int
    sizes: tuple[tuple[tuple[str, int], ...], ...] = ()
    primes: tuple[int, ...] = ()
    error_probability: float = 1.0
    heuristic: float = 1.0

    @property
    def passed(self) -> bool:
        """Whether the two were equal on every draw."""
        return self.outcome == "equal"

    def __str__(self) -> str:
        line = f"finite-field test: {self.outcome}, {self.trials} draws"
        if self.passed:
            line += f", wrong with probability below {self.error_probability:.2g}"
            line += f" ({self.heuristic:.2g} if powers of a root of unity count as random)"
        return line + (f": {self.reason}" if self.reason else "")

    def to_json(self) -> str:
        """A text from which `from_json` makes an equal value."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> FieldResult:
        """The value that `to_json` wrote."""
        data = json.loads(text)
        data["sizes"] = tuple(tuple((a, b) for a, b in s) for s in data["sizes"])
        return FieldResult(**data | {"primes": tuple(data["primes"])})


def test(
    program: Program,
    other: SGraph | Program,
    seed: int = 0,  # noqa: PT028
    trials: int = TRIALS,  # noqa: PT028
) -> FieldResult:
    """Compares the two at `trials` random sizes, each with its own primes and inputs."""
    graph = as_sgraph(other) if isinstance(other, Program) else other
    shape = [(t.shape, t.dtype) for t in graph.outputs]
    if shape != [(s.tensor.shape, s.tensor.dtype) for s in program.outputs]:
        return FieldResult("different", "the outputs have other shapes or dtypes", 0)
    strange = [t for t in graph.inputs if t not in program.inputs]
    if strange:
        return FieldResult("different", f"{strange[0]} is no input of the program", 0)
    try:
        return _Test(program, graph, seed).run(trials)
    except Outside as outside:
        return FieldResult("outside", str(outside), 0)
    except (AssertionError, IndexError, TypeError, ValueError) as error:
        return FieldResult("different", f"the sGraph cannot be executed: {error}", 0)


test.__test__ = False  # type: ignore[attr-defined]  # not a test of pytest's


class _Different(Exception):
    """The two sides differ on this draw; the message says where."""


class _Test:
    """One comparison: what its draws share, and how sure a difference must be made."""

    def __init__(self, program: Program, graph: SGraph, seed: int) -> None:
        self.program, self.graph, self.seed = program, graph, seed
        terms = [s.value for s in program.outputs]
        candidate = list(terms_of(graph))
        ours, theirs = _ops(terms), _ops(candidate)
        ops = ours | theirs
        self.expand = frozenset(x for x in ("logistic", "tanh") if (x in ours) != (x in theirs))
        self.logs = bool(ops & {"log", "log1p"})
        self.roots = bool(ops & {"sqrt", "rsqrt", "pow"})
        self.spelled = spelled(terms, candidate)
        self.own_constants = bool(_constants(candidate) - _constants(terms))
        self.sides = sides(as_sgraph(program), self.logs) | sides(graph, self.logs)
        self.strict = self.keep = False
        self.redraws = 0

    def run(self, trials: int) -> FieldResult:
        """Draws until `trials` are valid; a first difference makes the next draws surer."""
        sizes: list[tuple[tuple[str, int], ...]] = []
        primes: list[int] = []
        bound = heuristic = 1.0
        for number in range(4 * trials):
            if len(sizes) == trials:
                break
            try:
                found = self.draw(number)
            except _Different as difference:
                if not self.escalate():
                    return FieldResult("different", str(difference), len(sizes) + 1)
                sizes, primes, bound, heuristic = [], [], 1.0, 1.0
                continue
            if found is not None:
                pair, q = found
                sizes.append(pair.sizes)
                primes.append(q)
                one, rough = probability(pair, q)
                bound, heuristic = bound * one, heuristic * rough
        if not sizes:
            raise Outside("every draw divides by zero, or has a root or logarithm of a non-square")
        found_sizes = tuple(sizes)
        return FieldResult(
            "equal", "", len(sizes), found_sizes, tuple(primes), min(1.0, bound), heuristic
        )

    def escalate(self) -> bool:
        """Whether the draws can be made surer than they were."""
        surer = (self.own_constants and not self.keep) or (self.roots and not self.strict)
        self.keep, self.strict = self.own_constants, self.roots
        return surer

    def draw(self, number: int) -> tuple[Shrunk, int] | None:
        """One pair of sizes, compared; None where no valid inputs were found."""
        rng = np.random.default_rng([self.seed, number, 7])
        pair = shrink(self.program, self.graph, rng, self.keep, 3 if self.strict else 6)
        work = sum(cost(store) for store in pair.program.outputs)
        if work > _WORK:
            raise Outside("sizes that a slice, a window or a constant fixes are too large")
        q = int(rng.choice(SMALL if self.logs else LARGE))
        hopeful = self.strict or self.logs
        most = min(_HOPEFUL_REDRAWS if hopeful else _REDRAWS, _TOTAL_WORK // work)
        for attempt in range(most):
            self.redraws += 1
            if self.redraws > _MOST_REDRAWS:
                break
            strict = self.sides if self.strict else frozenset[str]()
            field = Residues(q, 1000 * self.seed + attempt, strict, self.expand, self.spelled)
            inputs = _inputs(pair.program, field)
            try:
                expected = evaluate(pair.program, inputs, domain=field)
                known, field.met = field.met, set()
                given = evaluate_sgraph(pair.sgraph, pair.symbols, inputs, domain=field)
            except Redraw:
                continue
            self.agree(pair, expected, given, known, field.met)
            return pair, q
        return None

    def agree(
        self,
        pair: Shrunk,
        expected: tuple[Array, ...],
        given: tuple[Array, ...],
        known: set[Met],
        met: set[Met],
    ) -> None:
        """Raises `_Different` where the outputs differ."""
        for store, a, b in zip(pair.program.outputs, expected, given, strict=True):
            wrong = _differ(a, b, self.strict)
            if not wrong.any():
                continue
            strange = sorted({op for op, _ in met - known})
            if (
                strange
                and (self.strict or not self.roots)
                and (self.keep or not self.own_constants)
            ):
                raise Outside(f"{strange[0]} of other arguments than the program's")
            at = tuple(int(n) for n in np.argwhere(wrong)[0]) if wrong.ndim else ()
            size = ", ".join(f"{name}={n}" for name, n in pair.sizes)
            raise _Different(f"{store.tensor.name}{list(at)} at sizes {size}")


def probability(pair: Shrunk, q: int) -> tuple[float, float]:
    """The chance that different things agree on one draw: proved, and heuristic."""
    d, k = degree(pair.program, pair.sgraph), exponentials(pair.program)
    rough = min(1.0, d / q)
    if not k:
        return rough, rough
    return min(1.0, 8 * d * k**4 / q + q ** (-1 / k**2)), rough


def _differ(a: Array, b: Array, one_side: bool) -> Array:
    """Where two outputs differ; in a strict draw a value that has a residue modulo p is that."""
    if a.dtype != PAIR:
        return a != b
    shared = {s: (a[s] != ABSENT) & (b[s] != ABSENT) for s in ("p", "q")}
    if not (shared["p"] | shared["q"]).all():
        raise Outside("an output has residues on different sides")
    on_p, on_q = (shared[s] & (a[s] != b[s]) for s in ("p", "q"))
    return np.where(shared["p"], on_p, on_q) if one_side else on_p | on_q


def _inputs(program: Program, field: Residues) -> dict[str, Array]:
    facts = domains(program)
    found: dict[str, Array] = {}
    for tensor in program.inputs:
        shape = tuple(int(s) for s in tensor.shape)
        domain = facts[tensor.name]
        if tensor.dtype in FLOATS:
            values = field.draw(shape)
            if domain.kind == "positive":
                values = field.pointwise("mul", None, [values, values])
            found[tensor.name] = values
        elif tensor.dtype == "bool":
            # Few in some draws: then whole tiles and rows are masked.
            found[tensor.name] = field.rng.random(shape) < field.rng.choice((0.2, 0.7, 0.7))
        elif not domain.index and field.rng.random() < 0.5:
            found[tensor.name] = any_integers(field.rng, shape, tensor.dtype)
        else:
            low, high = (domain.low, domain.high) if domain.index else (-2 * (domain.low < 0), 2)
            values = field.rng.integers(low, high, shape, endpoint=True)
            found[tensor.name] = values.astype(tensor.dtype)
    return found


def _ops(terms: Iterable[Node]) -> set[str]:
    return {n.op for n in walk(terms) if isinstance(n, Pointwise)}


def _constants(terms: Iterable[Node]) -> set[float]:
    """Constants that may stand for a size: whole numbers above 2 and their inverses."""
    values = {abs(float(n.value)) for n in walk(terms) if isinstance(n, Const) and n.sort == REAL}
    return {v for v in values if v not in (0.0, 0.5, 1.0, 2.0) and math.isfinite(v)}
