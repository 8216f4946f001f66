"""Scripts of mmdet and mmseg, and a plain one with a Runner, through `mmms run` on mmcv-lite."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mmms_plugin.commands import main
from tests.commands.test_predict import DETECTOR, SEGMENTER

pytestmark = pytest.mark.slow

QUICK = [f"{split}_dataloader.{key}" for split in ("train", "val", "test")
         for key in ("num_workers=0", "persistent_workers=False", "batch_size=2")]  # fmt: skip


def run_script(*arguments: str) -> str:
    """Output of ``mmms run``, in a process of its own, as the hosts' scripts expect."""
    command = [sys.executable, "-m", "mmms_plugin", "run", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Path:
    """Work folder of one iteration, with the config that has all paths in it."""
    folder = tmp_path_factory.mktemp("detector")
    options = ["--iters", "1", "--cfg-options", "custom_hooks=[]", *QUICK]
    assert main(["train", DETECTOR, "--coco-dir", str(shapes), "--work-dir", str(folder), *options]) == 0
    return folder


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Path:
    folder = tmp_path_factory.mktemp("segmenter")
    (folder / "tiny.py").write_text(SEGMENTER.format(root=Path(__file__).parents[2] / "configs"), encoding="utf-8")
    data = ["--voc-dir", str(shapes), "--image-size", "64"]
    options = ["--iters", "1", "--work-dir", str(folder / "run"), "--cfg-options", *QUICK]
    assert main(["train", str(folder / "tiny.py"), *data, *options]) == 0
    return folder / "run"


@pytest.mark.parametrize("host", ["mmdet", "mmseg"])
def test_training_and_testing_with_the_hosts_scripts(host, request, tmp_path):
    folder = request.getfixturevalue("detector" if host == "mmdet" else "segmenter")
    config = str(next(folder.glob("*.py")))
    work = ["--work-dir", str(tmp_path)]
    run_script(f"{host}::train", config, *work)
    assert (tmp_path / "iter_1.pth").is_file()
    assert "iter_1.pth" in run_script(f"{host}::test", config, str(tmp_path / "iter_1.pth"), *work)
    if host == "mmdet":  # mmseg 1.2's own does not fit mmengine 0.10.7: it gives input_shape and inputs
        assert "Params" in run_script("mmdet::get_flops", config)


def test_a_plain_script_with_a_runner(detector, tmp_path):
    script = tmp_path / "own.py"
    script.write_text(
        "import sys\nfrom mmdet.registry import MODELS\nfrom mmengine.config import Config\n"
        "from mmengine.runner import Runner\nconfig = Config.fromfile(sys.argv[1])\nconfig.work_dir = sys.argv[2]\n"
        "Runner.from_cfg(config).train()\n",
        encoding="utf-8",
    )
    run_script(str(script), str(next(detector.glob("*.py"))), str(tmp_path / "work"))
    assert (tmp_path / "work/iter_1.pth").is_file()


def test_two_processes(detector, tmp_path):
    """torchrun starts the module, which runs the host's script in each process (gloo, on the CPU)."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m",
               "mmms_plugin", "run", "mmdet::train", str(next(detector.glob("*.py"))), "--work-dir", str(tmp_path),
               "--launcher", "pytorch"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "iter_1.pth").is_file()
