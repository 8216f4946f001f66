"""What ``import mmms_plugin`` does to mmcv: nothing where it has its own ops, and little elsewhere."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmms_plugin import compat
from mmms_plugin.compat import mmcv_ext
from mmms_plugin.errors import UserError

ROOT = Path(__file__).parents[2]


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    paths = [environment.pop("PYTHONPATH", ""), str(ROOT), os.environ.get("PYTHONPATH", "")]
    variables = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join(p for p in paths if p)}
    return subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False)


def mmcv_is_compiled() -> bool:
    return importlib.import_module("mmcv._ext").__file__ != str(compat.REPLACEMENT)


def test_import_is_light() -> None:
    result = run_python("import sys, mmms_plugin.compat as c; c.install(); print({'torch', 'mmcv'} & set(sys.modules))")
    assert (result.stdout.strip(), result.stderr) == ("set()", "")


def test_python_3_14_gets_find_loader_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """mmengine and mmcv call it; Python 3.14 no longer has it. Ours answers like that of older Pythons."""
    monkeypatch.delattr(pkgutil, "find_loader", raising=False)
    compat.install()
    assert pkgutil.find_loader("json.decoder").get_filename() == json.decoder.__file__
    assert pkgutil.find_loader("no_such_module") is None
    with pytest.raises(ImportError, match="no_such_package"):
        pkgutil.find_loader("no_such_package.module")


def test_mmengine_looks_for_compilers_in_silence() -> None:
    """Where there are none, the shell says so on the terminal."""
    code = (
        "import sysconfig, mmms_plugin\n"
        "sysconfig.get_config_vars()['CC'] = 'no-such-compiler -pthread'\n"
        "from mmengine.utils.dl_utils import collect_env\n"
        "print(collect_env()['GCC'])"
    )
    result = run_python(code)
    assert (result.stdout.strip(), result.stderr) == ("n/a", "")


def test_spawned_processes_import_the_plugin_first(tmp_path: Path) -> None:
    """As data loaders on Windows and macOS: unpickling a host's object needs the plugin, which no script imports."""
    (tmp_path / "needs_plugin.py").write_text(
        "import sys\nassert 'mmms_plugin' in sys.modules\ndef work(): print('worked')\n", encoding="utf-8"
    )
    (tmp_path / "start.py").write_text(
        "def start():\n"
        "    import mmms_plugin, needs_plugin, multiprocessing\n"
        "    for method in ('spawn', 'forkserver'):\n"
        "        process = multiprocessing.get_context(method).Process(target=needs_plugin.work)\n"
        "        process.start()\n        process.join()\n        assert process.exitcode == 0\n",
        encoding="utf-8",
    )
    result = run_python("import start; start.start()", PYTHONPATH=str(tmp_path))
    assert (result.stdout.split(), result.stderr) == (["worked"] * 2, "")


