"""Checkpoints of our own runs load with ``weights_only=True``; what could run code or reach into memory does not."""

from __future__ import annotations

import argparse
import functools
import json
import os
import pickle
import subprocess
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.optim import OneCycleLR, OneCycleParamScheduler

from mmms_plugin.errors import UserError
from mmms_plugin.weights.reader import read

RUN = """
import os, sys
sys.modules["torchvision"] = None  # mmengine imports it where it can; not needed here
import numpy as np, torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner
import mmms_plugin

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

sys.stdout.flush()
child = os.fork()
if child == 0:
    train(build(4))
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
print("TESTED", sorted(build(6, load_from="run/iter_4.pth").test()))
train(build(6, resume=True))
"""


def test_run_is_tested_and_resumed_in_another_process(tmp_path: Path) -> None:
    """A forked one, for which nothing is imported again."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-c", RUN]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    output = result.stdout
    assert "TRAINED 4 4 True ndarray" in output
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
    """A class that is on no list."""


def history(**state: object) -> HistoryBuffer:
    """A HistoryBuffer of any state."""
    made = HistoryBuffer()
    made.__dict__ = state
    return made


F8, SCALAR = np.float64(0).__reduce__()[1][0], np.float64(0).__reduce__()[0]
RECONSTRUCT = np.zeros(1).__reduce__()[0]


REFUSED = {
    "os.system": (Payload(os.system, ("touch ran",)), "system"),
    "eval": (Payload(eval, ("open('ran', 'w')",)), "eval"),
    "foreign class": (Foreign(), "Foreign"),
    "getattr": (Payload(getattr, (HistoryBuffer, "__init__")), "__init__"),
    "getattr of a scheduler": (Payload(getattr, (OneCycleParamScheduler, "__init__")), "OneCycleParamScheduler, '__in"),
    "scheduler": (Payload(OneCycleParamScheduler, ()), "allowed is one with its state"),
    "a function of a scheduler, called": (
        Payload(OneCycleParamScheduler._annealing_cos, (1, 2, 3)),
        "a call of something that is not a function",
    ),
    "getattr of other": (Payload(getattr, (np.ndarray, "tofile")), "tofile"),
    "object array": (np.array([1, "a"], dtype=object), "O8"),
    "record array": (np.zeros(2, dtype=[("a", "f8"), ("b", "O")]), "V16"),
    "text array": (np.array(["a"]), "U1"),
    "a float64 dtype with an object's state": (
        Payload(np.dtype, ("f8", False, True), (3, "<", None, ("a",), {"a": ("f8", 0)}, 8, 8, 1)),
        "fields",
    ),
    "array, bytes missing": (Payload(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, (9,), F8, False, bytes(8))), "8 bytes"),
    "array, negative size": (Payload(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, (-1,), F8, False, b"")), "sizes"),
    "array without state": ([(1, Payload(RECONSTRUCT, (np.ndarray, (0,), b"b")))], "without its state"),
    "scalar of 4 bytes": (Payload(SCALAR, (F8, bytes(4))), "4 bytes"),
    "history of lists": (Payload(HistoryBuffer, ([{}, {}], [1, 1])), "allowed is one with its state"),
    "history without counts": (history(_log_history=np.zeros(2), max_length=9), "not one of mmengine's"),
    "a dtype of no text": (Payload(np.dtype, (1,)), "NumPy dtype 1: allowed are booleans"),
    "a dtype's state": (
        Payload(np.dtype, ("f8",), (3, "<", None, None, None, -1, -1)),
        "its state is not one of NumPy's",
    ),
    "a dtype's byte order": (
        Payload(np.dtype, ("f8",), (3, "x", None, None, None, -1, -1, 0)),
        "its state is not one of",
    ),
    "an array's state": (Payload(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, (0,), F8, False)), "not one of NumPy's"),
    "an array's shape": (
        Payload(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, [0], F8, False, b"")),
        "not one of NumPy's",
    ),
    "an array of 33 dimensions": (
        Payload(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, (1,) * 33, F8, False, bytes(8))),
        "allowed are sizes >= 0",
    ),
    "an array of text": (Payload(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, (1,), F8, False, "a" * 8)), "and bytes"),
    "an array of no dtype": (Payload(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, (1,), 8, False, bytes(8))), "numeric"),
    "an array of a class": (Payload(RECONSTRUCT, (HistoryBuffer, (0,), b"b")), "allowed is numpy.ndarray"),
    "a frozenset of a tuple": (Payload(frozenset, ((1, 2),)), "allowed is one of a list"),
    "options without names": (Payload(argparse.Namespace, (), {1: 2}), "its state is not a dict of names"),
    "options of a list": (Payload(argparse.Namespace, (), [1]), "its state is not a dict of names"),
    "getattr of no name": (Payload(getattr, (HistoryBuffer, 1)), r"getattr\(HistoryBuffer, 1\): allowed are"),
    "tuples in tuples": (functools.reduce(lambda inner, _: (inner,), range(50), ()), "nested more than 50 deep"),
    "history of no length": (
        history(_log_history=np.zeros(2), _count_history=np.zeros(2), max_length=0),
        "not one of mmengine's",
    ),
    "history of half a length": (
        history(_log_history=np.zeros(2), _count_history=np.zeros(2), max_length=2.5),
        "not one of mmengine's",
    ),
    "history of tables": (
        history(_log_history=np.zeros((2, 2)), _count_history=np.zeros((2, 2)), max_length=9),
        "not one of mmengine's",
    ),
    "history of unequal length": (
        history(_log_history=np.zeros(2), _count_history=np.zeros(3), max_length=9),
        "not one of mmengine's",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, named = REFUSED[name]
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}, "message_hub": content}, "bad.pth")
    with pytest.raises(UserError, match=named) as caught:
        read("bad.pth")
    assert "\n" not in str(caught.value)
    assert not Path("ran").exists()


POINTERS = Payload(np.ndarray, ((2,), "O", b"\x41" * 16))
MEMORY = {
    "set": Payload(set, (POINTERS,)),
    "frozenset": Payload(frozenset, (POINTERS,)),
    "Counter": Payload(Counter, (POINTERS,)),
    "OrderedDict": Payload(OrderedDict, (POINTERS,)),
    "printed": POINTERS,
    "by a state": Payload(RECONSTRUCT, (np.ndarray, (2,), b"O"), (1, (2,), np.dtype("O"), False, b"\x41" * 16)),
    "history": Payload(HistoryBuffer, (POINTERS, POINTERS)),
    "through torch": Payload(
        torch._tensor._rebuild_from_type_v2, (np.ndarray, np.ndarray, ((2,), "O", b"\x41" * 16), {})
    ),
    "scalar": Payload(SCALAR, (np.dtype("O"), b"\x41" * 8)),
    "tuples of tuples": functools.reduce(lambda inner, _: (inner, inner), range(60), ()),  # 2 ** 60 of them
}
READ = """
import mmms_plugin, sys
from mmengine.runner.checkpoint import _load_checkpoint
from mmms_plugin.weights.files import read_checkpoint
for path in sys.argv[1:]:
    for read in (_load_checkpoint, read_checkpoint):
        try:
            str(vars(read(path)) if read is read_checkpoint else sum(1 for _ in read(path)["message_hub"]))
        except Exception as error:
            pass
    print(path, flush=True)
