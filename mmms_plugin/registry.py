"""Registries of scope ``mmms_plugin``, children of mmengine's root registries.

Types written with the scope (``mmms_plugin.PSConv``) make mmengine import this module by itself, in every host, and the
modules that hold the classes only when something of that registry is asked for. No host is imported here.
"""

from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import METRICS as ROOT_METRICS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import Registry

from mmms_plugin.compat.checkpoints import allow_own_checkpoints

SCOPE = "mmms_plugin"

MODELS = Registry(
    "model",
    parent=ROOT_MODELS,
    scope=SCOPE,
    locations=["mmms_plugin.layers", "mmms_plugin.backbones"],
)
HOOKS = Registry("hook", parent=ROOT_HOOKS, scope=SCOPE, locations=["mmms_plugin.engine"])
METRICS = Registry("metric", parent=ROOT_METRICS, scope=SCOPE, locations=["mmms_plugin.evaluation"])

allow_own_checkpoints()
