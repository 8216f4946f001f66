"""Alphas of shape adaptors: trained apart, every few iterations, resumed exactly."""

from __future__ import annotations

import copy
import functools
import logging
import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from torch import nn

from mmms_plugin.config.function import Function
from mmms_plugin.config.start import start_for
from mmms_plugin.errors import UserError
from mmms_plugin.scale.flops import count
from mmms_plugin.train.shape_hook import ShapeAdaptorHook
from mmms_plugin.weights.files import Checkpoint

CONSTRUCTOR = "mmms_plugin.ShapeAdaptorConstructor"


class Classifier(BaseModel):
    """A tiny shape-adapted network and a linear layer."""

    def __init__(self, mode: str = "standard") -> None:
        super().__init__()
        backbone = dict(type="mmms_plugin.ShapeAdaptorMobileNetV2", width_multiplier=0.125, stem="cifar", mode=mode)
        more = dict(design_size=32, resize_outputs=False, out_indices=(2,))
        self.backbone = MODELS.build({**backbone, **more})
        self.fc = nn.Linear(self.backbone.out_channels[-1], 4)

    def init_weights(self) -> None:
        """Nothing: every run starts from the weights that it was built with."""

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


def train(
    folder, name: str, iterations: int = 8, mode: str = "standard", step: int = 4, momentum: float = 0.9, **options
) -> Runner:
    """With ``train_cfg`` among the options, of the length that it gives."""
    torch.manual_seed(0)
    settings = dict(constructor=CONSTRUCTOR, optimizer=dict(type="SGD", lr=0.01, momentum=0.9))
    settings |= options.pop("optim_wrapper", {})
    runner = Runner(
        Classifier(mode),
        str(folder),
        train_dataloader=dict(
            dataset=Pictures(), batch_size=4, sampler=dict(type="DefaultSampler", shuffle=False), collate_fn=collate
        ),
        train_cfg=options.pop("train_cfg", dict(by_epoch=False, max_iters=iterations)),
        optim_wrapper={key: value for key, value in settings.items() if value is not None},
        custom_hooks=[dict(type="mmms_plugin.ShapeAdaptorHook", step=step, report=4, momentum=momentum)],
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=4, by_epoch=False)),
        experiment_name=name,
        log_level="WARNING",
        **options,
    )
    runner.train()
    logging.getLogger("mmengine").handlers.clear()
    return runner


