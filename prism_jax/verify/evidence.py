"""Evidence: why a plan may be trusted, as a value that is printed, stored and replayed.

In: a program, the sGraph of a plan with its sizes, and (where the device is there) the reference
and the candidate as functions. Out: an `Evidence` with the result of each layer. Invariant: it is
`accepted` only if no layer rejects and at least two layers apply; where the proof finds an
exponential that nothing bounds (`bounded`), the contract must be one of them.

| layer | applies unless | rejects |
|---|---|---|
| form | (it always applies, and vouches for nothing) | what `ir.check` finds ill formed |
| proof | a term is beyond the axioms here | a race, an obligation of a cascade that fails |
| field | the program is outside the fragment | a draw that differs |
| contract | there is nothing to run | a draw that breaks it |
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from prism_jax.ir.check import IRError, check_sgraph
from prism_jax.ir.program import Program
from prism_jax.ir.sgraph import Kernel, SGraph
from prism_jax.verify import contract, field
from prism_jax.verify.field import FieldResult
from prism_jax.verify.oracles import Fast
from prism_jax.verify.proof import Proof, Refusal, prove
from prism_jax.verify.results import ContractResult

NEEDED_LAYERS = 2
Call: TypeAlias = Callable[..., Any]


@dataclass(frozen=True)
class Evidence:
    """The results of the layers; None where a layer was not asked. `sizes`: the plan's symbols."""

    program: str
    sgraph: str
    sizes: tuple[tuple[str, int], ...]
    proof: Proof | Refusal | None = None
    field: FieldResult | None = None
    contract: ContractResult | None = None
    illegal_sizes: str = ""
    ill_formed: str = ""
    """What the checker of the IR says against the sGraph; empty where it is well formed."""

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that applied: those that reached a verdict."""
        found: list[str] = []
        if self.proof is not None and (self.proof.passed or _illegal(self.proof)):
            found.append("proof")
        if self.field is not None and self.field.outcome != "outside":
            found.append("field")
        if self.contract is not None:
            found.append("contract")
        return tuple(found)

    @property
    def rejected_by(self) -> tuple[str, ...]:
        """The layers that say the sGraph or the plan is wrong."""
        found: list[str] = []
        if self.ill_formed:
            found.append("form")
        if self.illegal_sizes:
            found.append("sizes")
        if self.proof is not None and _illegal(self.proof):
            found.append("proof")
        if self.field is not None and self.field.outcome == "different":
            found.append("field")
        if self.contract is not None and not self.contract.passed:
            found.append("contract")
        return tuple(found)

    @property
    def accepted(self) -> bool:
        """No layer rejects and two apply, the contract one of them where the proof asks."""
        enough = len(self.layers) >= NEEDED_LAYERS and not self._wants_contract
        return not self.rejected_by and enough

    @property
    def _wants_contract(self) -> tuple[str, ...]:
        """Exponentials that only the contract can vouch for, where it has not been run."""
        asked = self.proof.unbounded if isinstance(self.proof, Proof) else ()
        return asked if self.contract is None else ()

    passed = accepted

    @property
    def worst(self) -> float:
        """The largest share of the accuracy contract's allowance used; 0 where it was not run."""
        return self.contract.worst if self.contract is not None else 0.0

    @property
    def reason(self) -> str:
        """Why it is not accepted; empty where it is."""
        if self.accepted:
            return ""
        reasons = {
            "form": self.ill_formed,
            "sizes": self.illegal_sizes,
            "proof": str(self.proof),
            "field": str(self.field),
            "contract": self.contract.reason if self.contract is not None else "",
        }
        if self.rejected_by:
            return "; ".join(f"{layer}: {reasons[layer]}" for layer in self.rejected_by)
        if self._wants_contract:
            where = self._wants_contract[0]
            return f"an exponential in {where} may overflow, and the contract was not run"
        missing = [
            f"{layer}: {reasons[layer]}" for layer in ("proof", "field") if layer not in self.layers
        ]
        return f"only {len(self.layers)} of {NEEDED_LAYERS} layers apply ({'; '.join(missing)})"

    def __str__(self) -> str:
        verdict = "accepted" if self.accepted else f"refused: {self.reason}"
        head = f"evidence: {verdict} [{', '.join(self.layers) or 'no layer applies'}]"
        parts = [str(p) for p in (self.proof, self.field, self.contract) if p is not None]
        return "\n".join([head, *parts])

    def to_json(self) -> str:
        """A text from which `from_json` makes an equal value."""
        return json.dumps(
            {
                "program": self.program,
                "sgraph": self.sgraph,
                "sizes": list(map(list, self.sizes)),
                "proved": self.proof.passed if self.proof is not None else None,
                "proof": self.proof.to_json() if self.proof is not None else None,
                "field": self.field.to_json() if self.field is not None else None,
                "contract": self.contract.to_json() if self.contract is not None else None,
                "illegal_sizes": self.illegal_sizes,
                "ill_formed": self.ill_formed,
            }
        )

    @staticmethod
    def from_json(text: str) -> Evidence:
        """The value that `to_json` wrote."""
        data = json.loads(text)
        read = Proof.from_json if data["proved"] else Refusal.from_json
        return Evidence(
            data["program"],
            data["sgraph"],
            tuple((str(a), int(b)) for a, b in data["sizes"]),
            read(data["proof"]) if data["proof"] is not None else None,
            FieldResult.from_json(data["field"]) if data["field"] is not None else None,
            ContractResult.from_json(data["contract"]) if data["contract"] is not None else None,
            data["illegal_sizes"],
            data.get("ill_formed", ""),
        )

    def replay(self, program: Program, sgraph: SGraph) -> bool:
        """Whether proof and field test, repeated, give what is recorded. The contract needs a
        device.
        """
        again = verify(program, sgraph, dict(self.sizes))
        return again.proof_key() == self.proof_key() and again.field == self.field

    def proof_key(self) -> tuple[Any, ...]:
        """What a replay must find again: the proof without its time."""
        if isinstance(self.proof, Proof):
            return self.proof.steps, self.proof.assumptions, self.proof.program, self.proof.sgraph
        return (self.proof,)


