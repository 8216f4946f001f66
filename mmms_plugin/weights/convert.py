"""``mmms convert``: read, map, check, write and try a checkpoint; a ``Report`` says what was done."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmms_plugin import __version__
from mmms_plugin.errors import UserError, printable
from mmms_plugin.files import written_whole
from mmms_plugin.layers.function import PLAIN_CONV
from mmms_plugin.weights.files import TRAINED, Checkpoint, check_output, read_checkpoint, save_checkpoint, sha256_of
from mmms_plugin.weights.mapping import (
    BACKBONE,
    COUNTER,
    HEAD,
    Misfit,
    apply_table,
    check_mapped,
    expected,
    part_configs,
)
from mmms_plugin.weights.options import Options
from mmms_plugin.weights.recognise import Guess, choose, recognise, shows
from mmms_plugin.weights.report import Report
from mmms_plugin.weights.tables import Arch, Table, load_table
from mmms_plugin.weights.tables.psconv import extra_keys, unmasked_layers
from mmms_plugin.weights.verify import Classifier, movement, outputs_of, verify_written

PLAIN = [1, 1, 1, 1]
OUTPUT_STRIDES = {8: ((1, 2, 1, 1), (1, 1, 2, 4)), 16: ((1, 2, 2, 1), (1, 1, 1, 2)), 32: ((1, 2, 2, 2), (1, 1, 1, 1))}


@dataclass
class _Work:
    """A conversion under way.

    Attributes:
        state: target tensors, by the keys of the whole model.
        config: of the backbone.
        classifier: what makes logits, also if OUT has no place for it.
    """

    table: Table
    arch: Arch
    state: dict[str, Tensor]
    config: dict[str, Any]
    report: Report
    classifier: Classifier

    @property
    def names(self) -> tuple[str, ...]:
        return self.arch.outputs or self.table.outputs

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Tensors of the backbone or the head, by their own keys."""
        return {key.removeprefix(prefix): value for key, value in self.state.items() if key.startswith(prefix)}

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
    try:
        work, extras = _recognised(checkpoint, out, options)
    except UserError as error:
        if TRAINED not in checkpoint.meta:
            raise
        raise UserError(
            f"checkpoint {source}: a checkpoint of mmms train needs no conversion: mmms test, mmms predict and "
            "--pretrained take it as it is, and mmms publish prepares it for release"
        ) from error
    before: dict[str, Tensor] | None = None
    if options.drop_extra:
        before = _outputs_with(work, extras)
    else:
        _check_beneath_mask(work, extras)
    if options.pattern is not None:
        before = _set_pattern(work, list(options.pattern))
    _choose_part(work, options.part, safe=out.suffix == ".safetensors")
    if before is not None:
        tell("measuring")
        after = outputs_of(work.config, work.part(BACKBONE), work.names, work.classifier)
        work.report.moved = movement(before, after)
    checkpoint.state.clear()
    _write(work, out, options, tell)
    return work.report


def _recognised(checkpoint: Checkpoint, out: Path, options: Options) -> tuple[_Work, dict[str, Tensor]]:
    """Find source and architecture, and map the keys, as `_map`.

    Raises: UserError; it names the sources that do fit, or come nearest.
    """
    guess, others = choose(checkpoint, options.source, options.arch)
    try:
        return _map(checkpoint, out, guess, others, options)
    except UserError as error:
        near = "" if guess.fits else f"checkpoint {checkpoint.path} fits nothing, {guess} comes nearest: "
        fits = [str(guess) for guess in recognise(checkpoint)] if isinstance(error, Misfit) else []
        hint = f"; the file fits {', '.join(fits)}" if fits else ""
        raise UserError(f"{near}{error}{hint}") from error