def test_processes_on_a_cpu_part_at_their_end() -> None:
    """What is registered first runs last."""
    code = (
        "import atexit, torch.distributed as dist\n"
        "from mmms_plugin.compat import processes\n"
        "atexit.register(lambda: print(dist.is_initialized()))\n"
        "processes.join('pytorch')\n"
        "print(dist.is_initialized())"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    alone = dict(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    assert run_python(code, **alone).stdout.split() == ["True", "False"]


def test_install_is_idempotent_and_last() -> None:
    compat.install()
    finders = list(sys.meta_path)
    compat.install()
    assert sys.meta_path == finders
    ours = [finder for finder in finders if getattr(finder, "__module__", "") == compat.__name__]
    assert len(ours) == 1
    assert all(ours[0].find_spec(name) is None for name in ("mmcv", "mmcv.ops", "mmcv._ext.nms", "torchvision"))


def test_a_compiled_extension_is_used(tmp_path: Path) -> None:
    """mmcv with an extension of its own, here a stand-in file, keeps it."""
    package = tmp_path / "mmcv"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "_ext.py").write_text("nms = 'its own'", encoding="utf-8")
    result = run_python("import mmms_plugin, mmcv._ext as e; print(e.nms)", PYTHONPATH=str(tmp_path))
    assert (result.stdout.strip(), result.stderr) == ("its own", "")
    (package / "_ext.py").unlink()
    result = run_python("import mmms_plugin, mmcv._ext as e; print(e.__file__)", PYTHONPATH=str(tmp_path))
    assert (result.stdout.strip(), result.stderr) == (str(compat.REPLACEMENT), "")


def test_the_log_says_what_serves() -> None:
    text = compat.mmcv_ops()
    if mmcv_is_compiled():
        assert text == "mmcv 2.1.0 with its own compiled ops"
    else:
        assert text.startswith("mmcv-lite 2.1.0: nms ")
        assert "roi_align" in text
        assert "torch" in text


@pytest.mark.parametrize("library", ["not a library", None], ids=["foreign", "none"])
def test_a_broken_torchvision_is_passed_over(tmp_path: Path, library: str | None) -> None:
    """One that was built for another torch neither stops us nor is imported."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')", encoding="utf-8"
    )
    if library:
        (package / "_C.so").write_text(library, encoding="utf-8")
    code = (
        "import torch\n"
        "from mmms_plugin.compat import mmcv_ext, torchvision_ops\n"
        "print(mmcv_ext.nms(torch.tensor([[0., 0, 4, 4], [0, 0, 4, 3], [8, 8, 9, 9]]), torch.rand(3), .5, 0).shape)\n"
        "print(torchvision_ops.provider())"
    )
    result = run_python(code, PYTHONPATH=str(tmp_path))
    assert result.stderr == ""
    assert result.stdout.splitlines()[0] == "torch.Size([2])"
    assert "in plain torch" in result.stdout.splitlines()[1]


def test_a_torchvision_without_its_compiled_ops_can_be_imported(tmp_path: Path) -> None:
    """As the registry's CUDA build beside a CPU build of torch: mmengine, and with it every command, imports it."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import torch\n"
        "for op in ('nms', 'qnms'):\n    torch.library.register_fake(f'torchvision::{op}')(lambda *a: a[1])",
        encoding="utf-8",
    )
    (package / "_C.so").write_text("built for another torch", encoding="utf-8")
    code = "import mmms_plugin, torchvision, torch; torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)"
    result = run_python(code, PYTHONPATH=str(tmp_path))
    assert "NotImplementedError" in result.stderr
    result = run_python("import torchvision", PYTHONPATH=str(tmp_path))
    assert "torchvision::nms does not exist" in result.stderr


def test_other_ops_name_themselves_and_the_remedy() -> None:
    assert hasattr(mmcv_ext, "deform_conv_forward")
    with pytest.raises(UserError, match=r"'deform_conv_forward' is not supplied.*'make mmcv'") as caught:
        mmcv_ext.deform_conv_forward(torch.zeros(1), stride=2)
    assert isinstance(caught.value, NotImplementedError)
    for name in ("__path__", "__wrapped__", "_private"):
        assert not hasattr(mmcv_ext, name)


def test_mmcv_ops_work_through_mmcv() -> None:
    """mmcv's own functions over whichever extension is used: batched NMS, RoIAlign with its gradient, a missing op."""
    ops = importlib.import_module("mmcv.ops")
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9]])
    dets, kept = ops.batched_nms(
        boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 0, 1]), {"type": "nms", "iou_threshold": 0.5}
    )
    assert kept.tolist() == [0, 2]
    torch.testing.assert_close(dets[:, 4], torch.tensor([0.9, 0.7]))
    features = torch.arange(64.0).view(1, 1, 8, 8).requires_grad_()
    pooled = ops.RoIAlign((1, 1), 1.0, 0)(features, torch.tensor([[0.0, 2, 2, 4, 4]]))
    pooled.backward()
    assert pooled.item() == pytest.approx((18 + 19 + 26 + 27) / 4)
    assert features.grad is not None
    assert features.grad[0, 0, 2:4, 2:4].tolist() == [[0.25, 0.25], [0.25, 0.25]]
    assert features.grad.sum().item() == pytest.approx(1)
    assert isinstance(ops.get_compiler_version(), str)
    if not mmcv_is_compiled():
        with pytest.raises(UserError, match="roi_pool_forward"):
            ops.RoIPool(2)(features, torch.zeros(1, 5))
