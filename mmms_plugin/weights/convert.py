"""``mmms convert``: read, map, check, try, write; a ``Report`` says what was done."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmms_plugin import __version__
from mmms_plugin.errors import UserError
from mmms_plugin.files import written_whole
from mmms_plugin.weights import psconv, verify
from mmms_plugin.weights.files import (
    Checkpoint,
    check_output,
    read_checkpoint,
    save_checkpoint,
    sha256_of,
)
from mmms_plugin.weights.mapping import (
    BACKBONE,
    COUNTER,
    Mapped,
    apply_table,
    compare,
    expected,
    part_configs,
    parts_fit,
    with_nearest,
)
from mmms_plugin.weights.options import Options
from mmms_plugin.weights.recognise import Guess, choose, recognise
from mmms_plugin.weights.report import Report
from mmms_plugin.weights.tables import Arch, Normalisation, Table, load_table

HEAD = "head."
PLAIN = [1, 1, 1, 1]
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
OTHERS = (*FLOATS, torch.int64, torch.int32, torch.uint8, torch.bool)  # counters, and buffers of heads


@dataclass
class _Work:
    """A conversion under way: the target state (keys of the whole model), the config, the classifier beside it."""

    table: Table
    arch: Arch
    state: dict[str, Tensor]
    config: dict[str, Any]
    report: Report
    left_out: dict[str, Tensor] = field(default_factory=dict)  # the classifier where OUT has no place for it

    @property
    def backbone(self) -> dict[str, Tensor]:
        return {key.removeprefix(BACKBONE): v for key, v in self.state.items() if key.startswith(BACKBONE)}

    @property
    def head(self) -> dict[str, Tensor]:
        return {key.removeprefix(HEAD): v for key, v in self.state.items() if key.startswith(HEAD)}

    @property
    def exits(self) -> dict[str, Any] | None:
        """Config of the classifiers where there are several."""
        left_out = {HEAD + key: value for key, value in self.left_out.items()}
        return part_configs(self.arch, {**self.state, **left_out}).get("head")

    @property
    def name(self) -> str:
        return f"{self.report.source} {self.report.arch}"

    @property
    def names(self) -> tuple[str, ...]:
        return self.arch.outputs or self.table.outputs

    def drop(self, target: str, reason: str) -> None:
        """Take a target key out again; the source keys that filled it count as dropped."""
        del self.state[target]
        for source in [s for s, t in self.report.mapped.items() if t == target]:
            del self.report.mapped[source]
            self.report.dropped[source] = reason


def convert(source: str, output: str, options: Options, tell: Callable[[str], None] = lambda step: None) -> Report:
    """Convert a checkpoint file; ``tell`` is called with the name of each step.

    Raises: UserError; then no output is written.
    """
    out = check_output(output, options.force, Path(source))
    tell("reading")
    checkpoint = read_checkpoint(source)
    if "backbone" in checkpoint.meta and "sha256" in checkpoint.meta:
        raise UserError(f"checkpoint {source}: it was made by mmms convert already")
    tell("recognising" if "auto" in (options.source, options.arch) else "mapping")
    guess, others = choose(checkpoint, options.source, options.arch)
    try:
        work = _map(checkpoint, out, guess, others)
        extras = _take_extra(work, options)
        _check_shapes(work, checkpoint)
    except UserError as error:
        near = "" if guess.fits else f"checkpoint {checkpoint.path} fits nothing, {guess} comes nearest: "
        raise UserError(f"{near}{error}") from error
    if work.arch.note:
        work.report.remarks.append(work.arch.note)
    exact = _check_extra(work, extras, options) or _set_pattern(work, options)
    _choose_part(work, options.part, safe=out.suffix == ".safetensors")
    if exact is not None:
        tell("measuring")
        work.report.moved = verify.movement(exact, _outputs(work, work.config, work.backbone))
    checkpoint.state.clear()
    _write(work, out, options, tell)
    return work.report


def _map(checkpoint: Checkpoint, out: Path, guess: Guess, others: list[Guess]) -> _Work:
    table = load_table(guess.source)
    arch = table.archs[guess.arch]
    mapped = apply_table(table, guess.arch, checkpoint.state)
    report = _report(checkpoint, out, guess.source, guess.arch, [str(other) for other in others], mapped)
    return _Work(table, arch, mapped.state, copy.deepcopy(dict(arch.backbone)), report)


def _report(checkpoint: Checkpoint, out: Path, source: str, arch: str, others: list[str], mapped: Mapped) -> Report:
    return Report(
        input=str(checkpoint.path), sha256=sha256_of(checkpoint.path), output=str(out), source=source, arch=arch,
        also_fits=others, wrapper=checkpoint.wrapper, beside=list(checkpoint.beside), prefix=mapped.prefix,
        mapped=mapped.mapped, dropped=mapped.dropped, initialised=mapped.initialised,
    )  # fmt: skip


def _take_extra(work: _Work, options: Options) -> dict[str, Tensor]:
    """The extra dilation-1 weights of PSConv; out of the state where they are not to be kept."""
    extras = {key: work.state[key] for key in psconv.extra_keys(work.state)}
    if options.drop_extra and not extras:
        raise UserError(f"--drop-extra: source {work.table.source} has no extra dilation-1 weights")
    if options.drop_extra:
        work.config.pop("extra_dilation1", None)
        work.report.remarks.append(f"extra dilation-1 weights of {len(extras)} layers left out (--drop-extra)")
    if not work.config.get("extra_dilation1"):
        for key in extras:
            work.state.pop(key)
    return extras


def _check_extra(work: _Work, extras: Mapping[str, Tensor], options: Options) -> dict[str, Tensor] | None:
    """Check that extra weights which the layer cannot hold are zero, or return outputs with those to be dropped.

    Raises: UserError if weights beneath the authors' mask are not zero and are not asked to be dropped.
    """
    if options.drop_extra:
        config = {**work.config, "extra_dilation1": True}
        state = {**work.backbone, **{key.removeprefix(BACKBONE): value for key, value in extras.items()}}
        return _outputs(work, config, state)
    loose = psconv.unmasked_layers(extras, work.config.get("groups", 1))
    if loose:
        layer, largest = max(loose.items(), key=lambda item: item[1])
        raise UserError(
            f"{len(loose)} PSConv layers have dilation-1 weights beneath the authors' mask, where zeros belong "
            f"(largest: {largest:.3g} in {layer.removeprefix(BACKBONE)}); --drop-extra leaves them out and says how "
            "far outputs move"
        )
    return None


def _check_shapes(work: _Work, checkpoint: Checkpoint) -> None:
    """Compare the mapped tensors with what the modules of the architecture hold; start missing batch counters at zero.

    Raises: UserError naming the first tensor that does not fit.
    """
    if not parts_fit(work.table, work.arch, work.state):
        held, wanted = ", ".join(_tops(work)), ", ".join(("backbone", *work.arch.parts))
        raise UserError(f"not {work.name}: the file holds {held}, the architecture is {wanted}{_hint(checkpoint)}")
    _check_types(work)
    backbone = expected(work.config)
    for name, config in {"backbone": work.config, **part_configs(work.arch, work.state)}.items():
        _check_part(work, name, config, checkpoint)
    for key in (key for key in backbone.shapes if key.endswith(COUNTER) and BACKBONE + key not in work.state):
        work.state[BACKBONE + key] = torch.zeros((), dtype=torch.int64)
        work.report.initialised.append(BACKBONE + key)
    broken = [key for key, value in work.state.items() if not torch.isfinite(value).all()]
    if broken:
        work.report.remarks.append(f"{len(broken)} tensors hold values that are not finite (first: {broken[0]})")
    if "head" not in work.arch.parts:
        _check_classifier(work.head, backbone.width)


def _check_types(work: _Work) -> None:
    """Raises: UserError for weights that are no floating-point numbers of 16 bits or more, and other odd types."""
    for key, value in work.state.items():
        allowed = FLOATS if key.startswith((BACKBONE, HEAD)) and not key.endswith(COUNTER) else OTHERS
        if value.dtype not in allowed:
            kind, names = str(value.dtype).removeprefix("torch."), [str(t).removeprefix("torch.") for t in allowed]
            raise UserError(f"{key} has type {kind}: allowed are {', '.join(names[:-1])} and {names[-1]}")


def _check_classifier(head: Mapping[str, Tensor], width: int) -> None:
    """Raises: UserError unless there is no classifier, or a weight and a bias for any number of classes."""
    if not head:
        return
    if missing := {"fc.weight", "fc.bias"} - set(head):
        raise UserError(f"the classifier's {missing.pop()} is missing")
    weight, bias = head["fc.weight"], head["fc.bias"]
    if weight.dim() != 2 or weight.shape[1] != width or not len(weight):
        raise UserError(f"the classifier's weight is {list(weight.shape)}, expected [classes, {width}]")
    if bias.shape != weight.shape[:1]:
        raise UserError(f"the classifier's bias is {list(bias.shape)}, expected [{weight.shape[0]}]")


def _check_part(work: _Work, name: str, config: Mapping[str, Any], checkpoint: Checkpoint) -> None:
    try:
        shapes = expected(config).shapes
    except ImportError as error:  # the host of a head is not installed
        work.report.remarks.append(f"{name}: shapes not checked ({error})")
        return
    for kind, keys in compare(work.state, shapes, f"{name}.").items():
        if keys:
            said = {"missing": "are missing", "unknown": "have no place in it", "shape": "have another shape"}[kind]
            shown = (with_nearest(key, shapes) if kind == "unknown" else key for key in keys[:3])
            if kind == "shape":
                own = {key: work.state[f"{name}.{key}"].shape for key in keys[:3]}
                shown = (f"{key} is {list(shape)}, expected {list(shapes[key])}" for key, shape in own.items())
            detail = ", ".join(f"{name}.{text}" for text in shown)
            raise UserError(f"not {work.name}: {len(keys)} tensors {said} (first: {detail}){_hint(checkpoint)}")


def _hint(checkpoint: Checkpoint) -> str:
    fits = [str(guess) for guess in recognise(checkpoint)]
    return f"; the file fits {', '.join(fits)}" if fits else ""


def _set_pattern(work: _Work, options: Options) -> dict[str, Tensor] | None:
    """Put another dilation pattern over plain 3x3 weights; returns the outputs without it, to compare with."""
    if options.pattern is None:
        return None
    if work.config.get("dilation_pattern") != PLAIN:
        allowed = "its weights were trained with theirs" if "dilation_pattern" in work.config else "it has no PSConv"
        raise UserError(f"--pattern: not for source {work.table.source} {work.report.arch}: {allowed}")
    if list(options.pattern) == PLAIN:
        return None
    exact = _outputs(work, work.config, work.backbone)
    work.config["dilation_pattern"] = list(options.pattern)
    try:
        expected(work.config)
    except ValueError as error:
        raise UserError(f"--pattern: {error}") from error
    work.report.remarks.append("plain 3x3 weights dilated by --pattern: a start for training, not the same function")
    return exact


def _choose_part(work: _Work, part: str, safe: bool) -> None:
    """Leave in the state what is to be written, and note in the report what is not."""
    more = [key for key in work.state if not key.startswith((BACKBONE, HEAD))]
    work.report.part = ("whole" if more or work.arch.parts else "backbone") if part == "auto" else part
    if work.report.part == "whole":
        return
    for key in more:
        work.drop(key, "not of the backbone (--part whole keeps it)")
    if safe:
        work.left_out = work.head
        for key in [key for key in work.state if key.startswith(HEAD)]:
            work.drop(key, "classifier: safetensors has no place beside the backbone (--part whole keeps it)")


def _outputs(work: _Work, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Outputs on the fixed input; the model is gone afterwards, so that only one is in memory at a time."""
    model = verify.build(config, state, len(work.names))
    for module in model.modules():
        if hasattr(module, "extra_keep"):
            module.extra_keep.fill_(True)  # the published layers add what is beneath the mask, too
    return verify.run(model, work.head or work.left_out, work.names, verify.fixed_input(), work.exits)


