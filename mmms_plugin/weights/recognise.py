"""``--source auto``: source and architecture of a file, recognised by its keys and shapes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from mmms_plugin.errors import UserError, printable
from mmms_plugin.weights.files import Checkpoint
from mmms_plugin.weights.mapping import BACKBONE, COUNTER, Rules, apply_table, compare, expected, parts_fit
from mmms_plugin.weights.tables import Arch, Archs, Rule, Table, load_table, sources
from mmms_plugin.weights.tables.psconv import EXTRA, extra_keys

# Preference if a file fits several sources and names none: authors before collections.
ORDER = ("psconv", "dla", "elastic", "msdnet", "torchvision", "timm", "openmmlab")


@dataclass(frozen=True)
class Guess:
    """A source and architecture whose keys and shapes are those of the file."""

    source: str
    arch: str
    fits: bool = True  # or merely comes nearest

    def __str__(self) -> str:
        return f"{self.source} {self.arch}"


def recognise(checkpoint: Checkpoint, source: str = "auto") -> list[Guess]:
    """All that fit, the most likely first; ``source`` narrows the search.

    What the file itself states counts most (an ``arch`` entry, names beside the weights), then ``ORDER``.
    """
    shapes = {key: value.to("meta") for key, value in checkpoint.state.items()}
    tables = [load_table(name) for name in (sources() if source == "auto" else (source,))]
    fits = [Guess(table.source, arch) for table in tables for arch in _fitting(table, shapes)]
    hinted = {table.source for table in tables if _hinted(table, checkpoint)}
    return sorted(fits, key=lambda g: (g.source not in hinted, _rank(g.source), g.arch != checkpoint.arch))


def _fitting(table: Table, shapes: Mapping[str, torch.Tensor]) -> list[str]:
    """Architectures of one source with these keys and shapes; keys are mapped once for all that share rules."""
    mapped: dict[object, Mapping[str, torch.Tensor] | None] = {}
    fitting = []
    for name, arch in table.archs.items():
        shared = (arch.rules, name if table.join else None)
        if shared not in mapped:
            try:
                mapped[shared] = apply_table(table, name, shapes).state
            except UserError:
                mapped[shared] = None
        state = mapped[shared]
        if state is not None and parts_fit(table, arch, state) and _fits(arch, state):
            fitting.append(name)
    return fitting


def _fits(arch: Arch, state: Mapping[str, torch.Tensor]) -> bool:
    if not arch.backbone.get("extra_dilation1"):
        extras = set(extra_keys(state))
        state = {key: value for key, value in state.items() if key not in extras}
    wanted = expected(arch.backbone).shapes
    return sum(key.startswith(BACKBONE) for key in state) <= len(wanted) and not any(compare(state, wanted).values())


def _hinted(table: Table, checkpoint: Checkpoint) -> bool:
    names = (*checkpoint.beside, *checkpoint.meta)
    return any(hint in names or any(key.startswith(hint) for key in checkpoint.state) for hint in table.hints)


def _plain(name: str) -> str:
    """``PS-ResNet-50`` is ``ps_resnet50``; timm's ``resnet50.a1_in1k`` is ``resnet50``."""
    return re.sub(r"[-_ ]", "", name.lower().split(".")[0])


def _source_named(name: str) -> str:
    """The source of a name, or of a repository such as ``d-li14/PSConv``.

    Raises: UserError for an unknown one.
    """
    matches = [
        s for s in sources() if name.lower() == s or ("/" in name and f"github.com/{name})" in load_table(s).about)
    ]
    if name != "auto" and not matches:
        raise UserError(f"--source {name}: allowed are auto, {', '.join(sources())}")
    return matches[0] if matches else name


def _reads(table: Table, name: str) -> bool:
    """Whether a table makes an architecture from its name, which is not among the listed ones."""
    archs = table.archs
    return isinstance(archs, Archs) and name not in archs and archs.read(name) is not None


def _rank(source: str) -> int:
    return ORDER.index(source) if source in ORDER else len(ORDER)


