"""``--option "$UNSET"``: an empty text is refused by every option of every command that takes a text or a path."""

from __future__ import annotations

import argparse

import pytest

from mmms_plugin.commands import COMMANDS, main, module_of
from mmms_plugin.options import add_options


@pytest.mark.parametrize("command", COMMANDS)
def test_an_empty_text_is_refused_in_one_line(command, capsys):
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_options(parser, module_of(command).Options)
    texts = [action for action in parser._actions if action.nargs != 0 and action.type not in (int, float)]
    needed = [action for action in parser._actions if action.required]
    for tried in (action for action in texts if action.choices is None):
        words: list[str] = []
        for action in dict.fromkeys([*needed, tried]):
            value = "" if action is tried else (action.choices or ["x"])[0] if action.type is None else "3"
            words += [*action.option_strings[:1], *[value] * (action.nargs if isinstance(action.nargs, int) else 1)]
        assert main([command, *words]) == 2, words
        (line,) = capsys.readouterr().err.strip().splitlines()
        name = tried.option_strings[0] if tried.option_strings else tried.metavar or tried.dest
        named, _, rest = line.removeprefix(f"mmms {command}: error: ").partition(" '': ")
        assert name in named.split(" or "), words
        assert rest == "must not be empty"