def _write(work: _Work, out: Path, options: Options, tell: Callable[[str], None]) -> None:
    """Write, read back and try; the file gets its name only when all went well."""
    whole = work.report.part == "whole"
    work.report.backbone = work.config
    tell("writing")
    with written_whole(out) as temporary:
        state, head = (work.state, {}) if whole else (work.backbone, work.head)
        save_checkpoint(temporary, state, _meta(work), head, safe=out.suffix == ".safetensors")
        if options.verify or options.reference:
            tell("verifying")
            head = {key: value.clone() for key, value in (work.head or work.left_out).items()}
            exits = work.exits
            state.clear()
            work.state.clear()  # nothing of the input stays in memory beside the model
            _verify(work, head, exits, read_checkpoint(temporary), options)


def _verify(
    work: _Work, head: dict[str, Tensor], exits: Mapping[str, Any] | None, written: Checkpoint, options: Options
) -> None:
    """Run what is in the file that was written, built from its own ``meta.backbone``."""
    names, prefix = work.names, written.meta["prefix"]
    reference = None
    if options.reference:
        accepted = [*names, *verify.logit_names(head, exits)]
        reference = verify.read_reference(options.reference, accepted)
    image = verify.fixed_input() if reference is None else reference.image
    state = {key.removeprefix(prefix): v for key, v in written.state.items() if key.startswith(prefix)}
    backbone = verify.build(written.meta["backbone"], state, len(names))
    outputs = verify.run(backbone, head, names, image, exits)
    wanted = None
    if reference is not None:
        rectified = work.table.before_relu
        wanted = {name: v.relu() if name in rectified else v for name, v in reference.outputs.items()}
    work.report.outputs = verify.statistics(outputs, wanted)
    verify.check_tolerance(work.report.outputs, options.tolerance)


