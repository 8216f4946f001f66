"""Masks in other frames: cut out of their picture, or placed in a larger one, without decoding either."""

from __future__ import annotations

import numpy as np
from pycocotools import mask as mask_utils

from mmms_plugin.coco.run_lengths import RLE, counts_of, text_of


def moved(rle: RLE, left: int, top: int, height: int, width: int) -> RLE:
    """A mask as it is in another frame; what lies outside is cut off.

    Args:
        rle: the mask, known to be sound.
        left, top: first column and row of the frame in that of the mask, px; negative where the frame is larger.
        height, width: of the frame, px.
    """
    tall = int(rle["size"][0])
    edges = np.cumsum(counts_of(text_of(rle["counts"])))
    starts, ends = edges[: len(edges) // 2 * 2].reshape(-1, 2).T
    starts, ends = np.maximum(starts, left * tall), np.minimum(ends, (left + width) * tall)
    solid = ends > starts
    starts, ends = starts[solid], ends[solid]
    # A run that reaches into further columns is one run in each of them
    first, spans = starts // tall, (ends - 1) // tall - starts // tall + 1
    run = np.repeat(np.arange(len(starts)), spans)
    column = np.arange(len(run)) - np.repeat(np.cumsum(spans) - spans, spans) + first[run]
    tops = np.maximum(starts[run], column * tall) - column * tall - top
    bottoms = np.minimum(ends[run], (column + 1) * tall) - column * tall - top
    tops, bottoms, column = np.clip(tops, 0, height), np.clip(bottoms, 0, height), column - left
    solid = bottoms > tops
    starts, ends = (column * height + tops)[solid], (column * height + bottoms)[solid]
    new = np.append(True, starts[1:] != ends[:-1])[: len(starts)]  # from the foot of a column to the head of the next
    starts, ends = starts[new], ends[np.append(new[1:], True)[: len(ends)]]
    edges = np.stack((starts, ends), 1).ravel()
    counts = np.diff(edges, prepend=0, append=height * width)
    if counts[-1] == 0 and len(counts) > 1:
        counts = counts[:-1]
    return mask_utils.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
