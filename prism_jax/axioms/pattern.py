"""The pattern language of axioms: index notation with named axes, n-ary sums and products, and
segments.

Text such as ``sum{k}(a... * b...) = a... * sum{k}(b...)`` is read into a small tree. The kind of a
name is its spelling:

* ``i j k l`` - sets of axes (only inside braces, in conditions, and in ``size(k)``);
* ``p q n`` - numbers (coefficients, exponents);
* ``a... b...`` - *segments*: any number of terms of a sum or factors of a product, possibly none.
  Which elements belong to a segment is decided by the conditions that name it; what no condition
  claims goes to the segment without one;
* ``cond`` - a truth value; any other name - a real-valued term.

Operators of `ir/ops.py` are written as calls, reductions as ``sum{k}(...)``, powers as ``x^2``,
``x^(-1)``, ``x^p``.

>>> left, right = parse_equation("sum{k}(a... * b...) = a... * sum{k}(b...)")
>>> print(left, "|", right)
sum{k}(a... * b...) | a... * sum{k}(b...)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

AXES = frozenset("ijkl")
NUMBERS = frozenset("pqn")
MONOIDS = ("sum", "prod", "max", "min", "any", "all", "argmax", "argmin")


@dataclass(frozen=True)
class Var:
    """One term."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Seg:
    """Several terms of the sum, or factors of the product, that it stands in."""

    name: str

    def __str__(self) -> str:
        return f"{self.name}..."


@dataclass(frozen=True)
class Num:
    """A number: a literal times number variables (`p * q` is `Num(1, ("p", "q"))`); `size:k` is the
    size of an axis set.
    """

    value: Fraction = Fraction(1)
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        texts = [f"size({n[5:]})" if n.startswith("size:") else n for n in self.names]
        if self.value != 1 or not texts:
            texts.insert(0, str(self.value) if self.value.denominator == 1 else f"({self.value})")
        return " * ".join(texts)


ONE = Num()


@dataclass(frozen=True)
class Sum:
    """Terms with coefficients; a segment's coefficient is 1."""

    items: tuple[tuple[Num, Pattern], ...]

    def __str__(self) -> str:
        texts: list[str] = []
        for c, x in self.items:
            if x == Prod(()):
                texts.append(str(c))
            else:
                texts.append(str(x) if c == ONE else f"{c} * {_tight(x)}")
        return " + ".join(texts)


@dataclass(frozen=True)
class Prod:
    """Factors with exponents; a segment's exponent is 1."""

    items: tuple[tuple[Pattern, Num], ...]

    def __str__(self) -> str:
        texts = [_tight(x) if e == ONE else f"{_base(x)}^{_power(e)}" for x, e in self.items]
        return " * ".join(texts) or "1"


@dataclass(frozen=True)
class Op:
    """A pointwise operator of the table."""

    name: str
    args: tuple[Pattern, ...]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(str, self.args))})"


@dataclass(frozen=True)
class Red:
    """A reduction over one or two sets of axes."""

    monoid: str
    axes: tuple[str, ...]
    body: Pattern

    def __str__(self) -> str:
        return f"{self.monoid}{{{','.join(self.axes)}}}({self.body})"


Pattern: TypeAlias = Var | Seg | Num | Sum | Prod | Op | Red


def _tight(x: Pattern) -> str:
    return f"({x})" if isinstance(x, Sum) or (isinstance(x, Prod) and len(x.items) > 1) else str(x)


def _base(x: Pattern) -> str:
    return f"({x})" if isinstance(x, Sum | Prod) else str(x)


def _power(e: Num) -> str:
    return str(e) if e.names or e.value.denominator > 1 or e.value >= 0 else f"({e})"


def parts(pattern: Pattern) -> Iterator[Pattern]:
    """The pattern and everything in it, outside first."""
    yield pattern
    if isinstance(pattern, Sum):
        for c, x in pattern.items:
            yield c
            yield from parts(x)
    elif isinstance(pattern, Prod):
        for x, e in pattern.items:
            yield from parts(x)
            yield e
    elif isinstance(pattern, Op):
        for x in pattern.args:
            yield from parts(x)
    elif isinstance(pattern, Red):
        yield from parts(pattern.body)


def names(pattern: Pattern) -> dict[str, str]:
    """Every name in a pattern and its kind: "term", "segment", "number" or "axes"."""
    found: dict[str, str] = {}
    for part in parts(pattern):
        if isinstance(part, Var):
            found[part.name] = "term"
        elif isinstance(part, Seg):
            found[part.name] = "segment"
        elif isinstance(part, Num):
            found.update({(n[5:] if n.startswith("size:") else n): _kind(n) for n in part.names})
        elif isinstance(part, Red):
            found.update(dict.fromkeys(part.axes, "axes"))
    return found


def _kind(name: str) -> str:
    return "axes" if name.startswith("size:") else "number"


# ---- reading

