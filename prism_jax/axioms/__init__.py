"""Axioms: typed equations of index notation, each with its conditions, its source and its evidence.

`DEFAULT` is the set in use; `content_hash()` names its exact content in caches and proofs.

>>> len(content_hash()), by_name("hoist").when
(64, ('k not in a',))
"""

from __future__ import annotations

import hashlib

from prism_jax.axioms.axiom import Axiom
from prism_jax.axioms.pattern import PatternError
from prism_jax.axioms.rows import DEFAULT

__all__ = ["DEFAULT", "Axiom", "PatternError", "by_name", "content_hash", "for_level", "row_hash"]


def for_level(level: str) -> tuple[Axiom, ...]:
    """The axioms used at a level: "normal", "search", "order" or "proof"."""
    return tuple(axiom for axiom in DEFAULT if level in axiom.levels)


def by_name(name: str) -> Axiom:
    """The axiom with a name. Raises KeyError."""
    return {axiom.name: axiom for axiom in DEFAULT}[name]


def row_hash(axiom: Axiom) -> str:
    """A fingerprint of what an axiom claims: its equation and conditions (not where search uses
    it).
    """
    return hashlib.sha256("\n".join((axiom.equation, *sorted(axiom.when))).encode()).hexdigest()[
        :16
    ]


def content_hash(axioms: tuple[Axiom, ...] = DEFAULT) -> str:
    """A fingerprint of a set of axioms: everything that proofs or search depend on."""
    rows = [f"{a.name}|{a.equation}|{a.when}|{a.levels}|{a.wants}" for a in axioms]
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()
