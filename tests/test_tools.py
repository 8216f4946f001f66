"""tools/dist_train.sh starts the processes that are asked for."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SCRIPT = REPOSITORY / "tools/dist_train.sh"


@pytest.mark.parametrize("arguments", [[], ["config.py"], ["config.py", "0"], ["config.py", "--resume"]])
def test_wrong_use_is_reported(arguments: list[str]) -> None:
    done = subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "usage: tools/dist_train.sh CONFIG PROCESSES [OPTIONS of mmms train]\n"


def test_every_option_reaches_torchrun_and_mmms_train(tmp_path: Path) -> None:
    """The Python that it calls is one that prints its arguments."""
    python = tmp_path / "python"
    python.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    variables = dict(PYTHON=str(python), NNODES="2", NODE_RANK="1", MASTER_ADDR="10.0.0.7", PORT="29501")
    command = [SCRIPT, "my config.py", "4", "--coco-dir", "my data", "--resume"]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "-m", "torch.distributed.run", "--nnodes", "2", "--node_rank", "1", "--nproc_per_node", "4",
        "--master_addr", "10.0.0.7", "--master_port", "29501", str(SCRIPT.with_name("train.py")), "my config.py",
        "--launcher", "pytorch", "--coco-dir", "my data", "--resume",
    ]  # fmt: skip
