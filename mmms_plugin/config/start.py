"""Weights of any publisher that a training starts from, under the keys of the model of a config.

A file is read under its own keys, as those of the model or of its backbone, or by the key-map tables of ``weights``, as
``mmms convert`` does. The first reading that fills the backbone counts.

1. The backbone needs every tensor, in its shape. Only counters, and shapes of adaptors, may be missing: they begin as
   the config says. A file with more layers between those of the backbone is of another network, and refused; only
   behind the backbone's end its network may go on.
2. Beside the backbone (neck, heads), a layer is loaded if all of it fits, and starts fresh otherwise.
3. Everything else in the file is not used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from mmms_plugin.config.checkpoint import Misfit, start_remark, state_of
from mmms_plugin.config.function import Function, same_family
from mmms_plugin.errors import UserError, counted, printable
from mmms_plugin.layers import PSConv2d
from mmms_plugin.layers.shape_adaptor import ShapeAdaptor
from mmms_plugin.weights.files import TRAINED, Checkpoint
from mmms_plugin.weights.mapping import BACKBONE, COUNTER, FLOATS, apply_table
from mmms_plugin.weights.recognise import Guess, recognise, shows
from mmms_plugin.weights.tables import Arch, load_table, sources
from mmms_plugin.weights.tables.psconv import extra_keys
from mmms_plugin.weights.trusted import class_names

LISTED = 5  # names in a line
SHOWN = 60  # characters of a name


@dataclass(frozen=True)
class Start:
    """What a model starts from.

    Attributes:
        state: tensors by the model's keys.
        line: what is loaded, what starts fresh, what is not used.
        remark: a warning where the weights were made for another function or other classes, or None.
    """

    state: Mapping[str, Tensor]
    line: str
    remark: str | None


@dataclass(frozen=True)
class _Reading:
    """A file's tensors under keys of a model: ``backbone.*`` and others.

    Attributes:
        names: key -> key in the file, unless it was joined from several.
        dropped: keys in the file that the table leaves out -> reason.
        prefix: of the file's keys here, where no table was used.
        table: source and architecture whose rules were used; the tensors have no values then.
    """

    state: Mapping[str, Tensor]
    names: Mapping[str, str]
    dropped: Mapping[str, str] = field(default_factory=dict)
    prefix: str = ""
    table: tuple[str, str] | None = None

    @property
    def backbone(self) -> dict[str, Tensor]:
        return {key.removeprefix(BACKBONE): v for key, v in self.state.items() if key.startswith(BACKBONE)}


@dataclass(frozen=True)
class _Target:
    """A backbone that is to be filled.

    Attributes:
        shapes: of its tensors.
        children: names of the children of its modules, by the module's name.
        free: keys of the shapes of adaptors.
        root: name of the module whose children are the network's: '' or a wrapper's only child.
        last: name of the last of these children that has tensors.
    """

    shapes: Mapping[str, torch.Size]
    children: Mapping[str, Sequence[str]]
    free: Set[str]
    root: str
    last: str

    @classmethod
    def of(cls, backbone: nn.Module) -> _Target:
        shapes = {key: value.shape for key, value in backbone.state_dict().items()}
        modules = dict(backbone.named_modules())
        children = {name: [child for child, _ in module.named_children()] for name, module in modules.items()}
        free = {f"{name}.alpha" for name, module in modules.items() if isinstance(module, ShapeAdaptor)}
        first = {key.partition(".")[0] for key in shapes}
        root = first.pop() if len(first) == 1 else ""  # "timm_model" of mmpretrain's TIMMBackbone
        inner = next(reversed(shapes)).removeprefix(f"{root}.") if shapes else ""
        return cls(shapes, children, free, root, inner.partition(".")[0])

    def misfit(self, state: Mapping[str, Tensor]) -> Misfit:
        """As ``Misfit.of``, without what may be missing, and what lies behind the backbone's end."""
        misfit = Misfit.of(self.shapes, state)
        free = self.free if self.free <= set(misfit.missing) else set()
        missing = [key for key in misfit.missing if key not in free]
        return replace(misfit, missing=missing, unknown=[key for key in misfit.unknown if self._within(key)])

    def _within(self, key: str) -> bool:
        """Whether a key that the backbone lacks would lie between its layers, such as ``layer3.6`` in a ResNet-50."""
        module, path = self.root, key.removeprefix(f"{self.root}.").split(".")
        for depth, name in enumerate(path):
            children = self.children.get(module, ())
            if name not in children:
                row = name.isdecimal() and int(name) < len(children)
                behind = depth == 1 and path[0] == self.last and bool(children) and not row
                return depth > 0 and not behind
            module = f"{module}.{name}".lstrip(".")
        return True


