"""Train a model from a config, also on data of your own.

Ctrl-C and SIGTERM save a checkpoint; --resume continues from it.
"""

import os

from mmms_plugin import signals
from mmms_plugin.files import write_text
from mmms_plugin.processes import PEAK_MEMORY, peak_memory
from mmms_plugin.train.options import TrainOptions as Options


def run(options: Options) -> None:
    """Train a config; see ``launch.train``."""
    with signals.explained("before the first step; there is nothing to save"):
        from mmms_plugin.train.launch import train

        train(options)
        if file := os.environ.get(PEAK_MEMORY):
            write_text(file, str(peak_memory()))
