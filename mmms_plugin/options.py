"""Options of a command: written once, as fields of a dataclass, from which the parser is made.

    @dataclass(kw_only=True)
    class Options(CommandOptions):
        config: str = positional(help="config file")
        rounds: int = option(default=5, least=1, metavar="N", help="measurements, of which the median counts")
        preset: str | None = option(choices=["finetune"], group="schedule", help="length and batch for few pictures")

is ``config [--rounds N] [--preset {finetune}]``. The annotation says what the parser reads: a bool is a switch, a tuple
takes several values, a type with ``None`` may be left out. Limits hold however the dataclass is built.

Modules that declare options import nothing heavy, so that ``mmms COMMAND --help`` answers at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, TypeVar, Union, get_args, get_origin, get_type_hints

from mmms_plugin.errors import UserError, shown

T = TypeVar("T")
REQUIRED = MISSING  # as the default of an option that must be given
LAST = ("run", "output")  # headings shown below the others
HIDDEN = argparse.SUPPRESS  # as the help of an option that ``--help`` leaves out
# Types of values that Python code gives: what they must be, in words for one and for several
PLAIN = {
    bool: (bool, "True or False", ""), int: (Integral, "an integer", "integers"),
    float: (Real, "a number", "numbers"), str: (str, "a text", "texts"), Path: (Path, "a path", "paths"),
    Mapping: (Mapping, "a dict", ""),
}  # fmt: skip


def option(
    *flags: str, default: Any = None, help: str, group: str | None = None, metavar: Any = None,
    choices: Sequence[Any] | None = None, least: float | None = None, most: float | None = None,
    above: float | None = None, reader: Callable[[Any], Any] | None = None,
    exists: Callable[[Any], Any] | None = None, also: Mapping[str, Any] | None = None, **argparse_options: Any,
) -> Any:  # fmt: skip
    """A field that becomes an option, named ``--`` and the field's name unless ``flags`` are given.

    Args:
        flags: as written on the command line; for a bool that is True, ``--no-...`` switches it off.
        default: ``REQUIRED`` for an option that must be given.
        help: a whole phrase, with the unit; the default is added to it.
        group: heading in ``--help``.
        least: smallest number allowed.
        most: largest number allowed.
        above: the number must be larger than this.
        reader: turns the text, or the list of texts with ``nargs``, into the value; raises UserError.
        exists: called by ``check_files`` with the value; raises UserError if it names no file.
        also: another option that sets the field: its flags, help and arguments of ``add_argument``.
        argparse_options: further arguments of ``add_argument``: nargs, const, action, type.
    """
    metadata = dict(
        flags=flags, help=help, group=group, metavar=metavar, choices=choices, reader=reader, argparse=argparse_options,
        limits=(least, most, above), exists=exists, also=also,
    )  # fmt: skip
    return _field(default, metadata)


def positional(*, default: Any = REQUIRED, help: str, metavar: str | None = None, **more: Any) -> Any:
    """A field that is a positional argument, in the order of the fields; takes what ``option`` takes."""
    return _field(default, option(help=help, metavar=metavar, **more).metadata | {"positional": True})


def nested(cls: type) -> Any:
    """A field that is a dataclass of options of its own."""
    return dataclasses.field(default_factory=cls, metadata={"nested": cls})


def _field(default: Any, metadata: Mapping[str, Any]) -> Any:
    if isinstance(default, dict):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class CommandOptions:
    """Base of option dataclasses; refuses values outside their choices or limits.

    Attributes:
        LEFT_OUT: names of inherited fields that the command has no use for, and takes no options for.

    Raises: UserError, such as ``--rounds 0: must be an integer of at least 1``.
    """

    LEFT_OUT: ClassVar[Sequence[str]] = ()

    def __post_init__(self) -> None:
        for field in _fields(type(self)):
            value = getattr(self, field.name)
            if value is None or "nested" in field.metadata:
                continue
            values = value if isinstance(value, tuple) else (value,)
            choices, limits = field.metadata["choices"], field.metadata["limits"]
            integers = "float" not in str(field.type)
            if choices is not None and not all(value in choices for value in values):
                allowed = f"allowed are {', '.join(map(str, choices))}"
            elif limits != (None,) * 3 and not all(_within(number, integers, *limits) for number in values):
                allowed = f"must be {_allowed(len(values) > 1, integers, *limits)}"
            else:
                continue
            raise UserError(f"{_name(field)} {' '.join(map(str, values))}: {allowed}")

    def check_files(self) -> None:
        """Refuse files that do not exist. Commands do this first: importing a host takes seconds."""
        for field in _fields(type(self)):
            value = getattr(self, field.name)
            if value is not None and (exists := field.metadata.get("exists")):
                exists(value)


def add_options(parser: argparse.ArgumentParser, cls: type) -> None:
    """Declare every option of ``cls``, in argument groups; the namespace holds only those that were given."""
    headings = dict.fromkeys(filter(None, _headings(cls)))
    last = [heading for heading in LAST if heading in headings]
    groups = {
        heading: parser.add_argument_group(heading) for heading in [*(h for h in headings if h not in LAST), *last]
    }
    _declare(parser, cls, groups)


def from_args(cls: type[T], args: argparse.Namespace) -> T:
    """An instance of ``cls`` from parsed arguments.

    Raises: UserError for empty texts, and for values that a reader, a limit or the class itself refuses.
    """
    values = {}
    for field in _fields(cls):
        if "nested" in field.metadata:
            values[field.name] = from_args(field.metadata["nested"], args)
        elif (value := getattr(args, field.name, None)) is not None:
            if _has_empty_text(value):
                flags = (_name(field), *(field.metadata["also"] or {}).get("flags", ()))
                raise UserError(f"{' or '.join(flags)} '': must not be empty")
            if reader := field.metadata["reader"]:
                value = reader(value)
            values[field.name] = tuple(value) if isinstance(value, list) else value
    return cls(**values)


def from_values(cls: type[T], values: Mapping[str, Any], own: Mapping[str, Any] | None = None) -> T:
    """An instance of ``cls`` from the values that Python code gives, by the names of the options, also of nested ones.

    Paths and texts stand for each other, lists for tuples, and one text for several; None is the default.
    Texts and numbers are read as on the command line where an option has a reader: ``image_size=640``.

    Args:
        cls: dataclass of options.
        values: by names of options, or of their flags: ``budget`` for ``--budget``.
        own: the caller's values of other fields; options of these names are refused.

    Raises: UserError for unknown names, and for values of another type, or that a reader, a limit or the class refuses.
    """
    own = own or {}
    names = {name: field for name, field in python_names(cls).items() if field.name not in own}
    given: dict[str, tuple[str, Any]] = {}
    for name, value in values.items():
        if name not in names:
            near = get_close_matches(name, names, n=2)
            hint = f"did you mean {' or '.join(near)}?" if near else "see --help of the command"
            raise UserError(f"{name}: no such option; {hint}")
        if value is not None:
            given[names[name].name] = name, value
    return _from_values(cls, given, own)


def python_names(cls: Any) -> dict[str, dataclasses.Field[Any]]:
    """The names that Python code has for the options of ``cls``: those of the fields, and of their flags."""
    names: dict[str, dataclasses.Field[Any]] = {}
    for field in _fields(cls):
        if "nested" in field.metadata:
            names |= python_names(field.metadata["nested"])
            continue
        flags = (flag.lstrip("-").replace("-", "_") for flag in field.metadata["flags"] if flag.startswith("--"))
        names |= dict.fromkeys([field.name, *(flag for flag in flags if not flag.startswith("no_"))], field)
    return names


def _from_values(cls: Any, values: Mapping[str, tuple[str, Any]], own: Mapping[str, Any]) -> Any:
    given: dict[str, Any] = {}
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if "nested" in field.metadata:
            given[field.name] = _from_values(field.metadata["nested"], values, own)
        elif field.name in own:
            given[field.name] = own[field.name]
        elif field.name in values:
            name, value = values[field.name]
            value = _value_of(field, _without_none(hints[field.name]), name, value)
            if value is not None:
                given[field.name] = value
    return cls(**given)


def _value_of(field: dataclasses.Field[Any], hint: Any, name: str, value: Any) -> Any:
    """A value that Python code gives for an option, as the field holds it; None for the default."""
    declared = field.metadata
    if isinstance(value, bool) and "const" in declared["argparse"]:  # an option that needs no value: resume=True
        value = declared["argparse"]["const"] if value else None
        if value is None:
            return None
    if (reader := declared["reader"]) and isinstance(value, str | Integral | list) and not isinstance(value, bool):
        if declared["argparse"].get("nargs") == "+":
            value = reader([str(part) for part in (value if isinstance(value, list) else [value])])
        elif not isinstance(value, list):
            value = reader(str(value))
    if get_origin(hint) is tuple and isinstance(value, str | Path):
        value = (value,)
    value = tuple(value) if isinstance(value, list) else value
    if isinstance(value, Path) and hint is str:
        value = str(value)
    elif isinstance(value, str) and hint is Path:
        value = Path(value)
    if not _is_of(value, hint):
        raise UserError(f"{name}={shown(value)}: must be {_words_for(hint)}")
    return value


def _is_of(value: Any, hint: Any) -> bool:
    """Whether a value that Python code gives is of an option's type."""
    if get_origin(hint) is tuple:
        parts, *others = get_args(hint)
        right = others == [...] or (isinstance(value, tuple) and len(value) == 1 + len(others))
        return right and isinstance(value, tuple) and all(_is_of(part, parts) for part in value)
    kind = PLAIN.get(get_origin(hint) or hint, (object,))[0]
    return isinstance(value, kind) and (kind in (bool, object) or not isinstance(value, bool))


