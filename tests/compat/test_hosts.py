"""Hosts that are not installed, installed twice, or of an untested version. Installed packages are folders of their
metadata."""

from __future__ import annotations

import json
import logging
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import mmengine.logging
import pytest

from mmms_plugin.compat import hosts, on_import
from mmms_plugin.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]
WITHOUT_HOSTS = """
import sys
sys.path[:0] = [{repository!r}]
import importlib.metadata
from mmms_plugin.compat import hosts
ours = [name for kinds in hosts.HOSTS.values() for kind in kinds for name in kind]
version = importlib.metadata.version
def version_without_hosts(name):
    if name in ours:
        raise importlib.metadata.PackageNotFoundError(name)
    return version(name)
importlib.metadata.version = version_without_hosts
for name in (*hosts.HOSTS, "torchvision", "sklearn", "pyarrow", *{more!r}):
    sys.modules[name] = None  # the import system takes it for a package that does not exist
"""


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A function that makes the given versions the only installed ones."""

    def install(**versions: str) -> None:
        for name, number in versions.items():
            folder = tmp_path / f"{name}-{number}.dist-info"
            folder.mkdir()
            (folder / "METADATA").write_text(f"Name: {name}\nVersion: {number}\n", encoding="utf-8")
        monkeypatch.setattr(sys, "path", [str(tmp_path)])
        for name in ("RANK", hosts.SWITCH):
            monkeypatch.delenv(name, raising=False)
        hosts.warn_untested.cache_clear()

    yield install
    hosts.warn_untested.cache_clear()


@pytest.mark.parametrize(
    ("versions", "refused"),
    [
        (dict(mmengine="0.10.7", onedl_mmengine="0.10.12"), "mmengine 0.10.7 and onedl-mmengine 0.10.12"),
        (dict(mmsegmentation="1.2.2", onedl_mmsegmentation="1.4.2", mmengine="0.10.7"), "mmsegmentation 1.2.2 and one"),
        (dict(mmengine="0.10.7", mmcv="2.1.0", mmcv_lite="2.1.0"), None),  # the same files, and compiled ones
        (dict(onedl_mmengine="0.10.12", mmcv_lite="2.1.0", mmpretrain="1.2.0"), None),
    ],
)
def test_a_host_beside_its_fork_is_refused_before_it_is_imported(versions, refused, packages):
    packages(**versions)
    finder = next(finder for finder in sys.meta_path if finder is on_import._ChangingFinder)
    if refused is None:
        finder.find_spec("mmengine")
        return
    with pytest.raises(UserError, match=refused) as error:
        finder.find_spec("mmengine")
    assert "uninstall both" in str(error.value)
    assert "\n" not in str(error.value)


def test_configs_of_a_fork_are_found(packages):
    """mmengine asks for the distribution mmsegmentation before it loads a config of ``mmseg::``."""
    names = SimpleNamespace(
        MODULE2PACKAGE={"mmseg": "mmsegmentation", "mmpose": "mmpose"}, __name__="mmengine.config.utils"
    )
    packages(onedl_mmsegmentation="1.4.2")
    on_import.change(names)
    assert names.MODULE2PACKAGE == {"mmseg": "mmseg", "mmpose": "mmpose"}


def test_a_detail_that_a_fork_logs_on_import_is_not_printed(capsys):
    for level, shown in ((logging.DEBUG, ""), (logging.WARNING, "the data\n")):
        mmengine.logging.print_log("the data", level=level)
        assert capsys.readouterr().out == shown


def test_an_untested_version_warns_once_in_one_line(packages, caplog, monkeypatch):
    tested = json.loads(hosts.TESTED.read_text(encoding="utf-8"))["make test"]
    packages(torch=f"{tested['torch']}.post1", mmdet="3.99.0", mmengine=tested["mmengine"])
    for name, value in (("RANK", "1"), (hosts.SWITCH, "0")):
        monkeypatch.setenv(name, value)
        hosts.warn_untested()
        assert not caplog.records
        monkeypatch.delenv(name)
        hosts.warn_untested.cache_clear()
    for name in ("torch", "mmengine", "torch"):
        on_import._ChangingFinder.find_spec(name)
    assert [record.message for record in caplog.records] == [
        "not tested with mmms_plugin: mmdet 3.99.0 (tested: 3.3.0); MMMS_VERSION_WARNING=0 hides this line"
    ]
    assert caplog.records[0].levelno == logging.WARNING


@pytest.mark.parametrize(
    ("versions", "package", "remedy"),
    [
        ({}, "mmdet.apis", "mmdet is not installed: pip install 'mmms_plugin[openmmlab]' ([onedl] instead"),
        (dict(mmengine="0.10.7"), "mmseg", "mmseg is not installed: pip install 'mmms_plugin[openmmlab]'"),
        (dict(onedl_mmengine="0.10.12"), "mmdet", "mmdet is not installed: pip install 'mmms_plugin[onedl]'"),
        (dict(mmengine="0.10.7"), "mmpretrain", "pip install 'mmms_plugin[openmmlab,mmpretrain]'"),
        (dict(onedl_mmengine="0.10.12"), "mmpretrain", "pip install 'mmms_plugin[onedl,onedl-mmpretrain]'"),
        ({}, "mmpretrain", "[openmmlab,mmpretrain]' ([onedl,onedl-mmpretrain] instead"),
        ({}, "torchvision", "install the build that belongs to the installed torch"),
        ({}, "pyarrow.parquet", "pip install 'mmms_plugin[policy]'"),
        ({}, "torch", "torch is not installed: pip install torch"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(versions, package, remedy, packages, monkeypatch):
    packages(**versions)
    monkeypatch.setattr(hosts, "find_spec", lambda name: None)
    assert remedy in str(hosts.not_installed(package))
    monkeypatch.undo()
    assert hosts.not_installed("a_package_of_the_user") is None
    assert hosts.not_installed("json") is None


def mmms(*arguments: object, without: tuple[str, ...] = (), cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run ``mmms`` without hosts, as after ``pip install mmms_plugin``."""
    start = WITHOUT_HOSTS.format(repository=str(REPOSITORY), more=without)
    code = f"{start}\nfrom mmms_plugin.commands import script\nsys.exit(script())"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, encoding="utf-8", check=False)


