"""Values out of the text of a config, as mmengine keeps it in a checkpoint (``meta.cfg``), without running it.

Such a text is Python. mmengine writes nothing but assignments of plain values and ``dict(...)`` calls; only these are
read here, token by token. Python's own parser is not asked: a text that is nested deep enough can crash it.
"""

from __future__ import annotations

import re
import tokenize
from collections.abc import Iterator
from io import StringIO
from itertools import islice
from typing import Any

LONGEST, MOST = 1_000_000, 100_000  # characters of a text, tokens to look at
DEEPEST = 40  # dicts and lists in each other
NUMBER = re.compile(r"\d+|(\d+\.\d*|\.\d+|\d+)(e[+-]?\d+)?", re.IGNORECASE)
STRING = re.compile(r"""(?P<quote>'|")(?P<text>[^\\]*)(?P=quote)""")  # without prefix and escapes
CONSTANTS = {"True": True, "False": False, "None": None}
CLOSING = {"[": "]", "(": ")", "{": "}"}
SKIPPED = (tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT)


class Unknown:
    """Stands for a value that is no plain one."""


UNKNOWN = Unknown()


class _NotPlainError(Exception):
    pass


def assigned(text: object, name: str) -> Any:
    """The value of ``name = ...`` in a config's text; None where there is none, or none that can be read.

    Parts that are no plain values, such as names, are ``UNKNOWN``.
    """
    if not isinstance(text, str) or len(text) > LONGEST:
        return None
    tokens = (t for t in islice(tokenize.generate_tokens(StringIO(text).readline), MOST) if t.type not in SKIPPED)
    try:
        for token in tokens:
            if token.string == name and token.start[1] == 0 and next(tokens).string == "=":
                return _Reader(tokens).value()
        return None
    except (_NotPlainError, StopIteration, tokenize.TokenError, SyntaxError, ValueError):
        return None


class _Reader:
    """Reads one value from tokens."""

    def __init__(self, tokens: Iterator[tokenize.TokenInfo]) -> None:
        self._tokens = tokens
        self._next()

    def _next(self) -> None:
        self._token = next(self._tokens, None)

    def _is(self, text: str) -> bool:
        return self._token is not None and self._token.type == tokenize.OP and self._token.string == text

    def _take(self, text: str) -> None:
        if not self._is(text):
            raise _NotPlainError
        self._next()

    def value(self, depth: int = 0) -> Any:
        """The value that begins here; the token behind it is the current one afterwards."""
        token = self._token
        if token is None or depth > DEEPEST:
            raise _NotPlainError
        self._next()
        if token.type == tokenize.NUMBER:
            return _number(token.string)
        if token.type == tokenize.STRING:
            return self._strings(token.string)
        if token.string == "-":
            number = self.value(depth + 1)
            return -number if type(number) in (int, float) else UNKNOWN
        if token.string == "dict" and self._is("("):
            self._next()
            return self._pairs(")", "=", depth)
        if token.string == "{":
            return self._pairs("}", ":", depth)
        if token.string in ("[", "("):
            return self._items(token.string, depth)
        if token.type == tokenize.NAME:
            return CONSTANTS.get(token.string, UNKNOWN)
        raise _NotPlainError

    def _strings(self, first: str) -> Any:
        """Strings beside each other are one."""
        parts = [first]
        while self._token is not None and self._token.type == tokenize.STRING:
            parts.append(self._token.string)
            self._next()
        found = [STRING.fullmatch(part) for part in parts]
        return "".join(match["text"] for match in found if match) if all(found) else UNKNOWN

    def _pairs(self, end: str, between: str, depth: int) -> dict[Any, Any]:
        pairs = {}
        while not self._is(end):
            if between == "=":
                key: Any = self._token.string if self._token is not None else None
                self._next()
            else:
                key = self.value(depth + 1)
            self._take(between)
            value = self.value(depth + 1)
            if isinstance(key, str):
                pairs[key] = value
            if not self._is(end):
                self._take(",")
        self._next()
        return pairs

    def _items(self, start: str, depth: int) -> Any:
        end, items, comma = CLOSING[start], [], False
        while not self._is(end):
            items.append(self.value(depth + 1))
            if not self._is(end):
                self._take(",")
                comma = True
        self._next()
        return items[0] if start == "(" and len(items) == 1 and not comma else items


def _number(text: str) -> int | float | Unknown:
    if len(text) > 40 or not NUMBER.fullmatch(text):
        return UNKNOWN
    return int(text) if text.isdigit() else float(text)
