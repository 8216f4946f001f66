"""List published checkpoints of the four methods: address, licence, published accuracy, whether it could be checked."""

from __future__ import annotations

import argparse
from dataclasses import asdict

METHODS = ("psconv", "elastic", "dla", "shape_adaptor", "msdnet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["list"], help="list: print the catalog")
    parser.add_argument("--method", choices=METHODS, help="only this method's")
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")


def run(args: argparse.Namespace) -> None:
    import json

    from rich.console import Console
    from rich.markup import escape

    from mmms_plugin.weights.catalog import CATALOG

    entries = [entry for entry in CATALOG if args.method in (None, entry.method)]
    if args.json:
        told = [{**asdict(entry), "accuracy": entry.accuracy, "status": entry.status} for entry in entries]
        print(json.dumps(told, indent=2))
        return
    console = Console(highlight=False, soft_wrap=True)  # addresses stay whole
    console.print("Published checkpoints; none was downloaded here, so none is verified.")
    for entry in entries:
        facts = (entry.trained_for, entry.accuracy, entry.licence or "no licence stated", entry.status)
        console.print(f"\n[bold]{escape(entry.name)}[/bold] ({entry.method})")
        console.print(f"  {escape('; '.join(fact for fact in facts if fact))}")
        console.print(
            f"  {escape(entry.address or 'no address')}{escape(f' ({entry.remark})') if entry.remark else ''}"
        )
        if entry.source:
            console.print(f"  mmms convert IN OUT --source {entry.source} --arch {entry.arch}")
