"""Budgeted batches: thresholds for an average budget, chosen on a validation split and kept beside the checkpoint.

Sections 3 and 5.3 of the MSDNet paper: pictures leave at exit k with a probability proportional to q^k. Every q
gives an average cost; the thresholds let the wanted share of the validation pictures leave at each exit.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mmms_plugin.errors import UserError
from mmms_plugin.files import write_text
from mmms_plugin.scale.flops import ExitCost

SKIP = 2.0  # above every confidence: the exit's classifier is not even computed
FORMAT = 1
STEPS = 60
MOST = 2.0  # of |log10 q|


@dataclass(frozen=True)
class Plan:
    """Thresholds of every exit and their result on the validation split.

    Attributes:
        macs: average multiply-adds per picture.
        thresholds: of each exit; above 1 where the classifier is skipped.
        shares: share of the pictures that leave at each exit.
        accuracy: top-1 in per cent.
    """

    macs: float
    thresholds: tuple[float, ...]
    shares: tuple[float, ...]
    accuracy: float


@dataclass(frozen=True)
class Plans:
    """Plans in order of rising cost.

    Attributes:
        model: fingerprint of the weights.
        size: height and width of the pictures, in px.
        pictures: number of pictures that the thresholds were chosen on.
        rows: the plans.
    """

    model: str
    size: tuple[int, int]
    pictures: int
    rows: tuple[Plan, ...]

    def within(self, budget: float) -> Plan:
        """The most accurate plan whose average cost is within ``budget`` multiply-adds.

        Raises: UserError if even the cheapest plan costs more.
        """
        fitting = [row for row in self.rows if row.macs <= budget]
        if not fitting:
            least = f"{self.rows[0].macs:.0f} multiply-adds per picture"
            raise UserError(f"budget={budget:.0f}: below the cheapest plan, which needs {least}")
        return max(fitting, key=lambda row: (row.accuracy, -row.macs))

    def save(self, path: str | Path) -> Path:
        """Write the plans as JSON."""
        return write_text(path, json.dumps(dict(format=FORMAT, **asdict(self)), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path, model: nn.Module | None = None) -> Plans:
        """Read plans.

        Args:
            path: of the file.
            model: whose weights the plans must be for; None for no check.

        Raises: UserError if the file cannot be read or is for other weights.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            plans = _from_json(content)
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise UserError(
                f"thresholds {path}: unreadable, or not written by mmms early-exit ({type(error).__name__})"
            ) from error
        if model is not None and plans.model != fingerprint(model):
            raise UserError(f"thresholds {path}: for other weights; choose new ones with mmms early-exit")
        return plans


def _from_json(content: Mapping[str, Any]) -> Plans:
    if content["format"] != FORMAT or not content["rows"]:
        raise ValueError("unknown format")
    rows = tuple(
        Plan(
            float(row["macs"]), tuple(map(float, row["thresholds"])), tuple(map(float, row["shares"])),
            float(row["accuracy"]),
        )
        for row in content["rows"]
    )  # fmt: skip
    height, width = map(int, content["size"])
    exits = len(rows[0].thresholds)
    for row in rows:
        numbers = (row.macs, row.accuracy, *row.thresholds, *row.shares)
        if (
            not exits
            or len(row.thresholds) != exits
            or len(row.shares) != exits
            or not all(map(math.isfinite, numbers))
        ):
            raise ValueError("not thresholds")
    return Plans(str(content["model"]), (height, width), int(content["pictures"]), rows)


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of the weights of a model as it was trained, not of the folded copy in ``EarlyExit``."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        if key.startswith(("backbone.", "head.")):
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def choose_plans(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], costs: Sequence[ExitCost], steps: int = STEPS
) -> tuple[Plan, ...]:
    """Plans from the cheapest, where all pictures leave at the first exit, to the dearest, where all leave at the last.

    Args:
        confidence: ``[pictures, exits]``, largest probability.
        correct: ``[pictures, exits]``, whether it is of the right class.
        costs: of each exit.
        steps: number of values of q.

    Raises: ValueError for fewer pictures than exits.
    """
    if len(confidence) < confidence.shape[1]:
        raise ValueError(
            f"{len(confidence)} validation pictures: at least {confidence.shape[1]} are needed, one for each exit"
        )
    rows = {}
    for q in 10 ** np.linspace(-MOST, MOST, steps):
        wanted = q ** np.arange(confidence.shape[1])
        plan = _plan(confidence, correct, costs, wanted / wanted.sum())
        rows[plan.thresholds] = plan
    return tuple(sorted(rows.values(), key=lambda plan: plan.macs))


def _plan(
    confidence: NDArray[np.floating],
    correct: NDArray[np.bool_],
    costs: Sequence[ExitCost],
    wanted: NDArray[np.floating],
) -> Plan:
    """Let the wanted shares leave, exit by exit, the most confident first; skip classifiers that do not pay."""
    count, exits = confidence.shape
    left = np.arange(count)
    thresholds, shares, macs, right, owed = [], [], 0.0, 0, 0.0
    for index, cost in enumerate(costs):
        macs += len(left) * cost.block
        owed += wanted[index] * count
        number = len(left) if index == exits - 1 else min(len(left), round(owed))
        saved = number * sum(later.block + later.classifier for later in costs[index + 1 :])
        if index < exits - 1 and saved <= len(left) * cost.classifier:
            thresholds.append(SKIP)
            shares.append(0.0)
            continue
        macs += len(left) * cost.classifier
        order = np.argsort(-confidence[left, index], kind="stable")
        threshold = 0.0 if number == len(left) else float(confidence[left[order[number - 1]], index])
        leave = confidence[left, index] >= threshold
        thresholds.append(threshold)
        shares.append(float(leave.sum() / count))
        right += int(correct[left[leave], index].sum())
        left, owed = left[~leave], owed - leave.sum()
        if not len(left):
            rest = exits - index - 1
            thresholds += [0.0] * rest
            shares += [0.0] * rest
            break
    return Plan(macs / count, tuple(thresholds), tuple(shares), 100 * right / count)