def _map(
    checkpoint: Checkpoint, out: Path, guess: Guess, others: list[Guess], options: Options
) -> tuple[_Work, dict[str, Tensor]]:
    """Map the keys and compare the tensors with what the networks of the architecture hold.

    Returns: the work, and the extra dilation-1 weights of PSConv, which are in its state only if they are kept.
    """
    table = load_table(guess.source)
    arch = table.archs[guess.arch]
    mapped = apply_table(table, guess.arch, checkpoint.state)
    report = Report(
        input=str(checkpoint.path), sha256=sha256_of(checkpoint.path), output=str(out), source=guess.source,
        arch=guess.arch, also_fits=[str(other) for other in others], wrapper=checkpoint.wrapper,
        beside=list(checkpoint.beside), prefix=mapped.prefix, mapped=mapped.mapped, dropped=mapped.dropped,
        initialised=mapped.initialised,
    )  # fmt: skip
    work = _Work(table, arch, mapped.state, copy.deepcopy(dict(arch.backbone)), report, Classifier({}))
    extras = {key: work.state[key] for key in extra_keys(work.state)}
    if options.drop_extra and not extras:
        raise UserError(f"--drop-extra: source {table.source} has no extra dilation-1 weights")
    if options.drop_extra:
        work.config.pop("extra_dilation1", None)
        report.remarks.append(f"extra dilation-1 weights of {len(extras)} layers left out (--drop-extra)")
    if not work.config.get("extra_dilation1"):
        for key in extras:
            work.state.pop(key)
    report.remarks += check_mapped(str(guess), table, arch, work.config, work.state)
    report.remarks += _set_strides(work, options.output_stride)
    _check_functions(work, checkpoint)
    for key in expected(work.config).shapes:
        if key.endswith(COUNTER) and BACKBONE + key not in work.state:
            work.state[BACKBONE + key] = torch.zeros((), dtype=torch.int64)
            report.initialised.append(BACKBONE + key)
    report.remarks += [arch.note] if arch.note else []
    report.remarks += [] if shows(arch, checkpoint) else [f"{arch.unseen}: by --arch, the file does not show it"]
    work.classifier = Classifier(work.part(HEAD), part_configs(arch, work.state).get("head"))
    return work, extras


def _set_strides(work: _Work, wanted: int | None) -> list[str]:
    """Set strides and dilations of a ResNet by ``--output-stride``; returns remarks.

    Raises: UserError where the file is of a kind of model that usually has others than a classifier, and none is given;
        where they are given and the architecture has fixed ones.
    """
    others = {key.partition(".")[0] for key in work.state} - {"backbone"}
    takes = work.config["type"].endswith("PSResNet") and not work.arch.parts
    if wanted is not None and not takes:
        raise UserError(f"--output-stride: not for source {work.report.source} {work.report.arch}, which has its own")
    segments = "decode_head" in others
    dense = segments or bool(others & {"rpn_head", "roi_head", "bbox_head"} and "neck" not in others)
    if not takes or (wanted is None and not dense):
        if takes and not others:
            return ["strides and dilations of a classifier; the file, which has no head, may be of another model"]
        return []
    if wanted is None:
        kind = "a segmentation model (decode_head)" if segments else "a detector without a neck"
        raise UserError(
            f"the file is of {kind}, whose backbone often has other strides and dilations than a classifier's, which "
            "weights do not show: give --output-stride 8, 16 or 32 (mmseg's names end in d8, d16, d32)"
        )
    strides, dilations = OUTPUT_STRIDES[wanted]
    work.config |= dict(strides=list(strides), dilations=list(dilations))
    if segments:
        work.config["contract_dilation"] = True  # as in all configs of mmseg
    return [f"strides {strides} and dilations {dilations} by --output-stride"]


def _check_functions(work: _Work, checkpoint: Checkpoint) -> None:
    """Raises: UserError if the file says that a layer computes something else than the architecture's does."""
    functions = expected(work.config).functions
    for source, target in work.report.mapped.items():
        layer = source.removeprefix("module.").removesuffix(".weight")
        own = functions.get(target.removeprefix(BACKBONE).removesuffix(".weight"), PLAIN_CONV)
        theirs = checkpoint.functions.get(layer, own)
        if source.endswith(".weight") and theirs != own:
            raise UserError(
                f"not {work.report.source} {work.report.arch}: {layer} was trained with "
                f"{printable(str(theirs), 200)}, the architecture has {dict(own)}"
            )


