"""Print a script for tab completion in bash or zsh.

It completes commands, options, files and names of configs.

    bash: mmms completion bash > ~/.local/share/bash-completion/completions/mmms
    zsh:  mmms completion zsh > FOLDER/_mmms, with FOLDER in fpath

The names of configs are those of this version: print the script again after an update.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from mmms_plugin.options import CommandOptions, add_options, positional

SHELLS = ("bash", "zsh")
FUNCTION = "_mmms_complete_config"


@dataclass(kw_only=True)
class Options(CommandOptions):
    shell: str = positional(choices=SHELLS, help="shell that the script is for")


def run(options: Options) -> None:
    import shtab

    from mmms_plugin.config.files import config_names

    names = " ".join(config_names())
    functions = {  # offer names of configs beside files
        "bash": f'{FUNCTION}() {{\n  compgen -W "{names}" -- "$1"\n  compgen -f -- "$1"\n}}',
        "zsh": f"{FUNCTION}() {{\n  compadd -- {names}\n  _files\n}}",
    }
    print(shtab.complete(_whole_parser(shtab), shell=options.shell, preamble=functions))  # type: ignore[arg-type]


def _whole_parser(shtab) -> argparse.ArgumentParser:
    """All commands in one parser, each argument with what completes it."""
    from mmms_plugin.commands import COMMANDS, module_of, summary

    parser = argparse.ArgumentParser(prog="mmms")
    commands = parser.add_subparsers(dest="command")
    for name in COMMANDS:
        own = commands.add_parser(name, help=summary(name), description=summary(name))
        add_options(own, module_of(name).Options)
        for action in own._actions:
            if action.dest in ("config", "target", "words"):
                action.complete = dict.fromkeys(SHELLS, FUNCTION)  # type: ignore[attr-defined]
            elif action.choices is None and action.nargs != 0:
                action.complete = shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE  # type: ignore[attr-defined]
    return parser
