"""The command line: `python -m prism_jax COMMAND`. A command's module is imported when called.

>>> usage().splitlines()[0]
'python -m prism_jax COMMAND, where COMMAND is one of'
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence


def _bench(arguments: Sequence[str]) -> int:
    from prism_jax.bench import cli

    return cli.main(arguments)


def _cache(arguments: Sequence[str]) -> int:
    from prism_jax.cache import command

    return command.main(arguments)


def _demo(arguments: Sequence[str]) -> int:
    from prism_jax import demo

    return demo.main()


def _doctor(arguments: Sequence[str]) -> int:
    from prism_jax import doctor

    return doctor.main()


def _kernels(arguments: Sequence[str]) -> int:
    from prism_jax.bench import gallery

    return gallery.main(arguments)


#: Name to (what it does, what runs it).
COMMANDS: Mapping[str, tuple[str, Callable[[Sequence[str]], int]]] = {
    "bench": ("measure a suite of programs against jax.jit (bench --help)", _bench),
    "cache": ("list, check, prune, export or load the kept plans (cache --help)", _cache),
    "demo": ("the main job on real programs, in a few minutes", _demo),
    "kernels": ("regenerate the gallery of kernels found for the suites", _kernels),
    "doctor": ("what is installed, what will be used, what is missing", _doctor),
}


def usage() -> str:
    """The commands, one per line."""
    lines = ["python -m prism_jax COMMAND, where COMMAND is one of"]
    return "\n".join([*lines, *(f"  {name:<8} {text}" for name, (text, _) in COMMANDS.items())])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; 2 for a word that is none, as argparse does."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words[0] not in COMMANDS:
        print(f"there is no command {words[0]!r}\n{usage()}", file=sys.stderr)
        return 2
    return COMMANDS[words[0]][1](words[1:])


if __name__ == "__main__":
    raise SystemExit(main())
