"""Print a script that completes commands, options, files and names of configs with the tab key.

bash: mmms completion bash > ~/.local/share/bash-completion/completions/mmms
zsh:  mmms completion zsh > FOLDER/_mmms, with FOLDER in fpath
The names of configs are those of this version: print the script again after an update.
"""

from __future__ import annotations

import argparse
import importlib

from mmms_plugin.errors import UserError

SHELLS = ("bash", "zsh")
FUNCTION = "_mmms_complete_config"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS)


def run(args: argparse.Namespace) -> None:
    try:
        import shtab
    except ImportError:
        raise UserError("tab completion needs the package shtab: pip install shtab") from None
    from mmms_plugin.config.files import config_names

    print(shtab.complete(_whole_parser(shtab), shell=args.shell, preamble=_preamble(list(config_names()))))  # type: ignore[arg-type]


def _whole_parser(shtab) -> argparse.ArgumentParser:
    """All commands in one parser, each argument with what completes it."""
    from mmms_plugin.commands import COMMANDS

    parser = argparse.ArgumentParser(prog="mmms")
    commands = parser.add_subparsers(dest="command")
    for name, text in COMMANDS.items():
        module = importlib.import_module(f"mmms_plugin.commands.{name.replace('-', '_')}")
        own = commands.add_parser(name, help=text, description=text)
        module.add_arguments(own)
        for action in own._actions:
            if action.dest in ("config", "target", "inputs"):
                action.complete = dict.fromkeys(SHELLS, FUNCTION)  # type: ignore[attr-defined]
            elif action.choices is None and action.nargs != 0:
                action.complete = shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE  # type: ignore[attr-defined]
    return parser


def _preamble(names: list[str]) -> dict[str, str]:
    """Functions of the shells that offer names of configs beside files."""
    words = " ".join(names)
    return {
        "bash": f'{FUNCTION}() {{\n  compgen -W "{words}" -- "$1"\n  compgen -f -- "$1"\n}}',
        "zsh": f"{FUNCTION}() {{\n  compadd -- {words}\n  _files\n}}",
    }
