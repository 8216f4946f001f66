"""Thresholds of early exits keep their promise: exactly, by adding up every outcome, and on drawn pictures."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from mmms_plugin.commands import early_exit
from mmms_plugin.errors import UserError
from mmms_plugin.exits import Plan, Plans, Promise, certify, risk
from mmms_plugin.scale.flops import ExitCost

COSTS = [ExitCost(1000, 10), ExitCost(2000, 20), ExitCost(3000, 30)]
PICTURES, RISK, ERROR = 30, 0.15, 0.1


def probability(lost: int, gained: int, losing: float, gaining: float) -> float:
    """Of an outcome among ``PICTURES``."""
    same = PICTURES - lost - gained
    ways = math.comb(PICTURES, lost) * math.comb(PICTURES - lost, gained)
    return ways * losing**lost * gaining**gained * (1 - losing - gaining) ** same


OUTCOMES = [(lost, gained) for lost in range(PICTURES + 1) for gained in range(PICTURES + 1 - lost)]


def test_the_error_rate_is_kept_wherever_the_loss_is_too_high_and_nearly_used():
    accepted = [outcome for outcome in OUTCOMES if risk.p_value(*outcome, PICTURES, RISK, ERROR) <= ERROR]
    rates = {}
    for gaining, losing in itertools.product(np.linspace(0, 0.42, 22), np.linspace(RISK, 1, 35)):
        if losing - gaining >= RISK - 1e-12 and losing + gaining <= 1:
            rates[gaining, losing] = sum(probability(*outcome, losing, gaining) for outcome in accepted)
    edge = [sum(probability(*outcome, RISK + gaining, gaining) for outcome in accepted)
            for gaining in np.linspace(0, 0.42, 43)]  # fmt: skip
    assert max(*rates.values(), *edge) <= ERROR
    assert max(edge) > 0.6 * ERROR  # outcomes are few and far between with 30 pictures


def test_p_values_bound_the_probability_of_a_loss_as_small():
    def depth(lost: int, gained: int) -> float:
        return (lost - gained - PICTURES * RISK) / math.sqrt(lost + gained + PICTURES * RISK / 2)

    for observed in ((0, 0), (1, 0), (0, 2), (2, 1), (3, 3), (1, 5)):
        bound = risk.p_value(*observed, PICTURES, RISK, ERROR)
        differ = sum(observed) / PICTURES
        chances = [
            sum(
                probability(*outcome, (share + RISK) / 2, (share - RISK) / 2)
                for outcome in OUTCOMES
                if depth(*outcome) <= depth(*observed) + 1e-12
            )
            for share in np.linspace(RISK, max(differ, RISK), 9)
        ]
        assert max(chances) <= bound
        assert bound < 1.5 * max(chances) + 0.05
    assert risk.p_value(5, 0, PICTURES, RISK, ERROR) == 1  # 5 / 30 is more than the risk
    assert risk.p_value(0, PICTURES, PICTURES, RISK, ERROR) < 1e-2
    assert risk.p_value(0, 0, 10_000, RISK, ERROR) <= 0.02 * ERROR


def draw(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Confidences and answers of a network whose early exits are wrong the more often, the less confident they are."""
    confidence = rng.random((count, 3))
    correct = rng.random((count, 3)) < 0.55 + 0.4 * confidence
    correct[:, -1] = rng.random(count) < 0.9
    return confidence, correct


def test_promises_are_kept_as_often_as_they_say(monkeypatch):
    monkeypatch.setattr(risk, "STEPS", tuple(np.linspace(1, 0, 21).tolist()))
    population = draw(np.random.default_rng(0), 100_000)
    rng, broken, costs, kept = np.random.default_rng(1), 0, [], {}
    for _ in range(60):
        promise = certify(*draw(rng, 300), COSTS, 0.04, 0.8)
        thresholds = promise.plan.thresholds
        if thresholds not in kept:
            exits = risk.leaving(population[0], thresholds)
            answers = population[1][np.arange(len(exits)), exits]
            kept[thresholds] = population[1][:, -1].mean() - answers.mean() <= 0.04
        broken += not kept[thresholds]
        costs.append(promise.plan.macs)
    assert broken <= 0.2 * 60 + 3 * math.sqrt(60 * 0.2 * 0.8)
    assert np.mean(costs) < 0.95 * 6030  # and thresholds are found, mostly


def test_without_enough_pictures_the_whole_network_is_promised():
    promise = certify(*draw(np.random.default_rng(0), 20), COSTS, 0.02, 0.95)
    assert promise.plan.macs == 6030
    assert promise.plan.shares == (0, 0, 1)
    assert promise.loss == 0


def test_files_keep_promises_and_older_files_have_none(tmp_path):
    confidence, correct = draw(np.random.default_rng(0), 1500)
    rows = (Plan(6030.0, (2.0, 2.0, 0.0), (0.0, 0.0, 1.0), 90.0),)
    promises = tuple(certify(confidence, correct, COSTS, share, 0.9) for share in (0.02, 0.05))
    plans = Plans("0" * 64, (32, 32), 1500, rows, promises)
    path = plans.save(tmp_path / "a.exits.json")
    read = Plans.load(path)
    assert read == plans
    read.check((32, 32), COSTS, path)
    assert promises[1].plan.macs < promises[0].plan.macs
    assert read.promised(0.03) == promises[0]
    assert read.promised(0.9) == promises[1]
    with pytest.raises(
        UserError, match=r"risk of 0.01: the file has promises for 0.02, 0.05; test for it with mmms early"
    ):
        read.promised(0.01)
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["promises"]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(
        UserError, match=r"risk of 0.02: the file has none; test for it with mmms early-exit --risk 0.02"
    ):
        Plans.load(path).promised(0.02)
    wrong = replace(promises[0], plan=replace(promises[0].plan, macs=100.0))
    with pytest.raises(UserError, match="a plan of 100 multiply-adds per picture"):
        replace(plans, promises=(wrong,)).check((32, 32), COSTS, path)
    short = replace(promises[0], plan=replace(promises[0].plan, thresholds=(0.5, 0.0)))
    path = replace(plans, promises=(short,)).save(tmp_path / "b.exits.json")
    with pytest.raises(UserError, match=r"promises\[0\].plan is for 2 and 3 exits, rows\[0\] for 3"):
        Plans.load(path)


def test_the_line_says_what_was_promised_and_what_came_of_it():
    plan = Plan(3000.0, (0.9, 0.9, 0.0), (0.5, 0.2, 0.3), 89.5)
    promise = Promise(0.02, 0.95, 2500, 90.0, plan)
    result = dict(risk=0.02, confidence=0.95, pictures=2500, loss=promise.loss, macs=3.1e6, loss_here=-0.0012,
                  pictures_here=1000, plan=dict(macs=3e6))  # fmt: skip
    assert early_exit._line(result, 6_030_000) == (
        "--risk 0.02: 3.1 MMAC, 51% of the whole network's; promised: top-1 at most 2 below its, with "
        "confidence 0.95; measured: -0.50 on the 2500 pictures of the test, +0.12 on the 1000 of this report"
    )
    result["plan"]["macs"] = 6_030_000
    assert early_exit._line(result, 6_030_000) == (
        "--risk 0.02: 2500 pictures are not enough to promise any thresholds with confidence 0.95; the whole network "
        "must answer"
    )
