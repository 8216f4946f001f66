"""The joint loss of several classifiers, and what they predict."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import BaseDataElement

from mmms_plugin.errors import UserError
from mmms_plugin.exits import EarlyExit
from mmms_plugin.heads import MultiExitHead


@pytest.fixture
def maps() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(3, 4, 8, 8), torch.randn(3, 6, 5, 5)]


def samples(labels: list[list[int]]) -> list[BaseDataElement]:
    return [BaseDataElement(gt_label=torch.tensor(label, dtype=torch.long)) for label in labels]


def test_the_loss_is_the_weighted_sum_over_the_exits(maps):
    head = MultiExitHead(5, [4, 6], weights=(0.5, 2.0), label_smoothing=0.1).eval()
    logits, labels = head(maps), torch.tensor([1, 4, 0])
    losses = head.loss(maps, samples([[1], [4], [0]]))
    expected = {
        f"loss_exit{i + 1}": w * F.cross_entropy(logits[i], labels, label_smoothing=0.1)
        for i, w in enumerate((0.5, 2.0))
    }
    assert losses.keys() == expected.keys()
    assert all(torch.equal(losses[key], value) for key, value in expected.items())
    mixed = [BaseDataElement(gt_score=row) for row in torch.eye(5)[labels] * 0.7 + 0.06]
    wanted = 0.5 * F.cross_entropy(logits[0], torch.eye(5)[labels] * 0.7 + 0.06, label_smoothing=0.1)
    torch.testing.assert_close(head.loss(maps, mixed)["loss_exit1"], wanted)


def test_one_exit_is_enough(maps):
    head = MultiExitHead(5, [4]).eval()
    target = torch.tensor([1, 4, 0])
    assert head.loss(maps[:1], samples([[1], [4], [0]])) == {"loss_exit1": F.cross_entropy(head(maps[:1])[0], target)}


def test_several_labels(maps):
    head = MultiExitHead(5, [4, 6], multi_label=True).eval()
    target = torch.tensor([[0, 1, 0, 0, 1], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]]).float()
    losses = head.loss(maps, samples([[1, 4], [], [0]]))
    for i, logits in enumerate(head(maps)):
        torch.testing.assert_close(losses[f"loss_exit{i + 1}"], F.binary_cross_entropy_with_logits(logits, target))
    model = torch.nn.Module()
    model.backbone, model.head = torch.nn.Identity(), head
    model.backbone.advance = None
    with pytest.raises(UserError, match="early exit is for one class per picture"):
        EarlyExit.of(model)


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_last_exit_predicts_and_all_are_kept(maps, multi_label):
    structures = pytest.importorskip("mmpretrain.structures")
    head = MultiExitHead(5, [4, 6], multi_label=multi_label).eval()
    with torch.no_grad():
        logits = torch.stack(head(maps), 1)
        for given in (None, [structures.DataSample() for _ in range(3)]):
            for row, sample in zip(logits, head.predict(maps, given), strict=True):
                scores = row.sigmoid() if multi_label else row.softmax(1)
                torch.testing.assert_close(sample.exit_scores, scores)
                assert torch.equal(sample.pred_score, sample.exit_scores[-1])
                labels = [i for i in range(5) if row[-1, i] > 0] if multi_label else [int(row[-1].argmax())]
                assert sample.pred_label.tolist() == labels


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(weights=(1.0,)), r"weights=\(1.0,\): allowed are 2 numbers >= 0, not all 0"),
        (dict(weights=(0, 0)), "not all 0"),
        (dict(weights=(1, 1, 1)), r"weights=\(1, 1, 1\): allowed are 2 numbers >= 0"),
        (dict(weights=(2, -1)), r"weights=\(2, -1\): allowed are 2 numbers >= 0, not all 0"),
        (dict(multi_label=True, label_smoothing=0.1), "label_smoothing=0.1: allowed with multi_label is 0"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        MultiExitHead(5, [4, 6], **options)


def test_defaults_and_what_is_allowed_at_the_limits(maps):
    head = MultiExitHead(5, [4, 6], weights=[0, 1.0])
    assert head.weights == (0, 1.0)
    head = MultiExitHead(5, [4, 6])
    assert (head.weights, head.multi_label, head.label_smoothing) == ((1.0, 1.0), False, 0.0)
    shapes = [[tuple(m.weight.shape) for m in exit_.modules() if hasattr(m, "weight") and m.weight.dim() > 1]
              for exit_ in head.exits]  # fmt: skip
    assert shapes == [[(4, 4, 3, 3), (4, 4, 3, 3), (5, 4)], [(6, 6, 3, 3), (6, 6, 3, 3), (5, 6)]]
    assert [head.exits[0].convs[i].conv.stride for i in (0, 1)] == [(2, 2), (2, 2)]
    assert MultiExitHead(5, [4, 6], channels=8).exits[1].fc.weight.shape == (5, 8)
    torch.manual_seed(0)
    wide = MultiExitHead(1000, [256])
    wide.init_weights()
    assert 0.0098 < float(wide.exits[0].fc.weight.detach().std()) < 0.0102


def test_a_score_of_one_half_is_not_a_label(maps):
    structures = pytest.importorskip("mmpretrain.structures")
    head = MultiExitHead(5, [4, 6], multi_label=True).eval()
    torch.nn.init.zeros_(head.exits[1].fc.weight)
    head.exits[1].fc.bias.data = torch.tensor([0.0, 1e-3, -1e-3, 0.0, 2.0])
    assert head.predict(maps, [structures.DataSample() for _ in range(3)])[0].pred_label.tolist() == [1, 4]


def test_as_many_maps_as_exits(maps):
    with pytest.raises(ValueError, match="1 maps for 2 exits: give the backbone as many out_indices as in_channels"):
        MultiExitHead(5, [4, 6])(maps[:1])
