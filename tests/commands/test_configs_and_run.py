"""`mmms configs`, `mmms run`, `mmms completion`, and configs of the hosts by name."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmms_plugin.commands import COMMANDS, main
from mmms_plugin.config.facts import facts_of, published_figures, read_facts
from mmms_plugin.config.files import config_names, find_config, load_config


def python(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=cwd)


def test_the_list_has_every_config_and_what_its_head_cites():
    facts = read_facts()
    missing = set(config_names()) ^ set(facts)
    assert not missing, "measure again: python -m mmms_plugin.config.facts"
    assert {name: one.published for name, one in facts.items()} == {name: published_figures(name) for name in facts}
    assert facts["mask_rcnn_ps_r50_fpn_1x"].published == "39.4 box AP and 35.6 mask AP"
    assert all(one.params and one.macs and one.task and one.method for one in facts.values())


@pytest.mark.parametrize("name", ["nuclei/mask_rcnn_r18_nuclei", "mask_rcnn_ps_r50_fpn_1x", "dla60x_up_voc12aug"])
def test_the_listed_figures_are_the_measured(name):
    assert facts_of(name) == read_facts()[name]


def test_parameters_of_a_detector_with_all_its_heads():
    """mmdet's Mask R-CNN with ResNet-50 has 44.4 M (its model zoo), and PSConv adds none."""
    assert round(read_facts()["mask_rcnn_ps_r50_fpn_1x"].params / 1e6, 1) == 44.4


def test_configs_names_are_whole_and_need_no_torch():
    code = (
        "import sys; from mmms_plugin.commands import main; s = main(['configs', 'PSConv']); print(sorted(sys.modules))"
    )
    done = python("-c", code)
    *lines, modules = done.stdout.splitlines()
    assert not any(f"'{heavy}'" in modules for heavy in ("torch", "mmcv", "mmdet", "mmseg"))
    assert any(line.split() == ["mask_rcnn_ps_r50_fpn_1x", "PSConv", "44.4", "148.5", "39.4/35.6"] for line in lines)
    assert not any("elastic" in line for line in lines)


def test_names_of_configs_are_never_cut(capsys, monkeypatch):
    """In a terminal, which is narrower than the table, and in a pipe."""
    for width in ("60", "200"):
        monkeypatch.setenv("COLUMNS", width)
        monkeypatch.setenv("FORCE_COLOR" if width == "60" else "NO_COLOR", "1")
        assert main(["configs", "cascade"]) == 0
        printed = capsys.readouterr().out
        assert all(f"{name} " in printed for name in config_names() if "cascade" in name)
        monkeypatch.delenv("FORCE_COLOR", raising=False)


def test_configs_as_json_and_of_a_host(capsys):
    assert main(["configs", "voc12aug", "--json"]) == 0
    assert {one["task"] for one in json.loads(capsys.readouterr().out)} == {"semantic segmentation"}
    assert main(["configs", "mmdet::rtmdet_tiny"]) == 0
    assert capsys.readouterr().out.split() == ["mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco"]
    for word, message in (("xyz", "no config has it"), ("mmdet::xyz", "no config of mmdet"), ("mmx::a", "allowed are")):
        assert main(["configs", word]) == 2
        assert message in capsys.readouterr().err


def test_a_hosts_config_is_found_by_name(capsys):
    assert load_config("mmdet::retinanet/retinanet_r50_fpn_1x_coco.py").model.type == "RetinaNet"
    assert find_config("mmseg::upernet_r50_4xb4-40k_voc12aug-512x512").parent.name == "upernet"
    assert find_config("mmms_plugin::mask_rcnn_ps_r50_fpn_1x") == find_config("mask_rcnn_ps_r50_fpn_1x")
    assert main(["train", "mmdet::retinanet_r5_fpn_1x_coco"]) == 2
    assert "the nearest are retinanet/retinanet_r50_fpn_1x_coco" in capsys.readouterr().err


def test_run_imports_the_plugin_first_and_hands_over_the_arguments(tmp_path):
    script = tmp_path / "own.py"
    script.write_text(
        "import sys, beside\nimport mmcv.ops\nfrom mmengine.config import Config\nprint(__name__, sys.argv[1:3])\n"
        "print(Config.fromfile(sys.argv[3]).model.type, mmcv.ops.nms.__module__)\n"
        "sys.exit(3)\n",
        encoding="utf-8",
    )
    (tmp_path / "beside.py").write_text("", encoding="utf-8")
    arguments = ["-m", "mmms_plugin", "run", str(script), "--help", "x", "mmdet::retinanet_r50_fpn_1x_coco"]
    done = python(*arguments, cwd=tmp_path)
    assert done.stdout.splitlines() == ["__main__ ['--help', 'x']", "RetinaNet mmcv.ops.nms"], done.stderr
    assert done.returncode == 3


def test_run_finds_the_hosts_scripts(capsys):
    from mmms_plugin.commands.run import find_script

    assert find_script("mmdet::train").parts[-2:] == ("tools", "train.py")
    assert find_script("mmdet::get_flops").parts[-2:] == ("analysis_tools", "get_flops.py")
    assert find_script("mmseg::tools/train.py").is_file()
    assert main(["run", "nowhere.py"]) == 2
    assert main(["run", "mmdet::tain"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "mmms run: error: script nowhere.py: no such file",
        "mmms run: error: mmdet::tain: no such file among the tools of mmdet; the nearest are train",
    ]


@pytest.mark.needs(shutil.which("bash"), reason="bash")
def test_tab_completion(capsys, tmp_path):
    assert main(["completion", "bash"]) == 0
    (tmp_path / "mmms").write_text(capsys.readouterr().out, encoding="utf-8")

    def complete(*words: str) -> set[str]:
        line = f"source {tmp_path / 'mmms'}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _shtab_mmms"
        done = subprocess.run(
            ["bash", "-c", f'{line}; printf "%s\\n" "${{COMPREPLY[@]}}"'], capture_output=True, text=True
        )
        return set(done.stdout.split())

    assert complete("mmms", "co") == {name for name in COMMANDS if name.startswith("co")}
    assert "mask_rcnn_ps_r50_fpn_1x" in complete("mmms", "train", "mask_rcnn_ps")
    assert complete("mmms", "train", "x", "--coco-d") == {"--coco-dir"}
    assert complete("mmms", "train", "x", "--launcher", "s") == {"slurm"}
    assert set(COMMANDS) <= complete("mmms", "")


def test_the_mmpretrain_extra_leaves_torch_alone():
    """Every torchvision asks for one build of torch, and pip would replace the installed one by it."""
    setup = (Path(__file__).parents[2] / "setup.py").read_text(encoding="utf-8")
    extra = next(line for line in setup.splitlines() if line.strip().startswith('"mmpretrain": ['))
    assert "torchvision" not in extra
    assert "pip install torchvision --index-url" in setup


def test_a_missing_torchvision_is_named_with_the_way_that_keeps_torch(monkeypatch):
    from mmms_plugin.compat import hosts
    from mmms_plugin.config.check import user_fault
    from mmms_plugin.errors import UserError

    monkeypatch.setattr(hosts, "find_spec", lambda name: None)

    def build() -> None:
        raise ModuleNotFoundError("No module named 'torchvision'", name="torchvision")

    with pytest.raises(
        UserError, match=r"pip install torchvision --index-url .* with any other build, pip replaces torch"
    ):
        user_fault("config", build)
