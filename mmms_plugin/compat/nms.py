"""Non-maximum suppression in plain torch, and Soft-NMS in NumPy.

Greedy NMS as in mmcv 2.1.0's ``nms`` op; Soft-NMS after Bodla et al., "Soft-NMS" (2017), section 3, as in mmcv's
``softnms`` op. Overlaps take the compiled ops' float32 operations in the same order, so that the same boxes are kept.

Deviations from the compiled op:
1. Boxes of equal score are taken in the given order. The compiled op's sort is unstable, so that their order is
   arbitrary there.
2. float16 and bfloat16 boxes are computed in float32, float64 ones in float64; the compiled op takes float32 only.
3. Two empty boxes do not overlap; compiled Soft-NMS divides 0 by 0, and its Gaussian form makes NaN of their scores.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

BLOCK = 64  # boxes that are settled at once; a block's overlaps with all others should fit into the cache
NAIVE, GAUSSIAN = 0, 2  # Soft-NMS; 1 is linear


def _overlaps(a: Tensor, b: Tensor, threshold: float, offset: int) -> Tensor:
    """Whether IoU > threshold, [N, M], for boxes a [5, N] and b [5, M] of rows x1, y1, x2, y2, area."""
    a = a[:, :, None]
    inter = (torch.minimum(a[2], b[2]).sub_(torch.maximum(a[0], b[0]))).add_(offset).clamp_(min=0)
    inter *= (torch.minimum(a[3], b[3]).sub_(torch.maximum(a[1], b[1]))).add_(offset).clamp_(min=0)
    union = (a[4] + b[4]).sub_(inter)
    return inter.div_(union) > threshold  # 0 / 0 for two empty boxes: no overlap


def _greedy(overlaps: Tensor) -> Tensor:
    """Which of N boxes, best first, are kept; bool [N] from overlaps [N, N].

    A box is kept unless it overlaps an earlier box that is kept. Iterating that rule from "all are kept" settles at
    least one more box each time, in practice all of them after a few iterations.
    """
    before = overlaps.triu(1).float()
    stay = before.new_ones(len(before))
    while True:
        settled = (stay @ before == 0).float()
        if torch.equal(settled, stay):
            return stay.bool()
        stay = settled


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices [K] (int64) of the boxes that are kept, best first, of boxes [N, 4] (x1, y1, x2, y2) with scores [N].

    A box is dropped if its IoU with a better kept box exceeds ``iou_threshold``; widths are x2 - x1 + offset.
    """
    boxes = boxes if boxes.dtype == torch.float64 else boxes.float()
    order = scores.sort(stable=True, descending=True).indices
    x1, y1, x2, y2 = boxes[order].unbind(1)
    rest = torch.stack([x1, y1, x2, y2, (x2 - x1 + offset) * (y2 - y1 + offset)])
    threshold = torch.tensor(iou_threshold, dtype=boxes.dtype).item()
    kept = [order[:0]]
    while len(order):
        block, rest = rest[:, :BLOCK], rest[:, BLOCK:]
        stay = _greedy(_overlaps(block, block, threshold, offset))
        kept.append(order[:BLOCK][stay])
        falls = _overlaps(block[:, stay], rest, threshold, offset).any(0)
        alive = (~falls).nonzero().squeeze(1)
        rest, order = rest.index_select(1, alive), order[BLOCK:].index_select(0, alive)
    return torch.cat(kept)


def _decay(overlap: np.ndarray, iou_threshold: float, sigma: float, method: int) -> np.ndarray:
    """Factor for the scores of boxes that overlap the chosen one by ``overlap`` (IoU)."""
    if method == GAUSSIAN:
        return np.exp(-(overlap * overlap) / np.float32(sigma))
    weaker = np.float32(0) if method == NAIVE else 1 - overlap
    return np.where(overlap >= np.float32(iou_threshold), weaker, np.float32(1))


def _iou(box: np.ndarray, others: np.ndarray, offset: int) -> np.ndarray:
    """IoU of one box with others [N, 6], columns x1, y1, x2, y2, area, score; 0 for two empty boxes."""
    size = np.minimum(box[2:4], others[:, 2:4]) - np.maximum(box[:2], others[:, :2]) + np.float32(offset)
    inter = np.maximum(size, 0).prod(1)
    union = box[4] + others[:, 4] - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union != 0)


def _compacted(alive: np.ndarray) -> np.ndarray:
    """Positions of the remaining boxes, gaps filled from the end: the compiled op's order, which decides ties."""
    number = int(alive.sum())
    places = np.arange(number)
    places[~alive[:number]] = number + np.flatnonzero(alive[number:])[::-1]
    return places


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS of boxes [N, 4] with scores [N]; indices [K] (int64) of the kept boxes, best first.

    Their boxes and lowered scores are written to the first K rows of ``dets`` [N, 5]. ``method`` is 0 (plain NMS), 1
    (score times 1 - IoU from ``iou_threshold`` on) or 2 (score times exp(-IoU^2 / sigma)); a box below ``min_score`` is
    dropped.
    """
    box = boxes.detach().float().numpy()
    offset32 = np.float32(offset)
    area = (box[:, 2] - box[:, 0] + offset32) * (box[:, 3] - box[:, 1] + offset32)
    table = np.concatenate([box, area[:, None], scores.detach().float().numpy()[:, None]], 1)
    index = np.arange(len(table))
    done = 0
    while done < len(table):
        best = done + int(table[done:, 5].argmax())
        table[[done, best]], index[[done, best]] = table[[best, done]], index[[best, done]]
        rest = table[done + 1 :]
        rest[:, 5] *= _decay(_iou(table[done], rest, offset), iou_threshold, sigma, method)
        done += 1
        alive = ~(rest[:, 5] < np.float32(min_score))
        if not alive.all():
            places = np.concatenate([np.arange(done), done + _compacted(alive)])
            table, index = table[places], index[places]
    dets[: len(table)] = torch.from_numpy(table[:, [0, 1, 2, 3, 5]])
    return torch.from_numpy(index)
