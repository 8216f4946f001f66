"""Arguments that ``mmms train`` and ``mmms test`` share."""

from __future__ import annotations

import argparse
import os

from mmms_plugin.errors import UserError


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("config", help="a config file, a name that `mmms configs` lists, or a host's: mmdet::retinanet_r50_fpn_1x_coco")
    coco = "annotations/instances_{train,val}.json and images/ (or train2017/ ...)"
    add("--coco-dir", metavar="DIR", help=f"COCO-style folder for all data of the config: {coco}; sets the classes too")
    add("--voc-dir", metavar="DIR", help="VOC2012-style folder for all data of a segmentation config")
    add("--work-dir", metavar="DIR", help="logs and checkpoints (default: work_dirs/CONFIG)")
    add("--cfg-options", nargs="+", metavar="KEY=VALUE", default=[], help="override config values")
    add("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none", help="of mmengine")
    add("--seed", type=int, help="fix all random numbers, with deterministic algorithms")
    add("--channels-last", action="store_true", help="keep the model in NHWC, faster with AMP on GPUs")
    add("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)


def launch_options(args: argparse.Namespace):
    """LaunchOptions from parsed arguments; imports torch and mmengine."""
    from mmms_plugin.engine.launch import LaunchOptions

    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    names = ("config", "work_dir", "coco_dir", "voc_dir", "launcher", "seed", "channels_last")
    return LaunchOptions(**{n: getattr(args, n) for n in names}, cfg_options=parse_cfg_options(args.cfg_options))


def parse_cfg_options(items: list[str]) -> dict[str, object]:
    """``['a.b=1', 'c=[1,2]']`` to a dict, values read as mmengine reads them."""
    from mmengine.config import DictAction

    for item in items:
        if "=" not in item:
            raise UserError(f"--cfg-options {item}: expected KEY=VALUE")
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, default={})
    return parser.parse_args(["--cfg-options", *items]).cfg_options if items else {}
