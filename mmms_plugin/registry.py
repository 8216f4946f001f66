"""Registries of scope ``mmms_plugin``, children of mmengine's root registries.

For types written with the scope (``mmms_plugin.PSConv``) mmengine imports this module in every host without further
settings. It imports the modules of the classes only when it needs that registry. No host is imported here. Without
mmengine, the registries build the networks of this package alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or find_spec("mmengine") is None:  # mmengine has no types
    from mmms_plugin.compat.without_mmengine import Registry, root
else:
    from mmengine.registry import Registry, root

SCOPE = "mmms_plugin"
# Models whose module is imported only when they are requested: most subclass a host's class.
HOSTED = {
    "ASPPHead": "mmms_plugin.heads.segmentation_heads",
    "DLAUpHead": "mmms_plugin.heads.segmentation_heads",
    "MultiExitHead": "mmms_plugin.heads.multi_exit_head",
}
HOSTED_DATASETS = {"PairedSegDataset": "mmms_plugin.train.paired_seg_dataset"}


class HostedRegistry(Registry):
    """A registry some of whose classes subclass a host's; their modules, ``hosted``, are imported on request."""

    def __init__(self, name: str, hosted: Mapping[str, str], **options: Any) -> None:
        self.hosted = hosted
        super().__init__(name, **options)

    def get(self, key: str) -> type | None:
        """As ``Registry.get``."""
        name = key.removeprefix(f"{SCOPE}.")
        if name in self.hosted and name not in self._module_dict:
            import_module(self.hosted[name])
        return super().get(key)


MODELS = HostedRegistry(
    "model",
    HOSTED,
    parent=root.MODELS,
    scope=SCOPE,
    locations=["mmms_plugin.layers", "mmms_plugin.backbones", "mmms_plugin.necks"],
)
DATASETS = HostedRegistry(
    "dataset",
    HOSTED_DATASETS,
    parent=root.DATASETS,
    scope=SCOPE,
    locations=["mmms_plugin.train.share", "mmms_plugin.train.tiling"],
)
HOOKS = Registry(
    "hook",
    parent=root.HOOKS,
    scope=SCOPE,
    locations=[f"mmms_plugin.train.{name}" for name in ("console", "norm_hook", "predictions", "shape_hook", "tiling")],
)
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    "optimizer wrapper constructor",
    parent=root.OPTIM_WRAPPER_CONSTRUCTORS,
    scope=SCOPE,
    locations=["mmms_plugin.train.shape_hook"],
)
TRANSFORMS = Registry(
    "transform",
    parent=root.TRANSFORMS,
    scope=SCOPE,
    locations=["mmms_plugin.train.transforms", "mmms_plugin.train.tiling"],
)
METRICS = Registry("metric", parent=root.METRICS, scope=SCOPE, locations=["mmms_plugin.evaluation"])
EVALUATOR = Registry("evaluator", parent=root.EVALUATOR, scope=SCOPE, locations=["mmms_plugin.train.shared_test"])
DATA_SAMPLERS = Registry(
    "data sampler", parent=root.DATA_SAMPLERS, scope=SCOPE, locations=["mmms_plugin.train.shared_test"]
)

_NUMBERS = count()


def use_scope(scope: str) -> None:
    """Look up types that are written without a scope in this one; mmengine's own function warns of every change."""
    from mmengine.registry import DefaultScope

    current = DefaultScope.get_current_instance()
    if current is None or current.scope_name != scope:
        DefaultScope.get_instance(f"mmms {next(_NUMBERS)}", scope_name=scope)
