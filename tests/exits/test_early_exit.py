"""Early exits give what the whole network would have given at that exit, and compute nothing after it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmms_plugin.backbones import MSDNet, PSResNet
from mmms_plugin.backbones.msdnet import ConvNorm
from mmms_plugin.errors import UserError
from mmms_plugin.exits import EarlyExit, Plan, Plans, choose_plans
from mmms_plugin.exits.benchmark import full_macs, measure_saving, spent_macs
from mmms_plugin.exits.folding import FoldedLayer
from mmms_plugin.exits.network import _Running
from mmms_plugin.exits.plans import SKIP, fingerprint
from mmms_plugin.exits.profile import Profile
from mmms_plugin.heads import MultiExitHead

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
def plans(net, pictures, scores) -> tuple[Plan, ...]:
    confidence = scores.softmax(2).amax(2).numpy()
    correct = np.random.default_rng(0).random(confidence.shape) < 0.5
    return choose_plans(confidence, correct, EarlyExit.of(net).costs((16, 16)))


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
    """Else networks for 32 px spend their time in Python, and early exits save less than they promise."""
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
    skipping = Plan(0, (SKIP, 0.3, SKIP, 0.0), (), 0)
    for plan in (plans[0], plans[len(plans) // 2], plans[-1], skipping):
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
    assert network.predict(pictures).exits.tolist() == [3] * 24
    monkeypatch.setattr(EarlyExit, "measure_exits", lambda self, x: [1000.0, 2000.0, 3000.0, 4000.0])
    assert network.predict(pictures, 3500, unit="seconds").exits.tolist() == [2] * 24
    with pytest.raises(UserError, match="budget=10: below the first exit, which needs 1000 seconds"):
        network.predict(pictures, 10, unit="seconds")
    with pytest.raises(UserError, match=r"budget=10: below the first exit, which needs .* multiply-adds"):
        network.predict(pictures, 10)
    with pytest.raises(ValueError, match="unit='hours': allowed are 'macs', 'seconds'"):
        network.predict(pictures, 10, unit="hours")
    with pytest.raises(ValueError, match="2 thresholds: allowed are 4, one for each exit"):
        network.classify(pictures, (0.5, 0.5))


def test_seconds_are_measured_and_a_slow_moment_ends_early(net, pictures, monkeypatch):
    network = EarlyExit.of(net)
    seconds = network.measure_exits(pictures[:2], rounds=1)
    assert len(seconds) == 4
    assert all(s > 0 for s in seconds)
    clock = iter([0.0, 0.0, 50.0])  # the start, before the second exit, before the third
    network._seconds[tuple(pictures.shape)] = [1.0, 2.0, 3.0, 4.0]
    monkeypatch.setattr("mmms_plugin.exits.network.time.perf_counter", lambda: next(clock))
    assert network.predict(pictures, 10, unit="seconds").exits.tolist() == [1] * 24


def test_plans_reach_from_the_first_exit_to_the_last_and_cost_what_they_say(net, pictures, scores, plans):
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
        assert plan.macs <= sum(cost.block + cost.classifier for cost in costs)


def test_plans_are_kept_for_these_weights_alone(net, plans, tmp_path):
    path = Plans(fingerprint(net), (16, 16), 24, plans).save(tmp_path / "a.exits.json")
    loaded = Plans.load(path, net)
    assert loaded.rows == plans
    middle = plans[len(plans) // 2].macs
    assert loaded.within(middle).macs <= middle
    assert loaded.within(1e12).accuracy == max(plan.accuracy for plan in plans)
    with pytest.raises(UserError, match="budget=5: below the cheapest plan, which needs"):
        loaded.within(5)
    with pytest.raises(UserError, match=r"thresholds .*a.exits.json: of another model"):
        Plans.load(path, Net(MSDNet(SMALL, output="exits")))
    whole = path.read_text(encoding="utf-8")
    first = json.loads(whole)["rows"][0]
    bad = [json.dumps({**json.loads(whole), "rows": [{**first, **change}]}) for change in (
        dict(macs=float("nan")), dict(thresholds=[]), dict(shares=[1.0]), dict(accuracy=float("inf")), dict(macs="x"),
    )]  # fmt: skip
    for text in (
        "",
        "[]",
        "{}",
        '{"format": 1, "rows": []}',
        '{"format": 1, "rows": [3], "size": 4}',
        "[" * 9999,
        *bad,
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match="not a file of mmms early-exit"):
            Plans.load(path)


def test_a_smaller_batch_only_where_it_pays():
    profile = Profile([1, 2, 4], [[1.0, 2.0, 4.0], [1.0, 1.1, 1.2]], [[0.1] * 3, [0.3] * 3])
    assert profile.pays(0, 4, 2)
    assert not profile.pays(1, 4, 2)


def test_a_smaller_batch_keeps_channels_last():
    """Else every layer after it would be slow: the gain would be gone."""
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
    with pytest.raises(UserError, match="early exit needs several"):
        EarlyExit.of(torch.nn.Sequential())
