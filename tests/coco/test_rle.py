"""Segmentations that pycocotools' compiled code must not see are refused, sound ones are read."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as rle

from mmms_plugin.coco import run_lengths
from mmms_plugin.coco.rle import damaged, mask_boxes, segmentation_problems, to_rles
from mmms_plugin.coco.run_lengths import Masks, RunLengths
from mmms_plugin.errors import UserError

SQUARE = [[1, 1, 3, 1, 3, 3, 1, 3]]


def counts_by_hand(text: bytes) -> list[int] | None:
    """The format read letter by letter; None where it is broken."""
    counts: list[int] = []
    letters = [letter - 48 for letter in text]
    while letters:
        value, shift, more = 0, 0, True
        while more:
            if not letters or not 0 <= letters[0] < 64 or shift == 35:
                return None
            letter = letters.pop(0)
            value, shift, more = value | (letter & 31) << shift, shift + 5, bool(letter & 32)
        value -= (letter & 16) * 2 << (shift - 5)
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        if counts[-1] < 0:
            return None
    return counts


def test_damage_is_found_exactly_where_counts_do_not_add_up():
    rng = np.random.default_rng(0)
    sound, mutants = [], []
    for _ in range(400):
        height, width = rng.integers(1, 60, 2).tolist()
        sound.append(rle.encode(np.asfortranarray(rng.random((height, width)) < rng.random(), np.uint8)))
    assert damaged(sound) == []
    for _ in range(4200):  # more than are checked together
        one = sound[rng.integers(len(sound))]
        text = bytearray(one["counts"])
        at = rng.integers(len(text))
        text[at : at + rng.integers(2)] = bytes(rng.integers(47, 114, rng.integers(3)).tolist())
        mutants.append({"size": one["size"], "counts": bytes(text)})
    counts = [counts_by_hand(one["counts"]) for one in mutants]
    wrong = [i for i, one in enumerate(mutants) if counts[i] is None or sum(counts[i]) != np.prod(one["size"])]
    assert damaged(mutants) == wrong
    assert 500 < len(wrong) < 4100


@pytest.mark.parametrize(
    ("segmentation", "problem"),
    [
        ({"size": [4, 4], "counts": "08"}, "do not sum to 4 * 4 pixels"),  # pycocotools loops for ever
        ({"size": [4, 4], "counts": ""}, "do not sum"),
        ({"size": [4, 4], "counts": "\ud800"}, "do not sum"),
        ({"size": [2**32, 4], "counts": "08"}, "below 2^32 pixels"),
        ({"size": [2**16, 2**16], "counts": [2**32]}, "below 2^32 pixels"),
        ({"size": [0, 0], "counts": []}, "integers >= 1"),
        ({"size": [-4, -4], "counts": [16]}, "integers >= 1"),
        ({"size": ["4", "4"], "counts": [16]}, "integers >= 1"),
        ({"size": [4, None], "counts": [16]}, "integers >= 1"),
        ({"size": [4, True], "counts": [4]}, "integers >= 1"),
        ({"size": "44", "counts": [16]}, "must be polygons or an RLE"),
        ({"size": [4, 4], "counts": [-1, 17]}, "integers >= 0 that sum to 4 * 4"),
        ({"size": [4, 5], "counts": [20]}, "is not the image's [4, 4]"),
        ([[float("nan")] * 6], "within ±1,000,000 px"),
        ([["1"] * 6], "not numbers"),
        ([[10**400] * 6], "not numbers"),
        ([[-1e6, -1e6, 1e6, 1e6] * 4], "outline"),  # pycocotools walks along it for minutes
        ([None], "at least 3 x, y pairs"),
        ("text", "must be polygons or an RLE"),
    ],
)
def test_what_pycocotools_must_not_see(segmentation, problem):
    assert problem in segmentation_problems([SQUARE, segmentation], [(4, 4), (4, 4)])[1]


def number(value: int, letters: int) -> str:
    """A number in the format's text, spelled with so many letters."""
    parts = [value >> 5 * i & 31 | 32 for i in range(letters)]
    return "".join(chr(48 + part) for part in (*parts[:-1], parts[-1] & 31))


def rectangle(width: float, height: float) -> list[float]:
    return [0, 0, width, 0, width, height, 0, height]