"""


def test_no_file_reaches_into_memory(tmp_path: Path) -> None:
    """In a process of its own, which a file that does would kill."""
    for name, content in MEMORY.items():
        torch.save({"state_dict": {"a": torch.zeros(1)}, "message_hub": content}, tmp_path / f"{name}.pth")
    files = [str(tmp_path / f"{name}.pth") for name in MEMORY]
    done = subprocess.run([sys.executable, "-c", READ, *files], capture_output=True, text=True, check=False, timeout=60)
    assert [line for line in done.stdout.splitlines() if line in files] == files, done.stderr[-2000:]
    assert done.returncode == 0


def test_other_code_loads_as_strictly_as_before(tmp_path: Path) -> None:
    torch.save({"history": HistoryBuffer([0.1], [1])}, tmp_path / "run.pth")
    with torch.serialization.safe_globals([(os.path.join, "numpy.ndarray"), Foreign]):
        before = torch.serialization.get_safe_globals()
        read(tmp_path / "run.pth")
        assert set(torch.serialization.get_safe_globals()) == set(before)
        torch.save(Foreign(), tmp_path / "foreign.pth")
        assert isinstance(read(tmp_path / "foreign.pth"), Foreign)  # what the user allowed stays allowed
    with pytest.raises(pickle.UnpicklingError, match="HistoryBuffer"):
        torch.load(tmp_path / "run.pth")


def test_a_one_cycle_schedule_is_resumed(tmp_path: Path) -> None:
    """It pickles its function by way of ``getattr``."""

    def schedule() -> OneCycleLR:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
        return OneCycleLR(optimizer, eta_max=1.0, total_steps=8)

    first, second = schedule(), schedule()
    for _ in range(3):
        first.step()
    torch.save({"param_schedulers": [first.state_dict()]}, tmp_path / "run.pth")
    second.load_state_dict(read(tmp_path / "run.pth")["param_schedulers"][0])
    for _ in range(4):
        first.step()
        second.step()
        assert first.get_last_value() == second.get_last_value()


def test_numbers_come_back_exactly(tmp_path: Path) -> None:
    history, options = HistoryBuffer([0.1, 2.5], [1, 4]), argparse.Namespace(lr=0.1, sizes=(np.arange(3), [1]))
    saved = {
        "history": history,
        "empty": HistoryBuffer(),
        "scalars": [np.float64(0.1), np.float32(0.3), np.int64(-7), np.bool_(True), np.float16(2)],
        "arrays": (np.arange(6, dtype=np.int32).reshape(2, 3).T, np.arange(3, dtype=">i4"), np.array(2.5), np.ones(0)),
        "options": options,
        "frozen": frozenset([1, 2]),
        "dtype": np.dtype("f4"),
        "shortest": HistoryBuffer([1.0], [1], max_length=1),
    }
    torch.save(saved, tmp_path / "good.pth")
    loaded = read(tmp_path / "good.pth")
    assert {type(loaded[name]) for name in ("history", "empty")} == {HistoryBuffer}
    assert loaded["history"].mean() == history.mean()
    assert loaded["history"].statistics("max") == 2.5
    loaded["history"].update(1.0)
    assert [(type(v), v) for v in loaded["scalars"]] == [(type(v), v) for v in saved["scalars"]]
    for array, wanted in zip(loaded["arrays"], saved["arrays"], strict=True):
        np.testing.assert_array_equal(array, wanted)
        assert (type(array), array.dtype) == (np.ndarray, wanted.dtype.newbyteorder("="))
    assert type(loaded["options"]) is argparse.Namespace
    np.testing.assert_array_equal(loaded["options"].sizes[0], options.sizes[0])
    assert (loaded["frozen"], loaded["dtype"]) == (saved["frozen"], saved["dtype"])
    assert loaded["shortest"].mean() == 1
    limits = {
        "nested": functools.reduce(lambda inner, _: (inner,), range(49), ()),
        "dimensions": np.ones((1,) * 32),
        "booleans": Payload(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, (3,), np.dtype("?"), False, b"\0\1\2")),
    }
    torch.save(limits, tmp_path / "limits.pth")
    loaded = read(tmp_path / "limits.pth")
    assert loaded["nested"] == limits["nested"]
    assert loaded["dimensions"].shape == (1,) * 32
    assert loaded["booleans"].tolist() == [False, True, True]


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_names_of_numpy_1_and_2(tmp_path: Path, module: str) -> None:
    """A checkpoint written under the other major version of NumPy loads, too."""
    torch.save([np.float64(0.5), np.arange(2.0)], tmp_path / "own.pth", _use_new_zipfile_serialization=False)
    here = np.float64(0).__reduce__()[0].__module__.encode()
    content = (tmp_path / "own.pth").read_bytes()
    assert here in content
    (tmp_path / "other.pth").write_bytes(content.replace(here, module.encode()))
    number, array = read(tmp_path / "other.pth")
    assert (number, array.tolist()) == (0.5, [0.0, 1.0])


def test_a_file_from_a_web_address_is_read_as_strictly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own function for that would run what the file carries."""
    from mmengine.runner.checkpoint import load_url

    monkeypatch.chdir(tmp_path)
    torch.save({"history": HistoryBuffer([0.1], [1])}, "run.pth")
    torch.save(Payload(os.system, ("touch ran",)), "bad.pth")
    assert load_url((tmp_path / "run.pth").as_uri(), model_dir="kept", progress=False)["history"].mean() == 0.1
    with pytest.raises(UserError, match="system"):
        load_url((tmp_path / "bad.pth").as_uri(), model_dir="kept", progress=False)
    assert not Path("ran").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_mmengine_gets_nothing_to_run_or_delete(suffix: str, tmp_path: Path) -> None:
    """Runner.resume runs meta.config; CheckpointHook deletes what message_hub names, once there is a better one."""
    from mmengine.runner.checkpoint import _load_checkpoint
    from safetensors.torch import save_file

    (tmp_path / "best_mAP_iter_2.pth").touch()
    (tmp_path / "thesis.pth").touch()
    (tmp_path / "best_mAP_iter_2.pth.old").touch()
    best = {
        "best_ckpt_e": "best_mAP_iter_2.pth.old",
        "best_ckpt_f": "best_mAP_iter_3.pth",  # is not there
        "best_ckpt": "/elsewhere/best_mAP_iter_2.pth",  # of a folder that was moved since
        "best_ckpt_a": str(tmp_path / "thesis.pth"),
        "best_ckpt_b": str(tmp_path),
        "best_ckpt_c": "/etc/passwd",
        "best_ckpt_d": ["best_mAP_iter_2.pth"],
        "keep_ckpt_ids": [1, "../x"],
        "iter": 4,
    }
    meta = {"epoch": 0, "iter": 4, "config": "import os; os.mkdir('ran')", "cfg": "a = 1"}
    if suffix == ".pth":
        content = {"state_dict": {"a": torch.zeros(1)}, "meta": meta, "message_hub": {"runtime_info": best}}
        torch.save(content, tmp_path / "run.pth")
    else:
        save_file({"a": torch.zeros(1)}, tmp_path / "run.safetensors", {"mmms_meta": json.dumps(meta)})
    loaded = _load_checkpoint(str(tmp_path / f"run{suffix}"))
    assert loaded["meta"] == {"epoch": 0, "iter": 4, "cfg": "a = 1"}
    if suffix == ".pth":
        kept = {"best_ckpt": str(tmp_path / "best_mAP_iter_2.pth"), "keep_ckpt_ids": [1], "iter": 4}
        assert loaded["message_hub"]["runtime_info"] == kept
