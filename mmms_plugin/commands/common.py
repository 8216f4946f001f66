"""Arguments that ``mmms train`` and ``mmms test`` share."""

from __future__ import annotations

import argparse
import os
import warnings

from mmms_plugin.errors import UserError


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    names = "a config file, a name that `mmms configs` lists, or a host's: mmdet::retinanet_r50_fpn_1x_coco"
    add("config", help=f"{names}. A config is a Python program and runs as one: use only those that you trust")
    coco = "annotations/instances_{train,val}.json and images/, or as Roboflow, CVAT and Label Studio export"
    add("--coco-dir", metavar="DIR", help=f"folder with COCO annotations for all data of the config: {coco}; sets the "
        "classes too")  # fmt: skip
    add("--voc-dir", "--seg-dir", metavar="DIR", dest="voc_dir", help="folder for all data of a segmentation config: "
        "as VOC2012, or images/ and masks/; labels.txt names the classes, background first")  # fmt: skip
    add("--image-dir", metavar="DIR", help="train/<class>/ and val/<class>/ with pictures for all data of a "
        "classification config; sets the classes too")  # fmt: skip
    add_data_arguments(parser)
    add(
        "--image-size",
        metavar="SIZE",
        help="picture size in px, 640 or 1333x800: crops, resizing and padding in proportion",
    )
    add("--work-dir", metavar="DIR", help="logs and checkpoints; a test writes into its folder test (default: "
        "work_dirs/CONFIG)")  # fmt: skip
    add("--cfg-options", nargs="+", metavar="KEY=VALUE", default=[], help="override config values")
    add("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none", help="of mmengine")
    add("--seed", type=int, help="fix all random numbers, with deterministic algorithms")
    add("--channels-last", action="store_true", help="keep the model in NHWC, faster with AMP on GPUs")
    add("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)


def add_schedule_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that fit a schedule to the data, everything that depends on them with them."""
    add = parser.add_argument
    add("--epochs", type=int, metavar="N", help="length of the training; warm-up, decay, evaluation, checkpoints and "
        "learning rate are fitted to it and to the batch, and one line reports what changed")  # fmt: skip
    add("--iters", type=int, metavar="N", help="the same in iterations")
    add("--batch-size", type=int, metavar="N", help="pictures a batch and process; the learning rate goes with it")
    add("--lr", type=float, help="learning rate, used as it is")
    add("--preset", choices=["finetune"], help="finetune: length and batch for tens to thousands of pictures, clipped "
        "gradients, the best checkpoint kept")  # fmt: skip


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Options for data whose layout is not found by itself."""
    add = parser.add_argument
    add("--train-ann", metavar="FILE", help="COCO annotations for training, in place of those found in --coco-dir")
    add("--val-ann", metavar="FILE", help="COCO annotations for validation")
    add("--img-dir", metavar="DIR", help="folder that the file names of the pictures start from")
    add("--val-split", type=float, default=0.0, metavar="SHARE", help="hold back this share of the training pictures "
        "for validation, such as 0.2; the same ones in every run")  # fmt: skip
    add("--split-seed", type=int, default=0, metavar="N", help="of --val-split: another one holds back others (0)")
    add("--binary-masks", action="store_true", help="masks have the values 0 and 255: read 255 as class 1")


def launch_options(args: argparse.Namespace):
    """LaunchOptions from parsed arguments; imports torch and mmengine."""
    warnings.filterwarnings("ignore", "pkg_resources is deprecated")  # of mmengine 0.10, on import
    # The hosts warn of defaults that nobody chose.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"mm(cv|det|engine|pretrain|seg)\.")
    from mmms_plugin.train.launch import LaunchOptions

    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    names = ("config", "work_dir", "coco_dir", "voc_dir", "image_dir", "launcher", "seed", "channels_last", "train_ann",
             "val_ann", "img_dir", "val_split", "split_seed", "binary_masks")  # fmt: skip
    split = getattr(args, "split", "val")
    return LaunchOptions(
        **{n: getattr(args, n) for n in names}, split=split, cfg_options=parse_cfg_options(args.cfg_options),
        fitting=_fitting(args),
    )  # fmt: skip


def _fitting(args: argparse.Namespace):
    from mmms_plugin.config.fit import Fitting
    from mmms_plugin.config.image_size import parse_image_size
    from mmms_plugin.config.schedule import ScheduleOptions

    names = ("epochs", "iters", "batch_size", "lr", "preset")
    size = None if args.image_size is None else parse_image_size(args.image_size)
    return Fitting(ScheduleOptions(**{name: getattr(args, name, None) for name in names}), size)


def parse_cfg_options(items: list[str]) -> dict[str, object]:
    """``['a.b=1', 'c=[1,2]']`` to a dict, values read as mmengine reads them."""
    from mmengine.config import DictAction

    for item in items:
        if "=" not in item:
            raise UserError(f"--cfg-options {item}: expected KEY=VALUE")
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, default={})
    return parser.parse_args(["--cfg-options", *items]).cfg_options if items else {}