@pytest.mark.slow
def test_data_are_checked_and_measured_without_hosts_and_torch(shapes, tmp_path):
    done = mmms("check-data", shapes, without=("torch",), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    annotations = shapes / "annotations" / "instances_val.json"
    objects = json.loads(annotations.read_text(encoding="utf-8"))["annotations"]
    results = [{**{k: item[k] for k in ("image_id", "category_id", "bbox")}, "score": 0.5} for item in objects]
    (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    arguments = ("--ann", annotations, "--pred", "results.json", "--out", "report")
    done = mmms("size-ap", *arguments, without=("torch",), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_weights_are_converted_and_run_without_hosts(tmp_path):
    code = (
        WITHOUT_HOSTS.format(repository=str(REPOSITORY), more=())
        + """
import torch
from mmms_plugin.commands import main
from mmms_plugin.weights import load_model
from tests.golden.records import load_record, make_state_dict
torch.save(make_state_dict(load_record("timm_dla46_c")), "in.pth")
assert main(["convert", "in.pth", "out.pth", "--verify"]) == 0
print(list(load_model("out.pth").eval()(torch.zeros(1, 3, 64, 64)).shape))
import mmms_plugin.backbones, mmms_plugin.layers, mmms_plugin.necks
networks = [
    dict(type="mmms_plugin.PSResNet", depth=50, norm_cfg=dict(type="GN", num_groups=8, requires_grad=False)),
    dict(type="PSResNet", depth=18, conv_cfg=dict(type="mmms_plugin.ElasticConv")),
]
from mmms_plugin.registry import MODELS
models = [MODELS.build(network) for network in networks]
norms = [module for module in models[0].modules() if isinstance(module, torch.nn.GroupNorm)]
assert norms and not any(parameter.requires_grad for norm in norms for parameter in norm.parameters())
for module in ("mmengine", "mmdet"):
    try:
        models[0].init_weights() if module == "mmengine" else MODELS.build(dict(type="mmdet.FPN"))
    except ModuleNotFoundError as error:
        print(hosts.not_installed(error.name))
status = main(["train", "mask_rcnn_ps_r50_fpn_1x", "--coco-dir", "."])
print(status, "mmdet" in sys.modules and sys.modules["mmdet"])
"""
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert printed[-4] == "[1, 1000]"
    assert [line.partition(":")[0] for line in printed[-3:-1]] == [
        "mmengine is not installed",
        "mmdet is not installed",
    ]
    assert printed[-1] == "2 None"
    assert done.stderr.splitlines() == [
        "mmms train: error: mmengine is not installed: pip install 'mmms_plugin[openmmlab]' ([onedl] instead has the "
        "maintained forks)"
    ]


def test_the_page_has_the_table_of_tested_versions():
    """.ci/tested_versions.py writes both."""
    script = runpy.run_path(str(REPOSITORY / ".ci" / "tested_versions.py"))
    rows = json.loads(hosts.TESTED.read_text(encoding="utf-8"))
    assert script["table"](rows) in (REPOSITORY / "docs" / "compatibility.md").read_text(encoding="utf-8")