_TOKEN = re.compile(r"\s*(\d+(?:/\d+)?|[A-Za-z_]\w*(?:\.\.\.)?|[-+*/^(){},])")


class PatternError(ValueError):
    """A pattern that cannot be read, or an axiom that cannot be used."""


class _Reader:
    def __init__(self, text: str) -> None:
        self.text, self.tokens, position = text, list[str](), 0
        while position < len(text.rstrip()):
            match = _TOKEN.match(text, position)
            if match is None:
                raise PatternError(f"cannot read {text[position:]!r} in pattern {text!r}")
            self.tokens.append(match[1])
            position = match.end()
        self.at = 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, expected: str | None = None) -> str:
        token = self.peek()
        if not token or (expected is not None and token != expected):
            raise PatternError(
                f"expected {expected or 'more'} at {token!r} in pattern {self.text!r}"
            )
        self.at += 1
        return token

    def sum(self) -> Pattern:
        items = [self._signed()]
        while self.peek() in ("+", "-"):
            items.append(self._signed())
        if len(items) == 1:
            coefficient, x = items[0]
            return x if coefficient == ONE else Sum(((coefficient, x),))
        return Sum(tuple(items))

    def _signed(self) -> tuple[Num, Pattern]:
        sign = Fraction(1)
        while self.peek() in ("+", "-"):
            sign = -sign if self.take() == "-" else sign
        coefficient, x = self.product()
        return Num(coefficient.value * sign, coefficient.names), x

    def product(self) -> tuple[Num, Pattern]:
        value, scalars, items = Fraction(1), list[str](), list[tuple[Pattern, Num]]()
        operator = "*"
        while True:
            x, exponent = self.power()
            if isinstance(x, Num):
                if operator == "/":
                    raise PatternError(f"division by a number in {self.text!r}: write a fraction")
                value, scalars = value * x.value, [*scalars, *x.names]
            else:
                if operator == "/":
                    exponent = Num(-exponent.value, exponent.names)
                items.append((x, exponent))
            if self.peek() not in ("*", "/"):
                break
            operator = self.take()
        coefficient = Num(value, tuple(scalars))
        if not items:
            return coefficient, Prod(())
        if len(items) == 1 and items[0][1] == ONE:
            return coefficient, items[0][0]
        return coefficient, Prod(tuple(items))

    def power(self) -> tuple[Pattern, Num]:
        x = self.atom()
        if self.peek() != "^":
            return x, ONE
        self.take()
        if self.peek() == "(":
            self.take()
            exponent = self.sum()
            self.take(")")
        else:
            exponent = self.atom()
        exponent = _as_number(exponent) or exponent
        if not isinstance(exponent, Num):
            raise PatternError(f"the exponent {exponent} is not a number in {self.text!r}")
        return x, exponent

    def atom(self) -> Pattern:
        token = self.take()
        if token == "(":
            x = self.sum()
            self.take(")")
            return _as_number(x) or x
        if token[0].isdigit():
            return Num(Fraction(token))
        if token.endswith("..."):
            return Seg(token[:-3])
        if token in MONOIDS and self.peek() == "{":
            return self._reduction(token)
        if self.peek() == "(":
            return self._call(token)
        if token in NUMBERS:
            return Num(Fraction(1), (token,))
        if token in AXES:
            raise PatternError(f"{token} names axes, and stands for a term in {self.text!r}")
        return Var(token)

    def _reduction(self, monoid: str) -> Pattern:
        self.take("{")
        axes = [self.take()]
        while self.peek() == ",":
            self.take()
            axes.append(self.take())
        self.take("}")
        if not set(axes) <= AXES:
            raise PatternError(f"axes are named i, j, k or l, not {axes} in {self.text!r}")
        self.take("(")
        body = self.sum()
        self.take(")")
        return Red(monoid, tuple(axes), body)

    def _call(self, name: str) -> Pattern:
        self.take("(")
        args: list[Pattern] = [self.sum()] if name != "size" else [Var(self.take())]
        while self.peek() == ",":
            self.take()
            args.append(self.sum())
        self.take(")")
        if name == "size":
            return Num(Fraction(1), (f"size:{args[0]}",))
        return Op(name, tuple(args))


def _as_number(x: Pattern) -> Num | None:
    """The number that a pattern in parentheses is, if it is one."""
    if isinstance(x, Sum) and len(x.items) == 1 and x.items[0][1] == Prod(()):
        return x.items[0][0]
    return None


def parse(text: str) -> Pattern:
    """Reads one pattern. Raises PatternError."""
    reader = _Reader(text)
    pattern = reader.sum()
    if reader.peek():
        raise PatternError(f"text after the pattern at {reader.peek()!r} in {text!r}")
    return pattern


def parse_equation(text: str) -> tuple[Pattern, Pattern]:
    """Reads `left = right`."""
    left, equals, right = text.partition(" = ")
    if not equals:
        raise PatternError(f"an axiom is written 'left = right', not {text!r}")
    return parse(left), parse(right)
