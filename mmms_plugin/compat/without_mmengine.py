"""What the networks use of mmengine and mmcv, where mmengine is not installed: enough to build, load and run them.

Converting weights and ``weights.load_model`` then work with torch alone. Types of hosts are unknown here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import SimpleNamespace
from typing import Any, ClassVar, TypeVar

from torch import nn

C = TypeVar("C", bound=type)
NORMS = {"BN": nn.BatchNorm2d, "BN2d": nn.BatchNorm2d, "SyncBN": nn.SyncBatchNorm, "IN": nn.InstanceNorm2d}
CONVS = {"Conv": nn.Conv2d, "Conv2d": nn.Conv2d}
KINDS = (
    "DATASETS", "DATA_SAMPLERS", "EVALUATOR", "HOOKS", "METRICS", "MODELS", "OPTIM_WRAPPER_CONSTRUCTORS", "TRANSFORMS"
)  # fmt: skip

root = SimpleNamespace(**dict.fromkeys(KINDS))
ModuleList = nn.ModuleList


class Registry:
    """As mmengine's, for the classes of this package."""

    all: ClassVar[dict[str, Registry]] = {}  # by name

    def __init__(self, name: str, parent: None, scope: str, locations: Sequence[str]) -> None:
        self._module_dict: dict[str, type] = {}
        self._scope, self._locations = scope, locations
        Registry.all[name] = self

    def register_module(self, name: str | None = None) -> Callable[[C], C]:
        def register(cls: C) -> C:
            self._module_dict[name or cls.__name__] = cls
            return cls

        return register

    def get(self, key: str) -> type | None:
        """The class of a type, with or without the scope; None if there is none.

        Raises: ModuleNotFoundError for a type of a host, such as ``mmdet.FPN``.
        """
        scope, _, name = key.rpartition(".")
        if scope not in ("", self._scope):
            import_module(scope)
        for location in self._locations:
            import_module(location)
        return self._module_dict.get(name)

    def build(self, cfg: Mapping[str, Any]) -> Any:
        """An object of the class ``cfg["type"]``; the rest are its arguments.

        Raises: ModuleNotFoundError for a type of a host.
        """
        arguments = dict(cfg)
        cls = self.get(arguments.pop("type"))
        return import_module("mmengine") if cls is None else cls(**arguments)


class BaseModule(nn.Module):
    """As mmengine's, without initial weights of ``init_cfg``: the weights are torch's defaults, or loaded."""

    def __init__(self, init_cfg: Any = None) -> None:
        super().__init__()
        self.init_cfg = init_cfg

    def init_weights(self) -> None:
        """Raises ModuleNotFoundError: mmengine does this."""
        import_module("mmengine")


class HistoryBuffer:
    """As mmengine's, of which checkpoints hold some, without its statistics."""

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)


def build_conv_layer(cfg: Mapping[str, Any] | None, *args: Any, **kwargs: Any) -> nn.Module:
    """As mmcv's, for torch's convolution and those of this package."""
    options = dict(cfg or {"type": "Conv2d"})
    kind = options.pop("type")
    layer: Any = CONVS.get(kind) or Registry.all["model"].get(kind)
    if layer is None:
        raise KeyError(f"{kind} is not a convolution")
    module: nn.Module = layer(*args, **kwargs, **options)
    return module


def build_norm_layer(cfg: Mapping[str, Any], channels: int) -> tuple[str, nn.Module]:
    """As mmcv's, for the norms in ``NORMS`` and GN; the name is not mmcv's."""
    options = {"eps": 1e-5, **cfg}
    kind, trained = options.pop("type"), options.pop("requires_grad", True)
    norm: nn.Module
    if kind == "GN":
        norm = nn.GroupNorm(options.pop("num_groups"), channels, **options)
    else:
        norm = NORMS[kind](channels, **options)
    return kind, norm.requires_grad_(trained)


def print_log(message: str, logger: object = None, level: int = logging.INFO) -> None:
    """As mmengine's, to Python's logger of this package."""
    logging.getLogger("mmms_plugin").log(level, message)