def _meta(work: _Work) -> dict[str, Any]:
    report, normalisation = work.report, work.arch.normalisation or work.table.normalisation
    whole = report.part == "whole"
    model = part_configs(work.arch, work.state)
    components = work.table.components if whole and "roi_head" in _tops(work) else {}
    return dict(
        source=report.source,
        arch=report.arch,
        sha256=report.sha256,
        input=Path(report.input).name,
        backbone=json.loads(json.dumps(work.config)),
        prefix=BACKBONE if whole else "",
        **(dict(model=json.loads(json.dumps(model))) if model and (whole or "head" in model) else {}),
        **(dict(components=copy.deepcopy(dict(components))) if components else {}),
        **_normalisation_meta(normalisation),
        licence=work.table.licence or "unknown",
        remarks=list(report.remarks),
        tool=f"mmms_plugin {__version__}",
    )


def _tops(work: _Work) -> list[str]:
    return sorted({key.split(".")[0] for key in work.state})


def _normalisation_meta(norm: Normalisation) -> dict[str, Any]:
    """As the publishers say it, and as ``data_preprocessor`` takes it for pictures read by OpenCV (BGR, 0 to 255)."""
    scale = 255 / norm.maximum
    return dict(
        normalisation=dict(
            mean=list(norm.mean), std=list(norm.std), channel_order=norm.channel_order, range=[0.0, norm.maximum]
        ),
        data_preprocessor=dict(
            mean=[round(m * scale, 4) for m in norm.mean],
            std=[round(s * scale, 4) for s in norm.std],
            bgr_to_rgb=norm.channel_order == "RGB",
        ),
    )