def _illegal(proof: Proof | Refusal) -> bool:
    return isinstance(proof, Refusal) and proof.illegal


def verify(
    program: Program,
    sgraph: SGraph,
    sizes: Mapping[str, int] | None = None,
    reference: Call | None = None,
    candidate: Call | None = None,
    *,
    accuracy: float = 2.0,
    seed: int = 0,
    device: str = "",
    fast: Fast | None = None,
) -> Evidence:
    """Runs the layers: proof and field test always, the accuracy contract where both functions are
    given.

    Args:
        program: the user's region.
        sgraph: what the plan executes.
        sizes: a number for every symbol of the sGraph.
        reference: the user's region under `jax.jit`, a function of the inputs in order.
        candidate: the emitted plan, a function of the same.
        accuracy: the contract's factor.
        seed: decides every random number.
        device: written into the protocol.
        fast: makes an oracle for the contract that is used where numpy's is dear.
    """
    numbers = dict(sizes or {})
    wrong = _sizes(sgraph, numbers) if sizes is not None else ""
    made = tuple(sorted(numbers.items()))
    proof = prove(program, sgraph)
    tested = field.test(program, sgraph, seed=seed)
    form = _ill_formed(sgraph)
    evidence = Evidence(program.digest, sgraph.digest, made, proof, tested, None, wrong, form)
    if evidence.rejected_by or reference is None or candidate is None:
        return evidence
    checked = contract.check(
        program, reference, candidate, accuracy=accuracy, seed=seed, device=device, fast=fast
    )
    return replace(evidence, contract=checked)


def _ill_formed(sgraph: SGraph) -> str:
    try:
        check_sgraph(sgraph)
    except IRError as error:
        return str(error).splitlines()[0]
    return ""


def _sizes(sgraph: SGraph, numbers: Mapping[str, int]) -> str:
    """Why these sizes are no instance of the sGraph; empty where they are."""
    for symbol in sgraph.symbols:
        if numbers.get(symbol, 0) < 1:
            return f"symbol {symbol} has no positive number"
    for node in sgraph.nodes:
        if isinstance(node, Kernel):
            shares = {loop.split for loop in node.all_loops if loop.split is not None}
            for g in node.grid:
                tile = g.tile if isinstance(g.tile, int) else numbers[g.tile]
                if g.axis in shares and tile != 1:
                    return f"a block of {node.name} has {tile} shares of a loop, not one"
    return ""
