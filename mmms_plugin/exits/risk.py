"""Thresholds whose loss of accuracy against the whole network stays below a bound, with a promised confidence.

Jazbec, Timans, Hadži Veljković, Sakmann, Zhang, Naesseth, Nalisnick: Fast yet Safe: Early-Exiting with Risk Control,
NeurIPS 2024 (arXiv:2405.20915), sections 3 and 4: one threshold for all exits, lowered step by step while a bound on
the loss holds with high probability (their "performance gap risk", with labels).

The steps are fixed before any picture is seen, and each is tested at the whole error rate, 1 - confidence; the first
that fails ends the sequence. So a threshold that loses more is chosen with at most that probability, whether or not the
loss rises with every step (fixed-sequence testing: Angelopoulos et al., Learn then Test, arXiv:2110.01052, section 3).

1. The authors bound the loss by a betting argument (Waudby-Smith and Ramdas), which leaves a margin of about 1.5 times
   the normal one. A picture here is lost, gained, or neither, so an exact test is possible: `p_value`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.exits.plans import SKIP, Plan, Promise, leaving, picture_costs
from mmms_plugin.scale.flops import ExitCost

STEPS = (1.0, *(1 - 10 ** np.linspace(-4, 0, 161)).tolist())  # thresholds of confidence, close together near 1
UNKNOWN_SPREAD = 0.02  # share of the error rate that is spent on not knowing how often the answers differ
FINENESS = 0.05  # of the grid in `p_value`, in standard deviations of the loss
BEYOND = 1e-9  # at most this probability lies beyond the counts that are added up


def certify(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], costs: Sequence[ExitCost], risk: float, trust: float
) -> Promise:
    """The cheapest thresholds that lose at most ``risk`` with the promised confidence; else the whole network.

    Args:
        confidence: ``[pictures, exits]``, largest probability.
        correct: ``[pictures, exits]``, whether it is of the right class.
        costs: of each exit.
        risk: highest share of all pictures by which accuracy may fall, such as 0.02.
        trust: the confidence, such as 0.95.
    """
    count, exits = correct.shape
    everything = (SKIP,) * (exits - 1) + (0.0,)
    promised, error = _plan(confidence, correct, costs, everything), 1 - trust
    for step in STEPS:
        plan = _plan(confidence, correct, costs, (step,) * (exits - 1) + (0.0,))
        answers = correct[np.arange(count), leaving(confidence, plan.thresholds)]
        lost, gained = int((correct[:, -1] & ~answers).sum()), int((answers & ~correct[:, -1]).sum())
        if p_value(lost, gained, count, risk, error) > error:
            break
        promised = min(promised, plan, key=lambda plan: plan.macs)
    return Promise(risk, trust, count, 100 * float(correct[:, -1].mean()), promised)


def p_value(lost: int, gained: int, pictures: int, risk: float, error: float) -> float:
    """An upper bound of the probability that so small a loss is measured although the true loss is at least ``risk``.

    z = (lost - gained - pictures * risk) / sqrt(lost + gained + pictures * risk / 2) rises with ``lost`` and falls with
    ``gained``. So a z as low as the measured one is most likely where the true loss is exactly ``risk``. How likely
    depends on how often only one of the two answers is right. That share is below its Clopper-Pearson limit, but for a
    small part of ``error``, which is added (Berger and Boos, J. Am. Stat. Assoc. 89, 1994). A grid below the limit is
    searched for the share at which so low a z is most likely. In each interval of the grid, ``lost`` has the lowest and
    ``gained`` the highest probability that occurs there, so that no share between two points is worse.

    Args:
        lost: pictures that only the whole network classifies correctly.
        gained: pictures that only the early answer classifies correctly.
        pictures: number of all pictures.
        risk: as a share of the pictures.
        error: the error rate that the result will be compared with.
    """
    from scipy.special import bdtrc, betaincinv, gammaln, xlog1py, xlogy

    differ, allowed, spent = lost + gained, pictures * risk, UNKNOWN_SPREAD * error
    if lost - gained >= allowed:
        return 1.0
    most = 1.0 if differ == pictures else float(betaincinv(differ + 1, pictures - differ, 1 - spent))
    if most <= risk:
        return spent
    parts = math.ceil((most - risk) / (FINENESS * math.sqrt(most / pictures)))
    limits = np.linspace(risk, most, parts + 1)
    losing = (limits[:-1, None] + risk) / 2
    gaining = np.minimum((limits[1:, None] - risk) / 2, 1 - losing)
    mean = pictures * float(losing.max())
    counts = np.arange(min(pictures, int(mean + 10 * math.sqrt(mean) + 20)) + 1)
    # z is as low as the observed one from this many gained pictures on, for each number of lost ones
    squared = (allowed - lost + gained) ** 2 / (differ + allowed / 2)
    under = squared * (squared + 4 * (2 * counts - allowed / 2))
    root = (squared - 2 * (allowed - counts) + np.sqrt(np.maximum(under, 0))) / 2
    needed = np.where(under < 0, 0, np.maximum(np.ceil(root - 1e-6), 0))
    others = pictures - counts
    chance: Any = gammaln(pictures + 1) - gammaln(counts + 1) - gammaln(others + 1)
    chance = np.exp(chance + xlogy(counts, losing) + xlog1py(others, -losing))
    rest = bdtrc(np.clip(needed - 1, 0, others), others, np.minimum(gaining / (1 - losing), 1))
    rest = np.where(needed <= 0, 1.0, np.where(needed > others, 0.0, rest))
    return min(1.0, float((chance * rest).sum(1).max()) + BEYOND + spent)


def _plan(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], costs: Sequence[ExitCost],
    thresholds: tuple[float, ...],
) -> Plan:  # fmt: skip
    exits = leaving(confidence, thresholds)
    shares = np.bincount(exits, minlength=len(thresholds)) / len(exits)
    macs = float(shares @ np.array(picture_costs(costs, thresholds), float))
    accuracy = 100 * float(correct[np.arange(len(exits)), exits].mean())
    return Plan(macs, thresholds, tuple(shares.tolist()), accuracy)
