"""The parts of mmengine and mmcv of which networks are made, or replacements where mmengine is not installed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

__all__ = ["BaseModule", "ModuleList", "build_conv_layer", "build_norm_layer", "print_log"]

if TYPE_CHECKING or find_spec("mmengine") is None:  # mmengine has no types
    from mmms_plugin.compat.without_mmengine import (
        BaseModule,
        ModuleList,
        build_conv_layer,
        build_norm_layer,
        print_log,
    )
else:
    from mmcv.cnn import build_conv_layer, build_norm_layer
    from mmengine.logging import print_log
    from mmengine.model import BaseModule, ModuleList
