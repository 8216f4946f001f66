"""A key-map table at work: source keys become target keys, which are compared with what the networks hold."""

from __future__ import annotations

import difflib
import functools
import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from mmms_plugin.backbones.base import Backbone
from mmms_plugin.compat.hosts import not_installed
from mmms_plugin.errors import UserError
from mmms_plugin.layers.function import FUNCTION
from mmms_plugin.weights.tables import Arch, Rule, Table

PREFIXES = ("module.", "model.", "backbone.", "_orig_mod.")
BACKBONE, HEAD, COUNTER = "backbone.", "head.", "num_batches_tracked"
CLASSES = {"decode_head": "conv_seg.weight", "head": "exits.0.fc.weight"}  # of a part: the key with a row per class
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
OTHERS = (*FLOATS, torch.int64, torch.int32, torch.uint8, torch.bool)  # counters, and buffers of heads


@dataclass
class Mapped:
    """What became of a source state dict.

    Attributes:
        state: target key (of a whole model: ``backbone.*``, ``head.fc.*``, ...) -> tensor.
        mapped: source key -> target key.
        dropped: source key -> reason.
        initialised: target keys that no source key fills.
        prefix: taken off the source keys.
    """

    state: dict[str, Tensor] = field(default_factory=dict)
    mapped: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    initialised: list[str] = field(default_factory=list)
    prefix: str = ""


class UnknownKeys(UserError):
    """Source keys that no rule of the table matches; the message, which needs a search, is made when it is read."""

    def __init__(self, table: Table, arch: str, unknown: list[str], known: list[str]) -> None:
        super().__init__(table, arch, unknown, known)
        self.source, self.config, self.unknown, self.known = table.source, table.archs[arch].backbone, unknown, known

    def __str__(self) -> str:
        known = {key.removeprefix(BACKBONE) for key in self.known} | set(expected(self.config).shapes)
        shown = [with_nearest(key, known - set(self.unknown)) for key in self.unknown[:3]]
        more = f" and {len(self.unknown) - 3} more" if len(self.unknown) > 3 else ""
        return f"source {self.source} knows no key {', '.join(shown)}{more}"


def with_nearest(key: str, known: Iterable[str]) -> str:
    """A key, followed by the known key with the most similar spelling."""
    near = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.5)
    return f"{key} (nearest known: {near[0]})" if near else key


class Misfit(UserError):
    """Tensors that are not those of the architecture."""


class Rules:
    """The rules of one architecture, compiled, without those whose condition the source does not meet."""

    def __init__(self, table: Table, arch: str, keys: Iterable[str]) -> None:
        # Anchored, so that sub() expands a target: it keeps the parsed template, which Match.expand() does not.
        every = [(re.compile(rf"\A(?:{r.pattern})\Z"), r) for r in (*table.archs[arch].rules, *table.rules)]
        self._known = re.compile("|".join(pattern.pattern for pattern, _ in every))
        self.prefix = ""
        self.keys = list(keys)
        prefixes = (*PREFIXES, *table.prefixes)
        while prefix := next((p for p in prefixes if self._most_unknown_begin_with(p)), None):
            self.keys = [key.removeprefix(prefix) for key in self.keys]
            self.prefix += prefix
        self._active = [(pattern, rule) for pattern, rule in every if self._holds(rule)]

    def _most_unknown_begin_with(self, prefix: str) -> bool:
        """Most, not all: a stray key must be reported as unknown itself, and not make all others unknown."""
        unknown = [key for key in self.keys if not self._known.fullmatch(key)]
        return sum(key.startswith(prefix) for key in unknown) > len(unknown) / 2

    def _holds(self, rule: Rule) -> bool:
        conditions = ((rule.when, True), (rule.unless, False))
        return all(
            any(map(re.compile(pattern).fullmatch, self.keys)) is wanted
            for pattern, wanted in conditions
            if pattern is not None
        )

    def find(self, key: str) -> tuple[Rule | None, str | None]:
        """The first rule that matches a key without prefix, or None, and the target key."""
        for pattern, rule in self._active:
            if pattern.match(key):
                return rule, None if rule.target is None else pattern.sub(rule.target, key)
        return None, None


