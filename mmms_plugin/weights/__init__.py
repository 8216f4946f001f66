"""Foreign checkpoints: a safe reader, key-map tables (data), conversion, verification, catalog, release.

``load_model(path)`` returns the model of a converted file.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmms_plugin.weights.loading import load_model

__all__ = ["load_model"]


def __getattr__(name: str) -> Any:
    if name not in __all__:  # the catalog is read without torch
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mmms_plugin.weights.loading import load_model

    return load_model
