"""List published checkpoints of the methods.

Each with its address, licence, published accuracy, and whether it could be verified.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from mmms_plugin.options import CommandOptions, option, positional
from mmms_plugin.weights.catalog import CATALOG


@dataclass(kw_only=True)
class Options(CommandOptions):
    action: str = positional(choices=["list"], help="list: print the catalog")
    method: str | None = option(
        choices=["psconv", "elastic", "dla", "shape_adaptor", "msdnet"], help="list only this method's checkpoints"
    )
    json: bool = option(default=False, help="print the catalog as JSON, for programs")


def run(options: Options) -> None:
    entries = [entry for entry in CATALOG if options.method in (None, entry.method)]
    if options.json:
        content = [{**asdict(entry), "accuracy": entry.accuracy, "status": entry.status} for entry in entries]
        print(json.dumps(content, indent=2))
        return
    from mmms_plugin.report.terminal import explain, say

    say("Published checkpoints; none was downloaded here, so none is verified.")
    for entry in entries:
        facts = (entry.trained_for, entry.accuracy, entry.licence or "no licence stated", entry.status)
        say("")
        say(f"{entry.name} ({entry.method})", style="bold")
        explain(f"  {'; '.join(fact for fact in facts if fact)}")
        remark = f" ({entry.remark})" if entry.remark else ""
        say(f"  {entry.address or 'no address'}{remark}")
        if entry.source:
            say(f"  mmms convert IN OUT --source {entry.source} --arch {entry.arch}")
