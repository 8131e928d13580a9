"""Evidence for axioms: random trials of both sides, and a counterexample for every condition.

In: an axiom. Out: an `Evidence` record, equal in every run (seeded by the row's hash), written to
``evidence/<name>.json``:

* finite-field trials over two pairs of fields, or the operator that puts the row outside;
* float64 trials at random shapes, axes and values, among them the edge values its conditions are
  there for;
* extended trials, in which variables that no condition calls finite may be infinite or NaN: both
  sides are finite at the same places (see `rows`);
* for every condition, a counterexample found with that condition broken and the others kept. A
  condition without one is unnecessary, which is an error: it has to go.

Two values agree if they are close relative to the largest magnitude met, or both are not finite
(see `rows`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from prism_jax.axioms.axiom import Axiom, Condition
from prism_jax.axioms.meaning import (
    FIELDS,
    Array,
    Assignment,
    Domain,
    Field,
    Float64,
    Outside,
    Residue,
    Undefined,
    evaluate,
)

FOLDER = Path(__file__).parent / "evidence"
PROTOCOL = 2
"""Raised when the meaning of a trial changes: all evidence is stale then."""
FLOAT_TRIALS, EXTENDED_TRIALS, FIELD_TRIALS, SEARCH_TRIALS = 60, 200, 20, 400
TOLERANCE = 1e-11
NUMBERS = tuple(Fraction(n) for n in ("1", "2", "1/2", "-1", "-3", "5/4", "-1/3", "7"))
EDGES = (0.0, 1.0, -1.0, 1e-8, -1e-8, 1e3, -1e3)
MILD_EDGES = (0.0, 1.0, -1.0, 1e-8, -1e-8, 5.0, -5.0)
"""For rows with exponentials: overflow is no fault of an identity (extraction and the accuracy
contract guard against it).
"""


class Refuted(Exception):
    """Both sides differ although every condition holds; the text shows the values."""


class Unneeded(Exception):
    """A condition without which no counterexample was found."""


@dataclass(frozen=True)
class Evidence:
    """What was tried. `finite_field` and `float64` count trials that agreed; `outside` says why
    there are no field trials; `counterexamples` holds per condition the values that break the row
    without it; `error` bounds the largest difference.
    """

    axiom: str
    equation: str
    when: tuple[str, ...]
    row: str
    protocol: int
    finite_field: int
    outside: str
    float64: int
    extended: int
    error: str
    counterexamples: dict[str, str]

    def text(self) -> str:
        """The record as it is stored."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"


