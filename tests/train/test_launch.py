"""Before a training or a test: the user's data, the config, the weights to start from; after it: the closing lines."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook

from mmms_plugin.commands import main
from mmms_plugin.commands import test as test_command
from mmms_plugin.compat import hosts
from mmms_plugin.config import files as config_files
from mmms_plugin.config.schedule import ScheduleOptions
from mmms_plugin.errors import UserError
from mmms_plugin.options import add_options, from_args
from mmms_plugin.train.console import ProgressHook
from mmms_plugin.train.launch import closing_lines, prepare_config, set_start
from mmms_plugin.train.options import LaunchOptions
from mmms_plugin.train.processes import locked

DEMO = "demo/mask_rcnn_ps_r18_shapes"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(coco_dir="a", image_dir="b"), "--coco-dir and --image-dir: give one of them"),
        (dict(coco_dir="a", voc_dir="b", image_dir="c"), "--coco-dir and --voc-dir and --image-dir: give one of them"),
        (
            dict(img_dir="a"),
            "--img-dir: name the data too, with --data, --coco-dir, --voc-dir, --image-dir or --train-ann",
        ),
        (dict(val_split=0.2), "--val-split: name the data too"),
        (dict(split="test"), "--split test: name the data too"),
        (dict(split="train", img_dir="a"), "--img-dir: name the data too"),
        (dict(binary_masks=True), "--binary-masks: name the data too"),
        (dict(ignore_label=0), "--ignore-label: name the data too"),
        (dict(coco_dir="a", ignore_label=0), "--ignore-label: belongs to --voc-dir, not to --coco-dir"),
        (dict(train_ann="a", binary_masks=True), "--binary-masks: belongs to --voc-dir, not to --train-ann"),
        (dict(voc_dir="a", val_ann="b"), "--val-ann: belongs to --coco-dir, not to --voc-dir"),
        (dict(image_dir="a", img_dir="b"), "--img-dir: belongs to --coco-dir, not to --image-dir"),
    ],
)
def test_options_of_data_that_do_not_fit_each_other(options, message):
    with pytest.raises(UserError) as caught:
        LaunchOptions(config="c", **options).own_data("work", training=True)
    assert str(caught.value).startswith(message)


def test_own_data_are_those_of_the_options(tmp_path):
    assert LaunchOptions(config="c").own_data("work", training=True) is None
    (tmp_path / "a.json").touch()
    file = str(tmp_path / "a.json")
    own = LaunchOptions(config="c", train_ann=file, split="test", split_seed=3, val_split=0.5).own_data(
        "work", training=False
    )
    assert (own.flag, own.folder, own.work_dir, own.train_ann) == ("--train-ann", None, Path("work"), Path(file))
    assert (own.val_ann, own.split, own.split_seed, own.val_split) == (None, "test", 3, 0.5)
    assert (own.training, own.binary_masks) == (False, False)
    options = LaunchOptions(config="c", coco_dir=str(tmp_path), val_ann=file, img_dir=str(tmp_path))
    own = options.own_data("work", training=True)
    assert (own.flag, own.folder, own.val_ann, own.img_dir) == ("--coco-dir", tmp_path, Path(file), tmp_path)
    options = LaunchOptions(config="c", voc_dir=str(tmp_path), binary_masks=True, ignore_label=3)
    own = options.own_data("work", training=True)
    assert (own.flag, own.training, own.binary_masks, own.ignore_label) == ("--voc-dir", True, True, 3)


def test_usable_objects_are_counted_again_where_an_option_changes_them(shapes, tmp_path):
    changes = {"train_dataloader.dataset.filter_cfg.min_size": 97}
    options = LaunchOptions(config=DEMO, coco_dir=str(shapes), work_dir=str(tmp_path), cfg_options=changes)
    with pytest.raises(
        UserError, match=r"without a usable object: 1 \(\d+ objects; in pictures below filter_cfg.min_size"
    ):
        prepare_config(options)
    options.cfg_options["train_dataloader.dataset.filter_cfg.min_size"] = 96
    remarks = prepare_config(options)[1]
    assert not any("usable" in remark for remark in remarks)


def test_a_prepared_config_has_data_seed_work_folder_and_the_user_s_last_word(shapes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fitting = dict(schedule=ScheduleOptions(iters=50, batch_size=2), image_size=(64, 64))
    changes = {"train_cfg.val_interval": 9, "dataset_type": "X", "train_dataloader.num_workers": 0,
               "param_scheduler.0.end": 9, "train_dataloader.persistent_workers": False, "visualizer.name": "v",
               "visualizer": None}  # fmt: skip
    options = LaunchOptions(config=DEMO, coco_dir=str(shapes), seed=4, cfg_options=changes, **fitting)
    config, remarks = prepare_config(options)
    assert config.work_dir == "work_dirs/mask_rcnn_ps_r18_shapes"
    assert config.randomness == dict(seed=4, deterministic=True)
    assert config.launcher == "none"
    assert config.train_cfg.max_iters == 50
    assert config.train_cfg.val_interval == 9  # not a tenth of the training
    assert [remark.split(":")[0] for remark in remarks if remark.startswith(("--", "sch"))] == [
        f"--coco-dir {shapes}",
        "--cfg-options dataset_type",
        "--image-size",
        "schedule (--iters 50 --batch-size 2; 4 pictures)",
        "--cfg-options train_cfg.val_interval, param_scheduler.0.end",
    ]
    assert remarks[-1].endswith(": kept as given, whatever the lines above say")
    assert config.optim_wrapper.optimizer.lr == 0.0015 * 2 / 8
    monkeypatch.setenv("SLURM_NTASKS", "4")
    several = LaunchOptions(
        config="mask_rcnn_ps_r50_fpn_1x",
        coco_dir=str(shapes),
        launcher="slurm",
        schedule=ScheduleOptions(batch_size=2),
    )
    assert prepare_config(several)[0].optim_wrapper.optimizer.lr == 0.01  # 0.02 is for 16 pictures, these are 4 x 2
    config, remarks = prepare_config(
        LaunchOptions(
            config=DEMO, work_dir=str(tmp_path / "own"), coco_dir=str(shapes), schedule=ScheduleOptions(iters=50)
        ),
        training=False,
    )
    assert config.work_dir == str(tmp_path / "own/test")  # the folder itself has the config of its training
    assert config.randomness.seed == 0  # the config's own
    assert not any("schedule" in remark for remark in remarks)
    assert not (tmp_path / "own").exists()


def test_a_config_without_a_model_or_data_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = Path(__file__).parents[2] / "configs/_base_/classification.py"
    assert main(["train", str(base)]) == 2
    assert f"config {base}: it has no model; is it a file of _base_?" in capsys.readouterr().err
    assert main(["test", DEMO, __file__]) == 2  # any file: it is not read
    assert "does not exist; give --coco-dir DIR to use data of your own" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_options_that_the_config_or_the_machine_cannot_follow(shapes, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    data = ["--coco-dir", str(shapes), "--work-dir", str(tmp_path / "work")]
    without = ["--auto-scale-lr", "--cfg-options", "auto_scale_lr={}"]
    sharded = tmp_path / "sharded.py"
    base = Path(__file__).parents[2] / f"configs/{DEMO}.py"
    sharded.write_text(f"_base_ = {str(base)!r}\nstrategy = dict(type='FSDPStrategy')\n", encoding="utf-8")
    for arguments, message in (
        (["train", DEMO, *data, "--amp"], "--amp: needs a CUDA device, and torch sees none"),
        (["train", DEMO, *data, *without], "--auto-scale-lr: the config has no auto_scale_lr.base_batch_size"),
        (["train", str(sharded), *data], "strategy.type=FSDPStrategy: needs a GPU, and torch sees none"),
        (
            ["train", DEMO, *data, "--pretrained", "x"],
            "--pretrained x: no such file; --pretrained none starts from random weights",
        ),
        (
            ["train", DEMO, *data, "--pretrained", "s3://x/y.pth"],
            "--pretrained s3://x/y.pth: s3:// is not supported; allow",
        ),
        (["train", DEMO, *data, "--resume", "x"], "--resume x: no such file"),
        (["test", DEMO, "nowhere.pth", *data], "checkpoint nowhere.pth: no such file"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    assert not list((tmp_path / "work").rglob("*.log"))


def test_a_second_training_in_the_same_folder_is_refused_before_anything_is_built(shapes, tmp_path, capsys):
    work, weights = tmp_path / "work", tmp_path / "x.pth"
    weights.touch()
    arguments = ["train", DEMO, "--coco-dir", str(shapes), "--work-dir", str(work), "--pretrained", str(weights)]
    with locked(work):
        assert main(arguments) == 2
        assert "a training is running in this folder" in capsys.readouterr().err
    assert main(arguments) == 2
    assert f"checkpoint {weights}: " in capsys.readouterr().err


def config_of(backbone: dict[str, Any], **more: Any) -> Config:
    return Config(dict(model=dict(backbone=backbone, **more.pop("model", {})), **more))


FROZEN = dict(frozen_stages=1, norm_eval=True)


@pytest.mark.parametrize(
    ("config", "pretrained", "backbone", "remarked"),
    [
        (config_of(FROZEN), None, dict(frozen_stages=-1, norm_eval=False), True),
        (config_of(dict(norm_eval=True)), None, dict(frozen_stages=-1, norm_eval=False), True),
        (config_of(dict(frozen_stages=0)), None, dict(frozen_stages=-1, norm_eval=False), True),
        (config_of(dict(frozen_stages=-1)), None, dict(frozen_stages=-1), True),
        (config_of({}), None, {}, True),
        (config_of({}), "none", dict(init_cfg=None), False),
        (config_of({}, model=dict(type="ImageClassifier")), None, {}, False),  # classifiers are trained from scratch
        (config_of(FROZEN, load_from="x"), None, FROZEN, False),
        (config_of(FROZEN, model=dict(pretrained="x")), None, FROZEN, False),
        (config_of(FROZEN | dict(init_cfg=dict(type="X"))), None, FROZEN | dict(init_cfg=dict(type="X")), False),
        (config_of(FROZEN | dict(init_cfg=dict(type="X")), model=dict(pretrained="x")), "none",
         dict(frozen_stages=-1, norm_eval=False, init_cfg=None), True),
        (config_of(FROZEN), __file__, FROZEN | dict(init_cfg=dict(type="Pretrained", checkpoint=__file__)), False),
        (config_of({}, load_from="x"), __file__, dict(init_cfg=dict(type="Pretrained", checkpoint=__file__)), True),
        (config_of({}, model=dict(pretrained="x")), "http://h/x.pth",
         dict(init_cfg=dict(type="Pretrained", checkpoint="http://h/x.pth")), False),
    ],
    ids=range(14),
)  # fmt: skip
def test_a_backbone_is_frozen_only_where_it_has_weights(config, pretrained, backbone, remarked):
    remarks: list[str] = []
    set_start(config, pretrained, None, remarks)
    assert config.model.backbone == backbone
    assert len(remarks) == remarked
    assert not pretrained or "pretrained" not in config.model
    assert pretrained != __file__ or config.load_from is None


def test_where_a_training_continues_from(tmp_path):
    content = dict(state_dict={}, optimizer={}, message_hub={}, meta=dict(iter=7, epoch=0))
    config, remarks = config_of(FROZEN, work_dir=str(tmp_path)), []
    set_start(config, None, "auto", remarks)
    assert (config.resume, config.load_from) == (False, None)
    assert remarks[0] == f"--resume: no checkpoint found in {tmp_path}; starting from scratch"
    assert "random weights" in remarks[1]
    file = tmp_path / "iter_7.pth"
    torch.save(content, file)
    for resume, lines in (("auto", 1), (str(file), 0)):
        config, remarks = config_of(FROZEN, work_dir=str(tmp_path)), []
        set_start(config, None, resume, remarks)
        assert (config.resume, config.load_from, len(remarks)) == (True, str(file), lines)
        assert config.model.backbone == FROZEN


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host that came with configs in its wheel, and without tools."""
    for name in ("a/x_1.py", "b/x_1.py", "b/only_one.py", "_base_/base.py", "c/retina_r50.py", "c/retina_r101.py"):
        path = tmp_path / "site/mmdet/.mim/configs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path / "site/mmdet")])
    for module in (config_files, hosts):
        monkeypatch.setattr(module, "find_spec", lambda name: spec if name == "mmdet" else None)
    monkeypatch.setattr(hosts, "installed", lambda *names: {"mmengine": "0.10.7"} if "mmengine" in names else {})
    return tmp_path / "site"


