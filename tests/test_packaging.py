"""Wheel and source distribution hold what they should, and the files that describe a release are current."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
import yaml

from mmms_plugin.config import model_index
from mmms_plugin.config.facts import read_facts

ROOT = Path(__file__).parents[1]
HOOK = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
NOT_SHIPPED = (".dockerignore", ".github/", ".gitattributes", ".gitignore", ".pre-commit-config.yaml")
FOR_MIM = ("configs/", "tools/", "model-index.yml")
FOR_DEVELOPERS = ("tools/benchmarks/", "tools/mutants.py")


def tracked() -> set[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    return set(subprocess.run(command, cwd=ROOT, capture_output=True, check=True, encoding="utf-8").stdout.split())


def build(hook: str, source: Path, target: Path) -> Path:
    """What a build front end does, in the environment of the tests: 'build_sdist' or 'build_wheel'."""
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
        "GITHUB_SERVER_URL": "https://git.example",
        "GITHUB_REPOSITORY": "group/name",
    }
    subprocess.run(
        [sys.executable, "-c", HOOK, hook, str(target)], cwd=source, env=variables, check=True, capture_output=True
    )
    (file,) = target.iterdir()
    return file


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source distribution of the working tree, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("built")
    for name in tracked():
        if (ROOT / name).is_file():
            (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "tree" / name)
    sdist = build("build_sdist", folder / "tree", folder / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked")
    (source,) = (folder / "unpacked").iterdir()
    return sdist, build("build_wheel", source, folder / "wheel")


@pytest.mark.slow
@pytest.mark.needs(shutil.which("git") and (ROOT / ".git").exists(), reason="a clone")
def test_each_file_is_shipped_or_left_out_on_purpose(built: tuple[Path, Path]) -> None:
    sdist, wheel = built
    files = {name for name in tracked() if (ROOT / name).is_file()}
    with tarfile.open(sdist) as archive:
        packed = {member.name.partition("/")[2] for member in archive if member.isfile()}
    made = {name for name in packed if ".egg-info/" in name} | {"PKG-INFO", "setup.cfg"}
    assert packed - made == {name for name in files if not name.startswith(NOT_SHIPPED)}

    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = {name for name in files if name.startswith("mmms_plugin/")} | {
        f"mmms_plugin/.mim/{name}" for name in files if name.startswith(FOR_MIM) and not name.startswith(FOR_DEVELOPERS)
    }
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert "mmms_plugin/py.typed" in names


@pytest.mark.slow
@pytest.mark.needs(shutil.which("git") and (ROOT / ".git").exists(), reason="a clone")
def test_the_wheel_works_from_another_folder(built: tuple[Path, Path], tmp_path: Path) -> None:
    _, wheel = built
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "from mmms_plugin.commands import main; from mmms_plugin.config.files import find_config\n"
        "print(find_config('mask_rcnn_ps_r50_fpn_1x')); raise SystemExit(main(['configs']))"
    )
    variables = os.environ | {"PYTHONPATH": "site"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert "mask_rcnn_ps_r50_fpn_1x" in done.stdout
    assert Path(done.stdout.splitlines()[0]) == tmp_path / "site/mmms_plugin/.mim/configs/mask_rcnn_ps_r50_fpn_1x.py"

    (name,) = (tmp_path / "site").glob("*.dist-info/METADATA")
    metadata = message_from_string(name.read_text(encoding="utf-8"))
    assert "Source, https://git.example/group/name" in metadata.get_all("Project-URL", [])
    page = metadata.get_payload()
    assert isinstance(page, str)
    assert "](https://git.example/group/name/raw/v" in page
    assert not re.search(r"\]\((?!https?:)", page), "a link that leads nowhere on a package index"


def test_the_model_index_is_current() -> None:
    written = model_index.INDEX_FILE.read_text(encoding="utf-8")
    assert written == model_index.index_text(), "call python -m mmms_plugin.config.model_index"


def test_the_model_index_is_read_as_openmmlab_reads_it() -> None:
    modelindex = pytest.importorskip("modelindex")
    index = modelindex.load(str(model_index.INDEX_FILE))
    index.check()
    models = {model.name: model for model in index.models}
    assert sorted(models) == sorted(read_facts())
    assert all((ROOT / model.config).is_file() for model in models.values())
    detector = models["mask_rcnn_ps_r50_fpn_1x"]
    assert [result.metrics for result in detector.results] == [{"box AP": 39.4}, {"mask AP": 35.6}]
    assert {result.dataset for result in detector.results} == {"COCO"}
    for name, facts in read_facts().items():
        results = models[name].results
        assert bool(results) == bool(facts.published), name
        for result in results or ():
            (value,) = result.metrics.values()
            assert str(value) in facts.published


def test_every_method_is_cited_with_its_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for paper in citation["references"]:
        assert f"[{paper['abbreviation']}]({paper['url']})" in readme
    methods = {facts.method for facts in read_facts().values()} - {"plain"}
    assert methods <= {paper["abbreviation"] for paper in citation["references"]}


@pytest.mark.needs((ROOT / ".github").exists(), reason="a clone")
def test_workflows_run_what_is_there_with_pinned_actions() -> None:
    for path in sorted((ROOT / ".github").rglob("*.yml")):
        text = path.read_text(encoding="utf-8")
        assert yaml.safe_load(text), path
        actions = re.findall(r"uses: (.*)", text)
        assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v[\d.]+", action) for action in actions), path
        scripts = re.findall(r"run: (\.ci/\S+)", text)
        assert all(os.access(ROOT / script, os.X_OK) for script in scripts), path