class _Sampler:
    """Draws assignments that satisfy the conditions, except `broken`, which at least one element
    violates.
    """

    def __init__(
        self,
        axiom: Axiom,
        rng: np.random.Generator,
        broken: Condition | None = None,
        extended: bool = False,
    ) -> None:
        self.axiom, self.rng, self.broken, self.extended = axiom, rng, broken, extended
        self.letters = sorted(name for name, kind in axiom.kinds.items() if kind == "axes")

    def draw(self, field: Field | None = None) -> tuple[Assignment, str]:
        """An assignment and its description."""
        rng, axiom = self.rng, self.axiom
        shape, axes = [int(n) for n in rng.integers(1, 4, 2)], dict[str, tuple[int, ...]]()
        for letter in self.letters:
            single = any(m in axiom.equation for m in ("argmax", "argmin"))
            count = 1 if single else int(rng.integers(1, 3))
            axes[letter] = tuple(range(len(shape), len(shape) + count))
            shape += [int(n) for n in rng.integers(1 if self.broken is None else 2, 4, count)]
        self.shape, self.axes = tuple(shape), axes
        terms: dict[str, Any] = {}
        segments: dict[str, list[tuple[Any, Fraction]]] = {}
        numbers: dict[str, Fraction] = {}
        for name, kind in axiom.kinds.items():
            if kind == "number":
                numbers[name] = self._number(name)
            elif kind == "term":
                terms[name] = self._value(name, field, breaking=self._breaks(name))
            elif kind == "segment":
                segments[name] = self._segment(name, field)
        values = Assignment(terms, segments, axes, numbers, self.shape, axiom.sums)
        return values, self._describe(values)

    def _breaks(self, name: str) -> bool:
        return self.broken is not None and self.broken.subject == name

    def _segment(self, name: str, field: Field | None) -> list[tuple[Any, Fraction]]:
        claimed = any(c.subject == name for c in self.axiom.conditions)
        count = int(self.rng.integers(1 if claimed else 0, 4))
        # a field element stands for a factor of unknown sign: only integers are exponents of
        # segments
        weights = (
            NUMBERS if name in self.axiom.sums else tuple(Fraction(n) for n in (1, 1, 1, 2, -1))
        )
        found: list[tuple[Any, Fraction]] = []
        for n in range(count):
            weight = weights[int(self.rng.integers(len(weights)))]
            x = self._value(name, field, self._breaks(name) and n == 0)
            if weight < 0 and self._finite(name) and isinstance(x, np.ndarray):
                x = np.where(x == 0, 1.0, x)  # conditions are on the factor: the power is finite
            found.append((x, weight))
        return found

    def _finite(self, name: str) -> bool:
        return any(c.what == "finite" and c.subject == name for c in self.axiom.conditions)

    def _number(self, name: str) -> Fraction:
        while True:
            value = NUMBERS[int(self.rng.integers(len(NUMBERS)))]
            own = [c for c in self.axiom.conditions if c.subject == name]
            if all(c.holds_number(value) != (c == self.broken) for c in own):
                return value

    def _value(self, name: str, field: Field | None, breaking: bool) -> Any:
        """A term over a random set of the trial's axes."""
        rng = self.rng
        own = [c for c in self.axiom.conditions if c.subject == name]
        keep = rng.random(len(self.shape)) < 0.6
        for c in own:
            if c.what == "not in":
                hit = c == self.broken and breaking
                for dim in self.axes[str(c.axes)]:
                    keep[dim] = hit
        shape = tuple(n if k else 1 for n, k in zip(self.shape, keep, strict=True))
        signs = {c.what for c in own if c != self.broken or not breaking}
        against = self.broken.what if breaking and self.broken is not None else ""
        if name == "cond":
            return rng.random(shape) < 0.5
        if field is not None:
            return self._residue(field, shape, signs)
        return self._real(shape, signs, against)

    def _real(self, shape: tuple[int, ...], signs: set[str], against: str) -> Array:
        rng = self.rng
        mild = any(word in self.axiom.equation for word in ("exp", "pow", "tanh"))
        x = rng.normal(size=shape) * float(rng.choice([1e-2, 1.0, 1.5 if mild else 20.0]))
        edge = rng.random(shape) < 0.25
        x = np.where(edge, rng.choice(MILD_EDGES if mild else EDGES, size=shape), x)
        if ">=" in signs or ">" in signs:
            x = np.abs(x)
        if ">" in signs or "!=" in signs:
            x = np.where(x == 0, 1.0, x)
        if self.extended and "finite" not in signs and rng.random() < 0.5:
            wild = [np.inf] if signs & {">", ">="} else [np.inf, -np.inf, np.nan]
            x = np.where(rng.random(shape) < 0.3, rng.choice(wild, size=shape), x)
        first = (0,) * len(shape)
        if against == "finite":
            x[first] = float(rng.choice([np.inf, -np.inf, np.nan]))
        elif against == "!=":
            x[first] = 0.0
        elif against == ">":
            x[first] = -abs(x[first])
        elif against == ">=":
            x[first] = -abs(x[first]) - 1e-3
        return x

    def _residue(self, field: Field, shape: tuple[int, ...], signs: set[str]) -> Residue:
        p = self.rng.integers(0 if not signs & {"!=", ">"} else 1, field.p, shape)
        if signs & {">=", ">"}:
            p = p * p % field.p
        q = self.rng.integers(1, field.q, shape)
        return Residue(p, q)

    def _describe(self, values: Assignment) -> str:
        parts = [f"shape {values.shape}"]
        parts += [f"{k} = dimensions {v}" for k, v in values.axes.items()]
        parts += [f"{k} = {v}" for k, v in values.numbers.items()]
        shown = list(values.terms.items())
        shown += [
            (f"{k}[{n}]", x) for k, xs in values.segments.items() for n, (x, _) in enumerate(xs)
        ]
        for name, x in shown:
            if isinstance(x, np.ndarray):
                flat = ", ".join(f"{v:.4g}" for v in x.ravel()[:4].astype(float))
                parts.append(f"{name}{list(x.shape)} = {flat}{', ...' if x.size > 4 else ''}")
        return "; ".join(parts)


def differ(axiom: Axiom, values: Assignment) -> tuple[float, str]:
    """The largest relative difference of both sides in float64 (inf where one is finite and the
    other not), and where.
    """
    domain: Domain = Float64()
    left, right = (
        np.asarray(evaluate(side, values, domain), float) for side in (axiom.left, axiom.right)
    )
    left, right = np.broadcast_arrays(
        left.reshape(left.shape or (1,) * len(values.shape)),
        right.reshape(right.shape or (1,) * len(values.shape)),
    )
    agree = np.isfinite(left) == np.isfinite(right)
    with np.errstate(all="ignore"):
        scale = domain.scale
        error = np.where(np.isfinite(left) & np.isfinite(right), np.abs(left - right) / scale, 0.0)
    error = np.where(agree, error, np.inf)
    place = int(np.argmax(error))
    return float(
        error.ravel()[place]
    ), f"{left.ravel()[place]:.6g} against {right.ravel()[place]:.6g}"