def start_for(
    model: nn.Module, own: Function, checkpoint: Checkpoint, place: str, classes: tuple[str, ...] | None = None
) -> Start:
    """Find in a checkpoint what a model can start from, by the rules above.

    Args:
        model: with a ``backbone``.
        own: of the config.
        place: the file or address, for messages.
        classes: of the data.
    Raises: UserError if the weights are not those of the backbone, or not finite numbers.
    """
    backbone, state = model.get_submodule("backbone"), state_of(checkpoint)
    stated = bool(checkpoint.functions or {"backbone", TRAINED} & set(checkpoint.meta))  # by this plugin, with its keys
    target = _Target.of(backbone)
    readings = _own_readings(state, target) if stated else _readings(state, target)
    best: tuple[int, _Reading, Misfit] | None = None
    for reading in readings:
        misfit = target.misfit(reading.backbone)
        if best is None or misfit.count < best[0]:
            best = misfit.count, reading, misfit
        if not misfit.count:
            break
    assert best is not None
    count, reading, misfit = best
    guesses = [] if stated else [guess for guess in recognise(checkpoint) if shows(_arch(guess), checkpoint)]
    if count:
        fault = f"not the weights of this config's backbone: {misfit.describe(reading.backbone, target.shapes)}"
        hint = f"the file has those of {guesses[0]}" if guesses else "is it of another depth or width?"
        raise UserError(f"--pretrained {place}: {fault}; {hint}")
    if reading.table:
        reading = _by_table(*reading.table, state, target)
    wanted = model.state_dict()
    loaded = {key: value for key, value in reading.state.items() if key.startswith(BACKBONE) and key in wanted}
    beside, fresh = _beside(wanted, reading.state)
    loaded |= beside
    _check_values(loaded, reading.names, place)
    known = class_names(checkpoint.meta)
    line = f"{place}{f', as {guesses[0]}' if guesses else ''}: {', '.join(_parts(wanted, loaded))}"
    if fresh and known:
        line += f"; made for {counted(len(known), 'class')}"
    for reason in dict.fromkeys(fresh.values()):
        line += f"; {reason}, so fresh: {_listed([layer for layer, why in fresh.items() if why == reason])}"
    if unused := [name for key, name in reading.names.items() if key not in loaded and _layer(key) not in fresh]:
        line += f"; not used: {_listed(_counts(name.partition('.')[0] for name in unused))}"
    if reading.dropped:
        line += f"; dropped: {_listed(_counts(reading.dropped.values()))}"
    told = replace(checkpoint, functions={reading.prefix + n: function for n, function in checkpoint.functions.items()})
    remarks = [_remark(model, own, place, told, guesses, bool(beside))]
    if beside and not fresh and known and classes and known != classes:
        remarks.append(f"{place} was trained for the classes {', '.join(known)}; the data has {', '.join(classes)}")
    return Start(loaded, line, "; ".join(filter(None, remarks)) or None)


def _readings(state: Mapping[str, Tensor], target: _Target) -> Iterator[_Reading]:
    """All readings of a state dict of any publisher; those of the host's whole models have its keys."""
    if any(key.startswith(BACKBONE) for key in state):
        yield from _own_readings(state, target)
    tensors = {key: value.to("meta") for key, value in state.items()}
    tried = set()
    for source in sources():
        table = load_table(source)
        for name, arch in table.archs.items():
            alike = (source, arch.rules, name if table.join else "")  # these read a file alike
            if alike not in tried:
                tried.add(alike)
                try:
                    yield _by_table(source, name, tensors, target)
                except UserError:
                    continue
    yield from _own_readings(state, target)


def _own_readings(state: Mapping[str, Tensor], target: _Target) -> Iterator[_Reading]:
    whole = any(key.startswith(BACKBONE) for key in state)
    prefixes = ["" if whole else BACKBONE]
    if target.root and not whole:
        prefixes.append(f"{BACKBONE}{target.root}.")
    for prefix in prefixes:
        names = {prefix + key: key for key in state}
        yield _Reading({key: state[name] for key, name in names.items()}, names, prefix=prefix)