def apply_table(table: Table, arch: str, state: Mapping[str, Tensor]) -> Mapped:
    """Map a state dict; works on meta tensors, too.

    Raises: UserError for keys that no rule of the table matches, and for tensors that do not belong together.
    """
    rules = Rules(table, arch, state)
    result = Mapped(prefix=rules.prefix)
    parts: dict[str, dict[str, Tensor]] = {}
    unknown = []
    # Rows of a box head's classifier, background included.
    classes = next((len(value) for key, value in state.items() if key.endswith("fc_cls.weight") and value.dim()), None)
    for (source, value), key in zip(state.items(), rules.keys, strict=True):
        rule, target = rules.find(key)
        if rule is None:
            unknown.append(key)
        elif target is None:
            result.dropped[source] = rule.reason
        else:
            result.mapped[source] = target
            if rule.join:
                parts.setdefault(target, {})[rule.join] = value.detach()
            else:
                _add(result, target, _changed(source, value.detach(), rule.apply, classes), source)
    if unknown:
        raise UnknownKeys(table, arch, unknown, [*result.mapped.values(), *rules.keys])
    for target, pieces in parts.items():
        if table.join is None:
            raise ValueError(f"table {table.source!r}: rules with join need Table.join")
        try:
            joined = table.join(pieces, table.archs[arch].backbone)
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{target.removeprefix(BACKBONE)}: {error}") from error
        for suffix, value in joined.items():
            _add(result, f"{target}.{suffix}", value, target)
    return result


def _add(result: Mapped, target: str, value: Tensor, source: str) -> None:
    if target in result.state:
        raise UserError(f"{source}: a second tensor for {target}")
    result.state[target] = value


