"""Stand-ins for what hosts import and hardly ever use."""

from __future__ import annotations

import abc
import builtins
import inspect
import pickle
import subprocess
import sys
from importlib import import_module

import pytest

from mmms_plugin.compat import late

HOST = """
from typing import Union

import late_package.plots as plots
import late_package.maths
from late_package.maths import Base, add

try:
    import late_missing
except ImportError:
    late_missing = None


class Derived(Base):
    def __init__(self, value):
        super().__init__()
        self.value = value


class Further(Derived):
    pass


def is_ready(value: Union[Base, str]):
    return isinstance(value, Base)


def marked():
    return added_to_builtins


def in_function():
    from late_package import plots

    return plots.SIZE
"""
PACKAGE = {
    "__init__": "",
    "plots": "SIZE = {'width': 3}",
    "maths": """
def add(a, b):
    return a + b


class Base:
    def __init__(self):
        self.ready = True
""",
}


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Imports ``late_host``, whose import statements of ``late_package`` are late."""
    (tmp_path / "late_host.py").write_text(HOST, encoding="utf-8")
    (tmp_path / "late_package").mkdir()
    for name, code in PACKAGE.items():
        (tmp_path / f"late_package/{name}.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(late.LATE, "late_host", ("late_package", "late_missing"))
    yield lambda: import_module("late_host")
    for name in [name for name in sys.modules if name.startswith("late_")]:
        del sys.modules[name]


def is_imported():
    return "late_package" in sys.modules


def test_a_function_or_module_is_imported_when_it_is_used(host):
    module = host()
    assert not is_imported()
    assert module.add(1, 2) == 3
    assert is_imported()
    assert module.late_package.maths.add(b=1, a=1) == 2
    assert module.plots.SIZE["width"] == 3
    assert module.late_missing is None
    assert module.in_function() == {"width": 3}


def test_a_base_class_is_imported_with_the_first_object(host):
    module = host()
    assert not is_imported()
    further, again = module.Further(5), module.Further(value=6)
    assert (further.ready, further.value) == (True, 5)
    real = import_module("late_package.maths").Base
    assert isinstance(further, real)
    assert again.ready
    assert isinstance(module.Derived(6), real)


def test_a_class_has_its_base_once_that_is_imported_by_whomever(host):
    module = host()
    assert (str(module.Base), module.Base.__name__) == ("<late_package.maths.Base, not imported yet>", "Base")
    assert not is_imported()
    base = import_module("late_package.maths").Base
    assert issubclass(module.Further, base)
    assert module.Derived.__bases__[0] is base
    assert inspect.signature(module.Derived) == inspect.Signature([inspect.Parameter("value", 1)])
    derived = pickle.loads(pickle.dumps(module.Further(7)))
    assert (type(derived), derived.value, module.is_ready(derived)) == (module.Further, 7, True)

    class Own(module.Derived, abc.ABC):
        pass

    assert Own(8).ready


def test_functions_have_the_builtins_of_everybody(host, monkeypatch):
    importing = builtins.__import__
    module = host()
    assert builtins.__import__ is importing
    monkeypatch.setattr(builtins, "added_to_builtins", "there", raising=False)
    assert module.marked() == "there"
    assert not is_imported()
    assert not module.is_ready("text")
    assert is_imported()
    assert not issubclass(str, module.Base)


def test_a_package_that_is_imported_already_is_itself(host):
    package = import_module("late_package.maths")
    module = host()
    assert module.add is package.add
    assert module.Derived.__mro__[1] is package.Base


UNUSED = """
import sys
import mmms_plugin
from mmms_plugin.registry import use_scope

use_scope("mmdet")
from mmdet.registry import MODELS, VISUALIZERS

assert MODELS.get("MaskRCNN") and VISUALIZERS.get("DetLocalVisualizer")
needless = ("scipy", "sklearn", "matplotlib", "seaborn", "mmpretrain", "torchvision", "torch._dynamo", "sympy")
assert not [name for name in needless if name in sys.modules], sys.modules.keys() & set(needless)

from mmdet.models.task_modules.assigners import hungarian_assigner

assert hungarian_assigner.linear_sum_assignment([[1, 2], [2, 0]])[1].tolist() == [0, 1]
backbone = dict(type="mmpretrain.ResNet", depth=18)
model = MODELS.build(dict(type="BaseReID", backbone=backbone, data_preprocessor=dict(type="ReIDDataPreprocessor")))
from mmpretrain.models.classifiers import ImageClassifier

assert isinstance(model, ImageClassifier)
"""
SHARDED = """
import sys
import mmms_plugin
from mmengine._strategy import FSDPStrategy
from mmengine._strategy.fsdp import FSDP_CONFIGS
from mmengine.registry import MODEL_WRAPPERS, OPTIMIZERS

assert "torch.distributed.fsdp" not in sys.modules
wrapper, optimizer = MODEL_WRAPPERS.get("MMFullyShardedDataParallel"), OPTIMIZERS.get("ZeroRedundancyOptimizer")
import torch.distributed.fsdp as fsdp
import torch.distributed.optim as optim

assert issubclass(wrapper, fsdp.FullyShardedDataParallel)
assert issubclass(optimizer, optim.ZeroRedundancyOptimizer)
assert type(FSDP_CONFIGS.build(dict(type="FullStateDictConfig"))) is fsdp.FullStateDictConfig
import torch

torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
weight = torch.nn.Parameter(torch.ones(1))
weight.grad = torch.ones(1)
optimizer([weight], "SGD", lr=1).step()
assert weight == 0
"""


@pytest.mark.slow
@pytest.mark.parametrize("code", [UNUSED, SHARDED], ids=["trackers", "sharded"])
def test_hosts_import_nothing_that_is_not_used(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", errors="replace")
    assert done.returncode == 0, done.stderr
