"""Which mask belongs to which picture, by their names without suffix.

The two names are equal but for words that say which is which: ``p0_leftImg8bit`` and ``p0_gtFine_labelTrainIds``,
``img_7`` and ``mask_7``, ``a`` and ``a_mask``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from mmms_plugin.files import composed

PICTURE_WORDS = (
    "leftimg8bit", "rgb", "image", "img", "im", "sat", "photo", "picture", "pic", "frame", "input", "color",
)  # fmt: skip
MASK_WORDS = (  # the best first, where a picture has several masks
    "mask", "masks", "label", "labels", "labeltrainids", "labelids", "seg", "segmentation", "gt", "gtfine", "gtcoarse",
    "gts", "annotation", "annot", "anno", "groundtruth", "truth", "target", "lbl", "matte", "l", "p",
)  # fmt: skip


def partners(images: Iterable[str], masks: Iterable[str]) -> dict[str, str]:
    """The mask of each picture that has one.

    The fewer words are left out until two names are equal, the better they fit. A mask that fits two pictures equally
    well belongs to neither.
    """
    readers: dict[str, list[tuple[int, str]]] = {}  # pictures by their readings
    for image in images:
        for left_out, name in enumerate(readings(image, PICTURE_WORDS)):
            readers.setdefault(name, []).append((left_out, image))
    offers: dict[str, list[tuple[int, int, str]]] = {}
    for mask in masks:
        costs: dict[str, int] = {}
        for left_out, name in enumerate(readings(mask, MASK_WORDS)):
            for others, image in readers.get(name, ()):
                costs[image] = min(left_out + others, costs.get(image, left_out + others))
        least = min(costs.values(), default=0)
        nearest = [image for image, cost in costs.items() if cost == least]
        if len(nearest) == 1:
            word = next((word for _, word in _shorter(mask, MASK_WORDS)), MASK_WORDS[0])
            offers.setdefault(nearest[0], []).append((least, MASK_WORDS.index(word), mask))
    return {image: min(of_image)[2] for image, of_image in offers.items()}


def readings(name: str, words: Sequence[str]) -> list[str]:
    """A name as it stands, without regard to case, and without one, two, ... of the words before and after it."""
    return [composed(name), _folded(name), *(shorter for shorter, _ in _shorter(name, words))]


def told_apart(names: Sequence[str]) -> set[str]:
    """Those of the names in one folder that are masks of others there."""
    pictures = {name: readings(name, PICTURE_WORDS) for name in names}
    readers: dict[str, set[str]] = {}
    for name, of_name in pictures.items():
        for reading in of_name:
            readers.setdefault(reading, set()).add(name)
    words = MASK_WORDS[:-2]  # a_l beside a_r is a picture of the left side
    return {name for name in names for shorter, _ in _shorter(name, words) if readers.get(shorter, set()) - {name}}


def is_variant(mask: str, known: set[str]) -> bool:
    """Whether a mask's name begins with a known one, as of Cityscapes' ``p0_gtFine_color``."""
    name = _folded(mask)
    return any(name[: match.start()] in known for match in re.finditer(r"[_\-. ]", name))


def _folded(name: str) -> str:
    return composed(name).casefold()


def _shorter(name: str, words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The name, without regard to case, without one word more each time, and that word."""
    folder, _, name = _folded(name).rpartition("/")
    either = "|".join(words)
    while (match := re.fullmatch(rf"(?P<rest>.+?)[_\-. ]+(?P<word>{either})", name)) or (
        match := re.fullmatch(rf"(?P<word>{either})(?:[_\-. ]+|(?=\d))(?P<rest>.+)", name)
    ):
        name = match["rest"]
        yield f"{folder}/{name}" if folder else name, match["word"]
