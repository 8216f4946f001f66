"""Checkpoints of our own runs load with ``weights_only`` at its default; nothing that could run code does."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging.history_buffer import HistoryBuffer

from mmms_plugin.compat.checkpoints import allow_own_checkpoints

pytestmark = pytest.mark.skipif(torch.__version__ < "2.6", reason="torch does not restrict loading by itself")

RUN = """
import sys
sys.modules["torchvision"] = None  # mmengine imports it where it can; not needed here
import numpy as np, torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmms_plugin.compat.checkpoints import allow_own_checkpoints

class Squares(torch.utils.data.Dataset):
    metainfo = {"classes": ("a", "b"), "palette": [(1, 2, 3)]}
    def __len__(self):
        return 8
    def __getitem__(self, index):
        return {"x": torch.full((3,), float(index))}

class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1))
    def forward(self, x, mode="tensor"):
        y = self.layer(x)
        return {"loss": y.square().mean(), "acc": torch.tensor([50.0])} if mode == "loss" else [y]

class Mean(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(float(data_samples[0].mean()))
    def compute_metrics(self, results):
        return {"mean": np.mean(results), "f32": np.float32(0.5), "number": len(results)}

def loader():
    return {"dataset": Squares(), "batch_size": 4, "num_workers": 0, "sampler": {"type": "DefaultSampler"},
            "collate_fn": {"type": "default_collate"}}

def build(iterations, **where):
    return Runner(
        Model(), work_dir="run", default_scope="mmengine", experiment_name="squares", **where,
        train_dataloader=loader(), train_cfg={"by_epoch": False, "max_iters": iterations, "val_interval": 2},
        val_dataloader=loader(), val_cfg={}, val_evaluator=[Mean()],
        test_dataloader=loader(), test_cfg={}, test_evaluator=[Mean()],
        optim_wrapper={"type": "OptimWrapper", "optimizer": {"type": "AdamW", "lr": 1e-3, "weight_decay": 0.01},
                       "clip_grad": {"max_norm": 1}, "paramwise_cfg": {"norm_decay_mult": 0.0}},
        param_scheduler=[{"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "end": 3},
                         {"type": "MultiStepLR", "milestones": [4, 6], "by_epoch": False},
                         {"type": "PolyLR", "by_epoch": False}],
        default_hooks={"checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": 2, "save_best": "mean",
                                      "rule": "greater"}, "logger": {"type": "LoggerHook", "interval": 1}},
        custom_hooks=[{"type": "EMAHook"}],
    )

def train(runner):
    runner.train()
    history = runner.message_hub.get_scalar("train/loss")
    print("TRAINED", runner.iter, len(history.data[0]), bool(history.mean() > 0), type(history.data[0]).__name__)

allow_own_checkpoints()
if sys.argv[1] == "train":
    train(build(4))
else:
    print("TESTED", sorted(build(6, load_from="run/iter_4.pth").test()))
    train(build(6, resume=True))
"""


def run(folder: Path, step: str) -> str:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-c", RUN, step]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_run_is_tested_and_resumed_in_a_fresh_process(tmp_path: Path) -> None:
    assert "TRAINED 4 4 True ndarray" in run(tmp_path, "train")
    output = run(tmp_path, "test and resume")
    assert "TESTED ['f32', 'mean', 'number']" in output
    assert "resumed epoch: 0, iter: 4" in output
    assert "TRAINED 6 6 True ndarray" in output


class Payload:
    """Pickles as a call of ``function``; optionally with a state to restore."""

    def __init__(self, function: Callable, arguments: tuple, state: object = None) -> None:
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> tuple:
        return self.reduced


class Foreign:
    """A class that is on nobody's list."""


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (Payload(os.system, ("touch ran",)), "system"),
        (Payload(eval, ("open('ran', 'w')",)), "eval"),
        (Foreign(), "Foreign"),
        (Payload(getattr, (HistoryBuffer, "__init__")), "__init__"),
        (Payload(getattr, (np.ndarray, "tofile")), "tofile"),
        (np.array([1, "a"], dtype=object), "O8"),
        (np.zeros(2, dtype=[("a", "f8"), ("b", "O")]), "V16"),
    ],
    ids=["os.system", "eval", "foreign class", "getattr", "getattr of other", "object array", "record array"],
)
def test_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, named: str) -> None:
    monkeypatch.chdir(tmp_path)
    allow_own_checkpoints()
    torch.save({"state_dict": {}, "message_hub": content}, "bad.pth")
    with pytest.raises(pickle.UnpicklingError, match=named):
        torch.load("bad.pth")
    assert not Path("ran").exists()


def test_a_crafted_dtype_state_has_no_effect(tmp_path: Path) -> None:
    """A float64 dtype told to hold an object pointer: NumPy believes it, unless it is the built-in one."""
    state = (3, "<", None, ("a",), {"a": ("f8", 0)}, 8, 8, 1)
    allow_own_checkpoints()
    torch.save(Payload(np.dtype, ("f8", False, True), state), tmp_path / "bad.pth")
    loaded = torch.load(tmp_path / "bad.pth")
    assert loaded == np.dtype("f8")
    assert (loaded.names, loaded.hasobject) == (None, False)


def test_numbers_come_back_exactly(tmp_path: Path) -> None:
    allow_own_checkpoints()
    history = HistoryBuffer([0.1, 2.5], [1, 4])
    saved = {
        "history": history,
        "scalars": [np.float64(0.1), np.float32(0.3), np.int64(-7), np.bool_(True)],
        "array": np.arange(6, dtype=np.int32).reshape(2, 3).T,
    }
    torch.save(saved, tmp_path / "good.pth")
    loaded = torch.load(tmp_path / "good.pth")
    assert isinstance(loaded["history"], HistoryBuffer)
    assert loaded["history"].mean() == history.mean()
    assert loaded["history"].statistics("max") == 2.5
    assert [(type(v), v) for v in loaded["scalars"]] == [(type(v), v) for v in saved["scalars"]]
    np.testing.assert_array_equal(loaded["array"], saved["array"])
    assert loaded["array"].dtype == np.int32


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_names_of_numpy_1_and_2(tmp_path: Path, module: str) -> None:
    """A checkpoint written under the other major version of NumPy loads, too."""
    allow_own_checkpoints()
    torch.save(np.float64(0.5), tmp_path / "own.pth", _use_new_zipfile_serialization=False)
    here = np.float64(0).__reduce__()[0].__module__.encode()
    content = (tmp_path / "own.pth").read_bytes()
    assert here in content
    (tmp_path / "other.pth").write_bytes(content.replace(here, module.encode()))
    assert torch.load(tmp_path / "other.pth") == 0.5
