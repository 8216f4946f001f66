"""What a conversion reports."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

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
