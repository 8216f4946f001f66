"""mmms compare-seeds: every config with every seed, once; means, spreads and costs."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmms_plugin.commands import compare_seeds as module
from mmms_plugin.commands import main
from mmms_plugin.commands.compare_seeds import TrainedCost, trained_cost
from mmms_plugin.config.files import load_config
from mmms_plugin.scale.flops import kept_for_backward

CONFIGS = ["cifar10/r50_small", "cifar10/sa_r50_small"]
# Stands in for Python: `-m mmms_plugin train CONFIG --seed S --work-dir DIR --resume` logs an accuracy of 50 + S, and
# 2 more for sa_*.
TRAINING = """#!/bin/sh
echo "$@" >> "$CALLS"
case "$*" in *--epochs\\ 0*) echo "mmms train: error: --epochs 0: allowed are integers >= 1"; exit 2;; esac
case "$4" in *sa_*) more=2;; *) more=0;; esac
mkdir -p "$8/time/vis_data"
printf '%s\\n' '{"loss": 2.0, "time": 0.5, "step": 1}' \\
  "{\\"accuracy/top1\\": $((50 + $6 + more)), \\"accuracy/top5\\": 90, \\"step\\": 1}" > "$8/time/vis_data/scalars.json"
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that lists how the stand-in for Python was called."""
    script = tmp_path / "python"
    script.write_text(TRAINING, encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setattr(module, "trained_cost", lambda _folder: TrainedCost(1000, 2_000_000, 2**20))
    return tmp_path / "calls"


def test_every_seed_is_trained_once_and_spread_is_reported(calls: Path, tmp_path: Path):
    out = tmp_path / "out"
    command = ["compare-seeds", *CONFIGS, "--out", str(out), "--seeds", "2", "--train=--image-dir 'my data'"]
    assert main(command) == 0
    assert main(command) == 0  # nothing is trained again
    found = [line.split()[3:6] for line in calls.read_text(encoding="utf-8").splitlines()]
    assert found == [[config, "--seed", str(seed)] for seed in (0, 1) for config in CONFIGS]
    assert calls.read_text(encoding="utf-8").splitlines()[0].endswith("--resume --image-dir my data")
    human, adapted = json.loads((out / "seeds.json").read_text(encoding="utf-8")).values()
    top1 = human["metrics"]["accuracy/top1"]
    assert (top1["mean"], top1["values"]) == (50.5, [50, 51])
    assert math.isclose(top1["deviation"], math.sqrt(0.5))
    assert adapted["difference"]["accuracy/top1"] == dict(mean=2.0, deviation=0.0, values=[2, 2])
    assert (out / "seeds.md").read_text(encoding="utf-8").splitlines()[3] == (
        "| cifar10/sa_r50_small | 52.50 ± 0.71 | +2.00 ± 0.00 | 1.0 | 2.00 | 1.00 | 0.500 | "
        + f"{adapted['peak_memory']['mean'] / 2**30:.2f} |"
    )


def test_three_seeds_are_trained_unless_the_user_says_how_many(calls: Path, tmp_path: Path):
    assert main(["compare-seeds", CONFIGS[0], "--out", str(tmp_path / "out")]) == 0
    seeds = [line.split()[5] for line in calls.read_text(encoding="utf-8").splitlines()]
    assert seeds == ["0", "1", "2"]


def test_metrics_chosen_for_the_table_and_one_seed(calls: Path, tmp_path: Path, capsys, monkeypatch):
    """A single seed has no spread; shares such as COCO's AP have four digits; the last evaluation counts."""
    monkeypatch.setenv("COLUMNS", "300")
    script = Path(sys.executable)
    log = '{"loss": 1, "time": 1}\\n{"AP": 0.9, "old": 1}\\n{"loss": 1, "time": 4}\\n{"loss": 1, "time": 2}\\n'
    last = '{"AP": 0.125, "recall": 100, "time": 1, "data_time": 1, "epoch": 1, "iter": 1, "step": 2}'
    lines = ['mkdir -p "$8/b/vis_data" "$8/a/vis_data"', 'echo \'{"AP": 0.1}\' > "$8/a/vis_data/scalars.json"']
    lines += [f"printf '{log}{last}\\n' > \"$8/b/vis_data/scalars.json\""]
    script.write_text("#!/bin/sh\n" + "\n".join(lines) + "\n", encoding="utf-8")
    out = tmp_path / "out"
    command = ["compare-seeds", *CONFIGS, "--out", str(out), "--seeds", "1", "--metrics", "recall", "AP"]
    assert main(command) == 0
    for config in ("r50_small", "sa_r50_small"):
        record = json.loads((out / f"cifar10-{config}/seed_0.json").read_text(encoding="utf-8"))
        assert record["metrics"] == dict(AP=0.125, recall=100)
        assert record["seconds"] == 2
        assert record["peak_memory"] > 10**6
    table = (out / "seeds.md").read_text(encoding="utf-8").splitlines()
    assert table[0] == (
        "| config | recall | difference | AP | difference | parameters K | MMAC | kept MiB | s/iteration | peak GiB |"
    )
    assert set(table[1]) == set("|:-")
    assert table[2].startswith("| cifar10/r50_small | 100.00 | – | 0.1250 | – | 1.0 | 2.00 | 1.00 | 2.000 | ")
    assert table[3].startswith("| cifar10/sa_r50_small | 100.00 | +0.00 | 0.1250 | +0.0000 | ")
    printed = capsys.readouterr().out
    assert f"training {CONFIGS[1]}, seed 0: {out / 'cifar10-sa_r50_small/seed_0.log'}" in printed
    assert f"written to {out}: seeds.json, seeds.md" in printed
    assert "cifar10/sa_r50_small" in printed
    content = json.loads((out / "seeds.json").read_text(encoding="utf-8"))
    assert content[CONFIGS[0]]["metrics"]["AP"] == dict(mean=0.125, deviation=None, values=[0.125])
    assert "difference" not in content[CONFIGS[0]]
    assert content[CONFIGS[1]]["params"] == 1000


