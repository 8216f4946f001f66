"""YAML files of data sets, as texts, lists and mappings; and a check of configs before mmengine reads them.

Nothing in a file may choose a type or multiply. In a data set's file, tags and aliases are refused, and a class keeps
its name as it is written: ``no``, ``1e3``, ``2020-01-01``. A config may have aliases, whose values count each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml

from mmms_plugin.coco.text_files import text_of
from mmms_plugin.errors import UserError, shown

LARGEST = 1 << 20  # bytes
MOST = 100_000  # texts, lists and mappings
DEEPEST = 20  # levels of lists and mappings
CONFIG_TAGS = tuple(
    f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map", "python/tuple")
)
NOTHING = ("", "~", "null", "Null", "NULL")  # YAML's spellings


def yaml_of(path: Path, argument: str) -> dict[str, Any]:
    """The content of a data set's YAML file: texts, lists and mappings of them, None where nothing is given.

    Raises:
        UserError: not YAML, not a mapping, or more than a data set needs: tags, aliases, many or deeply nested values.
    """
    content = _read(path, argument, config=False)
    if not isinstance(content, dict):
        raise UserError(f"{argument} {path}: not a data set's YAML file (path, val, names)")
    return content


def check_yaml_config(path: Path) -> None:
    """Refuse a YAML config that makes objects of other types, or grows without limit.

    Raises:
        UserError: not YAML, unusual tags, or too many values.
    """
    _read(path, "config", config=True)


def _read(path: Path, argument: str, config: bool) -> Any:
    text, where = text_of(path, argument, LARGEST), f"{argument} {path}"
    try:
        return _YamlReader(yaml.parse(text, yaml.BaseLoader), where, config).document()
    except UserError:
        raise
    except (yaml.YAMLError, ValueError) as error:  # of a character or a version that is out of range
        mark = getattr(error, "problem_mark", None)
        raise UserError(f"{where}{f', line {mark.line + 1}' if mark else ''}: not YAML") from None


class _YamlReader:
    """A YAML document from its events.

    Args:
        events: of the file.
        where: argument and file, for messages.
        config: allow aliases, and tags of plain values.
    """

    def __init__(self, events: Iterator[yaml.Event], where: str, config: bool) -> None:
        self._events, self._where, self._config = events, where, config
        self._count = 0  # of values
        self._sizes: dict[str, int] = {}  # of values with an anchor

    def document(self) -> Any:
        """The only document of the file; None for an empty file."""
        content, documents = None, 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._refuse(event, "a second document; allowed is one")
                content = self._value(next(self._events), 0)
        return content

    def _value(self, event: yaml.Event, depth: int) -> Any:
        start = self._count
        self._count += 1
        if isinstance(event, yaml.AliasEvent):
            if not self._config or event.anchor not in self._sizes:
                self._refuse(event, f"the alias {shown(f'*{event.anchor}')}; write the value itself")
            self._count += self._sizes[event.anchor]
        if self._count > MOST:
            self._refuse(event, f"more than {MOST:,} values")
        if isinstance(event, yaml.AliasEvent):
            return None
        if event.tag is not None and not (self._config and event.tag in CONFIG_TAGS):
            self._refuse(event, f"the tag {shown(event.tag)}; allowed are texts, lists and mappings without tags")
        value = self._content(event, depth)
        if event.anchor:
            self._sizes[event.anchor] = self._count - start
        return value

    def _content(self, event: yaml.Event, depth: int) -> Any:
        if isinstance(event, yaml.ScalarEvent):
            return None if event.implicit[0] and event.value in NOTHING else event.value
        if depth == DEEPEST:
            self._refuse(event, f"nested too deep; allowed are {DEEPEST} levels")
        if isinstance(event, yaml.SequenceStartEvent):
            return list(self._values(yaml.SequenceEndEvent, depth))
        return self._mapping(depth)

    def _values(self, end: type[yaml.Event], depth: int) -> Iterator[Any]:
        while not isinstance(event := next(self._events), end):
            yield self._value(event, depth + 1)

    def _mapping(self, depth: int) -> dict[str, Any]:
        content: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._value(event, depth + 1)
            if not isinstance(key, str):
                self._refuse(event, f"the key {shown(key)}; must be a text")
            if key in content:
                self._refuse(event, f"the key {shown(key)} is given twice")
            content[key] = self._value(next(self._events), depth + 1)
        return content

    def _refuse(self, event: yaml.Event, what: str) -> NoReturn:
        raise UserError(f"{self._where}, line {event.start_mark.line + 1}: {what}")
