"""`python -m prism_jax cache ...`: list, show, verify, prune, export, load."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from prism_jax import errors
from prism_jax.cache import manage
from prism_jax.options import Options, current


def parser() -> argparse.ArgumentParser:
    """The command's words."""
    words = argparse.ArgumentParser(
        prog="python -m prism_jax cache", description="Look after the folder of kept plans."
    )
    words.add_argument("--dir", help="the folder; default: what the settings say")
    verbs = words.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    verbs.add_parser("list", help="every entry: name, bytes, last use, device, plan")
    show = verbs.add_parser("show", help="one entry: what decided it and what was found")
    show.add_argument("name", help="an entry's name, or its first digits")
    verbs.add_parser("verify", help="check every entry; 1 where one is not valid")
    prune = verbs.add_parser("prune", help="delete what is not valid, and what is beyond the size")
    prune.add_argument("--megabytes", type=float, help="what may remain")
    prune.add_argument("--stale", action="store_true", help="and what other versions made")
    for verb, text in (("export", "write all entries to a file"), ("load", "take them from one")):
        verbs.add_parser(verb, help=text).add_argument("file")
    return words


def main(arguments: Sequence[str]) -> int:
    """Runs the command: 0, or 1 where entries are not valid or a file cannot be read or written."""
    words = parser().parse_args(arguments)
    options = current().replace(cache_dir=words.dir) if words.dir else current()
    try:
        return _run(words, options)
    except errors.CacheFileError as error:
        print(error, file=sys.stderr)
        return 1


def _run(words: argparse.Namespace, options: Options) -> int:
    where = manage.folder(options)
    if words.verb == "list":
        rows = manage.entries(options)
        total = sum(row.bytes for row in rows)
        print("\n".join([*map(str, rows), f"{where}: {len(rows)} entries, {total} bytes"]))
    elif words.verb == "show":
        print(manage.show(words.name, options))
    elif words.verb == "verify":
        bad = manage.verify(options)
        print("\n".join([*(f"{n} {p}" for n, p in bad.items()), f"{where}: {len(bad)} not valid"]))
        return int(bool(bad))
    elif words.verb == "prune":
        gone = manage.prune(words.megabytes, stale=words.stale, options=options)
        print(f"{where}: {len(gone)} entries deleted")
    elif words.verb == "export":
        print(f"{words.file}: {manage.export(words.file, options)} entries")
    else:
        print(f"{where}: {manage.load(words.file, options)} entries loaded")
    return 0