def test_a_host_s_files_are_found_by_their_names(host):
    root = host / "mmdet/.mim/configs"
    find = config_files.find_host_file
    for name in ("only_one", "configs/b/only_one.py"):
        assert find(f"mmdet::{name}", "configs") == root / "b/only_one.py"
    assert find("mmdet::a/x_1", "configs") == root / "a/x_1.py"
    for name, problem in (
        ("mmdet::x_1", "several have this name among the configs of mmdet; the nearest are a/x_1, b/x_1"),
        ("mmdet::z/retina_r5", "no such file among the configs of mmdet; the nearest are c/retina_r50, c/retina_r101"),
        ("mmdet::qqq", "no such file among the configs of mmdet; the nearest are a/x_1, b/only_one, b/x_1"),
        ("mmseg::x", "mmseg::: mmseg is not installed: pip install 'mmms_plugin[openmmlab]'"),
        ("torch::x", "torch::: no such host; allowed are mmdet, mmseg, mmpretrain"),
    ):
        with pytest.raises(UserError) as caught:
            find(name, "configs")
        assert str(caught.value).endswith(problem)
    with pytest.raises(UserError, match="mmdet::: the installed mmdet came without its tools"):
        find("mmdet::train", "tools")
    (host / "tools").mkdir()
    (host / "tools/train.py").touch()  # a clone has them beside the package
    assert find("mmdet::train", "tools") == host / "tools/train.py"


