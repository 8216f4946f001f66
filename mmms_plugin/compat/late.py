"""What hosts import and hardly ever use, imported where it is used.

``import mmdet.models`` imports scipy, sklearn, matplotlib and mmpretrain, with torchvision, for trackers and a few
losses: a third of the time until a detector is built. The modules of ``LATE`` get stand-ins for them, in their own
import statements alone: everybody else, and whoever imports these packages first, gets the real ones, and so does the
module itself at the first call or attribute. A package that is not installed is missing as before.
"""

from __future__ import annotations

import builtins
import pkgutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType
from typing import Any

# Module -> packages that only its functions use, or of which it derives a class
LATE: dict[str, tuple[str, ...]] = {
    "mmdet.evaluation.metrics.crowdhuman_metric": ("scipy",),
    "mmdet.models.data_preprocessors.reid_data_preprocessor": ("mmpretrain",),
    "mmdet.models.dense_heads.paa_head": ("sklearn",),
    "mmdet.models.reid.base_reid": ("mmpretrain",),
    "mmdet.models.reid.linear_reid_head": ("mmpretrain",),
    "mmdet.models.task_modules.assigners.hungarian_assigner": ("scipy",),
    "mmdet.models.task_modules.assigners.topk_hungarian_assigner": ("scipy",),
    "mmdet.models.task_modules.tracking.aflink": ("scipy",),
    "mmdet.models.task_modules.tracking.interpolation": ("sklearn",),
    "mmdet.models.task_modules.tracking.kalman_filter": ("scipy",),
    "mmdet.utils.mot_error_visualize": ("matplotlib", "seaborn"),
    "mmdet.visualization.local_visualizer": ("seaborn",),
    "mmseg.datasets.transforms.transforms": ("scipy",),
    "mmseg.models.assigners.hungarian_assigner": ("scipy",),
    "mmseg.models.backbones.beit": ("scipy",),
    "mmseg.models.losses.huasdorff_distance_loss": ("scipy",),
}


class Late:
    """Stands for a module, function or class until it is used.

    Args:
        path: dotted, such as 'scipy.optimize.linear_sum_assignment'.
        importing: names of the modules whose import statements still run: there, attributes are late too.
        module: the module that imports it.
    """

    def __init__(self, path: str, importing: set[str], module: str) -> None:
        self._path, self._importing, self._module = path, importing, module

    def __getattr__(self, name: str) -> Any:
        if self._module not in self._importing:
            return getattr(self._real(), name)
        if name.startswith("__"):
            raise AttributeError(name)
        return Late(f"{self._path}.{name}", self._importing, self._module)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._real()(*args, **kwargs)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (type(self._path, (_LateBase,), {"late": self}),)

    def _real(self) -> Any:
        return pkgutil.resolve_name(self._path)


class _LateBase:
    """Base of a class whose real base, ``late``, joins it when the first object is made."""

    late: Late | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        for derived in cls.__mro__:
            for base in derived.__bases__:
                if _LateBase in base.__bases__ and (late := vars(base)["late"]) is not None:
                    base.late = None  # type: ignore[attr-defined]
                    place = derived.__bases__.index(base) + 1
                    derived.__bases__ = (*derived.__bases__[:place], late._real(), *derived.__bases__[place:])
        new = super().__new__
        return new(cls) if new is object.__new__ else new(cls, *args, **kwargs)


_importing: set[str] = set()


def then_late(execute: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
    """Run the code of a module of ``LATE`` with an ``__import__`` of its own."""

    def execute_late(module: ModuleType) -> None:
        name = module.__name__
        packages = {package for package in LATE[name] if package not in sys.modules and find_spec(package)}

        def late_import(path: str, *args: Any, **kwargs: Any) -> Any:
            """As ``__import__``, with the arguments globals, locals, fromlist and level."""
            package = path.partition(".")[0]
            wanted, level = [*args, *[None] * 4][2], kwargs.get("level", [*args, *[0] * 4][3])
            if level or package not in packages or package in sys.modules:
                return builtins.__import__(path, *args, **kwargs)
            return Late(path if wanted else package, _importing, name)

        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": late_import}
        _importing.add(name)
        try:
            execute(module)
        finally:
            _importing.discard(name)
            module.__dict__["__builtins__"] = builtins

    return execute_late
