"""Options of commands: what a dataclass makes of a parser, and what it refuses."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import pytest

from mmms_plugin.errors import UserError
from mmms_plugin.options import (
    HIDDEN,
    REQUIRED,
    CommandOptions,
    add_options,
    from_args,
    from_values,
    nested,
    option,
    positional,
)


@dataclass(kw_only=True)
class Inner(CommandOptions):
    share: float = option(default=0.25, above=0, most=1, group="inner", help="share, 100 % is 1")
    kept: bool = option("--no-kept", default=True, group="inner", help="drop it")


@dataclass(kw_only=True)
class Options(CommandOptions):
    names: tuple[str, ...] = positional(metavar="NAME", help="names")
    folder: Path = option(default=REQUIRED, metavar="DIR", group="output", help="folder")
    inner: Inner = nested(Inner)
    size: tuple[int, int] = option(default=(4, 2), least=1, metavar=("H", "W"), help="height and width")
    rounds: int | None = option("--rounds", "-r", least=1, most=10_000, help="rounds (default: the config's)")
    draw: bool = option(default=True, help="draw")
    pattern: tuple[int, ...] | None = option(reader=lambda text: [int(n) for n in text.split(",")], help="numbers")
    runs: tuple[str, ...] = option(
        default=(), action="append", help="run", also=dict(flags=("--group",), action="append", type=len, help="runs")
    )
    sides: tuple[int, ...] = option(default=(), help="sides")
    secret: int = option(default=0, help=HIDDEN)
    internal: int = 3


def parsed(*words: str) -> Options:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_options(parser, Options)
    return from_args(Options, parser.parse_args(words))


def test_what_is_left_out_has_its_default_and_what_is_given_its_type():
    assert parsed("a", "--folder", "f") == Options(names=("a",), folder=Path("f"))
    options = parsed(
        "a", "b", "--folder", "f", "--size", "1", "3", "-r", "7", "--no-draw", "--pattern", "1,2", "--runs", "x",
        "--group", "yyy", "--runs", "z", "--share", "1", "--no-kept", "--sides", "1", "2", "--sides", "3",
    )  # fmt: skip
    assert options == Options(
        names=("a", "b"), folder=Path("f"), size=(1, 3), rounds=7, draw=False, pattern=(1, 2), runs=("x", 3, "z"),
        inner=Inner(share=1.0, kept=False), sides=(1, 2, 3),
    )  # fmt: skip
    assert parsed("a", "--folder", "f").runs == (), "a list of one call is not kept for the next"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "0", "3"], "--size 0 3: must be integers of at least 1"),
        (["--rounds", "0"], "--rounds 0: must be an integer from 1 to 10,000"),
        (["-r", "10001"], "--rounds 10001: must be an integer from 1 to 10,000"),
        (["--share", "0"], "--share 0.0: must be a number above 0 and at most 1"),
        (["--share", "nan"], "--share nan: must be a number above 0 and at most 1"),
    ],
)
def test_numbers_out_of_their_limits(words, message):
    with pytest.raises(UserError) as caught:
        parsed("a", "--folder", "f", *words)
    assert str(caught.value) == message


def test_limits_and_choices_hold_in_python_too():
    from mmms_plugin.config.schedule import ScheduleOptions

    with pytest.raises(UserError, match=r"^--rounds 0: must be an integer from 1 to 10,000$"):
        Options(names=("a",), folder=Path("f"), rounds=0)
    with pytest.raises(UserError, match=r"^--preset fast: allowed are finetune$"):
        ScheduleOptions(preset="fast")


def test_values_of_python_code_have_the_types_of_the_options():
    options = from_values(Options, dict(names="a", folder="f", size=[1, 3], pattern="1,2", kept=False, rounds=None))
    assert options == Options(
        names=("a",), folder=Path("f"), size=(1, 3), pattern=(1, 2), inner=Inner(kept=False), rounds=None
    )
    for values, message in (
        (dict(kept="no"), "kept='no': must be True or False"),
        (dict(rounds=True), "rounds=True: must be an integer"),
        (dict(size=[1]), r"size=\(1,\): must be a list of 2 integers"),
        (dict(names=[1]), r"names=\(1,\): must be a list of texts"),
        (dict(internal=4), "internal: no such option"),
        (dict(folder="g"), "folder: no such option"),
    ):
        with pytest.raises(UserError, match=f"^{message}"):
            from_values(Options, dict(names="a") | values, own=dict(folder=Path("f")))


def test_options_that_a_command_has_no_use_for():
    @dataclass(kw_only=True)
    class Fewer(Options):
        LEFT_OUT = ("pattern", "runs")

    parser = argparse.ArgumentParser(exit_on_error=False)
    add_options(parser, Fewer)
    assert "--pattern" not in parser.format_help()
    assert "--group" not in parser.format_help()
    options = from_args(Fewer, parser.parse_args(["a", "--folder", "b"]))
    assert (options.names, options.pattern, options.runs) == (("a",), None, ())


def test_help_has_groups_and_defaults(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    parser = argparse.ArgumentParser()
    add_options(parser, Options)
    text = parser.format_help()
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "--size H W height and width (default: 4 2)" in lines
    assert "--share SHARE share, 100 % is 1 (default: 0.25)" in lines
    assert "--no-kept drop it" in lines
    assert "--draw, --no-draw draw (default: yes)" in lines
    assert "rounds (default: the config's)" in lines
    assert lines.index("inner:") < lines.index("output:"), "output stands last"
    assert "secret" not in text
    assert "internal" not in text


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["", "--folder", "f"], "NAME"),
        (["a", "", "--folder", "f"], "NAME"),
        (["a", "--folder", ""], "--folder"),
        (["a", "--folder", "f", "--pattern", ""], "--pattern"),
        (["a", "--folder", "f", "--runs", "x", "--runs", ""], "--runs or --group"),
    ],
)
def test_an_empty_text_is_refused(words, name):
    """``--folder "$UNSET"`` must not mean the current folder, nor that the option was not given."""
    with pytest.raises(UserError, match=f"^{name} '': must not be empty$"):
        parsed(*words)
