"""``python -m prism_jax.axioms evidence`` regenerates the evidence; ``list`` prints the table;
``check`` says what is stale.
"""

from __future__ import annotations

import sys

from prism_jax.axioms import DEFAULT, content_hash
from prism_jax.axioms.trials import stale, write


def main(arguments: list[str]) -> int:
    """Runs one command; 0 if all is well, 1 if evidence is stale, 2 for a wrong command."""
    match arguments:
        case ["evidence"]:
            for record in write(DEFAULT):
                field = (
                    f"{record.finite_field} field trials"
                    if record.finite_field
                    else f"outside: {record.outside}"
                )
                print(f"{record.axiom}: {record.float64} float64 trials ({record.error}), {field}")
            return 0
        case ["list"]:
            for axiom in DEFAULT:
                print(f"{axiom}    [{', '.join(axiom.levels)}; {axiom.source}]")
            print(f"{len(DEFAULT)} axioms, {content_hash()}")
            return 0
        case ["check"]:
            problems = stale(DEFAULT)
            print("\n".join(problems) or "evidence is complete")
            return 1 if problems else 0
        case _:
            print(__doc__)
            return 2


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
