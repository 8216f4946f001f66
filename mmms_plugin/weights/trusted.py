"""What a checkpoint may say about the model that it belongs to.

A file may choose among the networks and heads of this plugin, by name, with plain values as arguments. It may not name
a class of another package, a function, a file, or initial weights. It gets no more memory than its own tensors take:
the module is first built without memory and compared with them. ``components``, which describes how another mmdet
computed, may only repeat entries of the key-map tables.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmms_plugin.errors import UserError, first_line, printable, shown
from mmms_plugin.weights.mapping import compare
from mmms_plugin.weights.tables import load_table, sources

SCOPE = "mmms_plugin."
PARTS = ("neck", "head", "decode_head", "auxiliary_head")  # what may stand beside a backbone
# Arguments that are dictionaries: the types they may name, or () where they have none.
NESTED = {
    "norm_cfg": ("BN", "BN2d", "SyncBN", "GN", "IN"),
    "conv_cfg": ("Conv2d", "Conv", *(SCOPE + name for name in ("PSConv", "DepthwisePSConv", "ElasticConv"))),
    "elastic_cfg": (),
}
FORBIDDEN = ("init_cfg", "pretrained", "device", "dtype")  # other files, and where the module is put
LARGEST = 1 << 15  # of whole numbers: channels, mostly
LONGEST = 64  # of lists, names and numbers of arguments
WIDEST = 1024  # pixels between two taps of a kernel
WORDS = {"missing": "missing", "unknown": "too many", "shape": "of another shape"}
WORD = re.compile(r"[\w.+-]*")


@dataclass(frozen=True)
class Part:
    """A module as a file describes it, checked.

    Attributes:
        cls: a class of this plugin.
        arguments: plain values.
    """

    cls: type[nn.Module]
    arguments: Mapping[str, Any]

    def build(self) -> nn.Module:
        return self.cls(**self.arguments)


def check_part(config: object, where: str, **more: Any) -> Part:
    """Check a module's config from a file.

    Args:
        where: for the message, such as ``meta.backbone``.
        more: arguments that replace the file's.
    Raises: UserError for anything but a class of this plugin and plain values for its arguments.
    """
    if not isinstance(config, Mapping) or len(config) > LONGEST or not all(isinstance(key, str) for key in config):
        raise UserError(f"{where}: expected a dict with a type of mmms_plugin and its arguments")
    cls = _class_of(config.get("type"), where)
    names = inspect.signature(cls).parameters
    for name, value in config.items():
        if name != "type" and (name not in names or name in FORBIDDEN):
            raise UserError(f"{where}.{name}: a file may give {', '.join(n for n in names if n not in FORBIDDEN)}")
        _check_argument(f"{where}.{name}", name, value)
    return Part(cls, {**{name: value for name, value in config.items() if name != "type"}, **more})


def _class_of(name: object, where: str) -> type[nn.Module]:
    from mmms_plugin import backbones, heads, necks

    if isinstance(name, str):
        for home in (backbones, necks, heads):
            if name.removeprefix(SCOPE) in home.__all__:
                return getattr(home, name.removeprefix(SCOPE))
    known = ", ".join(sorted((*backbones.__all__, *necks.__all__, *heads.__all__)))
    raise UserError(f"{where}.type={_shown(name)}: a file may name {known} of mmms_plugin")


def _check_argument(where: str, name: str, value: object) -> None:
    """Raises: UserError unless it is a plain value, or a dict of them if the argument is a dict."""
    if isinstance(value, Mapping):
        if name not in NESTED or len(value) > LONGEST or ("type" in value) != bool(NESTED[name]):
            raise UserError(f"{where}: a file may give no such dict here")
        if NESTED[name] and value["type"] not in NESTED[name]:
            raise UserError(f"{where}.type={_shown(value['type'])}: a file may name {', '.join(NESTED[name])}")
        value = [item for pair in value.items() for item in pair]
    if not _is_plain(value):
        raise UserError(
            f"{where}={_shown(value)}: a file may give a word, a number up to {LARGEST} or up to {LONGEST} of them"
        )


def _is_plain(value: object, depth: int = 2) -> bool:
    """Whether it is None, a boolean, a number, a word, or a list of these, nested twice at most."""
    if type(value) in (list, tuple):
        return depth > 0 and len(value) <= LONGEST and all(_is_plain(v, depth - 1) for v in value)  # type: ignore
    if type(value) in (int, float):
        return math.isfinite(value) and abs(value) <= LARGEST  # type: ignore[arg-type]
    if type(value) is str:
        return len(value) <= LONGEST and WORD.fullmatch(value) is not None  # type: ignore[arg-type, call-overload]
    return value is None or type(value) is bool


def _shown(value: object) -> str:
    return shown(value, LONGEST) if isinstance(value, str | int | float | bool | None) else type(value).__name__


def build_part(part: Part, where: str, state: Mapping[str, Tensor]) -> nn.Module:
    """The module, with the file's tensors loaded strictly.

    Args:
        where: for the message, such as ``checkpoint x.pth: meta.backbone``.
        state: its tensors, by the module's own keys.
    Raises: UserError if the module does not take the arguments, or if it holds other tensors.
    """
    try:
        with torch.device("meta"):
            empty = part.build()
    except Exception as error:  # untrusted arguments may raise anything
        raise UserError(f"{where}: {type(error).__name__}: {first_line(error)}") from error
    _check_width(empty, where)
    misfit = compare(state, {key: value.shape for key, value in empty.state_dict().items()}, prefix="")
    for kind, keys in misfit.items():
        if keys:
            raise UserError(f"{where}: not of the tensors in the file: {len(keys)} {WORDS[kind]} (first: {keys[0]})")
    module = part.build()
    module.load_state_dict(state)
    return module


def _check_width(module: nn.Module, where: str) -> None:
    """Raises: UserError for kernels so wide that padding a map would exhaust memory."""
    for layer in module.modules():
        dilation = getattr(layer, "dilation", 1)
        most = max(dilation) if isinstance(dilation, tuple) else dilation
        if isinstance(most, int) and most * max(getattr(layer, "dilation_pattern", (1,))) > WIDEST:
            raise UserError(f"{where}: dilated by more than {WIDEST} pixels")


def check_components(components: object, where: str = "meta.components") -> dict[str, dict[str, Any]]:
    """Check ``meta.components`` of a file: type in today's config -> settings that go with it.

    Args:
        where: for the message.
    Raises: UserError for anything that is not in a key-map table.
    """
    known = [(kind, dict(settings)) for name in sources() for kind, settings in load_table(name).components.items()]
    if not isinstance(components, Mapping):
        raise UserError(f"{where}: expected a dict, found {type(components).__name__}")
    for item in components.items():
        if not any(_same(item, entry) for entry in known):
            allowed = "; ".join(f"{kind}: {settings}" for kind, settings in known)
            raise UserError(f"{where}[{_shown(item[0])}]: a file may give {allowed}")
    return {kind: dict(settings) for kind, settings in known if kind in components}


def _same(item: tuple[Any, Any], entry: tuple[str, dict[str, Any]]) -> bool:
    (kind, settings), (known_kind, known) = item, entry
    if type(kind) is not str or kind != known_kind or not isinstance(settings, Mapping) or set(settings) != set(known):
        return False
    return all(type(settings[name]) is type(value) and settings[name] == value for name, value in known.items())


def class_names(meta: Mapping[str, Any]) -> tuple[str, ...]:
    """Classes that a file was trained for (``meta.dataset_meta``), fit for a terminal; () if unknown."""
    data = meta.get("dataset_meta")
    names = data.get("classes") or data.get("CLASSES") if isinstance(data, Mapping) else None
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list | tuple) or len(names) > LARGEST or not all(isinstance(n, str) for n in names):
        return ()
    return tuple(printable(name) for name in names)


def class_colours(meta: Mapping[str, Any]) -> list[tuple[int, ...]] | None:
    """Colours of a file's classes, three numbers from 0 to 255 each; None if unknown."""
    data = meta.get("dataset_meta")
    colours = data.get("palette") if isinstance(data, Mapping) else None
    if not isinstance(colours, list | tuple) or len(colours) > LARGEST:
        return None
    sound = all(
        isinstance(colour, list | tuple) and len(colour) == 3 and all(type(v) is int and 0 <= v < 256 for v in colour)
        for colour in colours
    )
    return [tuple(colour) for colour in colours] if sound else None
