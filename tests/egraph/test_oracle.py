"""The engine against egglog: the same number of classes and of e-nodes after saturating the same
rules.
"""

from __future__ import annotations

import json
import re

import pytest

from prism_jax.egraph.core import EGraph
from prism_jax.egraph.plain import add_term, rewrite
from prism_jax.egraph.run import Limits, StopReason, saturate

bindings = pytest.importorskip("egglog.bindings", reason="egglog, the oracle, is not installed")

Rules = list[tuple[str, str]]
SETS: dict[str, tuple[str, Rules]] = {
    "commutative sums": (
        "(Add (Add (Add a b) c) (Add d e))",
        [("(Add ?a ?b)", "(Add ?b ?a)"), ("(Add (Add ?a ?b) ?c)", "(Add ?a (Add ?b ?c))")],
    ),
    "distribution": (
        "(Mul (Add a b) (Add c (Mul d a)))",
        [
            ("(Mul ?a (Add ?b ?c))", "(Add (Mul ?a ?b) (Mul ?a ?c))"),
            ("(Mul (Add ?a ?b) ?c)", "(Add (Mul ?a ?c) (Mul ?b ?c))"),
            ("(Add ?a ?b)", "(Add ?b ?a)"),
        ],
    ),
    "units and zeros": (
        "(Add (Mul (Add a Zero) One) (Mul (Add b Zero) (Mul Zero c)))",
        [
            ("(Add ?a Zero)", "?a"),
            ("(Mul ?a One)", "?a"),
            ("(Mul Zero ?a)", "Zero"),
            ("(Mul ?a ?b)", "(Mul ?b ?a)"),
        ],
    ),
    "a lattice": (
        "(Max (Min a (Max a b)) (Max b (Min b c)))",
        [
            ("(Max ?a ?b)", "(Max ?b ?a)"),
            ("(Min ?a ?b)", "(Min ?b ?a)"),
            ("(Max ?a ?a)", "?a"),
            ("(Min ?a ?a)", "?a"),
            ("(Max ?a (Min ?a ?b))", "?a"),
            ("(Min ?a (Max ?a ?b))", "?a"),
        ],
    ),
    "exponentials": (
        "(Mul (Exp (Add a b)) (Mul (Exp c) (Exp (Neg a))))",
        [
            ("(Exp (Add ?a ?b))", "(Mul (Exp ?a) (Exp ?b))"),
            ("(Mul (Exp ?a) (Exp ?b))", "(Exp (Add ?a ?b))"),
            ("(Mul ?a ?b)", "(Mul ?b ?a)"),
            ("(Add ?a ?b)", "(Add ?b ?a)"),
        ],
    ),
    "quotients": (
        "(Div (Div (Mul a b) c) (Div b c))",
        [
            ("(Div (Div ?a ?b) ?c)", "(Div ?a (Mul ?b ?c))"),
            ("(Div (Mul ?a ?b) ?c)", "(Mul ?a (Div ?b ?c))"),
            ("(Mul ?a (Div ?b ?c))", "(Div (Mul ?a ?b) ?c)"),
            ("(Mul ?a ?b)", "(Mul ?b ?a)"),
        ],
    ),
}


def arities(texts: list[str]) -> dict[str, int]:
    """Every head in some s-expressions, with its number of arguments."""
    found: dict[str, int] = {}

    def visit(term: object) -> None:
        if isinstance(term, tuple):
            found[term[0]] = len(term) - 1
            for child in term[1:]:
                visit(child)

    from prism_jax.egraph.plain import parse

    for text in texts:
        visit(parse(text))
    return found


def egglog_text(text: str) -> str:
    """The same term in egglog's syntax: leaves are calls, variables have no mark."""
    text = re.sub(r"(?<![\w?(])([A-Za-z]\w*)(?!\w)", r"(\1)", text)
    return text.replace("?", "v_")


def by_egglog(term: str, rules: Rules) -> tuple[int, int]:
    heads = arities([term, *(side for rule in rules for side in rule)])
    lines = ["(datatype T " + " ".join(f"({h}{' T' * n})" for h, n in heads.items()) + ")"]
    lines += [f"(rewrite {egglog_text(a)} {egglog_text(b)})" for a, b in rules]
    lines += [f"(let $root {egglog_text(term)})", "(run 60)"]
    graph = bindings.EGraph()
    graph.run_program(*graph.parse_program("\n".join(lines)))
    nodes = json.loads(graph.serialize([]).to_json())["nodes"].values()
    nodes = [node for node in nodes if node["eclass"].startswith("T-") and node["op"] in heads]
    return len({node["eclass"] for node in nodes}), len(nodes)


@pytest.mark.parametrize("name", list(SETS))
def test_same_classes_and_nodes(name: str) -> None:
    term, rules = SETS[name]
    graph = EGraph()
    add_term(graph, term)
    compiled = [rewrite(f"r{n}", a, b) for n, (a, b) in enumerate(rules)]
    record = saturate(graph, compiled, Limits(rounds=60, nodes=50_000, seconds=30, matches=10**6))
    assert record.stop is StopReason.SATURATED
    assert (len(graph.classes), graph.node_count) == by_egglog(term, rules)
