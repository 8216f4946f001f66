"""The exceptions that end a command with one line instead of a traceback."""

from __future__ import annotations

import errno
import re
import reprlib
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

LONGEST = 3000  # characters of a line
LONGEST_NAME = 300
LONGEST_VALUE = 60
MOST_BITS = 13_000  # Python spells integers of up to 4,300 digits
JOINERS = "\u200c\u200d"  # inside Persian words, inside emoji


class UserError(ValueError):
    """Bad input, reported in one line: what is wrong, where, what is allowed, what to do.

    The command line prints the message without a traceback and exits with status 2.
    """


class RunError(RuntimeError):
    """A run that cannot go on, though its input was in order: a loss that became NaN, say.

    The command line prints the message without a traceback and exits with status 1.
    """


# How torch, OpenCV, safetensors and the system say that memory ran out, where they do not raise a MemoryError.
NO_MEMORY = re.compile(
    r"(?i)out of memory|(?:can't|cannot|could not|failed to|unable to) allocate|not enough memory|insufficient memory"
    r"|bad[_ ]alloc|failed to map segment|can't start new thread|could not create a primitive"  # the last is oneDNN's
    r"|paging file is too small"  # Windows
)
LIBRARIES = ("cv2", "safetensors_rust")  # their errors derive from Exception alone


@contextmanager
def memory_checked(what: str) -> Iterator[None]:
    """Report a lack of memory as such; readers of damaged files, which may raise anything, take it for damage.

    Args:
        what: was being done, such as ``checkpoint x.pth``.

    Raises:
        RunError: an error says that memory ran out, or was raised because of one that does.
    """
    try:
        yield
    except RunError:
        raise
    except Exception as error:
        if (shortage := memory_shortage(error)) is not None:
            raise RunError(shortage_line(what, shortage)) from error
        raise


def memory_shortage(error: BaseException) -> BaseException | None:
    """The error, or the one that led to it, that says that memory ran out; None if there is none."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno == errno.ENOMEM):
            return cause
        foreign = isinstance(cause, RuntimeError | OSError | ImportError) or type(cause).__module__ in LIBRARIES
        if foreign and not isinstance(cause, RunError) and NO_MEMORY.search(str(cause)):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def shortage_line(what: str, shortage: BaseException) -> str:
    detail = "" if isinstance(shortage, MemoryError) and not str(shortage) else f" ({first_line(shortage)[:200]})"
    return (
        f"{what}: not enough memory{detail}; free some or raise the limit of the process (ulimit -v); for a network, "
        "smaller batches or pictures need less"
    )


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
    return printable(_Values().repr(value), longest)


class _Values(reprlib.Repr):
    """As Python's, which sorts dictionaries and spells 6 items of a list."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = 20
        self.maxstring = self.maxother = LONGEST_VALUE

    def repr_int(self, value: int, level: int) -> str:
        if value.bit_length() > MOST_BITS:
            return "an integer of thousands of digits"
        return super().repr_int(value, level)

    def repr_dict(self, value: dict, level: int) -> str:
        if level <= 0:
            return "{...}"
        items = [
            f"{self.repr1(k, level - 1)}: {self.repr1(v, level - 1)}" for k, v in islice(value.items(), self.maxdict)
        ]
        return f"{{{', '.join(items + ['...'] * (len(value) > self.maxdict))}}}"


def _escaped(char: str) -> str:
    return " " if unicodedata.category(char) == "Zs" else repr(char)[1:-1]


def counted(number: int, noun: str) -> str:
    """A number and what it counts, in the singular or plural: "1 class", "2 classes", "3 categories"."""
    if number == 1:
        return f"1 {noun}"
    plural = f"{noun[:-1]}ies" if noun.endswith("ry") else f"{noun}es" if noun.endswith(("s", "x")) else f"{noun}s"
    return f"{number} {plural}"


def first_line(error: BaseException) -> str:
    """The first line of an error of a library, or its type where it has no text."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