@pytest.mark.parametrize(
    ("logged", "message"),
    [
        ('{"loss": 1, "time": 1}', "the training logged no metrics; does the config evaluate?"),
        ('{"AP": 1}', "the training logged no metrics; does the config evaluate?"),
        (None, "cifar10/r50_small, seed 0: the end (see "),
    ],
)
def test_a_training_that_fails_or_does_not_evaluate_ends_with_status_1(calls, tmp_path, capsys, logged, message):
    ends = "echo begin; echo the end; exit 1" if logged is None else f"echo '{logged}' > \"$8/a/vis_data/scalars.json\""
    Path(sys.executable).write_text(f'#!/bin/sh\nmkdir -p "$8/a/vis_data"\n{ends}\n', encoding="utf-8")
    assert main(["compare-seeds", CONFIGS[0], "--out", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out/cifar10-r50_small/seed_0.json").exists()


@pytest.mark.needs(os.name != "nt", reason="a shell")
def test_a_signal_lets_the_training_save_its_state_first(calls: Path, tmp_path: Path, capsys):
    trap = "trap 'echo saved; exit 143' TERM\nkill -TERM $PPID\nwhile :; do sleep 0.02; done\n"
    Path(sys.executable).write_text(f"#!/bin/sh\n{trap}", encoding="utf-8")
    out = tmp_path / "out"
    assert main(["compare-seeds", CONFIGS[0], "--out", str(out)]) == 143
    assert capsys.readouterr().err == (
        "mmms compare-seeds: interrupted in the training of cifar10/r50_small, seed 0; give the command again to "
        "continue\n"
    )
    assert (out / "cifar10-r50_small/seed_0.log").read_text(encoding="utf-8") == "saved\n"
    assert not (out / "seeds.json").exists()


@pytest.mark.needs(os.name != "nt", reason="a shell")
def test_a_signal_while_the_training_starts_does_not_leave_it_running(calls: Path, tmp_path: Path, monkeypatch):
    Path(sys.executable).write_text("#!/bin/sh\nexec sleep 60\n", encoding="utf-8")
    started = []

    class Popen(subprocess.Popen):
        def __init__(self, *arguments, **options) -> None:
            super().__init__(*arguments, **options)
            started.append(self)
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    assert main(["compare-seeds", CONFIGS[0], "--out", str(tmp_path / "out")]) == 143
    assert started[0].returncode == -signal.SIGTERM


@pytest.mark.parametrize(
    ("config", "folder"),
    [("a", "a"), ("a/b/c.py", "b-c"), ("/c.py", "c"), ("mmdet::x/y", "x-y"), ("./c.py", "c"), ("../c.py", "c")],
)
def test_folders_of_runs_are_named_by_the_config(config, folder):
    assert module.folder_name(config) == folder


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--seeds", "0"], "--seeds 0: must be an integer of at least 1"),
        (["--train=--epochs 0"], "mmms train: error: --epochs 0: allowed are integers >= 1 (see "),
        (["--train=--resume=x"], "--train --resume=x: this command sets --seed, --work-dir, --resume itself"),
        (["--train=--seed 3"], "--train --seed: this command sets --seed, --work-dir, --resume itself"),
        (["--train='"], "--train ': No closing quotation"),
        (["--metrics", "mIoU"], f"mIoU: not reported by {CONFIGS[0]}; allowed are accuracy/top1, accuracy/top5"),
        ([CONFIGS[0]], "CONFIG cifar10-r50_small: given twice"),
    ],
)
def test_bad_input_is_refused(calls: Path, tmp_path: Path, capsys, more: list[str], message: str):
    assert main(["compare-seeds", CONFIGS[0], *more, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def record(file: Path, **changes: object) -> None:
    """Write the record of a training, sound but for the changes."""
    content = dict(config=CONFIGS[0], seed=1, options=[], metrics={"AP": 0.5}, seconds=1.0, peak_memory=10**9)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content | changes), encoding="utf-8")