def _words_for(hint: Any) -> str:
    if get_origin(hint) is tuple:
        parts, *others = get_args(hint)
        return f"a list of {'' if others == [...] else f'{1 + len(others)} '}{PLAIN[parts][2]}"
    return PLAIN[get_origin(hint) or hint][1]


def _without_none(annotation: Any) -> Any:
    """``T`` for ``T | None``."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(part for part in get_args(annotation) if part is not type(None))
    return annotation


def _has_empty_text(value: Any) -> bool:
    return any(map(_has_empty_text, value)) if isinstance(value, list) else value == ""


def _fields(cls: type) -> Iterator[dataclasses.Field[Any]]:
    """The fields that are options; others can only be set from Python."""
    return (f for f in dataclasses.fields(cls) if f.metadata and f.name not in getattr(cls, "LEFT_OUT", ()))


def _headings(cls: type) -> Iterator[str | None]:
    for field in _fields(cls):
        if "nested" in field.metadata:
            yield from _headings(field.metadata["nested"])
        else:
            yield field.metadata["group"]


def _name(field: dataclasses.Field[Any]) -> str:
    """The option or argument as the user knows it."""
    if field.metadata.get("positional"):
        return field.metadata["metavar"] or field.name
    return (field.metadata["flags"] or (f"--{field.name.replace('_', '-')}",))[0]


def _declare(parser: argparse.ArgumentParser, cls: type, groups: dict[str, Any]) -> None:
    hints = get_type_hints(cls)
    for field in _fields(cls):
        declared = field.metadata
        if "nested" in declared:
            _declare(parser, declared["nested"], groups)
            continue
        default = field.default if field.default_factory is MISSING else field.default_factory()
        keywords = dict(default=argparse.SUPPRESS, metavar=declared["metavar"], choices=declared["choices"])
        keywords |= _reading(hints[field.name], default, declared) | declared["argparse"]
        for name in [name for name, value in keywords.items() if value is None]:
            del keywords[name]
        if declared.get("positional"):
            if default is not MISSING:
                keywords = dict(nargs="?") | keywords | dict(default=None)  # a text would be read by type
            flags: tuple[str, ...] = (field.name,)
        else:
            flags = declared["flags"] or (_name(field),)
            keywords |= dict(dest=field.name, required=default is MISSING)
            if keywords.get("nargs") == "+":  # an option that is given twice adds to its values
                keywords = dict(action="extend") | keywords
        group = groups.get(declared["group"], parser)
        action = group.add_argument(*flags, **keywords)
        switches_off = default is True and keywords["action"] == "store_false"
        action.help = _help(declared["help"], None if switches_off else default)
        if declared["also"]:
            keywords = dict(declared["also"], dest=field.name, default=argparse.SUPPRESS)
            group.add_argument(*keywords.pop("flags"), **keywords)


def _reading(annotation: Any, default: Any, declared: Mapping[str, Any]) -> dict[str, Any]:
    """What the parser reads for a field: its type, action and number of values."""
    annotation = _without_none(annotation)
    if annotation is bool:
        if default is not True:
            return dict(action="store_true")
        switches_off = any(flag.startswith("--no-") for flag in declared["flags"])
        return dict(action="store_false" if switches_off else argparse.BooleanOptionalAction)
    if declared["reader"]:
        return {}
    reading: dict[str, Any] = {}
    if get_origin(annotation) is tuple:
        annotation, *others = get_args(annotation)
        if declared["argparse"].get("action") != "append":
            reading["nargs"] = "+" if others == [...] else 1 + len(others)
    readers: dict[Any, Any] = {int: int, float: float, Path: _path}
    return reading | (dict(type=readers[annotation]) if annotation in readers else {})


def _path(text: str) -> Path | str:
    """A path; an empty text stays one, since ``Path("")`` is the current folder."""
    return Path(text) if text else text


def _help(text: str, default: Any) -> str:
    """The help text with the default added, unless it mentions the default itself."""
    if text is HIDDEN:
        return text
    if default is None or default is False or default is MISSING:
        return text.replace("%", "%%")
    values = default if isinstance(default, tuple | dict) else (default,)
    shown = "yes" if default is True else " ".join(map(str, values))
    if shown and "default" not in text:
        text += f" (default: {shown})"
    return text.replace("%", "%%")


def _within(number: Any, integers: bool, least: float | None, most: float | None, above: float | None) -> bool:
    """Whether a value, which Python code may have given, is a number and allowed; NaN never is."""
    kind: Any = Integral if integers else Real
    if not isinstance(number, kind):
        return False
    return (least is None or number >= least) and (most is None or number <= most) and (above is None or number > above)


def _allowed(several: bool, integers: bool, least: float | None, most: float | None, above: float | None) -> str:
    noun = "integers" if several and integers else "numbers" if several else "an integer" if integers else "a number"
    if least is not None:
        return f"{noun} from {least:,} to {most:,}" if most is not None else f"{noun} of at least {least:,}"
    if above is not None:
        return f"{noun} above {above:,}" + (f" and at most {most:,}" if most is not None else "")
    return f"{noun} of at most {most:,}"
