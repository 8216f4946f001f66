"""Segmentations that pycocotools' compiled code must not see are found, sound ones are let through."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as rle

from mmms_plugin.rle import MOST_PIXELS, damaged, segmentation_problems

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
    for _ in range(4000):
        one = sound[rng.integers(len(sound))]
        text = bytearray(one["counts"])
        at = rng.integers(len(text))
        text[at : at + rng.integers(2)] = bytes(rng.integers(47, 114, rng.integers(3)).tolist())
        mutants.append({"size": one["size"], "counts": bytes(text)})
    counts = [counts_by_hand(one["counts"]) for one in mutants]
    wrong = [i for i, one in enumerate(mutants) if counts[i] is None or sum(counts[i]) != np.prod(one["size"])]
    assert damaged(mutants) == wrong
    assert 500 < len(wrong) < 3900


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


def test_sizes_of_pictures_matter_for_polygons_only():
    assert "width and height" in segmentation_problems([SQUARE], [(0, 0)])[0]
    assert "2^32" in segmentation_problems([SQUARE], [(MOST_PIXELS, 2)])[0]
    sound = {"size": [4.0, 4], "counts": [0, 16.0]}
    assert segmentation_problems([SQUARE, sound, sound], [(4, 4), (4, 4), (0, 0)]) == {}
