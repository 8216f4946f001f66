"""Scripts of mmdet and mmseg, and a plain one with a Runner, through `mmms run` on mmcv-lite."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mmms_plugin.commands import main
from tests.commands.test_predict import DETECTOR, SEGMENTER

pytestmark = pytest.mark.slow

QUICK = [f"{split}_dataloader.{key}" for split in ("train", "val", "test")
         for key in ("num_workers=0", "persistent_workers=False", "batch_size=2")]  # fmt: skip


SCRIPTS = """
import json, sys
from mmms_plugin.commands import main
for arguments in map(json.loads, sys.argv[1:]):
    assert main(["run", *arguments]) == 0
"""


def run_scripts(*command_lines: list[str]) -> str:
    """Output of one ``mmms run`` after the other, in a fresh process, as the hosts' scripts expect."""
    command = [sys.executable, "-c", SCRIPTS, *map(json.dumps, command_lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Path:
    """Work folder of one iteration, with the config that has all paths in it."""
    folder = tmp_path_factory.mktemp("detector")
    options = ["--iters", "1", "--cfg-options", "custom_hooks=[]", "randomness.deterministic=False", *QUICK]
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


def test_training_and_testing_with_the_scripts_of_mmseg(segmenter, tmp_path):
    config, work = str(next(segmenter.glob("*.py"))), ["--work-dir", str(tmp_path)]
    test = ["mmseg::test", config, str(tmp_path / "iter_1.pth"), *work]
    assert f"from {tmp_path / 'iter_1.pth'}" in run_scripts(["mmseg::train", config, *work], test)


def test_scripts_of_mmdet_and_a_plain_one_with_a_runner(detector, tmp_path):
    """Testing is first in its process; in ``test_two_processes`` training is."""
    config, checkpoint = str(next(detector.glob("*.py"))), str(detector / "iter_1.pth")
    script = tmp_path / "own.py"
    script.write_text(
        "import sys\nfrom mmdet.registry import MODELS\nfrom mmengine.config import Config\n"
        "from mmengine.runner import Runner\nconfig = Config.fromfile(sys.argv[1])\nconfig.work_dir = sys.argv[2]\n"
        "Runner.from_cfg(config).train()\n",
        encoding="utf-8",
    )
    test = ["mmdet::test", config, checkpoint, "--work-dir", str(tmp_path)]
    own = [str(script), config, str(tmp_path / "work")]
    output = run_scripts(test, ["mmdet::get_flops", config], own)
    assert f"from {checkpoint}" in output
    assert "Params" in output  # mmseg 1.2's own does not fit mmengine 0.10.7: it gives input_shape and inputs
    assert (tmp_path / "work/iter_1.pth").is_file()


@pytest.mark.thorough
def test_two_processes(detector, tmp_path):
    """torchrun starts the module, which runs the host's script in each process (gloo, on the CPU)."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m",
               "mmms_plugin", "run", "mmdet::train", str(next(detector.glob("*.py"))), "--work-dir", str(tmp_path),
               "--launcher", "pytorch"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "iter_1.pth").is_file()
