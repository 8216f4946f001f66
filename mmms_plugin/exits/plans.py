"""Budgeted batches: thresholds for an average budget, chosen on a validation split and kept beside the checkpoint.

Sections 3 and 5.3 of the MSDNet paper: pictures leave at exit k with a probability proportional to q^k. Every q
gives an average cost; the thresholds let the wanted share of the validation pictures leave at each exit.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from msgspec import Meta
from numpy.typing import NDArray
from torch import nn

from mmms_plugin.coco.json_files import read_typed
from mmms_plugin.errors import UserError
from mmms_plugin.files import write_text
from mmms_plugin.scale.flops import ExitCost

SKIP = 2.0  # above every confidence: the exit's classifier is not even computed
STEPS = 60
MOST = 2.0  # of |log10 q|
ROUNDING = 1e-3  # by which figures of a file may differ from those that follow from its others
WANTED = "thresholds are chosen, and written, by mmms early-exit"
NEW = "choose new ones with mmms early-exit"
Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=1, le=10**9)]


@dataclass(frozen=True)
class Plan:
    """Thresholds of every exit and their result on the validation split.

    Attributes:
        macs: average multiply-adds per picture.
        thresholds: of each exit; above 1 where the classifier is skipped.
        shares: share of the pictures that leave at each exit.
        accuracy: top-1 in per cent.
    """

    macs: Annotated[float, Meta(gt=0, le=1e18)]
    thresholds: Annotated[tuple[Annotated[float, Meta(ge=0, le=SKIP)], ...], Meta(min_length=1)]
    shares: tuple[Share, ...]
    accuracy: Annotated[float, Meta(ge=0, le=100)]


@dataclass(frozen=True)
class Promise:
    """Thresholds that cost little accuracy with a promised confidence (`mmms_plugin.exits.risk`).

    Attributes:
        risk: highest share of all pictures by which accuracy falls below the whole network's, such as 0.02.
        confidence: that the thresholds keep to it, such as 0.95.
        pictures: number of pictures that they were tested on.
        whole: top-1 of the whole network on them, in per cent.
        plan: the thresholds and their result on the same pictures.
    """

    risk: Annotated[float, Meta(gt=0, le=1)]
    confidence: Annotated[float, Meta(gt=0, lt=1)]
    pictures: Count
    whole: Annotated[float, Meta(ge=0, le=100)]
    plan: Plan

    @property
    def loss(self) -> float:
        """Accuracy lost on the pictures of the test, as a share of them."""
        return (self.whole - self.plan.accuracy) / 100


@dataclass(frozen=True)
class Plans:
    """Plans in order of rising cost.

    Attributes:
        model: fingerprint of the weights.
        size: height and width of the pictures, in px.
        pictures: number of pictures that the thresholds were chosen on.
        rows: the plans.
        promises: thresholds for given losses of accuracy.
        format: of the file.
    """

    model: str
    size: tuple[Count, Count]
    pictures: Count
    rows: Annotated[tuple[Plan, ...], Meta(min_length=1)]
    promises: tuple[Promise, ...] = ()
    format: Literal[1] = 1

    def within(self, budget: float) -> Plan:
        """The most accurate plan whose average cost is within ``budget`` multiply-adds.

        Raises: UserError if even the cheapest plan costs more.
        """
        fitting = [row for row in self.rows if row.macs <= budget]
        if not fitting:
            least = f"{math.ceil(self.rows[0].macs / 1e3) / 1e3:g} million per picture"
            asked = f"budget of {budget / 1e6:g} million multiply-adds"
            raise UserError(f"{asked}: below the cheapest plan, which needs {least}")
        return max(fitting, key=lambda row: (row.accuracy, -row.macs))

    def promised(self, risk: float) -> Promise:
        """The cheapest thresholds that promise to lose at most ``risk``, a share of the pictures, such as 0.02.

        Raises: UserError if no promise is as strict.
        """
        fitting = [promise for promise in self.promises if promise.risk <= risk]
        if not fitting:
            known = ", ".join(f"{promise.risk:g}" for promise in self.promises)
            known = f"the file has promises for {known}" if known else "the file has none"
            raise UserError(f"risk of {risk:g}: {known}; test for it with mmms early-exit --risk {risk:g}")
        return min(fitting, key=lambda promise: promise.plan.macs)

    def save(self, path: str | Path) -> Path:
        """Write the plans as JSON."""
        return write_text(path, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path, model: nn.Module | None = None) -> Plans:
        """Read plans.

        Args:
            path: of the file.
            model: whose weights the plans must be for; None for no check.

        Raises: UserError if the file cannot be read, contradicts itself, or is for other weights.
        """
        plans = read_typed(path, "thresholds", cls, WANTED)
        exits = len(plans.rows[0].thresholds)
        for name, row in plans._named():
            if (counts := {len(row.thresholds), len(row.shares)}) != {exits}:
                raise UserError(
                    f"thresholds {path}: {name} is for {' and '.join(map(str, sorted(counts)))} exits, rows[0] "
                    f"for {exits}; {WANTED}"
                )
            if abs(sum(row.shares) - 1) > ROUNDING:
                raise UserError(f"thresholds {path}: {name}.shares: must add up to 1; {WANTED}")
        known = getattr(getattr(model, "head", None), "exits", None)
        if known is not None and len(known) != exits:
            raise UserError(f"thresholds {path}: for {exits} exits, the model has {len(known)}; {NEW}")
        if model is not None and plans.model != fingerprint(model):
            raise UserError(f"thresholds {path}: for other weights; {NEW}")
        return replace(plans, rows=tuple(sorted(plans.rows, key=lambda row: row.macs)))

    def check(self, size: tuple[int, int], costs: Sequence[ExitCost], path: str | Path) -> None:
        """Refuse plans that were made for pictures of another size, or with other costs.

        Args:
            size: height and width of the pictures, in px.
            costs: of each exit at this size.
            path: of the file, for messages.

        Raises: UserError
        """
        if self.size != size:
            own = f"{self.size[0]} x {self.size[1]} px"
            raise UserError(f"thresholds {path}: for pictures of {own}, these have {size[0]} x {size[1]}")
        for _, row in self._named():
            totals = picture_costs(costs, row.thresholds)
            spent = sum(share * total for share, total in zip(row.shares, totals, strict=True))
            if abs(row.macs - spent) > ROUNDING * spent:
                raise UserError(
                    f"thresholds {path}: a plan of {row.macs:.6g} multiply-adds per picture, which cost {spent:.6g} by "
                    f"its shares and thresholds; {NEW}"
                )

    def _named(self) -> list[tuple[str, Plan]]:
        """Every plan of the file, and its place there."""
        rows = [(f"rows[{number}]", row) for number, row in enumerate(self.rows)]
        return rows + [(f"promises[{number}].plan", promise.plan) for number, promise in enumerate(self.promises)]


def picture_costs(costs: Sequence[ExitCost], thresholds: Sequence[float]) -> list[int]:
    """Multiply-adds of a picture that leaves at each exit; skipped classifiers cost nothing.

    Args:
        costs: of each exit.
        thresholds: of each exit; above 1 its classifier is skipped, unless it is the last.
    """
    totals, so_far, last = [], 0, len(thresholds) - 1
    for index, (cost, threshold) in enumerate(zip(costs, thresholds, strict=True)):
        so_far += cost.block + (cost.classifier if index == last or threshold <= 1 else 0)
        totals.append(so_far)
    return totals


def leaving(confidence: NDArray[np.floating], thresholds: Sequence[float]) -> NDArray[np.int64]:
    """The exit at which each picture leaves, ``[pictures]``; ``confidence`` is ``[pictures, exits]``."""
    reached = confidence >= np.array(thresholds)
    reached[:, -1] = True
    return reached.argmax(1)


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