def _changed(source: str, value: Tensor, change: str | None, classes: int | None) -> Tensor:
    if change == "flatten":
        return value.flatten(1) if value.dim() == 4 and value.shape[2:] == (1, 1) else value
    if change is not None and not value.dim():
        raise UserError(f"{source} is a single number; a tensor with a row for each class is expected")
    if change == "background_last":
        return torch.cat([value[1:], value[:1]])
    if change == "drop_background" and classes and value.shape[0] % classes == 0:
        return value[value.shape[0] // classes :].clone()  # class-agnostic ones (4 rows, 1 row) stay
    return value


@dataclass(frozen=True)
class Expected:
    """What a module of a config holds.

    Attributes:
        shapes: key -> shape.
        width: channels of its last output, 0 if it is not a backbone.
        functions: what its layers compute with their weights (``layers.function``), by the layer's name.
    """

    shapes: Mapping[str, torch.Size]
    width: int
    functions: Mapping[str, Any]


def expected(config: Mapping[str, Any]) -> Expected:
    """What a module of this config holds, built without memory for its weights."""
    return _expected(json.dumps(config, sort_keys=True))


@functools.lru_cache(maxsize=256)
def _expected(config: str) -> Expected:
    from mmms_plugin.registry import MODELS

    with torch.device("meta"), warnings.catch_warnings(), _weights_not_drawn():
        warnings.simplefilter("ignore")  # hosts warn of their own old names
        model = MODELS.build(json.loads(config))
    state: Any = model.state_dict()
    return Expected(
        {key: value.shape for key, value in state.items()},
        model.out_channels[-1] if isinstance(model, Backbone) else 0,
        {name: notes[FUNCTION] for name, notes in state._metadata.items() if FUNCTION in notes},
    )


@contextmanager
def _weights_not_drawn() -> Iterator[None]:
    """Layers on the meta device do not draw weights, which takes nearly half of the time to build a network there."""
    with ExitStack() as stack:
        for layer in (nn.Conv2d, nn.BatchNorm2d):
            stack.enter_context(patch.object(layer, "reset_parameters", _unless_on_meta(layer.reset_parameters)))
        yield


def _unless_on_meta(reset: Callable[[Any], None]) -> Callable[[Any], None]:
    def reset_parameters(layer: Any) -> None:
        if layer.weight is None or not layer.weight.is_meta:  # such as one that another thread builds
            reset(layer)

    return reset_parameters


def part_configs(arch: Arch, state: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
    """Configs of the parts beside the backbone, with the number of classes in the file."""
    configs = {name: dict(config) for name, config in arch.parts.items()}
    for part, key in CLASSES.items():
        rows = state.get(f"{part}.{key}")
        if rows is not None and part in configs:
            if not rows.dim() or not len(rows):
                raise UserError(f"{part}.{key} has no row for any class")
            configs[part]["num_classes"] = len(rows)
    return configs


def parts_fit(table: Table, arch: Arch, state: Iterable[str]) -> bool:
    """Whether a file holds the parts of the architecture; any will do if no architecture of the source has parts."""
    simple = set() if "head" in arch.parts else {"head"}  # a linear classifier, which may be there or not
    parts = {key.split(".")[0] for key in state} - {"backbone"} - simple
    return parts == set(arch.parts) or not any(other.parts for other in table.archs.values())


def compare(
    state: Mapping[str, Tensor], wanted: Mapping[str, torch.Size], prefix: str = BACKBONE
) -> dict[str, list[str]]:
    """Keys without their prefix that are 'missing', 'unknown' or of another 'shape'; counters may be missing."""
    own = {key.removeprefix(prefix): value.shape for key, value in state.items() if key.startswith(prefix)}
    return {
        "missing": [key for key in wanted if key not in own and not key.endswith(COUNTER)],
        "unknown": [key for key in own if key not in wanted],
        "shape": [key for key in own if key in wanted and own[key] != wanted[key]],
    }


def check_mapped(
    name: str, table: Table, arch: Arch, config: Mapping[str, Any], state: Mapping[str, Tensor]
) -> list[str]:
    """Compare mapped tensors with what the modules of an architecture hold.

    Args:
        name: of the architecture, for the message.
        config: of the backbone.
    Returns: remarks for the user.
    Raises: UserError that names the first tensor that does not fit; Misfit where it may be another architecture.
    """
    if not parts_fit(table, arch, state):
        held, wanted = sorted({key.split(".")[0] for key in state}), ("backbone", *arch.parts)
        raise Misfit(f"not {name}: the file holds {', '.join(held)}, the architecture is {', '.join(wanted)}")
    for key, value in state.items():
        allowed = FLOATS if key.startswith((BACKBONE, HEAD)) and not key.endswith(COUNTER) else OTHERS
        if value.dtype not in allowed:
            kind, *names = (str(dtype).removeprefix("torch.") for dtype in (value.dtype, *allowed))
            raise UserError(f"{key} has type {kind}: allowed are {', '.join(names[:-1])} and {names[-1]}")
    remarks = []
    for part, part_config in {"backbone": config, **part_configs(arch, state)}.items():
        try:
            shapes = expected(part_config).shapes
        except ImportError as error:  # the host of a head is not installed
            remarks.append(f"{part}: shapes not checked ({not_installed(error.name) or error})")
            continue
        _check_part(name, part, state, shapes)
    if broken := [key for key, value in state.items() if not torch.isfinite(value).all()]:
        remarks.append(f"{len(broken)} tensors hold values that are not finite (first: {broken[0]})")
    head = {key.removeprefix(HEAD): value for key, value in state.items() if key.startswith(HEAD)}
    if head and "head" not in arch.parts:  # a linear classifier for any number of classes
        if missing := {"fc.weight", "fc.bias"} - set(head):
            raise UserError(f"the classifier's {missing.pop()} is missing")
        weight, bias, width = head["fc.weight"], head["fc.bias"], expected(config).width
        if weight.dim() != 2 or weight.shape[1] != width or not len(weight):
            raise UserError(f"the classifier's weight is {list(weight.shape)}, expected [classes, {width}]")
        if bias.shape != weight.shape[:1]:
            raise UserError(f"the classifier's bias is {list(bias.shape)}, expected [{weight.shape[0]}]")
    return remarks


def _check_part(name: str, part: str, state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> None:
    misfit = compare(state, shapes, f"{part}.")
    if keys := misfit["missing"]:
        fault, shown = "are missing", keys[:3]
    elif keys := misfit["unknown"]:
        fault, shown = "have no place in it", [with_nearest(key, shapes) for key in keys[:3]]
    elif keys := misfit["shape"]:
        own = {key: list(state[f"{part}.{key}"].shape) for key in keys[:3]}
        fault = "have another shape"
        shown = [f"{key} is {shape}, expected {list(shapes[key])}" for key, shape in own.items()]
    else:
        return
    detail = ", ".join(f"{part}.{text}" for text in shown)
    raise Misfit(f"not {name}: {len(keys)} tensors {fault} (first: {detail})")
