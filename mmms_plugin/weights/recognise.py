"""``--source auto``: which architecture of which source a file holds, told from its keys and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from mmms_plugin.errors import UserError
from mmms_plugin.weights import psconv
from mmms_plugin.weights.files import Checkpoint
from mmms_plugin.weights.mapping import apply_table, compare, expected, parts_fit
from mmms_plugin.weights.tables import Arch, Table, load_table, sources

# Where a file fits several sources and says nothing itself: authors before collections.
ORDER = ("psconv", "dla", "elastic", "torchvision", "timm", "openmmlab")


@dataclass(frozen=True)
class Guess:
    """A source and architecture whose keys and shapes are those of the file."""

    source: str
    arch: str

    def __str__(self) -> str:
        return f"{self.source} {self.arch}"


def recognise(checkpoint: Checkpoint, source: str = "auto") -> list[Guess]:
    """All that fit, the most likely first; ``source`` narrows the search.

    A file's own words count most (an ``arch`` entry, names beside the weights), then the order of ``ORDER``.
    """
    shapes = {key: value.to("meta") for key, value in checkpoint.state.items()}
    tables = [load_table(name) for name in (sources() if source == "auto" else (source,))]
    fits = [Guess(table.source, arch) for table in tables for arch in _fitting(table, shapes)]
    hinted = {table.source for table in tables if _hinted(table, checkpoint)}
    return sorted(fits, key=lambda g: (g.source not in hinted, _rank(g.source), g.arch != checkpoint.arch))


def _fitting(table: Table, shapes: Mapping[str, torch.Tensor]) -> list[str]:
    """Architectures of one source whose keys and shapes these are; keys are mapped once for all that share rules."""
    mapped: dict[object, Mapping[str, torch.Tensor] | None] = {}
    found = []
    for name, arch in table.archs.items():
        shared = (table.rules_of.get(name), name if table.join else None)
        if shared not in mapped:
            try:
                mapped[shared] = apply_table(table, name, shapes).state
            except UserError:
                mapped[shared] = None
        state = mapped[shared]
        if state is not None and parts_fit(table, arch, state) and _fits(arch, state):
            found.append(name)
    return found


def _fits(arch: Arch, state: Mapping[str, torch.Tensor]) -> bool:
    if not arch.backbone.get("extra_dilation1"):
        extras = set(psconv.extra_keys(state))
        state = {key: value for key, value in state.items() if key not in extras}
    return not any(compare(state, expected(arch.backbone).shapes).values())


def _hinted(table: Table, checkpoint: Checkpoint) -> bool:
    names = (*checkpoint.beside, *checkpoint.meta)
    return any(hint in names or any(key.startswith(hint) for key in checkpoint.state) for hint in table.hints)


def _plain(arch: str) -> str:
    """``PS-ResNet50`` is ``ps_resnet50``; timm's ``resnet50.a1_in1k`` is ``resnet50``."""
    return arch.lower().replace("-", "_").split(".")[0]


def _rank(source: str) -> int:
    return ORDER.index(source) if source in ORDER else len(ORDER)


def choose(checkpoint: Checkpoint, source: str, arch: str) -> tuple[Guess, list[Guess]]:
    """What to convert as, and the other guesses, from ``--source`` and ``--arch``, either of which may be 'auto'.

    Raises: UserError for unknown names and for files that nothing fits.
    """
    if source != "auto" and source not in sources():
        raise UserError(f"--source {source}: allowed are auto, {', '.join(sources())}")
    if source != "auto" and arch != "auto":
        name = _plain(arch)
        known = load_table(source).archs
        if name not in known:
            raise UserError(f"--arch {arch}: source {source} has {', '.join(known)}")
        return Guess(source, name), []
    guesses = recognise(checkpoint, source)
    if arch != "auto":
        guesses = [guess for guess in guesses if guess.arch == _plain(arch)]
    if not guesses:
        wanted = "any source" if source == "auto" else f"source {source}"
        wanted += "" if arch == "auto" else f" and --arch {arch}"
        first = next(iter(checkpoint.state))
        raise UserError(
            f"checkpoint {checkpoint.path}: its {len(checkpoint.state)} keys (first: {first}) and shapes are not those "
            f"of {wanted}; give --source and --arch to learn what differs"
        )
    return guesses[0], guesses[1:]
