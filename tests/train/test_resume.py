"""Killed trainings end as uninterrupted ones do; the checkpoint to resume is found in any state of the folder."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import BatchSampler, DataLoader, Dataset

from mmms_plugin.train.batches import Continued, number_batches
from mmms_plugin.train.runner import ResumeHook
from mmms_plugin.weights.newest import newest_checkpoint

SCRIPT = Path(__file__).with_name("killed_runs.py")
# loop, workers, seed, and where each of the trainings in turn is killed: after an iteration, or while saving a file
SCENARIOS = [
    ["infinite", 0, 1, [5, ["half written", "iter_8.pth"]]],
    ["infinite", 2, None, [3, ["before the renaming", "iter_6.pth"]]],
    ["endless passes", 0, 1, [["after the renaming", "iter_4.pth"], 11]],
    ["epoch", 2, 1, [5, ["half written", "last_checkpoint"], ["before the renaming", "epoch_3.pth"]]],
    ["epoch by iterations", 0, None, [3, 5, ["after the renaming", "iter_8.pth"]]],
]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What became of each of the scenarios, and last of a training in two processes; imports are paid for once."""
    root = SCRIPT.parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, str(SCRIPT), str(tmp_path_factory.mktemp("killed")), *map(json.dumps, SCENARIOS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_killed_trainings_end_with_the_weights_of_uninterrupted_ones(killed: list[dict]) -> None:
    for result, (loop, *_, kills) in zip(killed[:-1], SCENARIOS, strict=True):
        assert result["statuses"] == [-9] * len(kills) + [0], (loop, result)
        assert result["equal"], (loop, result)
        assert result["done"] == [12, 12]


def test_two_processes_on_a_cpu_train_and_resume(killed: list[dict]) -> None:
    """mmengine 0.10.7 asks for CUDA devices there; SyncBN, too. The ranks do not lock each other out.

    If one is killed, the other ends in one line; if one gets a signal, both end after the same iteration.
    """
    result = killed[-1]
    died, stopped = result["output"]
    assert result["statuses"] == [[-9, 1], [0, 0], [143, 143], [0, 0], [0, 0]], result["output"]
    assert result["equal"]
    assert "SyncBN needs a GPU: on CPUs every process normalizes by its own part of the batch" in died
    assert "another process of this run has ended: killed, most often for lack of memory" in died
    assert "Traceback" not in died + stopped
    assert result["saved"] == "iter_5.pth"
    assert stopped.count("after iteration 5 of 12; saved as ") == 1


class Draws(Dataset):
    """Indices with what each generator draws."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple:
        return index, random.random(), np.random.rand(), float(torch.rand(()))  # noqa: NPY002


@pytest.mark.parametrize("sampler", [InfiniteSampler, DefaultSampler])
def test_batches_depend_on_seed_and_number_alone(sampler: type) -> None:
    """The same with any number of workers, after any start, and whatever else was drawn before."""

    def batches(start: int, workers: int, key: int = 5) -> list:
        dataset = Draws()
        order = BatchSampler(sampler(dataset, shuffle=True, seed=3), 4, drop_last=False)
        loader = DataLoader(dataset, batch_sampler=order, num_workers=workers, collate_fn=list)
        number_batches(loader, (key, 0), endless=True).start = start
        found: list = []
        while len(found) < 7 - start:
            found += list(zip(range(7 - start - len(found)), loader, strict=False))
        return [batch for _, batch in found]

    whole = batches(0, 0)
    assert len({draws for batch in whole for draws in batch}) == sum(map(len, whole))
    torch.rand(3)
    for start, workers in ((0, 2), (2, 0), (3, 2), (5, 0)):
        assert batches(start, workers) == whole[start:], (start, workers)
    assert [[draws[0] for draws in batch] for batch in batches(0, 0, key=6)] == [[d[0] for d in b] for b in whole]
    assert batches(0, 0, key=6) != whole


def save(path: Path, iteration: int = 1, **changes: object) -> Path:
    content = {"state_dict": {"w": torch.ones(9)}, "optimizer": {}, "message_hub": {}}
    content["meta"] = {"epoch": 0, "iter": iteration, "seed": 0}
    torch.save({key: value for key, value in (content | changes).items() if value is not None}, path)
    return path


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.find(torch.ones(9).numpy().tobytes())] ^= 255
    path.write_bytes(data)


@pytest.mark.parametrize("last", [None, "", "/elsewhere/run/iter_10.pth", "iter_10.pth", "/elsewhere/iter_99.pth"])
@pytest.mark.parametrize("damage", [None, cut, flip, Path.unlink])
def test_the_newest_whole_checkpoint_is_found(tmp_path: Path, last: str | None, damage) -> None:
    """With ``last_checkpoint`` missing, empty, or of another folder; with the newest file damaged or away."""
    for number in (2, 9, 10):
        save(tmp_path / f"iter_{number}.pth", number)
    save(tmp_path / "best_coco_bbox_mAP_iter_50.pth", optimizer=None)
    if last is not None:
        (tmp_path / "last_checkpoint").write_text(last, encoding="utf-8")
    if damage is not None:
        damage(tmp_path / "iter_10.pth")
    found, remarks = newest_checkpoint(tmp_path)
    assert found == tmp_path / ("iter_9.pth" if damage else "iter_10.pth")
    if damage in (cut, flip):
        assert "iter_10.pth is left out: it is damaged" in remarks[0]
    assert remarks[-1] == f"--resume: going on from {found}, the newest whole checkpoint"


def test_the_file_named_last_comes_before_those_of_an_older_run(tmp_path: Path) -> None:
    """A folder may hold more iterations of an earlier training; what is newer than the named file was written later."""
    (tmp_path / "last_checkpoint").write_text(str(save(tmp_path / "iter_3.pth", 3)), encoding="utf-8")
    os.utime(save(tmp_path / "iter_12.pth", 12), (1, 1))
    assert newest_checkpoint(tmp_path)[0] == tmp_path / "iter_3.pth"
    os.utime(save(tmp_path / "iter_4.pth", 4), (2e9, 2e9))
    assert newest_checkpoint(tmp_path)[0] == tmp_path / "iter_4.pth"


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"optimizer": None}, "no optimizer"),
        ({"message_hub": None}, "no message_hub"),
        ({"meta": {"epoch": 0}}, "after which epoch and iteration"),
        ({"meta": {"epoch": -1, "iter": 3}}, "after which epoch and iteration"),
        ({"meta": {"epoch": True, "iter": 3}}, "after which epoch and iteration"),
        ({"meta": {"epoch": 0, "iter": 10**400}}, "after which epoch and iteration"),
        ({"meta": {"epoch": 0, "iter": 3, "seed": "7"}}, "the seed in its meta is '7'"),
        ({"meta": {"epoch": 0, "iter": 3, "seed": -1}}, "the seed in its meta is -1"),
        ({"meta": {"epoch": 0, "iter": 3, "seed": 2**32}}, "the seed in its meta is 4294967296, allowed are"),
        ({"optimizer": [], "meta": None}, "it has no optimizer, meta"),
    ],
)
def test_what_training_cannot_go_on_from_is_left_out(tmp_path: Path, changes: dict, fault: str) -> None:
    save(tmp_path / "iter_4.pth", **changes)
    found, remarks = newest_checkpoint(tmp_path)
    assert found is None
    assert fault in remarks[0]


def test_what_training_can_just_resume_from(tmp_path: Path) -> None:
    """Before the first iteration, without a seed or with the largest; in ``CheckpointHook(out_dir=...)``."""
    for number, meta in enumerate(({"epoch": 0, "iter": 0}, {"epoch": 0, "iter": 0, "seed": 2**32 - 1})):
        path = save(tmp_path / f"iter_{number}.pth", meta=meta)
        assert newest_checkpoint(tmp_path)[0] == path
    elsewhere = tmp_path / "out" / "epoch_1.pth"
    elsewhere.parent.mkdir()
    (tmp_path / "last_checkpoint").write_text(f"{save(elsewhere)}\n", encoding="utf-8")
    os.utime(elsewhere, (2e9, 2e9))
    assert newest_checkpoint(tmp_path)[0] == elsewhere
    assert newest_checkpoint(tmp_path / "nowhere") == (None, [])
    torch.save([1], tmp_path / "iter_7.pth")
    os.utime(tmp_path / "iter_7.pth", (3e9, 3e9))
    found, remarks = newest_checkpoint(tmp_path)
    assert found == elsewhere
    assert "iter_7.pth is left out: it has no state_dict, optimizer, message_hub, meta" in remarks[0]


def test_paths_in_a_checkpoint_follow_a_moved_folder_and_nothing_else_is_run(tmp_path):
    (tmp_path / "best_mAP_iter_2.pth").touch()
    info = dict(last_ckpt="/old/iter_3.pth", best_ckpt_mAP="/old/best_mAP_iter_2.pth", epoch=3)
    checkpoint = dict(meta=dict(config="raise SystemExit", iter=3), message_hub=dict(runtime_info=info))
    runner = SimpleNamespace(work_dir=str(tmp_path), earlier=None)
    ResumeHook().after_load_checkpoint(runner, checkpoint)
    assert checkpoint["meta"] == dict(iter=3)
    assert info == dict(last_ckpt=None, best_ckpt_mAP=str(tmp_path / "best_mAP_iter_2.pth"), epoch=3)
    for foreign in ({}, dict(meta=None, message_hub=[1]), dict(message_hub=dict(runtime_info=None))):
        ResumeHook().after_load_checkpoint(runner, foreign)  # another program's checkpoint has no such notes


@pytest.mark.parametrize("skip", [lambda batches: [next(batches), next(batches)], lambda batches: batches.skip_iter(2)])
def test_batches_are_left_out_as_mmengine_and_as_its_fork_ask_for_it(skip):
    batches = Continued(iter("ab"), 1, lambda: None)
    skip(batches)
    assert next(batches) == "b"