def _outputs_with(work: _Work, extras: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Outputs as published, with extra weights that are to be dropped."""
    state = {**work.part(BACKBONE), **{key.removeprefix(BACKBONE): value for key, value in extras.items()}}
    config = {**work.config, "extra_dilation1": True}
    return outputs_of(config, state, work.names, work.classifier, beneath_mask=True)


def _check_beneath_mask(work: _Work, extras: Mapping[str, Tensor]) -> None:
    """Raises: UserError if weights beneath the authors' mask, which no layer here has, are not zero."""
    loose = unmasked_layers(extras, work.config.get("groups", 1))
    if loose:
        layer, largest = max(loose.items(), key=lambda item: item[1])
        raise UserError(
            f"{len(loose)} PSConv layers have dilation-1 weights beneath the authors' mask, where zeros belong "
            f"(largest: {largest:.3g} in {layer.removeprefix(BACKBONE)}); --drop-extra leaves them out and says how "
            "far outputs move"
        )


def _set_pattern(work: _Work, pattern: list[int]) -> dict[str, Tensor] | None:
    """Put another dilation pattern over plain 3x3 weights; returns the outputs without it, to compare with."""
    if work.config.get("dilation_pattern") != PLAIN:
        allowed = "its weights were trained with theirs" if "dilation_pattern" in work.config else "it has no PSConv"
        raise UserError(f"--pattern: not for source {work.table.source} {work.report.arch}: {allowed}")
    if pattern == PLAIN:
        return None
    before = outputs_of(work.config, work.part(BACKBONE), work.names, work.classifier)
    work.config["dilation_pattern"] = pattern
    try:
        expected(work.config)
    except ValueError as error:
        raise UserError(f"--pattern: {error}") from error
    work.report.remarks.append("plain 3x3 weights dilated by --pattern: a start for training, not the same function")
    return before


def _choose_part(work: _Work, part: str, safe: bool) -> None:
    """Leave in the state what is to be written, and note in the report what is not."""
    more = [key for key in work.state if not key.startswith((BACKBONE, HEAD))]
    work.report.part = ("whole" if more or work.arch.parts else "backbone") if part == "auto" else part
    if work.report.part == "whole":
        return
    for key in more:
        work.drop(key, "not of the backbone (--part whole keeps it)")
    for key in [key for key in work.state if safe and key.startswith(HEAD)]:
        work.drop(key, "classifier: safetensors has no place beside the backbone (--part whole keeps it)")


def _write(work: _Work, out: Path, options: Options, tell: Callable[[str], None]) -> None:
    """Write, read back and try; the file gets its name only when all went well."""
    whole = work.report.part == "whole"
    work.report.backbone = work.config
    prefix = BACKBONE if whole else ""
    functions = {prefix + name: function for name, function in expected(work.config).functions.items()}
    tell("writing")
    with written_whole(out) as temporary:
        state, head = (work.state, {}) if whole else (work.part(BACKBONE), work.part(HEAD))
        save_checkpoint(temporary, state, _meta(work), head, safe=out.suffix == ".safetensors", functions=functions)
        if options.verify or options.reference:
            tell("verifying")
            classifier = Classifier(
                {key: value.clone() for key, value in work.classifier.state.items()}, work.classifier.exits
            )
            for tensors in (state, head, work.state, work.classifier.state):
                tensors.clear()  # nothing of the input stays in memory beside the model
            written = read_checkpoint(temporary)
            work.report.outputs = verify_written(written, work.names, classifier, work.table.before_relu, options)


def _meta(work: _Work) -> dict[str, Any]:
    """``meta`` of the file.

    The mean and standard deviation of pixels are there as the publishers state them, and as ``data_preprocessor`` takes
    them.
    """
    report, norm = work.report, work.arch.normalisation or work.table.normalisation
    whole = report.part == "whole"
    model = part_configs(work.arch, work.state)
    components = work.table.components if whole and any(key.startswith("roi_head.") for key in work.state) else {}
    return dict(
        source=report.source,
        arch=report.arch,
        sha256=report.sha256,
        input=Path(report.input).name,
        backbone=json.loads(json.dumps(work.config)),
        prefix=BACKBONE if whole else "",
        **(dict(model=json.loads(json.dumps(model))) if model and (whole or "head" in model) else {}),
        **(dict(components=copy.deepcopy(dict(components))) if components else {}),
        normalisation=dict(
            mean=list(norm.mean), std=list(norm.std), channel_order=norm.channel_order, range=[0.0, norm.maximum]
        ),
        data_preprocessor=norm.data_preprocessor,
        licence=work.table.licence or "unknown",
        remarks=list(report.remarks),
        tool=f"mmms_plugin {__version__}",
    )
