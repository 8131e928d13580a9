"""The entry of a kernel in PTX: its parameters, and what of them nothing reads.

Triton gives every kernel two pointers after its own parameters, for scratch memory, and compiles
them in also where the kernel uses none. A launcher that passes a kernel its arrays and nothing else
(XLA's own, see `launch/native.py`) would pass too little; without the unread parameters there is
nothing to pass.

In and out: PTX text. Invariant: a parameter that the text reads is kept, and with it all before it.
"""

from __future__ import annotations

import re


def parameters(ptx: str, kernel: str) -> tuple[str, ...]:
    """Names of the parameters of the entry `kernel`, in order; none if there is no such entry.

    >>> parameters(".visible .entry f( .param .u64 f_param_0, .param .u64 f_param_1 )", "f")
    ('f_param_0', 'f_param_1')
    """
    return tuple(_name(declaration) for declaration in _declared(ptx, kernel)[1])


def without_unread(ptx: str, kernel: str, keep: int) -> str:
    """`ptx` without those of the last parameters of `kernel` that it never reads.

    Args:
      ptx: one module.
      kernel: name of its entry.
      keep: so many parameters, the first ones, stay in any case.
    """
    span, declared = _declared(ptx, kernel)
    rest = ptx[span.stop :]
    while len(declared) > keep and not re.search(rf"\b{_name(declared[-1])}\b", rest):
        declared.pop()
    return ptx[: span.start] + ",".join(declared) + ptx[_end(ptx, span) : span.stop] + rest


def _declared(ptx: str, kernel: str) -> tuple[slice, list[str]]:
    """Where the parameters of `kernel` stand, and their declarations."""
    found = re.search(rf"\.entry\s+{re.escape(kernel)}\(([^)]*)\)", ptx)
    if found is None or not found.group(1).strip():
        return slice(0, 0), []
    return slice(*found.span(1)), found.group(1).rstrip().split(",")


def _end(ptx: str, span: slice) -> int:
    """Where the last declaration ends and only space follows."""
    return span.start + len(ptx[span].rstrip())


def _name(declaration: str) -> str:
    """The parameter's name; an array's has its size behind it."""
    return declaration.split()[-1].partition("[")[0]
