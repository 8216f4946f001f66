"""Alphas of shape adaptors: trained apart, every few iterations, resumed exactly."""

from __future__ import annotations

import logging
import math

import pytest
import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.runner import Runner
from torch import nn

from mmms_plugin.errors import UserError

CONSTRUCTOR = "mmms_plugin.ShapeAdaptorConstructor"


class Classifier(BaseModel):
    """A tiny shape-adapted network and a linear layer."""

    def __init__(self, mode: str = "standard") -> None:
        super().__init__()
        backbone = dict(type="mmms_plugin.ShapeAdaptorMobileNetV2", width_multiplier=0.125, stem="cifar", mode=mode)
        more = dict(design_size=32, resize_outputs=False, out_indices=(2,))
        self.backbone = MODELS.build({**backbone, **more})
        self.fc = nn.Linear(self.backbone.out_channels[-1], 4)

    def forward(self, inputs: torch.Tensor, labels: torch.Tensor, mode: str = "loss") -> dict[str, torch.Tensor]:
        x = torch.stack(list(inputs)) if isinstance(inputs, list) else inputs
        return dict(loss=F.cross_entropy(self.fc(self.backbone(x)[-1].mean((2, 3))), labels))


class Pictures(torch.utils.data.Dataset):
    """One batch of noise after the other, the same in every run."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict:
        generator = torch.Generator().manual_seed(index)
        return dict(inputs=torch.rand(3, 32, 32, generator=generator), labels=index % 4)


def collate(samples: list[dict]) -> dict:
    return dict(inputs=torch.stack([s["inputs"] for s in samples]), labels=torch.tensor([s["labels"] for s in samples]))


def train(folder, name: str, iterations: int = 8, mode: str = "standard", **options) -> Runner:
    torch.manual_seed(0)
    settings = dict(constructor=CONSTRUCTOR, optimizer=dict(type="SGD", lr=0.01, momentum=0.9))
    settings |= options.pop("optim_wrapper", {})
    runner = Runner(
        Classifier(mode),
        str(folder),
        train_dataloader=dict(
            dataset=Pictures(), batch_size=4, sampler=dict(type="DefaultSampler", shuffle=False), collate_fn=collate
        ),
        train_cfg=dict(by_epoch=False, max_iters=8),
        optim_wrapper={key: value for key, value in settings.items() if value is not None},
        custom_hooks=[dict(type="mmms_plugin.ShapeAdaptorHook", step=4, report=4)],
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=4, by_epoch=False)),
        experiment_name=name,
        log_level="WARNING",
        **options,
    )
    runner.train()
    logging.getLogger("mmengine").handlers.clear()
    return runner


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, train(folder, "whole")


def test_alphas_step_every_fourth_iteration_with_their_own_decay(whole):
    folder, runner = whole
    half = torch.load(folder / "iter_4.pth", weights_only=False)
    (group,) = half["shape_optimizer"]["param_groups"]
    assert math.isclose(group["lr"], 0.1 * (1 + math.cos(math.pi * 3 / 8)) / 2)
    now = runner.model.state_dict()
    moved = {key for key in now if key.endswith("alpha") and now[key] != half["state_dict"][key]}
    assert moved == {"backbone.stem_adaptor.alpha", "backbone.features.4.resize.alpha"}  # the others are behind the map
    trained = {id(p) for g in runner.optim_wrapper.optimizer.param_groups for p in g["params"]}
    assert not any(id(a.alpha) in trained for a in runner.model.backbone.plan.adaptors.values())
    scalars = runner.message_hub.log_scalars["train/s_features.4"].data[0]
    assert len(set(scalars.tolist())) == 3  # at the start, after the first and after the second step


def test_a_resumed_training_gives_the_same_bits(whole, tmp_path):
    folder, runner = whole
    resumed = train(tmp_path, "resumed", load_from=str(folder / "iter_4.pth"), resume=True)
    for key, value in runner.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(mode="human"), "found no shape adaptor to train"),
        (dict(optim_wrapper=dict(constructor=None)), "also trains the alphas"),
    ],
)
def test_a_config_that_cannot_train_shapes_is_named(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        train(tmp_path, message[:8], **options)
