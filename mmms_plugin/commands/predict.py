"""Predict on your own pictures, and draw the predictions.

Writes predictions.json (COCO) for a detector, masks/ for a segmentation model.

    mmms predict CONFIG CHECKPOINT IMAGE|FOLDER|PATTERN... --out DIR
    mmms predict CHECKPOINT IMAGE|FOLDER|PATTERN... --out DIR --trust-checkpoint-config

CONFIG is a file, a name that `mmms configs` lists, or a host's (mmdet::...). The classes are the checkpoint's.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from mmms_plugin.errors import UserError
from mmms_plugin.files import check_picture_source
from mmms_plugin.options import positional
from mmms_plugin.train.options import PredictOptions

SUFFIXES = (".pth", ".pt", ".tar", ".ckpt", ".safetensors")  # checkpoints


@dataclass(kw_only=True)
class Options(PredictOptions):
    """``words`` are config, checkpoint and inputs; the checkpoint, first or second, is recognised by its suffix."""

    words: tuple[str, ...] = positional(
        metavar="CONFIG CHECKPOINT IMAGE",
        help="config, checkpoint, then pictures, folders (with their sub-folders) or quoted patterns such as "
        "'shots/*.png'",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        first, second, *_ = *self.words, "", ""
        place = next((i for i, word in enumerate((first, second)) if Path(word).suffix.lower() in SUFFIXES), None)
        if place is None:
            raise UserError(f"CHECKPOINT is missing: {second or first} does not end in {', '.join(SUFFIXES)}")
        if len(self.words) == place + 1:
            raise UserError("IMAGE is missing: give pictures, folders or patterns after the checkpoint")
        self.config, self.checkpoint = first if place else None, self.words[place]
        self.inputs = self.words[place + 1 :]

    def check_files(self) -> None:
        super().check_files()
        for argument in self.inputs:
            check_picture_source(argument)


def run(options: Options) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the hosts warn about their own deprecated calls
        from mmms_plugin.train.predict import predict

        predict(options)