def extended_trials(axiom: Axiom, trials: int = EXTENDED_TRIALS) -> None:
    """Tries both sides where variables may be infinite or NaN. Raises Refuted if one side alone is
    finite.
    """
    sampler = _Sampler(axiom, _rng(axiom, "extended"), extended=True)
    for _ in range(trials):
        values, text = sampler.draw()
        error, where = differ(axiom, values)
        if error == np.inf:
            raise Refuted(f"{axiom.name}: {where} at {text}")


def _rng(axiom: Axiom, purpose: str) -> np.random.Generator:
    from prism_jax.axioms import row_hash

    return np.random.default_rng([int(row_hash(axiom), 16), *purpose.encode()])


def float_trials(axiom: Axiom, trials: int = FLOAT_TRIALS) -> float:
    """Tries both sides in float64; the largest relative difference. Raises Refuted."""
    sampler, worst = _Sampler(axiom, _rng(axiom, "float64")), 0.0
    for _ in range(trials):
        values, text = sampler.draw()
        error, where = differ(axiom, values)
        if error > TOLERANCE:
            raise Refuted(f"{axiom.name}: {where} at {text}")
        worst = max(worst, error)
    return worst


def field_trials(axiom: Axiom, trials: int = FIELD_TRIALS) -> int:
    """Tries both sides in each pair of fields: how many trials counted. Raises Refuted, Outside."""
    counted = 0
    for p, q in FIELDS:
        field = Field(p, q)
        sampler = _Sampler(axiom, _rng(axiom, f"field {p}"))
        for _ in range(trials):
            values, text = sampler.draw(field)
            try:
                left, right = (evaluate(side, values, field) for side in (axiom.left, axiom.right))
            except Undefined:
                continue
            counted += 1
            same = bool(np.all(left.p == right.p))
            if same and left.q is not None and right.q is not None:
                same = bool(np.all(left.q == right.q))
            if not same:
                raise Refuted(f"{axiom.name}: the sides differ modulo {p} or {q} at {text}")
    if counted < trials:
        raise Refuted(f"{axiom.name}: only {counted} finite-field trials counted")
    return counted


def counterexample(axiom: Axiom, condition: Condition, trials: int = SEARCH_TRIALS) -> str | None:
    """Values at which the axiom fails if this condition alone is broken; None if none was found."""
    sampler = _Sampler(axiom, _rng(axiom, condition.text), condition)
    for _ in range(trials):
        values, text = sampler.draw()
        error, where = differ(axiom, values)
        if error > 1e-6:
            return f"{where} at {text}"
    return None


def gather(axiom: Axiom) -> Evidence:
    """Runs all trials of an axiom. Raises Refuted or Unneeded."""
    from prism_jax.axioms import row_hash

    counterexamples: dict[str, str] = {}
    for condition in axiom.conditions:
        found = counterexample(axiom, condition)
        if found is None:
            raise Unneeded(
                f"{axiom.name}: no counterexample without {condition.text!r}; drop the condition"
            )
        counterexamples[condition.text] = found
    worst = float_trials(axiom)
    extended_trials(axiom)
    try:
        counted, outside = field_trials(axiom), ""
    except Outside as reason:
        counted, outside = 0, str(reason)
    bound = "0" if worst == 0 else f"below 1e{int(np.ceil(np.log10(max(worst, 1e-16))))}"
    return Evidence(
        axiom.name, axiom.equation, axiom.when, row_hash(axiom), PROTOCOL, counted, outside,
        FLOAT_TRIALS, EXTENDED_TRIALS, bound, counterexamples,
    )  # fmt: skip


def stale(axioms: tuple[Axiom, ...], folder: Path = FOLDER) -> list[str]:
    """What is wrong with the stored evidence: missing, out of date, or left over; empty if all is
    well.
    """
    from prism_jax.axioms import row_hash

    problems: list[str] = []
    known = {f"{axiom.name}.json": axiom for axiom in axioms}
    for name, axiom in known.items():
        path = folder / name
        if not path.exists():
            problems.append(f"{axiom.name} has no evidence")
            continue
        stored = json.loads(path.read_text())
        if stored["row"] != row_hash(axiom) or stored["protocol"] != PROTOCOL:
            problems.append(f"the evidence of {axiom.name} is for another form of it")
        if set(stored["counterexamples"]) != set(axiom.when):
            problems.append(f"the evidence of {axiom.name} lacks a counterexample per condition")
    left = (
        sorted(p.name for p in folder.glob("*.json") if p.name not in known)
        if folder.exists()
        else []
    )
    return problems + [f"{name} belongs to no axiom" for name in left]


def write(axioms: tuple[Axiom, ...], folder: Path = FOLDER) -> Iterator[Evidence]:
    """Regenerates all evidence, one file per axiom; yields each record."""
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.json"):
        path.unlink()
    for axiom in axioms:
        record = gather(axiom)
        (folder / f"{axiom.name}.json").write_text(record.text())
        yield record


def without(axiom: Axiom, condition: str) -> Axiom:
    """The axiom with one condition removed."""
    return replace(axiom, when=tuple(c for c in axiom.when if c != condition))