DELETE = "; delete it to train this seed again"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(metrics={}), f"the content: holds no metrics{DELETE}"),
        (dict(metrics={"AP": "high"}), f"metrics[...]: must be a number or null, not a text{DELETE}"),
        (dict(metrics={"AP": 1e300}), f"the content: metric AP: must be a number of at most 1e+30, or null{DELETE}"),
        (dict(metrics=[0.5]), f"metrics: must be an object, not a list{DELETE}"),
        (dict(seconds=-1), f"seconds: must be a number >= 0{DELETE}"),
        (dict(peak_memory=None), f"peak_memory: must be an integer, not null{DELETE}"),
        (dict(options="--epochs 2"), f"options: must be a list, not a text{DELETE}"),
        (dict(seed=0), f"a run of {CONFIGS[0]}, seed 0; give another DIR, or delete it to train this seed again"),
        (dict(config="b/cifar10/r50_small"), "a run of b/cifar10/r50_small, seed 1; give another DIR, or delete it"),
        ("", f"the file is empty{DELETE}"),
        ('{"config": "a", "se', f"truncated JSON: the file ends after 19 characters in the middle of a value{DELETE}"),
        ("[1]", f"the content: must be an object, not a list{DELETE}"),
        ("{}", f"the content: has no config{DELETE}"),
    ],
)
def test_a_damaged_record_is_refused_before_anything_is_trained(calls, tmp_path, capsys, changes, message):
    """That of the second seed; the first is not trained yet."""
    file = tmp_path / "out/cifar10-r50_small/seed_1.json"
    record(file, **(changes if isinstance(changes, dict) else {}))
    if isinstance(changes, str):
        file.write_text(changes, encoding="utf-8")
    assert main(["compare-seeds", CONFIGS[0], "--seeds", "2", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith(f"mmms compare-seeds: error: --out {file}: {message}")
    assert not calls.exists()


def test_what_earlier_records_lack_is_refused_before_anything_is_trained(calls, tmp_path, capsys, monkeypatch):
    record(tmp_path / "out/cifar10-r50_small/seed_1.json")
    command = ["compare-seeds", CONFIGS[0], "--seeds", "2", "--out", str(tmp_path / "out")]
    assert main([*command, "--metrics", "mIoU"]) == 2
    assert f"--metrics mIoU: not reported by {CONFIGS[0]}; allowed are AP" in capsys.readouterr().err
    monkeypatch.setattr(module, "trained_cost", trained_cost)
    assert main(command) == 2
    assert "seed_1: must hold one config and a checkpoint, as training writes them" in capsys.readouterr().err
    (tmp_path / "out/cifar10-r50_small/seed_0").write_text("in the way", encoding="utf-8")
    monkeypatch.setattr(module, "trained_cost", lambda _folder: TrainedCost(1000, 2_000_000, 2**20))
    assert main(command) == 2
    assert "seed_0: this folder cannot be made" in capsys.readouterr().err
    (tmp_path / "out/seeds.md").mkdir()
    assert main(command) == 2
    assert "out/seeds.md: a folder is where a file would be written; give another DIR" in capsys.readouterr().err
    assert not calls.exists()


def test_an_undefined_metric_is_not_available(calls, tmp_path, capsys):
    """NaN in a record of an earlier version, null since, and pycocotools' -1."""
    for seed, value in enumerate((math.nan, None, -1.0)):
        metrics = {"AP": value, "recall": 0.25, f"only {seed}": 1}
        record(tmp_path / f"out/cifar10-r50_small/seed_{seed}.json", seed=seed, metrics=metrics)
    command = ["compare-seeds", CONFIGS[0], "--out", str(tmp_path / "out"), "--metrics", "AP", "recall"]
    assert main(command) == 0
    assert "| cifar10/r50_small | n/a | – | 0.2500 ± 0.0000 |" in (tmp_path / "out/seeds.md").read_text(
        encoding="utf-8"
    )
    content = json.loads((tmp_path / "out/seeds.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert content[CONFIGS[0]]["metrics"]["AP"] == dict(mean=None, deviation=None, values=[None, None, None])
    assert list(content[CONFIGS[0]]["metrics"]) == ["AP", "recall"]


def test_configs_without_a_common_metric(calls, tmp_path, capsys):
    for config, name in zip(CONFIGS, ("AP", "mIoU"), strict=True):
        file = tmp_path / "out" / config.replace("/", "-") / "seed_0.json"
        record(file, seed=0, config=config, metrics={name: 0.5})
    assert main(["compare-seeds", *CONFIGS, "--seeds", "1", "--out", str(tmp_path / "out")]) == 2
    assert "the configs report no metric in common: cifar10/r50_small AP; cifar10/sa_r50_small mIoU" in (
        capsys.readouterr().err
    )


def test_half_a_line_of_a_killed_run_is_skipped_with_a_word(calls, tmp_path, capsys, monkeypatch):
    whole = ['{"loss": 1, "time": 2}', '{"AP": 0.5, "odd": "text", "bad": NaN, "huge": 1e400, "flag": true}']
    script = 'mkdir -p "$8/a/vis_data"; cp "$LOG" "$8/a/vis_data/scalars.json"\n'
    Path(sys.executable).write_text(f"#!/bin/sh\n{script}", encoding="utf-8")
    log = tmp_path / "log"
    log.write_text("\n".join(["[1]", *whole, '{"AP": 0.7, "ba']), encoding="utf-8")
    monkeypatch.setenv("LOG", str(log))
    assert main(["compare-seeds", CONFIGS[0], "--seeds", "1", "--out", str(tmp_path / "out")]) == 0
    file = tmp_path / "out/cifar10-r50_small/seed_0/a/vis_data/scalars.json"
    remark = f"{file}: 2 lines are not whole, as after a run that was killed; skipped\n"
    assert capsys.readouterr().err == remark
    content = json.loads((tmp_path / "out/cifar10-r50_small/seed_0.json").read_text(encoding="utf-8"))
    assert content["metrics"] == dict(AP=0.5, bad=None, huge=None)
    assert content["seconds"] == 2


def test_runs_with_other_options_are_not_mixed(calls: Path, tmp_path: Path, capsys):
    command = ["compare-seeds", CONFIGS[0], "--seeds", "1", "--out", str(tmp_path / "out")]
    assert main([*command, "--train=--epochs 2"]) == 0
    assert main([*command, "--train=--epochs 3"]) == 2
    assert "was trained with --epochs 2; give another DIR" in capsys.readouterr().err


def test_the_cost_is_that_of_the_learned_shape(tmp_path: Path):
    pytest.importorskip("mmpretrain")
    pytest.importorskip("torchvision")
    from mmengine.registry import MODELS

    config = load_config("cifar10/sa_r50_small")
    config.dump(str(tmp_path / "sa_r50_small.py"))
    model = MODELS.build({**config.model.backbone, "type": "mmms_plugin.ShapeAdaptorResNet"})
    state = {f"backbone.{key}": value for key, value in model.state_dict().items()}
    costs = []
    for number, alpha in enumerate((-1.0, 1.0)):
        values = {key: torch.full_like(v, alpha) if key.endswith("alpha") else v for key, v in state.items()}
        checkpoint = dict(state_dict=values, meta=dict(epoch=1, iter=1), optimizer={}, message_hub={})
        torch.save(checkpoint, tmp_path / f"epoch_{number + 1}.pth")
        costs.append(trained_cost(tmp_path))
    assert costs[0].macs < 7.6e6 < costs[1].macs
    assert costs[0].kept < costs[1].kept
    assert costs[0].params == costs[1].params == 100530


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_kept_memory_is_that_of_distinct_activations(device: str):
    layers = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)).to(device)
    # Linear keeps its input, ReLU its output, which is the second Linear's input: one tensor.
    assert kept_for_backward(layers, torch.ones(5, 8, device=device)) == 4 * (5 * 8 + 5 * 16)


SRUN = """#!/bin/sh
echo "$@" >> "$CALLS.srun"
while [ "$1" != "${1#--}" ]; do shift; done
"$@" && echo 123456789 > "$MMMS_PEAK_MEMORY"
"""


@pytest.mark.needs(os.name != "nt", reason="a shell")
@pytest.mark.parametrize("launcher", ["none", "slurm"])
def test_several_trainings_at_once_end_with_the_same_report(calls, tmp_path, monkeypatch, capsys, launcher):
    """The trainings of --jobs 2 wait for each other; of a failing one, the others save their state."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("mmms_plugin.train.processes.usable_cores", lambda: 6)
    script, srun = Path(sys.executable), tmp_path / "srun"
    srun.write_text(SRUN, encoding="utf-8")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    command = ["compare-seeds", *CONFIGS, "--seeds", "3", "--out"]
    assert main([*command, str(tmp_path / "one")]) == 0
    meet = 'touch "$8.here"; until [ $(ls "${8%/*/*}"/*/*.here | wc -l) -ge 2 ]; do sleep 0.02; done\n'
    head, rest = TRAINING.split("\n", 1)
    script.write_text(f'{head}\necho "$OMP_NUM_THREADS" >> "$CALLS.threads"\n{meet}{rest}', encoding="utf-8")
    more = ["--launcher", "slurm", "--srun=--gres=gpu:1 --time=1:00"] if launcher == "slurm" else []
    assert main([*command, str(tmp_path / "two"), "--jobs", "2", *more]) == 0
    one, two = (json.loads((tmp_path / name / "seeds.json").read_text(encoding="utf-8")) for name in ("one", "two"))
    for content in (*one.values(), *two.values()):
        peak = content.pop("peak_memory")
    assert list(one) == list(two) == CONFIGS
    assert one == two
    assert "\n6 of 6 done: " in capsys.readouterr().out
    threads = (tmp_path / "calls.threads").read_text(encoding="utf-8").split()
    if launcher == "slurm":
        assert threads == []
        assert peak["values"] == [123456789] * 3
        (first, *_) = (tmp_path / "calls.srun").read_text(encoding="utf-8").splitlines()
        assert first.startswith(
            f"--ntasks=1 --gres=gpu:1 --time=1:00 {script} -m mmms_plugin train {CONFIGS[0]} --seed"
        )
        assert not list((tmp_path / "two").rglob("*.peak"))
    else:
        assert threads == ["3"] * 6


@pytest.mark.needs(os.name != "nt", reason="a shell")
def test_one_that_fails_ends_those_beside_it_and_what_is_done_stays(calls, tmp_path, capsys):
    head, rest = TRAINING.split("\n", 1)
    seeds = 'case "$6" in 1) sleep 0.5; echo broken; exit 1;; 2) trap "echo saved; exit 143" TERM\n'
    seeds += "while :; do sleep 0.02; done;; esac"
    Path(sys.executable).write_text(f"{head}\n{seeds}\n{rest}", encoding="utf-8")
    out = tmp_path / "out"
    assert main(["compare-seeds", CONFIGS[0], "--out", str(out), "--jobs", "3"]) == 1
    assert f"{CONFIGS[0]}, seed 1: broken (see " in capsys.readouterr().err
    assert (out / "cifar10-r50_small/seed_2.log").read_text(encoding="utf-8") == "saved\n"
    assert [file.name for file in out.rglob("seed_?.json")] == ["seed_0.json"]


def test_gpus_are_dealt_out(monkeypatch):
    """Of those that the user allows, in turn."""
    options = module.Options(configs=("a",), out="out", jobs=3)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for visible, expected in (("", ["0", "1", "0"]), ("4,7", ["4", "7", "4"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert [place["CUDA_VISIBLE_DEVICES"] for place in module._places(options, 5)] == expected


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--jobs", "0"], "--jobs 0: must be an integer of at least 1"),
        (["--srun=--time=1"], "--srun: give --launcher slurm too"),
        (["--launcher", "slurm"], "--launcher slurm: this machine has no srun"),
    ],
)
def test_jobs_that_cannot_start_are_refused(calls, tmp_path, capsys, monkeypatch, more, message):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["compare-seeds", CONFIGS[0], "--out", str(tmp_path / "out"), *more]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
