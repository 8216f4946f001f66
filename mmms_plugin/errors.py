"""The exceptions that end a command with one line instead of a traceback."""

from __future__ import annotations

import reprlib
import unicodedata

LONGEST = 3000  # characters of a line
LONGEST_NAME = 300
LONGEST_VALUE = 60
JOINERS = "\u200c\u200d"  # inside Persian words, inside emoji


class UserError(ValueError):
    """Bad input, reported in one line: what is wrong, where, what is allowed, what to do.

    The command line prints the message without a traceback and exits with status 2.
    """


class RunError(RuntimeError):
    """A run that cannot go on, though its input was in order: a loss that became NaN, say.

    The command line prints the message without a traceback and exits with status 1.
    """


def one_line(text: str) -> str:
    r"""A text with names out of a file, fit for a terminal: control characters as escapes (``\n``), not endless."""
    return printable(text, LONGEST)


def printable(text: str, longest: int = LONGEST_NAME) -> str:
    r"""A text from outside, such as a class name, fit for terminals, figures and files.

    Control characters and what cannot be written as UTF-8 become escapes (``\x1b``); letters of all languages stay.
    """
    text = text if len(text) <= longest else f"{text[: longest // 2]} ... {text[-longest // 2 :]}"
    return "".join(char if char.isprintable() or char in JOINERS else _escaped(char) for char in text)


def shown(value: object, longest: int = LONGEST_VALUE) -> str:
    """A value out of a file, for a message: a text in quotes, anything else as Python spells it; cut, as `printable`.

    Args:
        value: anything; of lists and dictionaries only the first items are spelled.
        longest: characters.
    """
    if isinstance(value, str):
        quote = '"' if "'" in value and '"' not in value else "'"
        return f"{quote}{printable(value, longest)}{quote}"
    try:
        return printable(reprlib.repr(value), longest)
    except ValueError:  # Python spells integers of 4,300 digits and no more
        return "an integer of thousands of digits"


def _escaped(char: str) -> str:
    return " " if unicodedata.category(char) == "Zs" else repr(char)[1:-1]


def first_line(error: BaseException) -> str:
    """The first line of an error of a library, or its type where it has no text."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
