"""Problems of a data set, counted by kind: for a table, for JSON, or for the line that stops training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.coco.rules import RULES, SEVERITIES
from mmms_plugin.errors import UserError

SHOWN = 3  # examples of a finding in a line or a table
KEPT = 1000  # examples in JSON


@dataclass(frozen=True)
class Finding:
    """One kind of problem in one file or folder.

    Attributes:
        code: of the rule, a key of ``RULES``.
        severity: "error" stops training, "mended" is mended in a copy, "warning" is for the user to judge.
        file: annotation file or folder.
        count: how many records or pictures have it.
        total: of how many; None if that says nothing.
        what: the problem, in the plural.
        examples: the first thousand of them.
        advice: what to do, or what has been done.
    """

    code: str
    severity: str
    file: str
    count: int
    what: str
    examples: tuple[str, ...]
    advice: str
    total: int | None = None

    @property
    def title(self) -> str:
        """The problem and how many have it: "boxes of zero width or height: 3 of 24"."""
        return f"{self.what}: {self.count}" + ("" if self.total is None else f" of {self.total}")

    @property
    def text(self) -> str:
        """Everything but the file, in one line."""
        shown = f" ({'; '.join(self.examples[:SHOWN])}{self.more})" if self.examples else ""
        return f"{self.title}{shown}" + (f"; {self.advice}" if self.advice else "")

    @property
    def more(self) -> str:
        """How many more have it than the examples that are shown, in words."""
        others = self.count - min(SHOWN, len(self.examples))
        return f" and {others} more" if others and self.examples else ""

    def as_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {**asdict(self), "examples": list(self.examples)}


class Findings:
    """Problems of one file, counted by kind as they are found; only the first examples of each are kept.

    Args:
        file: annotation file or folder, for messages.
        severities: of some codes, in place of the rules'; "none" leaves a code out.

    Attributes:
        advisory: errors are warnings, as those of a test split, which training does not use.
    """

    def __init__(self, file: str, severities: Mapping[str, str] | None = None) -> None:
        self.file, self.advisory = file, False
        self._severities = dict(severities or {})
        self._found: dict[str, tuple[int, list[str]]] = {}
        self._totals: dict[str, int] = {}

    def add(self, code: str, example: str = "", count: int = 1) -> None:
        """Count a problem; ``example`` names the record that has it."""
        before, examples = self._found.get(code, (0, []))
        if example and len(examples) < KEPT:
            examples.append(example)
        self._found[code] = (before + count, examples)

    def add_where(
        self, code: str, which: NDArray[np.bool_], named: Callable[[int], str], total: int | None = None
    ) -> None:
        """Count the places where ``which`` is true; ``named`` gives the example of a place, ``total`` is shown."""
        places = np.flatnonzero(which).tolist()
        if total is not None:
            self._totals[code] = total
        for place in places[:KEPT]:
            self.add(code, named(place))
        if len(places) > KEPT:
            self.add(code, count=len(places) - KEPT)

    def __contains__(self, code: str) -> bool:
        return code in self._found

    def __iter__(self) -> Iterator[Finding]:
        """Findings, errors first, then in the order of the rules."""
        severities = (*SEVERITIES, "none")
        order = {code: (severities.index(self._severity(code)), place) for place, code in enumerate(RULES)}
        for code in sorted(self._found, key=order.__getitem__):
            if self._severity(code) == "none":
                continue
            count, examples = self._found[code]
            rule = RULES[code]
            yield Finding(
                code, self._severity(code), self.file, count, rule.what, tuple(examples), rule.advice,
                self._totals.get(code),
            )  # fmt: skip

    def _severity(self, code: str) -> str:
        severity = self._severities.get(code, RULES[code].severity)
        return "warning" if severity == "error" and self.advisory else severity


def errors_first(files: Iterable[Findings]) -> list[Finding]:
    """The findings of several files, by severity."""
    findings = [finding for file in files for finding in file]
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def refuse_errors(findings: Iterable[Finding], command: str = "") -> None:
    """Stop at errors: the message describes the first and names the other kinds.

    Args:
        findings: of all files.
        command: the command that lists all problems, for the message.

    Raises:
        UserError: a finding is an error.
    """
    errors = [finding for finding in findings if finding.severity == "error"]
    if not errors:
        return
    line = f"{errors[0].file}: {errors[0].text}"
    others = dict.fromkeys(finding.what for finding in errors if finding.what != errors[0].what)
    if others:
        line += f"; also {', '.join(others)}"
    raise UserError(f"{line}{f' ({command} lists everything)' if command else ''}")
