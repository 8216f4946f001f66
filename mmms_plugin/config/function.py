"""What a model computes besides its weights: the values of a config that no tensor shows.

Anchors, strides, box coders, RoI layers, dilations, normalisation of pixels: weights load under other values of these
without an error, and give a fraction of the AP. So ``mmms train`` keeps the model's whole config in its checkpoints
(``Function.parts``), as plain values, and whoever loads one compares it with the config at hand.

The rule: every value counts, defaults included, except what only training uses, what a user chooses for an evaluation
(``test_cfg``), and what shapes show. A new head or coder of a host needs no entry here.
"""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmms_plugin.config.edit import class_name, leaf_datasets, registered
from mmms_plugin.errors import printable, shown
from mmms_plugin.layers import PSConv2d
from mmms_plugin.weights.files import plain_dict

# Values that do not change what a trained network computes ...
NEUTRAL = {
    "init_cfg", "pretrained", "frozen_stages", "norm_eval", "with_cp", "zero_init_residual", "convert_weights",
    "train_cfg", "auxiliary_head", "assigner", "sampler", "dn_cfg", "batch_augments", "ignore_index", "requires_grad",
    "momentum", "inplace", "topk", "cal_acc",  # of training
    "test_cfg",  # chosen for an evaluation
    "num_classes",  # shown by shapes
    "implementation", "fixed_shape", "non_blocking",  # other ways to the same result
}  # fmt: skip
DROPOUT = re.compile(r"(?:.*_)?drop(?:out|path)?(?:_.*)?")
LOSS = re.compile(r"loss(?:_.*)?|.*_loss")  # of which only use_sigmoid changes what a head predicts
SAME_TYPE = {"SyncBN": "BN", "MMSyncBN": "BN", "BN2d": "BN", "NaiveSyncBatchNorm": "BN"}
# Values of a backbone that fit it to a task: weights that training starts from may have been trained with others.
FREE = ("strides", "dilations", "multi_grid", "ceil_mode", "contract_dilation", "output", "resize_outputs",
        "out_indices")  # fmt: skip
LATTICE = ("dilation_pattern", "channel_order", "axes", "extra_dilation1")  # of PSConv2d
# The same networks but for the lattice, and for stems and shortcuts, which keys show; their arguments, with defaults.
PLAIN_FAMILY = ("ResNet", "ResNeXt", "ResNetV1c", "ResNetV1d", "PSResNet")
IN_COMMON = {"strides": [1, 2, 2, 2], "dilations": [1, 1, 1, 1], "style": "pytorch", "contract_dilation": False}
NO_PIXELS: dict[str, Any] = {"mean": [0, 0, 0], "std": [1, 1, 1], "bgr_to_rgb": False, "rgb_to_bgr": False}
# Steps of a pipeline that change values of pixels, not their places
VALUES = re.compile(r"(?i)normali|gr[ae]y|gamma|clahe|equali|solari|posteri|invert|bright|contrast|colou?r|satur|sharp")
PIPELINE = "pipeline"
HAVE_DEFAULTS = ("MODELS", "TASK_UTILS", "TRANSFORMS")  # registries of what a function is made of
DIGITS = 1e-3  # relative: 123.675 is 123.68
SHOWN = 80  # characters of a value
LISTED = 6  # differences in a message


