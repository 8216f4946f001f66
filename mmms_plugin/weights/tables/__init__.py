r"""Key-map tables: one module per source, each with a ``TABLE``: a new module here is a new ``--source``.

A table is data. Keys on its left are those of the published file, once wrappers (``state_dict``, ``model``) and
prefixes (``module.``, and the table's own ``prefixes``) are taken off. Keys on its right are those of a whole
OpenMMLab model, whatever the file held: ``backbone.*``; a classifier as ``head.fc.*`` (mmpretrain's ``LinearClsHead``,
so 1x1 convolutions are flattened), several as ``head.exits.*`` (``MultiExitHead``); a detector as ``neck.*``,
``rpn_head.*``, ``roi_head.*``; a segmentor as ``neck.*``, ``decode_head.*``, ``auxiliary_head.*``. What is written
(backbone or whole) is chosen afterwards.

    Rule(r"features\.norm0\.(.+)", r"backbone.norm0.\1")                      # mapped
    Rule(r"fc\.(weight|bias)", r"head.fc.\1", apply="flatten")                # mapped, with a change of the tensor
    Rule(r".+\.project\..+", None, "inner projections are never used")        # dropped on purpose, with the reason

The first rule whose pattern matches the whole key counts. A key that no rule matches is an error. A tensor of the
backbone that no key fills is an error too, ``num_batches_tracked`` excepted (older PyTorch had none).
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

APPLY = ("flatten", "background_last", "drop_background")


@dataclass(frozen=True)
class Rule:
    r"""What becomes of the source keys that match.

    Args:
        pattern: regular expression of the whole source key.
        target: template of the target key (``\1`` and ``\g<name>`` as in ``re``), or None: dropped.
        reason: why it is dropped, a few words for the report; required then.
        apply: change of the tensor, a name of ``APPLY``: 'flatten' ``[C, K, 1, 1] -> [C, K]``; 'background_last' moves
            the first class to the end; 'drop_background' removes the first class.
        when: the rule counts only where some key of the source matches this expression.
        unless: the rule counts only where no key of the source matches this expression.
        join: role of this tensor among several that share a target; they go to ``Table.join`` together.
    """

    pattern: str
    target: str | None
    reason: str = ""
    apply: str | None = None
    when: str | None = None
    unless: str | None = None
    join: str | None = None

    def __post_init__(self) -> None:
        if self.target is None and not self.reason:
            raise ValueError(f"Rule({self.pattern!r}, None): give the reason why such keys are dropped")
        if self.apply is not None and self.apply not in APPLY:
            raise ValueError(f"apply={self.apply!r}: allowed are {', '.join(APPLY)}")


@dataclass(frozen=True)
class Normalisation:
    """What the network was trained on: ``(pixel - mean) / std`` with pixels from 0 to ``maximum`` in this order."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channel_order: str = "RGB"
    maximum: float = 1.0

    @property
    def data_preprocessor(self) -> dict[str, Any]:
        """As the hosts' ``data_preprocessor`` takes it, for pictures read by OpenCV (BGR, 0 to 255)."""
        scale = 255 / self.maximum
        return dict(
            mean=[round(value * scale, 4) for value in self.mean],
            std=[round(value * scale, 4) for value in self.std],
            bgr_to_rgb=self.channel_order == "RGB",
        )


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Arch:
    """One architecture of a source.

    Args:
        backbone: config dict of the backbone that loads it, ``type='mmms_plugin....'`` included.
        parts: config dicts of what else the file holds, by the name that the host gives it
            (``dict(neck=..., decode_head=...)``); they go to ``meta.model``, with the ``num_classes`` of the file.
        normalisation: where it differs from the table's.
        outputs: where they differ from the table's.
        note: one line for the user, such as an assumption that the file does not confirm.
        unseen: what keys and shapes do not show and other networks of the same keys have otherwise, such as the strides
            of a stem. Such an architecture must be named by ``--arch``, unless the file has a key that matches
            ``shown_by``.
        shown_by: regular expression of a key that only files of this architecture have.
        rules: of its keys, where they depend on the architecture; they come before the table's.
    """

    backbone: Mapping[str, Any]
    parts: Mapping[str, Any] = field(default_factory=dict)
    normalisation: Normalisation | None = None
    outputs: tuple[str, ...] = ()
    note: str = ""
    unseen: str = ""
    shown_by: str = ""
    rules: tuple[Rule, ...] = ()


class Archs(dict[str, Arch]):
    """Architectures of a family, by name: those that are listed, and any other whose name can be read.

    Args:
        listed: the usual ones, among which a file is recognised.
        form: what names look like, for messages.
        read: the architecture of a name, None if it is not one of the family.
    """

    def __init__(self, listed: Mapping[str, Arch], form: str, read: Callable[[str], Arch | None]) -> None:
        super().__init__(listed)
        self.form, self.read = form, read

    def __missing__(self, name: str) -> Arch:
        arch = self.read(name)
        if arch is None:
            raise KeyError(name)
        return arch


@dataclass(frozen=True)
class Table:
    """The checkpoints of one source.

    Args:
        source: name for ``--source``; the module's.
        about: one line: whose checkpoints, which repository.
        archs: architectures by the name for ``--arch``, the publishers' own. ``--source auto`` compares a file's keys
            and shapes with what each would need, so no hint is needed here.
        rules: of the keys.
        normalisation: of the inputs.
        licence: of the published weights, SPDX name, or None where the publishers say nothing.
        outputs: what the publishers call the outputs of the backbone's stages 0, 1, ..., for ``--reference``.
        before_relu: those of them whose published output lacks the ReLU that ends the stage here.
        prefixes: taken off the source keys if most keys that no rule matches have it, in addition to the usual ones
            (``module.``, ``model.``, ``backbone.``).
        join: ``(role -> tensor, backbone config) -> {suffix: tensor}`` for rules with ``join``; the suffix follows the
            target and a dot.
        components: settings with which a whole detector of this source computes as its authors' did: type in today's
            config -> settings for every component of that type; written to ``meta.components``.
        hints: names beside the state dict, or prefixes of its keys, that only this source's files have; they decide
            if a file fits several sources.
    """

    source: str
    about: str
    archs: Mapping[str, Arch]
    rules: tuple[Rule, ...]
    normalisation: Normalisation = IMAGENET
    licence: str | None = None
    outputs: tuple[str, ...] = ()
    before_relu: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    join: Callable[[Mapping[str, Tensor], Mapping[str, Any]], dict[str, Tensor]] | None = None
    components: Mapping[str, Any] = field(default_factory=dict)
    hints: tuple[str, ...] = ()


def sources() -> tuple[str, ...]:
    """Names of all sources: the modules of this package, those with an underscore excepted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name[0] != "_"))


def load_table(source: str) -> Table:
    """The table of a source.

    Raises: ValueError for an unknown source.
    """
    if source not in sources():
        raise ValueError(f"source={source!r}: allowed are {', '.join(sources())}")
    return import_module(f"{__name__}.{source}").TABLE