def _by_table(source: str, arch: str, state: Mapping[str, Tensor], target: _Target) -> _Reading:
    """Raises: UserError where the rules do not know a key, or tensors do not belong together."""
    mapped = apply_table(load_table(source), arch, state)
    held, dropped = dict(mapped.state), dict(mapped.dropped)
    for key in extra_keys(mapped.state):  # of PSConv's authors
        if key.removeprefix(BACKBONE) not in target.shapes:
            extra = held.pop(key)
            if not extra.is_meta and extra.any():  # they are zero unless a published model has them
                dropped[key] = "extra weights of PSConv, which this backbone does not have"
    names = {target: key for key, target in mapped.mapped.items() if target in held}
    return _Reading(held, names, dropped, table=(source, arch))


def _layer(key: str) -> str:
    return key.rpartition(".")[0]


def _beside(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of layers beside the backbone that fit as a whole; the names of those that do not -> what is amiss."""
    layers: dict[str, list[str]] = {}
    for key in wanted:
        if not key.startswith(BACKBONE):
            layers.setdefault(_layer(key), []).append(key)
    fitting: dict[str, Tensor] = {}
    fresh: dict[str, str] = {}
    for layer, keys in layers.items():
        held = [key for key in keys if key in state]
        if any(state[key].shape != wanted[key].shape for key in held):
            fresh[layer] = "with other shapes"
        elif held and not all(key in state or key.endswith(COUNTER) for key in keys):
            fresh[layer] = "incomplete in the file"
        else:
            fitting |= {key: state[key] for key in held}
    return fitting, fresh


def _check_values(state: Mapping[str, Tensor], names: Mapping[str, str], place: str) -> None:
    """Raises: UserError for weights that are not finite numbers."""
    for key, value in state.items():
        name = printable(names.get(key, key), SHOWN)
        if value.dtype not in FLOATS and not key.endswith(COUNTER):
            kind = str(value.dtype).removeprefix("torch.")
            raise UserError(f"--pretrained {place}: {name} has type {kind}; floating-point numbers are expected")
        if not torch.isfinite(value).all():
            raise UserError(f"--pretrained {place}: {name} has values that are not finite")


def _remark(
    model: nn.Module, own: Function, place: str, checkpoint: Checkpoint, guesses: Sequence[Guess], whole: bool
) -> str | None:  # fmt: skip
    """As ``start_remark``; where the file says nothing, the architectures that it fits do, if all of them differ."""
    if not guesses:
        return start_remark(model, own, place, checkpoint, whole)
    first = _arch(guesses[0]).backbone
    alike = [guess for guess in guesses if _arch(guess).backbone["type"] == first["type"]]
    remarks = [start_remark(model, own, place, _told(checkpoint, guess, own)) for guess in alike]
    if None in remarks:
        return None
    dilated = any(max(layer.dilation_pattern) > 1 for layer in model.modules() if isinstance(layer, PSConv2d))
    if dilated and set(first.get("dilation_pattern", ())) == {1}:
        return f"{remarks[0]}; its kernels were trained without dilation (docs/which_method.md has what that cost)"
    return remarks[0]


def _arch(guess: Guess) -> Arch:
    return load_table(guess.source).archs[guess.arch]


def _told(checkpoint: Checkpoint, guess: Guess, own: Function) -> Checkpoint:
    """A checkpoint that says of its backbone what ``mmms convert`` would write."""
    arch = _arch(guess)
    pixels = arch.normalisation or load_table(guess.source).normalisation
    meta: dict[str, Any] = dict(data_preprocessor=pixels.data_preprocessor)
    if same_family(arch.backbone, own.parts.get("backbone", {})):
        meta["backbone"] = dict(arch.backbone)
    return replace(checkpoint, meta=meta)


def _parts(wanted: Mapping[str, Tensor], loaded: Mapping[str, Tensor]) -> list[str]:
    """Parts of a model, and how many of their tensors are loaded."""
    total, held = (Counter(key.partition(".")[0] for key in keys) for keys in (wanted, loaded))
    return [f"{part} ({n}{f' of {total[part]}' if n < total[part] else ''} tensors)" for part, n in held.items()]


def _counts(names: Iterable[str]) -> list[str]:
    return [f"{printable(name)} ({n})" for name, n in Counter(names).items()]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
