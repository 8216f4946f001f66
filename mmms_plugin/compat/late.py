"""What hosts import and hardly ever use, imported where it is used.

``import mmdet.models`` imports scipy, sklearn, matplotlib and mmpretrain, with torchvision, for trackers and a few
losses, and mmengine imports torch's FSDP, with sympy: half of the time until a detector is built. The modules of
``LATE`` get stand-ins for them, in their own import statements alone: everybody else, and whoever imports these
packages first, gets the real ones, and so does the module itself at the first call or attribute. A class gets its real
base in place of a stand-in as soon as that is imported, by whomever, at the latest with the first object. A package
that is not installed is missing as before.
"""

from __future__ import annotations

import builtins
import pkgutil
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from types import ModuleType
from typing import Any

# Module -> packages and modules that only its functions use, or from which it derives a class
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
    "mmengine.config.config": ("yapf",),
    "mmengine._strategy.fsdp": ("torch.distributed.fsdp",),
    "mmengine.model.wrappers.fully_sharded_distributed": ("torch.distributed.fsdp",),
    "mmengine.optim.optimizer.zero_optimizer": ("torch.distributed.optim",),
    "mmseg.datasets.transforms.transforms": ("scipy",),
    "mmseg.models.assigners.hungarian_assigner": ("scipy",),
    "mmseg.models.backbones.beit": ("scipy",),
    "mmseg.models.losses.huasdorff_distance_loss": ("scipy",),
}


class Late:
    """Stands for a module, function or class until it is used.

    Args:
        path: dotted, such as 'scipy.optimize.linear_sum_assignment'.
        module: the module that imports it.
    """

    def __init__(self, path: str, module: str) -> None:
        self._path, self._module = path, module
        self.__name__ = path.rpartition(".")[2]  # as which mmengine's registries list a class

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and self._module in _executing:  # typing looks for some of them in annotations
            raise AttributeError(name)
        return getattr(self._real(), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._real()(*args, **kwargs)

    def __instancecheck__(self, value: Any) -> bool:
        return isinstance(value, self._real())

    def __subclasscheck__(self, cls: type) -> bool:
        return issubclass(cls, self._real())

    def __getitem__(self, key: Any) -> Any:
        return self._real()[key]

    def __repr__(self) -> str:
        return f"<{self._path}, not imported yet>"

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        stand_in = type(self._path, (_LateBase,), {"late": self})
        waiting.setdefault(self._path.rpartition(".")[0], []).append(stand_in)
        return (stand_in,)

    def _real(self) -> Any:
        return pkgutil.resolve_name(self._path)


class _LateBase:
    """Base of the stand-ins for base classes. A stand-in stays the last base: removing it would break ``__new__``."""

    late: Late | None = None  # of a stand-in: its real class, until that is a base

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        stand_ins = [base for base in cls.__mro__ if vars(base).get("late")]
        for stand_in in stand_ins:
            _derive(stand_in)
        return cls.__new__(cls, *args, **kwargs) if stand_ins else object.__new__(cls)


def _derive(stand_in: Any) -> None:
    """Give the classes derived from a stand-in their real base."""
    real = stand_in.late and stand_in.late._real()  # whose import may have called this
    if stand_in.late is None:
        return
    stand_in.late = None
    for derived in stand_in.__subclasses__():
        bases = [real if base is stand_in else base for base in derived.__bases__]
        derived.__bases__ = (*bases, stand_in)
        if "__orig_bases__" in vars(derived):
            del derived.__orig_bases__


waiting: dict[str, list[type]] = {}  # module to be imported -> stand-ins for its classes
_executing: set[str] = set()  # names of the modules of ``LATE`` whose code is run


def then_derive(execute: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
    """Run the code of a module of ``waiting``, then put its classes in the place of their stand-ins."""

    def execute_and_derive(module: ModuleType) -> None:
        execute(module)
        for stand_in in waiting.pop(module.__name__, ()):
            _derive(stand_in)

    return execute_and_derive


def then_late(execute: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
    """Run the code of a module of ``LATE`` with an ``__import__`` that knows what is late in it."""

    def execute_late(module: ModuleType) -> None:
        own, others_import = module.__name__, builtins.__import__
        packages = [package for package in LATE[own] if package not in sys.modules and find_spec(package)]

        def late_import(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
            here = globals is module.__dict__ and own in _executing and not level
            if here and any(f"{name}.".startswith(f"{late}.") and late not in sys.modules for late in packages):
                return _stand_in(name, fromlist or (), own)
            return others_import(name, globals, locals, fromlist, level)

        builtins.__import__ = late_import  # type: ignore[assignment]
        _executing.add(own)
        try:
            execute(module)
        finally:
            _executing.discard(own)
            if builtins.__import__ is late_import:  # not if another thread is in here, or another package replaced it
                builtins.__import__ = others_import

    return execute_late


def _stand_in(path: str, names: Sequence[str], module: str) -> Late:
    """What ``__import__`` returns: the module of ``from path import names``, or the first part of ``import path``."""
    imported = Late(path, module)
    for name in names:
        vars(imported)[name] = Late(f"{path}.{name}", module)
    while not names and "." in path:  # import path as ... follows the parts
        path, _, last = path.rpartition(".")
        parent = Late(path, module)
        vars(parent)[last] = imported
        imported = parent
    return imported
