"""Early exits give what the whole network would have given at that exit, and compute nothing after it."""

from __future__ import annotations

import copy
import dataclasses
import io
import itertools
import json
import re
import types
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement
from PIL import Image
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from mmms_plugin.backbones import ElasticDenseNet, ModelSequence, MSDNet, PSResNet
from mmms_plugin.backbones.msdnet import ConvNorm, Variant
from mmms_plugin.commands import early_exit
from mmms_plugin.errors import UserError
from mmms_plugin.exits import EarlyExit, Plan, Plans, choose_plans, savings
from mmms_plugin.exits.network import FoldedLayer, _Running
from mmms_plugin.exits.plans import SKIP, fingerprint
from mmms_plugin.exits.savings import (
    Point,
    Report,
    Saving,
    draw,
    draw_beside,
    full_macs,
    measure_saving,
    savings_table,
    spent_macs,
)
from mmms_plugin.exits.timing import Profile
from mmms_plugin.heads import MultiExitHead
from mmms_plugin.inference.optimize import fold_norms
from mmms_plugin.report import figure_style
from mmms_plugin.report.terminal import print_table
from mmms_plugin.scale.flops import ExitCost

SMALL = dict(blocks=(1, 1, 2, 1), stem=8, growth=4, factors=(1, 2), bottlenecks=(1, 2), large_pictures=False)