def choose(checkpoint: Checkpoint, source: str, arch: str) -> tuple[Guess, list[Guess]]:
    """What to convert as, and the other guesses, from ``--source`` and ``--arch``, either of which may be 'auto'.

    Raises: UserError for unknown names and for files that nothing fits.
    """
    source = _source_named(source)
    if source == "auto":
        source = next((name for name in sources() if _reads(load_table(name), arch)), source)
    if source != "auto" and arch != "auto":
        table = load_table(source)
        if _reads(table, arch):
            return Guess(source, arch), []
        known = next((name for name in table.archs if _plain(name) == _plain(arch)), None)
        if known is None:
            names = table.archs.form if isinstance(table.archs, Archs) else ", ".join(table.archs)
            raise UserError(f"--arch {arch}: source {source} has {names}")
        return Guess(source, known), []
    if source == "auto" and arch != "auto":
        _check_arch(arch)
    guesses = recognise(checkpoint, source)
    if arch != "auto":
        guesses = [guess for guess in guesses if _plain(guess.arch) == _plain(arch)]
    if guesses and arch == "auto":
        _check_shown(checkpoint, guesses[0])
    if not guesses:
        if nearest := _nearest(checkpoint, source, arch):
            return nearest, []
        wanted = "any source" if source == "auto" else f"source {source}"
        wanted += "" if arch == "auto" else f" and --arch {arch}"
        first = next(iter(checkpoint.state))
        raise UserError(
            f"checkpoint {checkpoint.path}: its {len(checkpoint.state)} keys (first: {first}) and shapes are not those "
            f"of {wanted}; give --source and --arch to learn what differs"
        )
    return guesses[0], guesses[1:]


def _check_arch(arch: str) -> None:
    """Raises: UserError if no source has an architecture of this name."""
    tables = [load_table(name) for name in sources()]
    known = {_plain(name): name for table in tables for name in table.archs}
    if _plain(arch) in known:
        return
    nearest = [known[name] for name in difflib.get_close_matches(_plain(arch), known, n=3)]
    forms = [f"{table.archs.form} (source {table.source})" for table in tables if isinstance(table.archs, Archs)]
    instead = "; ".join([f"the nearest are {', '.join(nearest)}"] * bool(nearest) + forms)
    raise UserError(f"--arch {printable(arch)}: no source has it; {instead}; mmms weights list shows all")


def shows(arch: Arch, checkpoint: Checkpoint) -> bool:
    """Whether a file shows all of an architecture; where not, ``Arch.unseen`` says what it does not show."""
    if not arch.unseen or checkpoint.arch is not None:
        return True
    return bool(arch.shown_by) and any(re.search(rf"(?:\A|\.)(?:{arch.shown_by})\Z", key) for key in checkpoint.state)


def _check_shown(checkpoint: Checkpoint, guess: Guess) -> None:
    """Raises: UserError if a file does not show all of the architecture that is to be taken without being named."""
    arch = load_table(guess.source).archs[guess.arch]
    if shows(arch, checkpoint):
        return
    others = [fit for fit in recognise(checkpoint) if fit != guess]
    instead = ""
    for fit in others:
        if (unseen := load_table(fit.source).archs[fit.arch].unseen) != arch.unseen:
            instead += f", or --source {fit.source} --arch {fit.arch}" + (f" if it has {unseen}" if unseen else "")
    raise UserError(
        f"checkpoint {checkpoint.path}: its keys and shapes fit {guess}, but do not show whether it has {arch.unseen}: "
        f"give --source {guess.source} --arch {guess.arch} if so{instead}"
    )


def _nearest(checkpoint: Checkpoint, source: str, arch: str) -> Guess | None:
    """The architecture that a file that fits none differs least from, unless it differs in half of its keys."""
    differing: dict[Guess, int] = {}
    for name in sources() if source == "auto" else (source,):
        table = load_table(name)
        places: dict[object, list[_Place]] = {}  # computed once for all architectures that share rules
        for own in (own for own in table.archs if arch == "auto" or _plain(own) == _plain(arch)):
            rules = table.archs[own].rules
            if rules not in places:
                places[rules] = _places(table, own, checkpoint.state)
            differing[Guess(name, own, fits=False)] = _differences(table, own, places[rules])
    ranked = sorted(differing, key=lambda g: (differing[g], _rank(g.source)))
    return ranked[0] if ranked and differing[ranked[0]] < len(checkpoint.state) / 2 else None


# Rule and target of a key (None if there is none), and the shape of its tensor.
_Place = tuple[Rule | None, str | None, torch.Size]


def _places(table: Table, arch: str, state: Mapping[str, torch.Tensor]) -> list[_Place]:
    rules = Rules(table, arch, state)
    return [(*rules.find(key), value.shape) for key, value in zip(rules.keys, state.values(), strict=True)]


def _differences(table: Table, arch: str, places: list[_Place]) -> int:
    """How many keys are unknown or missing, or have another shape; tensors that are joined count by their name."""
    wanted = {BACKBONE + key: shape for key, shape in expected(table.archs[arch].backbone).shapes.items()}
    present: set[str] = set()
    wrong = 0
    for rule, target, shape in places:
        if rule is not None and target is not None and target.startswith(BACKBONE):
            target = f"{target}.weight" if rule.join else target
            wrong += target not in wanted or (rule.join is None and shape != wanted[target])
            present.add(target)
        wrong += rule is None
    return wrong + sum(key not in present and not key.endswith((COUNTER, EXTRA)) for key in wanted)
