"""An axiom: a named, typed equation with conditions that e-class facts can decide. Axioms are data;
building one checks it.

Conditions (``when``) are what makes the equation true; wishes (``wants``) only say where search
should use it. Both are read from text and evaluated over facts (`Facts`: free axes, sign,
finiteness):

* ``k not in a`` (no axis of k is free in a), ``k in a`` (one is);
* ``a >= 0``, ``a > 0``, ``a != 0``, ``finite a`` for terms and segments; ``p > 0``, ``p < 0``, ``p
  != 0``, ``integer p`` for numbers;
* wishes: ``narrower b`` (b lacks an axis of the sum it stands in), ``contraction b`` (b is a sum
  over an axis), joined by ``or``; ``pays b`` (the sum over b alone is much less work than the
  whole, or than b itself), ``first b`` (only the first b that fits), ``b like c`` (equal free
  axes).

A condition on a segment decides membership: each element of the sum or product must satisfy it to
belong to the segment.

>>> row = Axiom("hoist", "sum{k}(a... * b...) = a... * sum{k}(b...)", ("k not in a",), "Mirage")
>>> row.kinds["a"], str(row.right)
('segment', 'a... * sum{k}(b...)')
>>> Axiom("wrong", "x = x + y", (), "nowhere")
Traceback (most recent call last):
    ...
prism_jax.axioms.pattern.PatternError: axiom wrong: y on the right is not bound on the left
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, Protocol

from prism_jax.axioms import pattern as pt
from prism_jax.axioms.pattern import PatternError
from prism_jax.ir.ops import OPS

LEVELS = ("normal", "search", "order", "proof")
"""normal: built into the normal form; search: rewritten left to right; order: used by the
contraction order; proof: both ways, by the checker only.
"""


class Facts(Protocol):
    """What a condition may ask of a term."""

    @property
    def free(self) -> Any: ...
    @property
    def nonnegative(self) -> bool: ...
    @property
    def positive(self) -> bool: ...
    @property
    def nonzero(self) -> bool: ...
    @property
    def finite(self) -> bool: ...


_FORMS = (
    ("free", re.compile(r"(\w) (not in|in) (\w+)")),
    ("sign", re.compile(r"(\w+) (>=|>|<|!=) 0")),
    ("trait", re.compile(r"(finite|integer|narrower|contraction|pays|first) (\w+)")),
    ("like", re.compile(r"(\w+) (like) (\w+)")),
)


@dataclass(frozen=True)
class Condition:
    """One condition: `what` is "not in", "in", ">=", ">", "<", "!=", "finite", ... of `subject`;
    `axes` for the first two, `other` for "like".
    """

    text: str
    what: str
    subject: str
    axes: str | None = None
    other: str | None = None

    def holds(self, facts: Facts, bound: Mapping[str, Any]) -> bool:
        """Whether a term with these facts satisfies it."""
        match self.what:
            case "not in":
                return not any(axis in facts.free for axis in bound[str(self.axes)])
            case "in":
                return any(axis in facts.free for axis in bound[str(self.axes)])
            case ">=":
                return facts.nonnegative
            case ">":
                return facts.positive
            case "!=":
                return facts.nonzero
            case "finite":
                return facts.finite
            case _:
                raise PatternError(f"condition {self.text!r} cannot be asked of a term")

    def holds_number(self, value: Fraction) -> bool:
        """Whether a number satisfies it."""
        tests = {
            ">": value > 0,
            "<": value < 0,
            ">=": value >= 0,
            "!=": value != 0,
            "integer": value.denominator == 1,
        }
        if self.what not in tests:
            raise PatternError(f"condition {self.text!r} cannot be asked of a number")
        return tests[self.what]


WISHES = ("narrower", "contraction", "pays", "first", "like")


def read_condition(text: str) -> Condition:
    """Reads one condition. Raises PatternError if it cannot be evaluated."""
    for form, expression in _FORMS:
        match = expression.fullmatch(text)
        if match is None:
            continue
        if form == "free":
            return Condition(text, match[2], match[3], match[1])
        if form == "like":
            return Condition(text, "like", match[1], None, match[3])
        return Condition(text, match[2 if form == "sign" else 1], match[1 if form == "sign" else 2])
    raise PatternError(f"condition {text!r} cannot be evaluated")


@dataclass(frozen=True)
class Axiom:
    """See the module's text. `changes_rounding` names the numerical risk of using it left to right,
    if it has one.
    """

    name: str
    equation: str
    when: tuple[str, ...]
    source: str
    levels: tuple[str, ...] = ("search", "proof")
    wants: tuple[str, ...] = ()
    changes_rounding: str = ""

    def __post_init__(self) -> None:
        try:
            self._check()
        except PatternError as error:
            raise PatternError(f"axiom {self.name}: {error}") from None

    def _check(self) -> None:
        kinds = self.kinds
        unbound = [name for name in pt.names(self.right) if name not in kinds]
        if unbound:
            raise PatternError(f"{', '.join(unbound)} on the right is not bound on the left")
        unknown = [level for level in self.levels if level not in LEVELS]
        if unknown or not self.levels:
            raise PatternError(f"levels are some of {LEVELS}, not {self.levels}")
        for part in (*pt.parts(self.left), *pt.parts(self.right)):
            if isinstance(part, pt.Op) and part.name not in OPS:
                raise PatternError(f"{part.name} is not an operator of the table")
            if isinstance(part, pt.Op) and OPS[part.name].arity != len(part.args):
                raise PatternError(f"{part.name} takes {OPS[part.name].arity} arguments")
        for condition in self.conditions:
            self._check_condition(condition, kinds)
        for wish in self.wishes:
            self._check_condition(wish, kinds)

    def _check_condition(self, condition: Condition, kinds: Mapping[str, str]) -> None:
        kind = kinds.get(condition.subject)
        if kind is None or kind == "axes":
            raise PatternError(f"condition {condition.text!r}: {condition.subject} is not bound")
        if condition.axes is not None and kinds.get(condition.axes) != "axes":
            raise PatternError(
                f"condition {condition.text!r}: {condition.axes} is not a set of axes"
            )
        numeric = condition.what in ("<", "integer")
        if numeric and kind != "number":
            raise PatternError(
                f"condition {condition.text!r} is for numbers; {condition.subject} is a {kind}"
            )
        termwise = condition.what in ("in", "not in", "finite", *WISHES)
        if termwise and kind == "number":
            raise PatternError(f"condition {condition.text!r} is for terms")

    @cached_property
    def _sides(self) -> tuple[pt.Pattern, pt.Pattern]:
        return pt.parse_equation(self.equation)

    @property
    def left(self) -> pt.Pattern:
        """The side that search looks for."""
        return self._sides[0]

    @property
    def right(self) -> pt.Pattern:
        """The side that search adds."""
        return self._sides[1]

    @cached_property
    def kinds(self) -> dict[str, str]:
        """Names bound by the left side: "term", "segment", "number" or "axes"."""
        return pt.names(self.left)

    @cached_property
    def conditions(self) -> tuple[Condition, ...]:
        """`when`, read."""
        return tuple(map(read_condition, self.when))

    @cached_property
    def wishes(self) -> tuple[Condition, ...]:
        """`wants`, read; those that were joined by ``or`` are told apart by `alternatives` only."""
        return tuple(wish for group in self.alternatives for wish in group)

    @cached_property
    def alternatives(self) -> tuple[tuple[Condition, ...], ...]:
        """`wants`, read: of each group one wish must be fulfilled."""
        return tuple(tuple(map(read_condition, text.split(" or "))) for text in self.wants)

    @cached_property
    def sums(self) -> frozenset[str]:
        """Segments that stand in sums; the others stand in products."""
        return frozenset(
            x.name
            for part in pt.parts(self.left)
            if isinstance(part, pt.Sum)
            for _, x in part.items
            if isinstance(x, pt.Seg)
        )

    def __str__(self) -> str:
        when = f"  when {', '.join(self.when)}" if self.when else ""
        return f"{self.name}: {self.equation}{when}"
