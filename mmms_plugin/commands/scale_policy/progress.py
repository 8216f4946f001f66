"""What is known of every picture while a long run lasts; kept in a file from which an interrupted run goes on."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmms_plugin.commands.scale_policy.pictures import Source
from mmms_plugin.errors import UserError, one_line
from mmms_plugin.files import write_text
from mmms_plugin.train.predict import problem_of, with_progress

SECONDS = 10.0  # between two saves


class Progress:
    """Results by the names of pictures.

    Args:
        path: of the file. key: of everything that the results depend on; a file of another key is not used.

    Attributes:
        found: what a file or ``measure`` gave, by name; values that JSON can hold. skipped: why others gave nothing.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        self.found: dict[str, Any] = {}
        self.skipped: dict[str, str] = {}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["key"] == key:
                found = {str(name): value for name, value in content["found"].items()}
                self.skipped |= {str(name): str(reason) for name, reason in content["skipped"].items()}
                self.found = found
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # none, or a damaged one: begin again

    def measure(self, sources: Sequence[Source], one: Callable[[Source], Any], doing: str) -> None:
        """Call ``one`` for every picture that can be read and is not there yet.

        Raises: UserError if no picture can be read.
        """
        left = [source for source in sources if source.name not in self.found and source.name not in self.skipped]
        if self.found:
            print(f"{doing}: going on after {len(self.found)} of {len(sources)} pictures", file=sys.stderr)
        saved = time.monotonic()
        try:
            for source in with_progress(left, doing):
                if problem := problem_of(source.path):
                    self.skipped[source.name] = problem
                else:
                    try:
                        self.found[source.name] = one(source)
                    except UserError:
                        raise
                    except ValueError as error:  # a picture too small for the network, say
                        self.skipped[source.name] = one_line(str(error))
                if time.monotonic() - saved > SECONDS:
                    self._save()
                    saved = time.monotonic()
        finally:
            self._save()
        if not self.found:
            raise UserError(_none_of(self.skipped))

    def _save(self) -> None:
        write_text(self.path, json.dumps(dict(key=self.key, skipped=self.skipped, found=self.found)))


def check_readable(sources: Sequence[Source]) -> None:
    """Raises: UserError if no picture can be read; the first that can ends the search."""
    problems: dict[str, str] = {}
    for source in sources:
        if not (problem := problem_of(source.path)):
            return
        problems[source.name] = problem
    raise UserError(_none_of(problems))


def _none_of(problems: Mapping[str, str]) -> str:
    name, reason = next(iter(problems.items()))
    return f"none of the {len(problems)} pictures can be read; {name}: {reason}"