class Net(torch.nn.Module):
    def __init__(self, backbone: torch.nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = MultiExitHead(5, backbone.out_channels, channels=8)
        for module in self.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
                torch.nn.init.normal_(module.running_mean, std=0.1)
        self.eval()


class Sample(BaseDataElement):
    """What the head needs of mmpretrain's ``DataSample``."""

    def set_pred_score(self, value: torch.Tensor) -> None:
        self.pred_score = value

    def set_pred_label(self, value: torch.Tensor) -> None:
        self.pred_label = value


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    return Net(MSDNet(SMALL, output="exits"))


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return torch.randn(24, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def scores(net, pictures) -> torch.Tensor:
    """Of every exit, ``[pictures, exits, classes]``, from the modules as they are trained."""
    with torch.no_grad():
        return torch.stack(net.head(net.backbone(pictures)), 1)


@pytest.fixture(scope="module")
def correct() -> np.ndarray:
    return np.random.default_rng(0).random((24, 4)) < 0.5


@pytest.fixture(scope="module")
def plans(net, scores, correct) -> tuple[Plan, ...]:
    confidence = scores.softmax(2).amax(2).numpy()
    return choose_plans(confidence, correct, EarlyExit.of(net).costs((16, 16)))


@pytest.fixture
def time_of_arithmetic(monkeypatch) -> Iterator[FlopCounterMode]:
    """A clock on which a multiply-add takes a second and all else nothing."""
    with FlopCounterMode(display=False) as counter:
        monkeypatch.setattr("mmms_plugin.scale.clock.now", lambda: counter.get_total_flops() // 2)
        yield counter


@pytest.mark.parametrize("pays", [True, False, None], ids=["always", "never", "measured"])
def test_every_picture_gets_the_answer_of_the_first_confident_exit(net, pictures, scores, plans, pays, monkeypatch):
    network = EarlyExit.of(net)
    if pays is None:
        network.measure(pictures[:4], rounds=1)
    else:
        network.profile = Profile([1], [], [])
        monkeypatch.setattr(Profile, "pays", lambda *args: pays)
    confidence = scores.softmax(2).amax(2)
    for plan in plans[:: max(1, len(plans) // 5)]:
        thresholds = torch.tensor(plan.thresholds).sub(1e-6)  # folding moves confidences a little
        reached = confidence >= thresholds
        reached[:, -1] = True
        expected = reached.int().argmax(1)
        answer = network.classify(pictures, thresholds.tolist())
        assert torch.equal(answer.exits, expected)
        torch.testing.assert_close(answer.logits, scores[torch.arange(24), expected], rtol=1e-4, atol=1e-4)


def test_folding_leaves_one_call_a_layer(net, pictures, scores):
    """Otherwise networks for 32 px spend their time in Python, and early exits save less than they promise."""
    network = EarlyExit.of(net)
    kinds = [type(part) for part in network.modules()]
    assert torch.nn.BatchNorm2d not in kinds
    assert kinds.count(FoldedLayer) == sum(isinstance(part, ConvNorm) for part in net.modules())
    with torch.inference_mode():
        torch.testing.assert_close(torch.stack(network(pictures), 1), scores, rtol=1e-4, atol=1e-4)
    plain = EarlyExit(net.backbone, list(net.head.exits), fold=False)
    assert plain.costs((16, 16)) == network.costs((16, 16))


def test_nothing_after_an_exit_is_computed(net, pictures, plans):
    """Counted while it runs, one picture at a time; classifiers that a plan leaves out are not computed either."""
    network = EarlyExit.of(net)
    skipping, sure = Plan(0, (SKIP, 0.3, SKIP, 0.0), (), 0), Plan(0, (1.0, 1.0, SKIP, SKIP), (), 0)
    for plan in (plans[0], plans[len(plans) // 2], plans[-1], skipping, sure):
        for picture in pictures[:6].split(1):
            with FlopCounterMode(display=False) as counter:
                exits = network.classify(picture, plan.thresholds).exits
            assert counter.get_total_flops() // 2 == spent_macs(network, (16, 16), exits, plan.thresholds)


def test_a_batch_shrinks_as_its_pictures_leave(net, pictures, plans):
    network, plan = EarlyExit.of(net), plans[len(plans) // 2]
    with FlopCounterMode(display=False) as counter:
        exits = network.classify(pictures, plan.thresholds).exits
    assert len(set(exits.tolist())) > 2
    spent = spent_macs(network, (16, 16), exits, plan.thresholds)
    assert counter.get_total_flops() // 2 == pytest.approx(24 * spent)


def test_where_leaving_early_is_slower_the_whole_network_is_computed(net, pictures, plans, monkeypatch):
    network, thresholds = EarlyExit.of(net), plans[len(plans) // 2].thresholds
    early = network.classify(pictures[:8], thresholds).exits
    assert early.min() < 3
    clock = iter([1.0, 1.2, 1.0, 0.9, 1.0, 1.1] + [1.0, 0.9] * 3)  # the whole network and early exits in turn
    monkeypatch.setattr("mmms_plugin.exits.network.seconds", lambda call: next(clock))
    assert not network.measure_plan(pictures, 8, thresholds, rounds=3)
    assert network.classify(pictures[:8], thresholds).exits.tolist() == [3] * 8
    assert network.classify(pictures[:4], thresholds).exits.tolist() == early[:4].tolist()  # another batch size
    assert network.measure_plan(pictures, 8, thresholds, rounds=3)
    assert torch.equal(network.classify(pictures[:8], thresholds).exits, early)
    clock = iter([1.0, 1.25, 1.0, 1.0])
    assert not network.measure_plan(pictures, 8, thresholds, rounds=1)
    assert network.measure_plan(pictures, 8, thresholds, rounds=1)  # as fast
    clock = iter([1.0, 1.25])
    assert not network.measure_plan(pictures, 8, thresholds, rounds=1)
    network.forget_plans()
    assert torch.equal(network.classify(pictures[:8], thresholds).exits, early)


def test_anytime_by_multiply_adds_and_by_seconds(net, pictures, scores, monkeypatch):
    network = EarlyExit.of(net)
    costs = network.costs((16, 16))
    for last in range(4):
        needed = sum(cost.block for cost in costs[: last + 1]) + costs[last].classifier
        with FlopCounterMode(display=False) as counter:
            answer = network.predict(pictures[:1], needed)
        assert counter.get_total_flops() // 2 == needed
        assert answer.exits.tolist() == [last]
        torch.testing.assert_close(answer.logits, scores[:1, last], rtol=1e-4, atol=1e-4)
        if last:
            assert network.predict(pictures[:1], needed - 1).exits.tolist() == [last - 1]
    assert needed == full_macs(network, (16, 16))
    assert network.predict(pictures).exits.tolist() == [3] * 24
    monkeypatch.setattr(EarlyExit, "measure_exits", lambda self, x: [1000.0, 2000.0, 3000.0, 4000.0])
    assert network.predict(pictures, 3500, unit="seconds").exits.tolist() == [2] * 24
    with pytest.raises(UserError, match="budget=10: too small for the first exit, which needs 1000 seconds"):
        network.predict(pictures, 10, unit="seconds")
    with pytest.raises(UserError, match=r"budget=10: too small for the first exit, which needs .* multiply-adds"):
        network.predict(pictures, 10)
    with pytest.raises(ValueError, match="unit='hours': allowed are 'macs', 'seconds'"):
        network.predict(pictures, 10, unit="hours")
    with pytest.raises(ValueError, match="2 thresholds: must be 4, one for each exit"):
        network.classify(pictures, (0.5, 0.5))


def test_seconds_are_measured_and_a_slow_moment_ends_early(net, pictures, scores, monkeypatch):
    network = EarlyExit.of(net)
    seconds = network.measure_exits(pictures[:2], rounds=1)
    assert len(seconds) == 4
    assert all(s > 0 for s in seconds)
    measured = []
    monkeypatch.setattr(EarlyExit, "measure_exits", lambda self, x: measured.append(len(x)) or [1.0, 2.0, 3.0, 4.0])
    assert network.predict(pictures, 3, unit="seconds").exits.tolist() == [2] * 24
    for moments, last in (  # the start, before the second exit, before the third, before the last
        ((0.0, 0.0, 50.0), 1),
        ((0.0, 0.0, 9.0, 9.0), 3),  # the last part is done just in time
        ((0.0, 0.0, 9.0, 9.25), 2),
        ((5.0, 5.0, 14.0, 14.0), 3),
        ((0.0, 9.5), 0),
    ):
        clock = iter(moments)
        monkeypatch.setattr("time.perf_counter", lambda clock=clock: next(clock))
        answer = network.predict(pictures, 10, unit="seconds")
        assert answer.exits.tolist() == [last] * 24
        torch.testing.assert_close(answer.logits, scores[:, last], rtol=1e-4, atol=1e-4)
    assert measured == [24]
    clock = iter((0.0, 100.0, 100.0, 100.0, 100.0))  # measuring takes 100 seconds, which are no part of the budget
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    assert network.predict(pictures[:3], 10, unit="seconds").exits.tolist() == [3] * 3
    assert measured == [24, 3]


def test_of_the_seconds_up_to_an_exit_those_of_other_classifiers_do_not_count(net, pictures):
    """By a clock that takes a unit from one look to the next: two looks at each classifier before an exit."""
    moments = iter([start + tempo * tick for start, tempo in ((0, 3), (99, 1), (200, 2)) for tick in range(13)])
    network = EarlyExit.of(net)
    assert network.measure_exits(pictures[:1], rounds=2, clock=lambda: next(moments)) == [4, 6, 8, 10]
    assert next(moments, None) is None


def test_plans_reach_from_the_first_exit_to_the_last_and_cost_what_they_say(net, scores, plans, correct):
    network = EarlyExit.of(net)
    costs = network.costs((16, 16))
    assert plans[0].macs == costs[0].block + costs[0].classifier
    assert plans[-1].macs == full_macs(network, (16, 16))  # no picture would leave: no classifier but the last
    assert plans[-1].thresholds[:-1] == (SKIP,) * 3
    assert [plan.macs for plan in plans] == sorted(plan.macs for plan in plans)
    for plan in plans:
        reached = scores.softmax(2).amax(2).numpy() >= np.array(plan.thresholds)
        reached[:, -1] = True
        exits = torch.from_numpy(reached.argmax(1))
        assert np.bincount(exits, minlength=4) / 24 == pytest.approx(plan.shares)
        assert spent_macs(network, (16, 16), exits, plan.thresholds) == pytest.approx(plan.macs)
        assert plan.accuracy == pytest.approx(100 * correct[np.arange(24), exits].mean())
        assert plan.macs <= sum(cost.block + cost.classifier for cost in costs)


EASY = [[0.9, 0.8, 0.7], [0.8, 0.9, 0.7], [0.7, 0.6, 0.9], [0.6, 0.7, 0.8], [0.5, 0.5, 0.6], [0.4, 0.4, 0.5]]
CHOSEN = {  # block and classifier of each exit, and the plan for two pictures an exit: macs, thresholds, shares, right
    "all": ([(10, 1)] * 3, (60 + 6 + 40 + 4 + 20 + 2, (0.8, 0.6, 0.0), 2, 2, 2)),
    "second just pays": ([(10, 1), (10, 5), (10, 1)], (60 + 6 + 40 + 20 + 20 + 2, (0.8, 0.6, 0.0), 2, 2, 2)),
    "second does not": ([(10, 1), (10, 5.5), (10, 1)], (60 + 6 + 40 + 40 + 4, (0.8, SKIP, 0.0), 2, 0, 4)),
    "first just pays": ([(10, 7), (10, 1), (10, 1)], (60 + 42 + 40 + 4 + 20 + 2, (0.8, 0.6, 0.0), 2, 2, 2)),
    "first does not": ([(10, 8), (10, 1), (10, 1)], (60 + 60 + 6 + 20 + 2, (SKIP, 0.6, 0.0), 0, 4, 2)),
}


@pytest.mark.parametrize(("costs", "plan"), CHOSEN.values(), ids=CHOSEN)
def test_thresholds_let_the_wanted_shares_leave(costs, plan):
    """By hand. A classifier that costs as much as it saves is left out; its pictures leave at the next one."""
    macs, thresholds, *leaving = plan
    correct = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 1, 1]], bool)
    exits = np.repeat(np.arange(3), leaving)  # the rows are sorted so that the first leave first
    chosen = choose_plans(np.array(EASY), correct, [ExitCost(*cost) for cost in costs], steps=3)
    right = 100 * correct[np.arange(6), exits].mean()
    (row,) = [row for row in chosen if row.thresholds == thresholds]
    assert (row.macs, row.accuracy) == pytest.approx((macs / 6, right))
    assert row.shares == pytest.approx([n / 6 for n in leaving])
    least, most = chosen[0], chosen[-1]
    assert (least.thresholds, least.shares) == ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0))
    assert least.accuracy == pytest.approx(100 / 6)
    assert (most.thresholds, most.accuracy) == ((SKIP, SKIP, 0.0), pytest.approx(400 / 6))
    assert len(choose_plans(np.array(EASY[:3]), correct[:3], [ExitCost(10, 1)] * 3)) > 1
    with pytest.raises(ValueError, match="2 validation pictures: at least 3 are needed"):
        choose_plans(np.array(EASY[:2]), correct[:2], [ExitCost(10, 1)] * 3)


def test_equally_confident_pictures_leave_together_and_the_next_exit_gets_fewer():
    confidence = np.array([[0.9, 0.9], [0.5, 0.8], [0.5, 0.7], [0.5, 0.6]])
    plans = choose_plans(confidence, confidence > 0.85, [ExitCost(10, 1)] * 2, steps=3)
    assert [(plan.macs, plan.thresholds, plan.shares) for plan in plans] == [
        (11, (0.0, 0.0), (1, 0)), (11, (0.5, 0.0), (1, 0)), (21, (SKIP, 0.0), (0, 1)),
    ]  # fmt: skip


def test_within_a_budget_the_most_accurate_plan_and_of_equal_ones_the_cheapest():
    rows = tuple(
        Plan(macs, (0.5, 0.0), (0.5, 0.5), accuracy) for macs, accuracy in ((10, 50), (20, 70), (30, 70), (40, 60))
    )
    plans = Plans("", (16, 16), 24, rows)
    assert [plans.within(budget).macs for budget in (10, 19, 20, 30, 1e9)] == [10, 10, 20, 20, 20]
    with pytest.raises(
        UserError,
        match=r"budget of 9e-06 million multiply-adds: below the cheapest plan, which needs 0.001 million per picture",
    ):
        plans.within(9)


def test_the_fingerprint_is_that_of_backbone_and_head(net):
    other = copy.deepcopy(net)
    assert fingerprint(other) == fingerprint(net)
    other.more = torch.nn.Linear(2, 2)  # no part of the network, as a loss with weights
    assert fingerprint(other) == fingerprint(net)
    for name in ("backbone", "head"):
        changed = copy.deepcopy(net)
        with torch.no_grad():
            next(getattr(changed, name).parameters()).view(-1)[-1] += 1e-3
        assert fingerprint(changed) != fingerprint(net)


def test_plans_are_kept_for_these_weights_alone(net, plans, tmp_path):
    path = Plans(fingerprint(net), (16, 24), 24, plans).save(tmp_path / "a.exits.json")
    loaded = Plans.load(path, net)
    assert loaded == Plans(fingerprint(net), (16, 24), 24, plans)
    assert path.read_text(encoding="utf-8").endswith("}\n")
    middle = plans[len(plans) // 2].macs
    assert loaded.within(middle).macs <= middle
    assert loaded.within(1e12).accuracy == max(plan.accuracy for plan in plans)
    with pytest.raises(UserError, match="budget of 5e-06 million multiply-adds: below the cheapest plan"):
        loaded.within(5)
    with pytest.raises(UserError, match=r"thresholds .*a.exits.json: for other weights"):
        Plans.load(path, Net(MSDNet(SMALL, output="exits")))
    whole = path.read_text(encoding="utf-8")
    first = json.loads(whole)["rows"][0]
    numbers = (
        dict(macs=float("nan")), dict(macs="x"), dict(accuracy=float("inf")), dict(thresholds=[]), dict(shares=[1.0]),
        dict(thresholds=[*first["thresholds"][1:], float("nan")]), dict(shares=[float("nan")] * 4),
        dict(thresholds=[0.0] * 5),
    )  # fmt: skip
    bad: list[dict] = [dict(rows=[*rows, first | change]) for rows in ([], [first]) for change in numbers]
    bad += [dict(rows=[first | dict(thresholds=[], shares=[])]), dict(rows=[]), dict(format=2), dict(size=[16])]
    bad += [dict(pictures=float("inf"))]
    for text in (
        "",
        "[]",
        "{}",
        '{"format": 1, "rows": []}',
        '{"format": 1, "rows": [3], "size": 4}',
        "[" * 9999,
        *[json.dumps(json.loads(whole) | change) for change in bad],
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=r"; thresholds are chosen, and written, by mmms early-exit$"):
            Plans.load(path)
    with pytest.raises(UserError, match=r"^thresholds .*none.json: cannot be read \(No such file or directory\)$"):
        Plans.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(accuracy=-5), "rows[1].accuracy: must be a number >= 0; "),
        (dict(accuracy=100.5), "rows[1].accuracy: must be a number <= 100; "),
        (dict(macs=0), "rows[1].macs: must be a number > 0; "),
        (dict(macs="many"), "rows[1].macs: must be a number, not a text; "),
        (dict(thresholds=[-0.5, 0, 0, 0]), "rows[1].thresholds[0]: must be a number >= 0; "),
        (dict(thresholds=[0.5, 7, 0, 0]), "rows[1].thresholds[1]: must be a number <= 2; "),
        (dict(thresholds=[0.5, 0.5]), "rows[1] is for 2 and 4 exits, rows[0] for 4; "),
        (dict(shares=[0.5, 0.5, 0.5, 0.5]), "rows[1].shares: must add up to 1; "),
        (dict(shares=[2, -1, 0, 0]), "rows[1].shares[0]: must be a number <= 1; "),
        (dict(macs=5e12), "a plan of 5e+12 multiply-adds per picture, which cost "),
        (dict(size=[16, 32]), "for pictures of 16 x 32 px, these have 16 x 24"),
        (dict(size=[-16, 24]), "size[0]: must be an integer >= 1; "),
        (dict(pictures=0), "pictures: must be an integer >= 1; "),
        (dict(exits=2), "for 2 exits, the model has 4; choose new ones with mmms early-exit"),
    ],
)
def test_wrong_thresholds_are_named(net, tmp_path, change, message):
    """In a file for these weights."""
    network = EarlyExit.of(net)
    costs = network.costs((16, 24))
    confidence = np.random.default_rng(0).random((24, 4))
    path = Plans(fingerprint(net), (16, 24), 24, choose_plans(confidence, confidence > 0.5, costs)).save(
        tmp_path / "a.exits.json"
    )
    Plans.load(path, net).check((16, 24), costs, path)
    content = json.loads(path.read_text(encoding="utf-8"))
    if "exits" in change:
        content["rows"] = [row | dict(thresholds=[0.5, 0.5], shares=[0.5, 0.5]) for row in content["rows"]]
    elif change.keys() <= content["rows"][1].keys():
        content["rows"][1] |= change
    else:
        content |= change
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        Plans.load(path, net).check((16, 24), costs, path)
    assert str(caught.value).startswith(f"thresholds {path}: {message}")


def test_plans_of_a_file_are_in_order_of_cost(net, plans, tmp_path):
    path = Plans(fingerprint(net), (16, 16), 24, plans[::-1]).save(tmp_path / "a.exits.json")
    assert Plans.load(path, net).rows == plans


def test_a_smaller_batch_only_where_it_pays():
    profile = Profile(
        [1, 2, 4], [[1.0, 2.0, 4.0], [1.0, 1.1, 1.2], [1.0, 2.0, 3.0]], [[0.1] * 3, [0.3] * 3, [0.0, 1, 3]]
    )
    assert profile.pays(0, 4, 2)
    assert profile.pays(0, 4, 3)  # 4.0 against 3.0 and 0.1
    assert not profile.pays(1, 4, 2)
    assert not profile.pays(2, 4, 2)  # 3.0 against 2.0 and 1.0
    assert not profile.pays(2, 4, 3)
    assert profile.pays(2, 4, 1)


def test_whether_a_smaller_batch_pays_is_asked_for_the_next_part_and_the_pictures_left(
    net, pictures, scores, monkeypatch
):
    network, asked = EarlyExit.of(net), []
    network.profile = Profile([1], [], [])
    monkeypatch.setattr(Profile, "pays", lambda self, *args: asked.append(args) or args[0] != 2)
    confidence = scores.softmax(2).amax(2)
    thresholds = (float(confidence[:, 0].median()) - 1e-6, 1.0, float(confidence[:, 2].median()) - 1e-6, 0.0)
    left = int((confidence[:, 0] < thresholds[0]).sum())
    then = int((confidence[confidence[:, 0] < thresholds[0], 2] < thresholds[2]).sum())
    assert 24 > left > then > 0
    network.classify(pictures, thresholds)
    assert asked == [(1, 24, left), (3, left, then)]
    asked.clear()
    network.classify(pictures, (thresholds[0], float(confidence[:, 1].median()), SKIP, 0.0))
    assert [block for block, *_ in asked] == [1, 2]
    network.profile = None
    assert network.measure(pictures[:3], rounds=1) is network.profile


def test_a_profile_has_the_fastest_of_all_sizes_and_parts(net, pictures, time_of_arithmetic, monkeypatch):
    network = EarlyExit.of(net)
    costs = network.costs((16, 16))
    for count, sizes in ((6, [1, 2, 4, 6]), (8, [1, 2, 4, 8]), (1, [1])):
        profile = network.measure(pictures[:count])
        assert profile.sizes == sizes
        assert profile.blocks[1:] == [[size * sum(cost) for size in sizes] for cost in costs[1:]]
        assert profile.blocks[0] == [size * profile.blocks[0][0] for size in sizes]
        assert costs[0].classifier < profile.blocks[0][0] < sum(costs[0])  # without the stem, which all pictures pass
        assert profile.copies == [[0] * len(sizes)] * 4
    ticks = itertools.accumulate(itertools.cycle([7, 5, 0, 3, 0, 4]))  # calls of 5, 3 and 4 seconds
    monkeypatch.setattr("mmms_plugin.scale.clock.now", lambda: next(ticks))
    assert network.measure(pictures[:1]).blocks == [[3]] * 4
    assert network.measure(pictures[:1], rounds=1).copies[0] == [5]


def test_what_is_saved_on_a_clock_of_arithmetic_is_what_was_promised(net, pictures, plans, time_of_arithmetic):
    network, plan = EarlyExit.of(net), plans[len(plans) // 2]
    full = full_macs(network, (16, 16))
    network._slower.add((8, plan.thresholds))  # of an earlier measurement
    saving = measure_saving(network, pictures, 8, plan, rounds=2)
    exits = network.classify(pictures, plan.thresholds).exits
    spent = spent_macs(network, (16, 16), exits, plan.thresholds)
    wanted = Saving(8, plan.macs / full, full / spent, full / spent, spent)
    assert dataclasses.astuple(saving) == pytest.approx(dataclasses.astuple(wanted))
    assert saving.kept == pytest.approx(1)
    assert saving.promised > 1.05
    profile = network.profile
    assert profile.sizes[-1] == 8
    measure_saving(network, pictures[:8], 8, plan, rounds=1)
    assert network.profile is profile
    measure_saving(network, pictures, 12, plan, rounds=1)
    assert network.profile.sizes[-1] == 12
    assert dataclasses.replace(saving, achieved=0.5 * saving.promised).kept == pytest.approx(0.5)


def test_the_whole_network_and_early_exits_are_timed_in_turn(net, pictures, plans, monkeypatch):
    """Whichever is second finds warmer caches. The median of the ratios counts, not the ratio of the medians."""
    network, order = EarlyExit.of(net), []
    network.measure(pictures[:24], rounds=1)
    plan, times = plans[len(plans) // 2], iter([4, 2, 3, 9, 5, 1])  # full 4, early 2; early 3, full 9; full 5, early 1
    monkeypatch.setattr(EarlyExit, "measure_plan", lambda *args: order.append("plan"))
    monkeypatch.setattr(EarlyExit, "predict", lambda *args: order.append("full"))
    original = EarlyExit.classify
    monkeypatch.setattr(EarlyExit, "classify", lambda *args: order.append("early") or original(*args))
    monkeypatch.setattr("mmms_plugin.exits.savings.taken", lambda call: call() and next(times))
    saving = measure_saving(network, pictures, 24, plan, rounds=3)
    assert order == ["early", "plan", "full", "early", "early", "full", "full", "early"]
    assert (saving.achieved, saving.seconds) == (3, 2 / 24)


def test_a_plan_s_cost_is_that_on_the_pictures_it_is_reported_on():
    points = [Point("anytime", "exit 1", 2e6, 50.0, 0.1), Point("anytime", "exit 2", 4e6, 60.0, 0.2)]
    points += [Point("budgeted", "plan 1", macs, 55.0, 0.1, (0.25, 0.75)) for macs in (1.96e6, 3.2e6)]
    rows = tuple(Plan(macs, (0.5, 0.0), (0.25, 0.75), 55.0) for macs in (2.0e6, 3.1e6))
    console = Console(file=io.StringIO())
    early_exit._print(console, points, Plans("", (16, 16), 8, rows))
    assert console.file.getvalue().splitlines() == [
        "exit 1: 2.0 MMAC, top-1 50.00 %",
        "exit 2: 4.0 MMAC, top-1 60.00 %",
        "2 plans from 2.0 to 3.1 MMAC, chosen on 8 pictures",
        "plan nearest to 50% of the whole network's multiply-adds: 49% on these pictures, 2.0 MMAC, top-1 55.00 %, "
        "leave at each exit: 25, 75 %",
        "plan nearest to 75% of the whole network's multiply-adds: 80% on these pictures, 3.2 MMAC, top-1 55.00 %, "
        "leave at each exit: 25, 75 %",
    ]


def test_the_table_of_savings():
    console = Console(file=io.StringIO(), width=100)
    rows = [Saving(8, 0.5, 2.0, 1.5, 0.0124), Saving(32, 0.75, 1.25, 1.25, 0.001)]
    print_table(savings_table(rows, "some title"), console)
    *lines, note, end = console.file.getvalue().splitlines()
    assert (lines[0], end) == ("some title", "")
    assert note.startswith("Plan's cost: average multiply-adds on the pictures that its thresholds were chosen on")
    assert [re.split("  +", line.strip()) for line in lines[1:] if line.strip("─")] == [
        ["batch", "plan's cost", "promised", "achieved", "achieved / promised", "ms per picture"],
        ["8", "50%", "2.00", "1.50", "0.75", "12.4"],
        ["32", "75%", "1.25", "1.25", "1.00", "1.0"],
    ]


@pytest.mark.parametrize(("large", "side", "classes"), [(False, 32, 100), (True, 224, 1000)])
def test_the_benchmark_has_a_row_for_every_batch_and_budget(monkeypatch, large, side, classes):
    monkeypatch.setitem(MSDNet.arch_settings, "tiny", Variant((1, 1), 4, 4, (1, 2), (1, 2), large))
    shapes = []

    def measured(network, images, batch, plan, rounds):
        shapes.append((tuple(images.shape), network(images[:1])[0].shape[1], rounds))
        return Saving(batch, plan.macs / full_macs(network, (side, side)), 2.0, 1.0, 0.5)

    monkeypatch.setattr(savings, "measure_saving", measured)
    table = savings.early_exit_speed("tiny", pictures=4, rounds=2, batches=(1, 4, 8))
    assert shapes == [((4, 3, side, side), classes, 2)] * 6
    assert f"tiny, 4 pictures of {side} px, threads: {torch.get_num_threads()}, " in table.caption
    assert [row[0] for row in table.rows] == ["1"] * 3 + ["4"] * 3
    shares = [row[1] for row in table.rows[:3]]
    assert shares == sorted(shares)
    assert shares[2] == 1


def test_the_figure_shows_both_settings_by_cost_and_by_time(tmp_path, monkeypatch):
    points = [
        Point("anytime", "exit 2", 4e6, 60.0, 0.004), Point("anytime", "exit 1", 2e6, 50.0, 0.005),
        Point("budgeted", "plan", 3e6, 55.0, None), Point("budgeted", "plan", 1e6, 40.0, 0.001),
    ]  # fmt: skip
    kept = []
    monkeypatch.setattr(figure_style, "keep_labels_apart", kept.append)
    path = draw(points, tmp_path / "a.png", batch=8)
    monkeypatch.undo()
    with Image.open(path) as image:
        assert image.format == "PNG"
    (figure,) = kept
    by_cost, by_time = ([[*map(list, line.get_data())] for line in axes.lines] for axes in figure.axes)
    assert by_cost == [[[2, 4], [50, 60]], [[1, 3], [40, 55]]]
    assert by_time == [[[4, 5], [60, 50]], [[1], [40]]]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["anytime", "budgeted"]
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "million multiply-adds per picture", "ms per picture, batch 8, this machine",
    ]  # fmt: skip
    assert figure.axes[0].get_ylabel() == "top-1 accuracy, %"
    assert all(line.get_visible() for axes in figure.axes for line in axes.get_xgridlines())


def test_networks_are_drawn_beside_each_other_with_intervals(tmp_path, monkeypatch):
    exits = [Point("anytime", "exit 2", 4e6, 60.0, None, None, 55.0, 65.0), Point("anytime", "exit 1", 2e6, 50.0)]
    report = dict(points=[dataclasses.asdict(point) for point in exits], savings=[])
    (tmp_path / "early_exit.json").write_text(json.dumps(report), encoding="utf-8")
    assert Report.load(tmp_path).points == tuple(exits)
    kept = []
    monkeypatch.setattr(figure_style, "keep_labels_apart", kept.append)
    paths = draw_beside({"one": exits, "other": [Point("budgeted", "plan", 3e6, 55.0)]}, tmp_path)
    monkeypatch.undo()
    assert [path.name for path in paths] == ["beside.svg", "beside.png", "beside.pdf"]
    (figure,) = kept
    lines = [[[*map(list, line.get_data())] for line in axes.lines] for axes in figure.axes]
    assert lines == [[[[2, 4], [50, 60]], [[], []]], [[[], []], [[3], [55]]]]
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    assert {tuple(point) for point in band.tolist()} == {(2, 50), (4, 55), (4, 65)}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "other"]
    with pytest.raises(UserError, match=r"--beside .*nothing.*: "):
        Report.load(tmp_path / "nothing")


def test_the_interval_of_an_accuracy():
    """Figures of Brown, Cai and DasGupta's formula (Statistical Science 16, 2001), by hand for 0 of 10."""
    assert savings.interval(0.0, 10) == pytest.approx((0, 27.753), abs=1e-3)
    assert savings.interval(1.0, 10) == pytest.approx((72.247, 100), abs=1e-3)
    assert savings.interval(0.5, 100) == pytest.approx((40.383, 59.617), abs=1e-3)


def test_an_ensemble_answers_with_the_mean_of_the_scores_so_far(pictures):
    torch.manual_seed(0)
    small = dict(
        type="mmms_plugin.PSResNet", depth=8, base_channels=8, num_stages=2, strides=(1, 2), dilations=(1, 1),
        small_stem=True, out_indices=(1,), zero_init_residual=False,
    )  # fmt: skip
    net = Net(ModelSequence([small, small, small]))
    net.head = MultiExitHead(5, net.backbone.out_channels, linear="all", ensemble=True).eval()
    with torch.no_grad():
        torch.nn.init.normal_(net.head.exits[0].fc.weight)
        scores = torch.stack([logits.softmax(1) for logits in net.head(net.backbone(pictures))], 1)
        means = torch.stack([scores[:, : index + 1].mean(1) for index in range(3)], 1)
        network = EarlyExit.of(net)
        torch.testing.assert_close(torch.stack(network(pictures), 1).exp(), means)
        (sample, *_) = net.head.predict(net.backbone(pictures), [Sample() for _ in pictures])
    torch.testing.assert_close(sample.exit_scores, means[0])
    threshold = float(means[:, 0].amax(1).median())
    answer = network.classify(pictures, (threshold - 1e-6, 2.0, 0.0))
    assert set(answer.exits.tolist()) == {0, 2}
    torch.testing.assert_close(answer.logits.exp(), means[torch.arange(24), answer.exits])
    blocks = {cost.block for cost in network.costs((16, 16))}
    assert len(blocks) == 1  # each network is computed as a whole, with its classifier
    assert {cost.classifier for cost in network.costs((16, 16))} == {0}


@pytest.mark.parametrize(
    ("kind", "options", "ends"),
    [
        (PSResNet, dict(depth=14, base_channels=8), (1, 3, 5)),
        (ElasticDenseNet, dict(depth=100), (15, 31, 47)),
    ],
)
def test_a_classifier_may_follow_any_block(kind, options, ends):
    """The last block of a stage has the stage's output, and an output between two changes none."""
    torch.manual_seed(0)
    options = dict(options, strides=(1, 2, 2), dilations=(1, 1, 1), small_stem=True)
    options |= dict(num_stages=3, zero_init_residual=False) if kind is PSResNet else {}
    stages = kind(**options, out_indices=(0, 1, 2)).eval()
    blocks = kind(**options, output="blocks", out_indices=sorted({*ends, 2, ends[0] + 2})).eval()
    blocks.load_state_dict(stages.state_dict())
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected, maps = stages(x), blocks(x)
    chosen = [blocks.out_indices.index(end) for end in ends]
    for place, y in zip(chosen, expected, strict=True):
        torch.testing.assert_close(maps[place], y)
        assert blocks.out_channels[place] == y.shape[1]
    assert [blocks.out_strides[place] for place in chosen] == [1, 2, 4]
    assert [y.shape[1] for y in maps] == list(blocks.out_channels)


def test_a_smaller_batch_keeps_channels_last():
    """Otherwise every layer after it would be slow: the gain would be gone."""
    maps = [torch.randn(4, 8, 5, 5).contiguous(memory_format=torch.channels_last)]
    (kept,) = _Running(maps, torch.arange(4)).keep(torch.tensor([0, 3])).maps
    assert kept.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(kept, maps[0][[0, 3]])


def test_exits_of_any_backbone_with_several_outputs(pictures):
    """Outputs after the second and the fourth stage, each with a classifier."""
    torch.manual_seed(0)
    net = Net(PSResNet(18, base_channels=8, out_indices=(1, 3), zero_init_residual=False))
    x = torch.nn.functional.interpolate(pictures, scale_factor=2)
    with torch.no_grad():
        scores = torch.stack(net.head(net.backbone(x)), 1)
    network = EarlyExit.of(net)
    threshold = float(scores[:, 0].softmax(1).amax(1).median())
    answer = network.classify(x, (threshold - 1e-6, 0.0))
    assert set(answer.exits.tolist()) == {0, 1}
    torch.testing.assert_close(answer.logits, scores[torch.arange(24), answer.exits], rtol=1e-4, atol=1e-4)
    saving = measure_saving(network, x, 8, Plan(1.0, (threshold, 0.0), (0.5, 0.5), 50.0), rounds=1)
    assert saving.promised > 1


@pytest.mark.parametrize("lacks", ["backbone", "head", "exits"])
def test_models_without_several_exits_are_refused(net, lacks):
    parts = dict(backbone=net.backbone, head=net.head)
    if lacks in parts:
        del parts[lacks]
    else:
        parts["head"] = torch.nn.Identity()
    with pytest.raises(UserError, match="the model has one classifier: early exit needs several"):
        EarlyExit.of(types.SimpleNamespace(**parts))


def test_models_whose_maps_are_not_those_of_the_steps_are_refused(net):
    host = types.SimpleNamespace(backbone=torch.nn.Identity(), head=net.head)
    with pytest.raises(UserError, match="backbone Identity: cannot stop after an output; early exit needs one of mmms"):
        EarlyExit.of(host)
    necked = types.SimpleNamespace(backbone=net.backbone, neck=torch.nn.Identity(), head=net.head)
    with pytest.raises(UserError, match="neck Identity: early exit needs the classifiers directly behind the backbone"):
        EarlyExit.of(necked)
    with pytest.raises(ValueError, match="3 exits: must be 4, one for each output of MSDNet"):
        EarlyExit(net.backbone, list(net.head.exits)[:3])


def test_models_with_several_labels_are_refused(net):
    head = types.SimpleNamespace(exits=net.head.exits, multi_label=True)
    with pytest.raises(UserError, match="the model predicts several labels: early exit is for one class per picture"):
        EarlyExit.of(types.SimpleNamespace(backbone=net.backbone, head=head))


def test_the_first_layer_gets_channels_last(net, pictures):
    """Otherwise it would convert every batch itself, and so would all layers after it on some machines."""
    network, seen = EarlyExit.of(net), []
    for part in network.modules():
        if isinstance(part, FoldedLayer):
            part.register_forward_pre_hook(
                lambda _, inputs: seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
            )
    network.predict(pictures)
    assert seen[0]


def test_other_norms_stay_as_they_are(pictures):
    net = Net(MSDNet(SMALL, output="exits", norm_cfg=dict(type="GN", num_groups=2)))
    for module in net.modules():
        if isinstance(module, torch.nn.GroupNorm):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    with torch.inference_mode():
        scores = net.head(net.backbone(pictures))
        torch.testing.assert_close(EarlyExit.of(net)(pictures), scores, rtol=1e-4, atol=1e-4)


def test_only_batch_norm_is_folded():
    module = ConvNorm(dict(type="GN", num_groups=2), 4, 4, 1)
    kept = dict(module.named_children())
    fold_norms(module)
    assert dict(module.named_children()) == kept
