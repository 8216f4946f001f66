"""List published checkpoints of the four methods: address, licence, published accuracy, whether it could be checked."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict

METHODS = ("psconv", "elastic", "dla", "shape_adaptor", "msdnet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["list"], help="list: print the catalog")
    parser.add_argument("--method", choices=METHODS, help="only this method's")
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")


def run(args: argparse.Namespace) -> None:
    import json

    from rich.console import Console
    from rich.table import Table

    from mmms_plugin.weights.catalog import CATALOG

    entries = [entry for entry in CATALOG if args.method in (None, entry.method)]
    if args.json:
        print(json.dumps([{**asdict(entry), "status": entry.status} for entry in entries], indent=2))
        return
    title = "published checkpoints; none was downloaded here: unverified"
    table = Table("checkpoint", "convert as", "trained for", "published", "licence", "checked", title=title)
    for entry in entries:
        convert = f"--source {entry.source} --arch {entry.arch}" if entry.source else "-"
        name = f"{entry.name}\n{entry.address or '(no address)'}{f' ({entry.remark})' if entry.remark else ''}"
        licence = entry.licence or "none stated"
        table.add_row(name, convert, entry.task or "-", entry.accuracy or "-", licence, entry.status)
    # Piped, the lines stay long enough for whole addresses.
    Console(width=None if sys.stdout.isatty() else 1000).print(table)
