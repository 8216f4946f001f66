"""The one exception that means "the user's input is at fault"."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input, told in one line: what is wrong, where, what is allowed, what to do.

    The command line prints the message without a traceback and exits with status 2.
    """
