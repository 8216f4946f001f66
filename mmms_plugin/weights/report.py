"""What a conversion reports, on the terminal and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from mmms_plugin.files import written_whole
from mmms_plugin.report.tables import Rows, Table
from mmms_plugin.report.terminal import print_table, say
from mmms_plugin.weights.verify import Statistics


@dataclass
class Report:
    """What a conversion saw and did; ``as_dict`` is the JSON report."""

    input: str
    sha256: str
    output: str
    source: str
    arch: str
    also_fits: list[str]
    wrapper: str
    beside: list[str]
    prefix: str
    part: str = "backbone"
    mapped: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    initialised: list[str] = field(default_factory=list)
    backbone: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    moved: dict[str, float] = field(default_factory=dict)
    outputs: list[Statistics] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        return {name: len(getattr(self, name)) for name in ("mapped", "dropped", "initialised")}

    @property
    def reasons(self) -> dict[str, int]:
        """Why keys were dropped, and how many for each reason."""
        return dict(Counter(self.dropped.values()))

    def as_dict(self) -> dict[str, Any]:
        return {"counts": self.counts, **asdict(self)}


def print_report(report: Report, console: Console) -> None:
    """Print what the file holds, what became of its keys, and the figures of verification."""
    place = f" in {report.wrapper!r}" if report.wrapper else ""
    prefix = f", prefix {report.prefix!r} taken off" if report.prefix else ""
    beside = f"; beside it, not converted: {', '.join(report.beside)}" if report.beside else ""
    line = f"{report.input}: {report.source} {report.arch}{place}{prefix}{beside}"
    say(line, console)
    if report.also_fits:
        say(f"  keys and shapes fit as well: {', '.join(report.also_fits)} (choose with --source, --arch)", console)
    say("  " + ", ".join(f"{count} {name}" for name, count in report.counts.items()) + " tensors", console)
    for reason, count in report.reasons.items():
        say(f"  dropped {count}: {reason}", console)
    for remark in report.remarks:
        say(f"  {remark}", console)
    if report.moved:
        moved = ", ".join(f"{name} {value:.3f}" for name, value in report.moved.items())
        say(f"  outputs move by (RMS difference / standard deviation, fixed input): {moved}", console)
    if report.outputs:
        rows: Rows = [
            (o.name, "x".join(map(str, o.shape)), o.mean, o.std, o.absmax, "" if o.error is None else f"{o.error:.2e}")
            for o in report.outputs
        ]
        columns = ("output", "shape", "mean", "std", "max |x|", "error / std")
        print_table(Table("outputs", "outputs", columns, rows, form=".5g"), console)
    line = f"{report.output}: {report.part} written; meta.backbone = {report.backbone}"
    say(line, console)


def write_report(report: Report, path: str) -> None:
    """Write the report as JSON, whole or not at all."""
    with written_whole(Path(path)) as temporary:
        temporary.write_text(json.dumps(report.as_dict(), indent=2), encoding="utf-8")
