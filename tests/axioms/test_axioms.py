"""Axioms as data: reading patterns, refusing wrong rows, and the evidence."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from prism_jax.axioms import (
    DEFAULT,
    Axiom,
    PatternError,
    by_name,
    content_hash,
    for_level,
    row_hash,
)
from prism_jax.axioms import pattern as pt
from prism_jax.axioms.__main__ import main
from prism_jax.axioms.axiom import Condition
from prism_jax.axioms.meaning import FIELDS, Field, Residue
from prism_jax.axioms.trials import (
    FOLDER,
    Refuted,
    Unneeded,
    counterexample,
    field_trials,
    float_trials,
    gather,
    stale,
    without,
)

# ---- patterns


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("x", "x"),
        ("x / y / z", "x * y^(-1) * z^(-1)"),
        ("x / (y * z)", "x * (y * z)^(-1)"),
        ("2 * x - p * y", "2 * x + -1 * p * y"),
        ("sum{k,l}(a... * exp(x))", "sum{k,l}(a... * exp(x))"),
        ("x^(1/2)", "x^(1/2)"),
        ("x^p", "x^p"),
        ("size(k) * x", "size(k) * x"),
        ("0", "0"),
    ],
)
def test_patterns_read_and_print(text: str, printed: str) -> None:
    assert str(pt.parse(text)) == printed


@pytest.mark.parametrize("axiom", DEFAULT, ids=lambda a: a.name)
def test_printed_axioms_read_back(axiom: Axiom) -> None:
    for side in (axiom.left, axiom.right):
        assert str(pt.parse(str(side))) == str(side)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x +", "expected more"),
        ("(x", r"expected \)"),
        ("x y", "text after"),
        ("sum{x}(y)", "named i, j, k or l"),
        ("k * x", "names axes"),
        ("x ^ y", "not a number"),
        ("x & y", "cannot read"),
        ("x / 2", "write a fraction"),
    ],
)
def test_wrong_patterns_say_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(PatternError, match=message):
        pt.parse(text)


# ---- rows


@pytest.mark.parametrize(
    ("equation", "when", "message"),
    [
        ("x = x + y", (), "y on the right is not bound"),
        ("sum{k}(x) = sum{l}(x)", (), "l on the right is not bound"),
        ("x + y", (), "left = right"),
        ("frobnicate(x) = x", (), "not an operator"),
        ("exp(x, y) = x", (), "takes 1 arguments"),
        ("x * y = y * x", ("x is nice",), "cannot be evaluated"),
        ("x * y = y * x", ("z > 0",), "z is not bound"),
        ("sum{k}(x) = x", ("l not in x",), "not a set of axes"),
        ("x * y = y * x", ("integer x",), "is for numbers"),
        ("p * x = p * x", ("finite p",), "is for terms"),
    ],
)
def test_wrong_rows_fail_when_made(equation: str, when: tuple[str, ...], message: str) -> None:
    with pytest.raises(PatternError, match=f"axiom wrong: .*{message}"):
        Axiom("wrong", equation, when, "nowhere")


def test_levels_are_known() -> None:
    with pytest.raises(PatternError, match="levels are some of"):
        Axiom("wrong", "x = x", (), "nowhere", ("sometimes",))


def test_the_table_covers_the_published_identities() -> None:
    wanted = {
        "add-commute", "add-associate", "mul-commute", "mul-associate", "distribute-product",
        "distribute-quotient", "multiply-quotient", "divide-twice", "divide-products",
        "sum-interchange", "sum-of-sum", "hoist", "sum-of-product", "sum-nest", "sum-merge",
        "exp-of-sum", "root-of-product", "sum-of-invariant", "power-of-product", "pow-of-sum",
    }  # fmt: skip
    assert wanted <= {axiom.name for axiom in DEFAULT}
    assert all(axiom.source for axiom in DEFAULT)
    assert all(axiom.levels for axiom in DEFAULT)


def test_exponential_laws_are_never_search_rewrites() -> None:
    for axiom in for_level("search"):
        made = {part.name for part in pt.parts(axiom.right) if isinstance(part, pt.Op)}
        held = {part.name for part in pt.parts(axiom.left) if isinstance(part, pt.Op)}
        assert made - {"max", "min"} <= held, f"{axiom.name} makes operators"


def test_the_hash_names_the_content() -> None:
    first = DEFAULT[0]
    changed = Axiom(first.name, "y + x = x + y", first.when, first.source, first.levels)
    assert content_hash() == content_hash(DEFAULT)
    assert content_hash((changed, *DEFAULT[1:])) != content_hash()
    assert row_hash(changed) != row_hash(first)
    with pytest.raises(KeyError):
        by_name("no-such-axiom")


# ---- evidence


def test_evidence_is_complete_and_current() -> None:
    assert stale(DEFAULT) == []


@pytest.mark.parametrize("axiom", DEFAULT, ids=lambda a: a.name)
def test_stored_evidence_is_what_the_trials_give(axiom: Axiom) -> None:
    """Regenerated here: the file is never edited by hand. The bound on rounding may differ between
    machines.
    """
    stored = (FOLDER / f"{axiom.name}.json").read_text()
    again = gather(axiom).text()
    ignored = '"error"'
    assert [line for line in stored.splitlines() if ignored not in line] == [
        line for line in again.splitlines() if ignored not in line
    ]


def test_stale_missing_and_left_over_evidence_is_noticed(tmp_path: Path) -> None:
    row = by_name("hoist")
    changed = Axiom("hoist", "sum{k}(a... * b...) = sum{k}(b...) * (a...)", row.when, row.source)
    assert stale((row,), tmp_path) == ["hoist has no evidence"]
    (tmp_path / "hoist.json").write_text(gather(row).text())
    assert stale((row,), tmp_path) == []
    assert stale((changed,), tmp_path) == ["the evidence of hoist is for another form of it"]
    assert stale((without(row, "k not in a"),), tmp_path) != []
    (tmp_path / "old.json").write_text(gather(row).text())
    assert stale((row,), tmp_path) == ["old.json belongs to no axiom"]


CONDITIONED = [(a, c) for a in DEFAULT for c in a.conditions]


@pytest.mark.parametrize(("axiom", "condition"), CONDITIONED, ids=lambda x: str(x).split(":")[0])
def test_every_condition_is_needed(axiom: Axiom, condition: Condition) -> None:
    assert counterexample(axiom, condition) is not None


#: Rows as they were published, or as one might believe them.
HOLES = {
    "a full divisor leaves a product: (X / Y) W = (X W) / Y": (
        "sum{k}(x * y^(-1) * z) = sum{k}(x * z) * y^(-1)"
    ),
    "a norm without its 1/n": "x * (sum{k}(x^2))^(-1/2) = x * (size(k) * sum{k}(x^2))^(-1/2)",
    "anything leaves a sum": "sum{k}(a... * b...) = a... * sum{k}(b...)",
    "a square of a sum is a sum of squares": "(x + y)^2 = x^2 + y^2",
    "the root of a square": "(x^2)^(1/2) = x",
    "a maximum of products": "max{k}(x * y) = max{k}(x) * max{k}(y)",
    "a sum of products": "sum{k}(x * y) = sum{k}(x) * sum{k}(y)",
    "an exponential of a product": "exp(x * y) = exp(x) * exp(y)",
    "a scaled maximum, whatever the sign": "max{k}(p * x) = p * max{k}(x)",
}


@pytest.mark.parametrize("name", list(HOLES))
def test_wrong_rows_are_refuted(name: str) -> None:
    """The published holes, and other rows that are wrong, do not survive their trials."""
    axiom = Axiom(name, HOLES[name], (), "a known hole")
    with pytest.raises(Refuted, match="against"):
        float_trials(axiom)


@pytest.mark.parametrize("name", list(HOLES)[:4])
def test_wrong_rows_are_refuted_in_finite_fields_too(name: str) -> None:
    with pytest.raises(Refuted, match="modulo"):
        field_trials(Axiom(name, HOLES[name], (), "a known hole"))


def test_an_unnecessary_condition_is_refused() -> None:
    with pytest.raises(Unneeded, match="drop the condition"):
        gather(Axiom("needless", "x * y = y * x", ("x > 0",), "nowhere"))


@pytest.mark.parametrize(("p", "q"), FIELDS)
def test_fields_are_fields(p: int, q: int) -> None:
    for n in (p, q):
        assert all(n % d for d in range(2, int(n**0.5) + 1)), f"{n} is not prime"
    assert p == 2 * q + 1
    field = Field(p, q)
    assert pow(field.root, q, p) == 1
    assert field.root != 1


def test_laws_of_exponents_hold_in_the_fields() -> None:
    field = Field(*FIELDS[0])
    a, b = field.number(Fraction(17)), field.number(Fraction(3, 5))
    left = field.op("exp", [field.add(a, b)])
    right = field.mul(field.op("exp", [a]), field.op("exp", [b]))
    assert isinstance(left, Residue)
    assert left.p == right.p
    assert left.q is None


def test_the_command_checks_and_lists(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    assert main(["list"]) == 0
    assert content_hash() in capsys.readouterr().out
    assert main(["nonsense"]) == 2