def last_rate(runner: Runner) -> float:
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, ShapeAdaptorHook))
    return hook.optimizer.param_groups[0]["lr"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, train(folder, "whole")


def test_alphas_step_every_fourth_iteration_with_their_own_decay(whole):
    folder, runner = whole
    half = torch.load(folder / "iter_4.pth", weights_only=False)
    (group,) = half["shape_optimizer"]["param_groups"]
    assert group["lr"] == 0.1  # of the step at iteration 0
    assert math.isclose(last_rate(runner), 0.05)  # of the one at iteration 4 of 8
    now = runner.model.state_dict()
    moved = {key for key in now if key.endswith("alpha") and now[key] != half["state_dict"][key]}
    assert moved == {"backbone.stem_adaptor.alpha", "backbone.features.4.resize.alpha"}  # the others are behind the map
    trained = {id(p) for g in runner.optim_wrapper.optimizer.param_groups for p in g["params"]}
    assert not any(id(a.alpha) in trained for a in runner.model.backbone.plan.adaptors.values())
    scalars = runner.message_hub.log_scalars["train/s_features.4"].data[0]
    assert [len(set(part)) for part in (scalars[:4].tolist(), scalars[4:].tolist(), scalars.tolist())] == [1, 1, 2]


def test_a_resumed_training_gives_the_same_bits(whole, tmp_path):
    folder, runner = whole
    resumed = train(tmp_path, "resumed", load_from=str(folder / "iter_4.pth"), resume=True)
    for key, value in runner.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key
    other = train(tmp_path, "other", load_from=str(folder / "iter_4.pth"), resume=True, momentum=0.5)
    (hook,) = (hook for hook in other.hooks if isinstance(hook, ShapeAdaptorHook))
    assert hook.optimizer.param_groups[0]["momentum"] == 0.5  # of the config


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(step=0), "step=0: must be an integer of at least 1, a number of iterations"),
        (dict(step=2.0), "step=2.0: must be an integer of at least 1"),
        (dict(report=0), "report=0: must be an integer of at least 1"),
        (dict(lr=0), "lr=0, momentum=0.9: must be above 0, and momentum below 1"),
        (dict(momentum=0), "lr=0.1, momentum=0: must be above 0"),
        (dict(momentum=1), "lr=0.1, momentum=1: must be above 0, and momentum below 1"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ShapeAdaptorHook(**arguments)
    ShapeAdaptorHook(step=1, report=1, lr=1e-9, momentum=0.999)


def test_the_shape_is_reported_now_and_then_and_at_the_end(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr("mmms_plugin.train.shape_hook.print_log", lambda line, logger: lines.append((line, logger)))
    runner = train(tmp_path, "reported", iterations=5, step=9)
    assert [logger for _, logger in lines] == ["current"] * 2  # after four iterations, and after the fifth
    sides = [size[1:] for size in runner.model.backbone.shapes(32, 32)]
    shown = [f"{h}x{w}" for i, (h, w) in enumerate(sides) if i == 0 or (h, w) != sides[i - 1]]
    backbone = copy.deepcopy(runner.model.backbone).to("meta")
    cost = count(backbone, torch.empty(1, 3, 32, 32, device="meta"))
    assert lines[1][0] == f"shape {' > '.join(shown)}, {cost.macs / 1e9:.3f} GMAC of the backbone"


def test_a_step_is_nesterov_s(tmp_path):
    """The first step of momentum m moves by (1 + m) times rate and gradient; the rate starts at its full value."""
    torch.manual_seed(0)
    before = {name: value for name, value in Classifier().state_dict().items() if name.endswith("alpha")}
    runner = train(tmp_path, "nesterov", iterations=1, step=1)
    after = runner.model.state_dict()
    moved = torch.stack([after[name] - value for name, value in before.items() if after[name] != value])
    torch.testing.assert_close(moved, -0.1 * 1.9 * gradients_of(range(4)).reshape(moved.shape), atol=1e-6, rtol=1e-3)


class Step(NamedTuple):
    """One step of the alphas: where in the training, at which rate, with which gradients."""

    epoch: int
    batch: int
    rate: float
    gradients: torch.Tensor


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """The steps of the hook in each training."""
    return record(monkeypatch.setattr)


def record(setattr: Callable[[type, str, Any], None]) -> list[Step]:
    """A list to which every step of the hook is added from now on."""
    steps: list[Step] = []
    original = ShapeAdaptorHook.before_train

    def before_train(self: ShapeAdaptorHook, runner: Runner) -> None:
        def add(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            (group,) = optimizer.param_groups
            gradients = torch.stack([alpha.grad.clone() for alpha in group["params"] if alpha.grad is not None])
            batch = runner.iter - runner.epoch * len(runner.train_dataloader)
            steps.append(Step(runner.epoch, batch, group["lr"], gradients))

        original(self, runner)
        self.optimizer.register_step_pre_hook(add)

    setattr(ShapeAdaptorHook, "before_train", before_train)
    return steps


def test_alphas_step_first_in_every_epoch_at_the_rate_of_the_epoch(tmp_path, steps):
    train(tmp_path, "epochs", step=3, train_cfg=dict(by_epoch=True, max_epochs=2))  # of four batches
    assert [step[:3] for step in steps] == [(0, 0, 0.1), (0, 3, 0.1), (1, 0, 0.05), (1, 3, 0.05)]


def test_weights_are_trained_on_the_new_shape(tmp_path, steps):
    runner = train(tmp_path, "order", iterations=1, step=1)
    torch.testing.assert_close(steps[0].gradients, gradients_of(range(4)))
    torch.manual_seed(0)
    model = Classifier().train()
    alphas = {name: value for name, value in model.named_parameters() if name.endswith("alpha")}
    for name, alpha in alphas.items():
        alpha.data = runner.model.state_dict()[name]
    model(**collate([Pictures()[i] for i in range(4)]))["loss"].backward()
    expected = model.fc.weight - 0.01 * model.fc.weight.grad
    torch.testing.assert_close(runner.model.fc.weight, expected, atol=1e-8, rtol=1e-6)


def gradients_of(pictures: Sequence[int]) -> torch.Tensor:
    """Of the alphas of the network that ``train`` starts from, for one batch."""
    torch.manual_seed(0)
    model = Classifier().train()
    model(**collate([Pictures()[i] for i in pictures]))["loss"].backward()
    alphas = [value.grad for name, value in model.named_parameters() if name.endswith("alpha")]
    return torch.stack([gradient for gradient in alphas if gradient is not None])


def test_gradient_accumulation_does_not_change_the_gradient(tmp_path, steps):
    train(tmp_path, "accumulated", iterations=3, step=1, optim_wrapper=dict(accumulative_counts=2))
    assert len(steps) == 3
    torch.testing.assert_close(steps[0].gradients, gradients_of(range(4)))


def test_mixed_precision_does_not_change_the_gradient(tmp_path, steps, monkeypatch):
    """bfloat16 on the CPU, where mmengine's wrapper asks for a GPU that the calculation does not need."""
    monkeypatch.setattr(amp_optimizer_wrapper, "is_cuda_available", lambda: True)
    monkeypatch.setattr(amp_optimizer_wrapper, "GradScaler", functools.partial(torch.amp.GradScaler, "cpu"))
    for scale in (1.0, 1024.0):
        wrapper = dict(type="AmpOptimWrapper", dtype="bfloat16", loss_scale=scale)
        train(tmp_path, f"amp {scale}", iterations=1, step=1, optim_wrapper=wrapper)
    assert torch.equal(steps[0].gradients, steps[1].gradients)  # a power of two leaves no trace
    found, exact = steps[0].gradients, gradients_of(range(4))
    assert torch.cosine_similarity(found, exact, dim=0) > 0.98
    assert not torch.equal(found, exact)


def train_rank(rank: int, folder: Path, port: int) -> None:
    """One of two processes: a batch, the first of two that are accumulated, so that DDP averages nothing yet."""
    places = dict(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2")
    os.environ.update(places, RANK=str(rank), LOCAL_RANK=str(rank))
    torch.set_num_threads(1)
    steps = record(setattr)
    more = dict(launcher="pytorch", env_cfg=dict(dist_cfg=dict(backend="gloo")), cfg=dict(find_unused_parameters=True))
    train(folder, "ddp", iterations=2, step=1, optim_wrapper=dict(accumulative_counts=2), **more)
    torch.save(steps[0].gradients, folder / f"rank_{rank}.pth")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_processes_average_the_gradient(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = (
        "import sys, torch\nfrom pathlib import Path\nfrom tests.train.test_shape_hook import train_rank\n"
        "places = Path(sys.argv[1]), int(sys.argv[2])\n"
        "torch.multiprocessing.start_processes(train_rank, places, nprocs=2, start_method='fork')"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(port)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"rank_{rank}.pth") for rank in (0, 1))
    assert torch.equal(first, second)
    each = torch.stack([gradients_of(range(rank, 8, 2)) for rank in (0, 1)])  # every second picture goes to a process
    torch.testing.assert_close(first, each.mean(0))


@pytest.mark.parametrize("plain", ["ResNet", "mmms_plugin.ShapeAdaptorResNet"])
def test_weights_of_a_plain_network_start_a_shape_adapted_one(plain):
    """AutoTL: weights are all there, shapes begin as the config says; a weight too few is still refused."""
    init_default_scope("mmdet")
    options = dict(depth=50, base_channels=8) | (dict(mode="human") if "Shape" in plain else dict(stem_channels=8))
    state = MODELS.build(dict(type=plain, **options)).state_dict()
    adapted = MODELS.build(dict(type="mmms_plugin.ShapeAdaptorResNet", depth=50, base_channels=8, mode="autotl"))
    model, own = nn.ModuleDict({"backbone": adapted}), Function(dict(backbone=dict(type="ShapeAdaptorResNet")))
    begun = start_for(model, own, Checkpoint(Path("x.pth"), dict(state)), "x.pth")
    assert {f"backbone.{key}" for key in state} == set(begun.state)
    if plain == "ResNet":  # every table is tried before it is refused
        return
    state.pop("layer2.0.conv1.weight")
    with pytest.raises(UserError, match=r"1 tensors missing \(first: layer2.0.conv1.weight\)"):
        start_for(model, own, Checkpoint(Path("x.pth"), dict(state)), "x.pth")