SIDES = (2**16 - 1, 2**16 + 1)  # their product is 2^32 - 1
LIMITS = {  # just inside, just outside, and what is wrong there, in pictures of that size
    "pixels of an RLE": (
        (0, 0), {"size": SIDES, "counts": [2**32 - 1]}, {"size": [2**16, 2**16], "counts": [2**32]}, "below 2^32"),
    "side": ((0, 0), {"size": [2**32 - 1, 1], "counts": [2**32 - 1]}, {"size": [2**32, 1], "counts": [2**32]}, "below"),
    "smallest": ((0, 0), {"size": [1, 1], "counts": [1]}, {"size": [1, 0], "counts": []}, "integers >= 1"),
    "whole sides": ((0, 0), {"size": [1.0, 2], "counts": [2]}, {"size": [1.5, 2], "counts": [3]}, "integers >= 1"),
    "two sides": ((0, 0), {"size": [4, 4], "counts": [16]}, {"size": [4, 4, 1], "counts": [16]}, "must be polygons or"),
    "whole counts": (
        (4, 4), {"size": [4, 4], "counts": [0.0, 16]}, {"size": [4, 4], "counts": [0.5, 15.5]}, "sum to 4 * 4"),
    "sum of counts": ((4, 4), {"size": [4, 4], "counts": [1, 15]}, {"size": [4, 4], "counts": [1, 16]}, "sum to 4 * 4"),
    "one text run": (
        (0, 0), {"size": SIDES, "counts": number(2**32 - 1, 7)}, {"size": SIDES, "counts": number(2**32, 7)},
        "counts do not sum to 65535 * 65537"),
    "letters": (
        (4, 4), {"size": [4, 4], "counts": number(16, 7)}, {"size": [4, 4], "counts": number(16, 8)}, "do not sum"),
    "negative run": (
        (4, 4), {"size": [4, 4], "counts": "0" + number(16, 2)}, {"size": [4, 4], "counts": "O" + number(16, 2)},
        "do not sum"),
    "the text's end": (
        (1, 1), {"size": [1, 1], "counts": b"1"}, {"size": [1, 1], "counts": b"Q"}, "do not sum to 1 * 1 pixels"),
    "height": ((4, 5), {"size": [4, 5], "counts": [20]}, {"size": [3, 5], "counts": [15]},
               "size [3, 5] is not the image's [4, 5]"),
    "width swapped": ((4, 1), {"size": [4, 1], "counts": [4]}, {"size": [1, 4], "counts": [4]}, "swapped?"),
    "points": ((4, 4), [[1, 1, 3, 1, 3, 3]], [[1, 1, 3, 1, 3]], "at least 3 x, y pairs"),
    "pairs": ((4, 4), (tuple(SQUARE[0]),), [[*SQUARE[0], 2]], "at least 3 x, y pairs"),
    "every polygon": ((4, 4), SQUARE * 2, [*SQUARE, [1, 1]], "at least 3 x, y pairs"),
    "coordinates": ((4, 4), [rectangle(1e6, -3)], [rectangle(1, -1e6 - 1)], "within ±1,000,000 px"),
    "outline": ((4, 4), [rectangle(1e6, 1e6)], [rectangle(1e6, 1e6 - 3), rectangle(4, 1)],
                "an outline of 4,000,004 px; 4,000,000 px are allowed"),
}  # fmt: skip


@pytest.mark.parametrize(("size", "inside", "outside", "problem"), LIMITS.values(), ids=LIMITS)
def test_the_exact_limits(size, inside, outside, problem):
    problems = segmentation_problems([inside, outside, inside], [size] * 3)
    assert list(problems) == [1]
    assert problem in problems[1]
    assert ("swapped?" in problems[1]) == ("swapped?" in problem)


def test_texts_without_letters_shift_no_other_mask():
    """Their places stay those of the list, also in front and in the middle."""
    mask = {"size": [4, 4], "counts": number(16, 2)}
    empty = dict(mask, counts=b"")
    assert damaged([empty, mask, empty, mask]) == [0, 2]
    assert damaged([empty, empty]) == [0, 1]
    assert damaged([]) == []


def test_sizes_of_pictures_matter_for_polygons_only():
    for size in ((0, 0), (0, 4), (4, 0)):
        assert "width and height" in segmentation_problems([SQUARE], [size])[0]
    assert "the image's 65536 x 65536 pixels" in segmentation_problems([SQUARE], [(2**16, 2**16)])[0]
    sound = {"size": [4.0, 4], "counts": [0, 16.0]}
    sizes = [(4, 4), SIDES, (4, 4), (0, 0), (0, 4), (4, 0)]
    assert segmentation_problems([SQUARE, SQUARE, *[sound] * 4], sizes) == {}


@pytest.mark.parametrize("at_once", [1, 50, run_lengths.AT_ONCE])  # letters
def test_areas_and_columns_are_those_of_the_pixels(monkeypatch, at_once):
    monkeypatch.setattr(run_lengths, "AT_ONCE", at_once)
    rng = np.random.default_rng(0)
    pixels = [np.zeros((height, 50), np.uint8) for height in (40, 300) for _ in range(60)]
    for i, image in enumerate(pixels):
        top, left = rng.integers(image.shape)
        image[top : top + 40, left : left + rng.integers(50)] = rng.random() < 0.9
        image[:] = 1 - image if i % 7 == 0 else image
    rles = [rle.encode(np.asfortranarray(image)) for image in pixels]
    masks = Masks.of(rles)
    assert list(masks) == rles
    assert [masks[i] for i in (3, -1)] == [rles[3], rles[-1]]
    assert list(masks[5:9]) == list(masks.at(np.arange(5, 9))) == rles[5:9]
    assert masks.areas.tolist() == [image.sum() for image in pixels]
    filled = masks.areas > 0
    boxes = mask_boxes(masks)[filled]
    assert masks.columns[filled].tolist() == np.stack((boxes[:, 0], boxes[:, 0] + boxes[:, 2]), 1).tolist()
    assert 0 < filled.sum() < len(filled)


def test_masks_of_a_file_are_those_of_its_segmentations_one_by_one():
    """The usual ones are read together; whatever is unusual is read, or refused, as in a list with others."""
    text, sizes = number(16, 2), np.full((2, 2), 4)
    usual = [RunLengths((4, 4), text), RunLengths((4, 4), "0" + text)]
    plain = [{"size": [4, 4], "counts": text}, {"size": [4, 4], "counts": [0, 16]}]
    assert [*to_rles(usual, sizes, "f")] == [*to_rles(plain, sizes, "f")]
    for segmentation in ({"size": (4, 4), "counts": text + text}, {"size": (4, 5), "counts": text},
                         {"size": (2**70, 4), "counts": text}, {"size": (0, 4), "counts": text},
                         {"size": (4, 4), "counts": "é"}, {"size": (4, 4), "counts": [3]}):  # fmt: skip
        messages = set()
        for wrong in (RunLengths(**segmentation), segmentation):
            with pytest.raises(UserError, match=r"^f\[1\]\.segmentation") as caught:
                to_rles([usual[0], wrong], sizes, "f")
            messages.add(str(caught.value).replace("(", "[").replace(")", "]"))
        assert len(messages) == 1