def test_the_command_to_test_is_read_as_it_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {"model.neck.num_outs": 5, "model.backbone.dilation_pattern": (1, 2, 1, 4), "train_cfg.max_iters": 3}
    options = LaunchOptions(config="my config.py", work_dir="out", coco_dir="/my data", cfg_options=settings)
    hook = CheckpointHook(save_best="mAP", rule="greater")
    hook.last_ckpt, hook.best_ckpt_path = str(tmp_path / "out/iter_3.pth"), str(tmp_path / "out/best_mAP_iter_2.pth")
    runner = SimpleNamespace(hooks=[hook], work_dir="out")
    assert closing_lines(runner, options)[0].startswith("no checkpoint was saved")
    (tmp_path / "out").mkdir()
    Path(hook.last_ckpt).touch()
    assert closing_lines(runner, options)[0] == "last checkpoint: out/iter_3.pth"
    Path(hook.best_ckpt_path).touch()
    first, second = closing_lines(runner, options)
    assert first == "best checkpoint: out/best_mAP_iter_2.pth"
    words = shlex.split(second.removeprefix("test it: "))
    assert words[:2] == ["mmms", "test"]
    parser = argparse.ArgumentParser()
    add_options(parser, test_command.Options)
    read = from_args(test_command.Options, parser.parse_args(words[2:]))
    assert read.checkpoint == "out/best_mAP_iter_2.pth"
    del settings["train_cfg.max_iters"]
    assert (read.config, read.coco_dir, read.work_dir) == ("my config.py", "/my data", "out")
    assert read.cfg_options == settings
    assert "--max-pixels" not in words