class _Symbol:
    """A value that is not given, or not plain."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


ABSENT, UNKNOWN = _Symbol("no such value"), _Symbol("something that is not plain")


@dataclass(frozen=True)
class Function:
    """What a model computes with its weights.

    Attributes:
        parts: of the model's config, as plain values, and the steps of the test pipeline that change values of pixels.
            With a ``type`` they are complete; without, other parts are unknown.
        scope: in which the types of a config are looked up; '' for those out of a file, which are never looked up.
    """

    parts: Mapping[str, Any]
    scope: str = ""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Function:
        """Of a whole config, independent of what happens to the config afterwards."""
        model = config["model"]
        pixels = model.get("data_preprocessor") or config.get("data_preprocessor")
        parts = {**model, "type": model.get("type") or "model", "data_preprocessor": pixels}
        if (steps := _value_steps(config)) is not None:
            parts[PIPELINE] = steps
        return cls(plain_dict(_named(parts))[0], config.get("default_scope") or "mmengine")

    @property
    def complete(self) -> bool:
        return "type" in self.parts


def _named(value: Any) -> Any:
    """A config with the names of classes in place of the classes, and without the files that weights start from."""
    if isinstance(value, Mapping):
        named = {key: _named(item) for key, item in value.items() if key not in ("init_cfg", "pretrained")}
        if isinstance(value.get("type"), type):
            named["type"] = value["type"].__name__
        return named
    return [_named(item) for item in value] if isinstance(value, list | tuple) else value


def _value_steps(config: Mapping[str, Any]) -> list[Any] | None:
    """The steps of the test pipeline that change values of pixels; None if the config has no such pipeline."""
    for split in ("test", "val"):
        for dataset in leaf_datasets(config.get(f"{split}_dataloader")):
            steps = [step for step in dataset.get("pipeline") or () if isinstance(step, Mapping)]
            return [step for step in steps if VALUES.search(class_name(step))]
    return None


def differences(theirs: Function, own: Function, only_backbone: bool = False) -> list[str]:
    """``PATH=VALUE, the config has VALUE`` of everything that a file states and the config at hand has otherwise.

    Args:
        theirs: of the file; untrusted.
        own: of the config.
        only_backbone: only the backbone's weights are used, as a start: what fits it to a task may differ.
    """
    told = (*_backbone(theirs, own, only_backbone), *_pixels(theirs, own))
    rest = () if only_backbone else _others(theirs, own)
    known = [(name, _plain(value), _plain(other)) for name, value, other in (*told, *rest)]
    lines = [
        f"{printable(name, SHOWN)}={shown(value, SHOWN)}, the config has {shown(other, SHOWN)}"
        for name, value, other in known
        if not _hides(value) and not _hides(other)
    ]
    return lines if len(lines) <= LISTED else [*lines[:LISTED], f"{len(lines) - LISTED} more"]


_Pairs = Iterator[tuple[str, Any, Any]]  # path, value of the file, value of the config


def _others(theirs: Function, own: Function) -> _Pairs:
    """Parts beside the backbone: neck, heads, steps of the pipeline."""
    apart = {"type", "backbone", "data_preprocessor"}
    sides = [{key: value for key, value in side.parts.items() if key not in apart} for side in (theirs, own)]
    if not theirs.complete:
        sides[1] = {key: value for key, value in sides[1].items() if key in sides[0]}
    elif PIPELINE not in sides[0] or PIPELINE not in sides[1]:
        sides = [{key: value for key, value in side.items() if key != PIPELINE} for side in sides]
    defaults = _defaults(own.parts.get("type"), own.scope)
    yield from _walk_values(sides[0], sides[1], defaults, "", own.scope)


def _pixels(theirs: Function, own: Function) -> _Pairs:
    """Normalisation and order of the channels, by whichever name."""
    sides = [side.parts.get("data_preprocessor") for side in (theirs, own)]
    if not isinstance(sides[0], Mapping) and not theirs.complete:
        return
    if not isinstance(sides[1], Mapping) and (not (theirs.complete and own.complete) or own.parts.get(PIPELINE)):
        return  # a file of mmms convert, for a config that normalises in its pipeline
    known = [_channel_order(side) if isinstance(side, Mapping) else {} for side in sides]
    for name, default in NO_PIXELS.items():
        values = [default if side.get(name) is None else side[name] for side in known]
        if not _same(*values):
            yield f"data_preprocessor.{name}", known[0].get(name), known[1].get(name)


def _channel_order(pixels: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**pixels, "bgr_to_rgb": pixels["to_rgb"]} if "to_rgb" in pixels else pixels  # mmpretrain's name


def _backbone(theirs: Function, own: Function, only_backbone: bool) -> _Pairs:
    first, second = theirs.parts.get("backbone"), own.parts.get("backbone")
    if not isinstance(first, Mapping) or not isinstance(second, Mapping):
        return
    lattices, kinds = (_lattice(first), _lattice(second)), (class_name(first), class_name(second))
    said = [name for name in LATTICE if all(name in lattice for lattice in lattices)]
    for name in said:
        if not _same(lattices[0][name], lattices[1][name]):
            yield f"backbone.{name}", lattices[0][name], lattices[1][name]
    # the maps that a head takes are part of the whole model's function
    skipped = FREE if only_backbone else () if theirs.complete else ("out_indices",)
    if not same_family(first, second):
        yield "backbone.type", kinds[0], kinds[1]
        return
    if kinds[0] != kinds[1]:
        first, second = ({name: side.get(name, IN_COMMON[name]) for name in IN_COMMON} for side in (first, second))
        defaults: Mapping[str, Any] = {}
    else:
        defaults = _defaults(second.get("type"), own.scope)
    left_out = {"type", *skipped, *LATTICE, *(["conv_cfg"] if said else [])}
    first, second = ({key: value for key, value in side.items() if key not in left_out} for side in (first, second))
    yield from _walk_values(first, second, defaults, "backbone", own.scope)


def same_family(*backbones: Mapping[str, Any]) -> bool:
    """Whether arguments of backbones can be compared: of one type, or of plain ResNets of any host."""
    kinds = {class_name(backbone) for backbone in backbones}
    return len(kinds) == 1 or kinds <= set(PLAIN_FAMILY)


def _walk(theirs: Any, own: Any, path: str, scope: str) -> _Pairs:
    """What differs in two values of a config, as far inside as their types agree."""
    theirs, own = _simple(theirs), _simple(own)
    if isinstance(theirs, Mapping) and isinstance(own, Mapping):
        kinds = class_name(theirs), class_name(own)
        if all(kinds) and kinds[0] != kinds[1]:
            yield f"{path}.type", kinds[0], kinds[1]
        else:
            yield from _walk_values(theirs, own, _defaults(own.get("type"), scope), path, scope)
    elif _has_parts(theirs) and _has_parts(own) and len(theirs) == len(own):
        for number, (value, other) in enumerate(zip(theirs, own, strict=True)):
            yield from _walk(value, other, f"{path}.{number}", scope)
    elif not _same(theirs, own):
        yield path, theirs, own


def _walk_values(
    theirs: Mapping[str, Any], own: Mapping[str, Any], defaults: Mapping[str, Any], path: str, scope: str
) -> _Pairs:
    for name in {**theirs, **own}:
        if not isinstance(name, str) or name == "type" or name[:1] == "_" or name in NEUTRAL or DROPOUT.fullmatch(name):
            continue
        value, other = (side.get(name, defaults.get(name, ABSENT)) for side in (theirs, own))
        if LOSS.fullmatch(name):
            flags = [v.get("use_sigmoid") for v in (value, other) if isinstance(v, Mapping)]
            if len(flags) == 2 and None not in flags and not _same(*flags):
                yield f"{path}.{name}.use_sigmoid".lstrip("."), flags[0], flags[1]
        else:
            yield from _walk(value, other, f"{path}.{name}".lstrip("."), scope)


def _has_parts(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value)


def _simple(value: Any) -> Any:
    """A plain convolution is no ``conv_cfg``; synchronised norms compute what plain ones do."""
    if not isinstance(value, Mapping):
        return value
    kind = class_name(value)
    if kind in ("Conv2d", "Conv") and len(value) == 1:
        return None
    return {**value, "type": SAME_TYPE[kind]} if kind in SAME_TYPE else value


def _defaults(kind: Any, scope: str) -> Mapping[str, Any]:
    """Defaults of a registered class, also of bases that get its keyword arguments; {} if unknown."""
    if not isinstance(kind, str) or not scope:
        return {}
    cls = registered(kind, scope, HAVE_DEFAULTS) or getattr(sys.modules.get("mmcv.ops"), kind, None)  # RoI layers
    defaults: dict[str, Any] = {}
    for base in cls.__mro__ if inspect.isclass(cls) else ():
        if "__init__" not in vars(base) or base is object:
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        given = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
        defaults = given | defaults
        if all(p.kind is not p.VAR_KEYWORD for p in parameters):
            break
    return defaults


def _same(value: Any, other: Any) -> bool:
    """Whether two plain values say the same: 2 and (2, 2), 123.675 and 123.68, nothing and None, full and True."""
    lists = [isinstance(v, list | tuple) for v in (value, other)]
    if all(lists):
        return len(value) == len(other) and all(map(_same, value, other))
    if any(lists) and not any(v is None or v is ABSENT for v in (value, other)):
        row, single = (value, other) if lists[0] else (other, value)
        return len(row) > 0 and all(_same(item, single) for item in row)
    if ABSENT in (value, other) and not (value is not ABSENT and value) and not (other is not ABSENT and other):
        return True
    if isinstance(value, Mapping) and isinstance(other, Mapping):
        return set(value) == set(other) and all(_same(value[key], other[key]) for key in value)
    words: dict[Any, Any] = {"none": False, "full": True}  # of ``elastic``
    if isinstance(value, bool) or isinstance(other, bool):
        value, other = (words.get(v, v) if isinstance(v, str) else v for v in (value, other))
    if all(isinstance(v, int | float) for v in (value, other)):
        whole = isinstance(value, int) and isinstance(other, int)
        return value == other or (not whole and math.isclose(value, other, rel_tol=DIGITS))
    return bool(value == other)


def _lattice(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``PSConv2d`` in the 3x3 layers of a ResNet; {} if it has layers of another kind, or is none."""
    conv = config.get("conv_cfg")
    if class_name(config) not in PLAIN_FAMILY or (conv is not None and not isinstance(conv, Mapping)):
        return {}
    if conv is None:
        given: Mapping[str, Any] | None = config if class_name(config) == "PSResNet" else None
    elif class_name(conv) in ("PSConv", "Conv2d", "Conv"):
        given = conv if class_name(conv) == "PSConv" else None
    else:
        return {}
    if given is None:
        return {"dilation_pattern": [1]}
    defaults = inspect.signature(PSConv2d.__init__).parameters
    lattice = {n: _plain(defaults[n].default if given.get(n) is None else given[n]) for n in LATTICE}
    pattern = lattice["dilation_pattern"]
    return {"dilation_pattern": [1]} if isinstance(pattern, list) and set(map(str, pattern)) == {"1"} else lattice


def _plain(value: Any, depth: int = 0) -> Any:
    """Lists for tuples, rounded numbers; ``UNKNOWN`` for what is not plain."""
    if depth > 6:
        return UNKNOWN
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, Mapping):
        items = {str(key): _plain(item, depth + 1) for key, item in value.items()}
        return {**items, "type": class_name(value)} if "type" in value else items
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return value if value is None or value is ABSENT or isinstance(value, bool | int | str) else UNKNOWN


def _hides(value: Any) -> bool:
    """Whether there is something unknown in a plain value."""
    if isinstance(value, list | dict):
        return any(_hides(item) for item in (value.values() if isinstance(value, dict) else value))
    return value is UNKNOWN
