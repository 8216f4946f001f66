"""Multi-scale convolution layers and backbones for OpenMMLab (mmdet, mmseg, mmpretrain)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mmms_plugin import compat
from mmms_plugin.compat import on_import

if TYPE_CHECKING:
    from mmms_plugin.model import Model as Model

__version__ = "0.1.0"

# How mmengine finds configs and reads checkpoints: the parts of this package that change it, once it is imported.
on_import.add(
    {
        "mmengine.infer.infer": "mmms_plugin.config.files:take_names_of_configs",
        "mmengine.runner.checkpoint": "mmms_plugin.weights.host_loading:read_safely",
        "mmengine.runner.runner": "mmms_plugin.weights.newest:find_whole",
    }
)
compat.install()


def __getattr__(name: str) -> Any:
    """``Model``, whose module is imported when it is used."""
    if name != "Model":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("mmms_plugin.model").Model