def test_every_option_that_a_test_needs_is_in_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")  # paths below it would be relative
    hook = CheckpointHook()
    runner = SimpleNamespace(hooks=[ProgressHook(), hook], work_dir=str(tmp_path))
    options = LaunchOptions(
        config="c", voc_dir="v", val_split=0.25, split_seed=3, binary_masks=True, seed=5,
        cfg_options={"randomness.seed": 1, "a": [1, (2, 3)], "b": True, "val_dataloader.x": 1, "load_from": "x.pth"},
        image_size=(640, 480), max_pixels=100_000_000,
    )  # fmt: skip
    assert closing_lines(runner, options) == ["no checkpoint was saved, by the config's default_hooks.checkpoint"]
    content = dict(state_dict={}, optimizer={}, message_hub={}, meta=dict(iter=7, epoch=0))
    torch.save(content, tmp_path / "iter_7.pth")  # of an earlier run of the same training: this one had nothing to do
    kind, command = closing_lines(runner, options)
    assert kind == f"last checkpoint: {tmp_path / 'iter_7.pth'}"
    more = "--voc-dir v --max-pixels 100000000 --binary-masks --val-split 0.25 --split-seed 3 --image-size 640x480"
    words = f"test it: mmms test c {tmp_path / 'iter_7.pth'} {more} --cfg-options a=[1,(2,3)] b=True"
    assert shlex.split(command) == words.split()
