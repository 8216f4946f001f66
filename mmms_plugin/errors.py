"""The exceptions that end a command with one line instead of a traceback."""

from __future__ import annotations

LONGEST = 3000  # characters of a line


class UserError(ValueError):
    """Bad input, told in one line: what is wrong, where, what is allowed, what to do.

    The command line prints the message without a traceback and exits with status 2.
    """


class RunError(RuntimeError):
    """A run that cannot go on, though its input was in order: a loss that became NaN, say.

    The command line prints the message without a traceback and exits with status 1.
    """


def one_line(text: str) -> str:
    r"""A text with names out of a file, fit for a terminal: control characters as escapes (``\n``), not endless."""
    text = text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
