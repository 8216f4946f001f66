"""mmdet's ``DetInferencer``, mmseg's ``MMSegInferencer`` and their like take the names of the configs here.

mmengine has no place to register names of models: it looks them up in the metafile of the host's own package.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any


def take_names_of_configs(module: ModuleType) -> None:
    """Change ``mmengine.infer.infer``. The weights of such a config are those that the caller gives, or random."""
    of_host = module.BaseInferencer._load_model_from_metafile
    if hasattr(of_host, "__wrapped__"):
        return

    @functools.wraps(of_host)
    def of_name(self: Any, model: str) -> tuple[Any, str | None]:
        from mmms_plugin.config.files import config_names, load_config

        return (load_config(model), None) if model in config_names() else of_host(self, model)

    module.BaseInferencer._load_model_from_metafile = of_name
