"""The one exception that means "the user's input is at fault"."""

from __future__ import annotations

LONGEST = 3000  # characters of a line


class UserError(ValueError):
    """Bad input, told in one line: what is wrong, where, what is allowed, what to do.

    The command line prints the message without a traceback and exits with status 2.
    """


def one_line(text: str) -> str:
    r"""A text with names out of a file, fit for a terminal: control characters as escapes (``\n``), not endless."""
    text = text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def first_line(error: BaseException) -> str:
    """The first line of an error of a library, or its type where it has no text."""
    return next((line for line in str(error).strip().splitlines() if line.strip()), type(error).__name__)
