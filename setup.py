"""Packaging: the package itself, and with it configs and scripts, where OpenMMLab's tools look for them."""

import os
import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "mmms_plugin/__init__.py").read_text(encoding="utf-8")).group(1)
PAPERS = re.findall(r"abbreviation: (.+)\n +url: (.+)", (HERE / "CITATION.cff").read_text(encoding="utf-8"))
# The release workflow knows the address of the repository; elsewhere there is none to state.
REPOSITORY = "/".join(filter(None, map(os.environ.get, ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY"))))
FOR_DEVELOPERS = shutil.ignore_patterns("__pycache__", "benchmarks", "mutants.py")


class BuildWithConfigs(build_py):
    """Also copy configs and scripts into ``mmms_plugin/.mim``; an editable installation uses those of the clone."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, "mmms_plugin", ".mim")
        shutil.rmtree(target, ignore_errors=True)  # of an earlier build
        for folder in ("configs", "tools"):
            shutil.copytree(HERE / folder, target / folder, ignore=FOR_DEVELOPERS)
        shutil.copy(HERE / "model-index.yml", target)


def long_description() -> str:
    """README.md; its links and pictures are those of the release if the address of the repository is known."""
    text = (HERE / "README.md").read_text(encoding="utf-8")
    if REPOSITORY:
        text = re.sub(r"(!\[[^]]*\]\()(?!http)", rf"\1{REPOSITORY}/raw/v{VERSION}/", text)
        text = re.sub(r"((?<!!)\[[^]]*\]\()(?!http)", rf"\1{REPOSITORY}/blob/v{VERSION}/", text)
    return text


# Enough for measuring, checking data and converting checkpoints. Hosts are extras: two of them share their folders.
CORE = [
    "torch>=2.6",  # loads with weights_only=True by default; an installed build is kept
    "pycocotools>=2.0.8",
    "matplotlib",
    "numpy",
    "scipy",  # Student's t, for methods with several seeds
    "opencv-python>=4",  # what the hosts decode pictures with
    "pillow",
    "pyyaml",
    "jinja2",
    "rich",
    "safetensors>=0.4",
    "msgspec>=0.18",
    "shtab>=1.6",  # tab completion
    "filelock>=4",  # one training per work folder; unfinished files of killed processes
    "psutil>=5.9",  # memory of processes, on Windows
]
OPENMMLAB = [
    "mmengine>=0.10.7,<0.11",
    "mmcv-lite==2.1.0",  # the compiled mmcv of this version is used instead if it is installed
    "setuptools<81",  # mmengine 0.10 imports pkg_resources
    "mmdet>=3.3,<3.4",
    *("mmsegmentation>=1.2.2,<1.3", "ftfy", "regex"),
    "scikit-learn",  # t-SNE of scale policies
]

setup(
    name="mmms_plugin",
    version=VERSION,
    description="Multi-scale convolution layers and backbones for OpenMMLab (mmdet, mmseg, mmpretrain)",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    keywords="OpenMMLab mmdet mmseg mmpretrain PSConv ELASTIC MSDNet multi-scale object-detection average-precision",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 15)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    project_urls={
        **({"Source": REPOSITORY, "Issues": f"{REPOSITORY}/issues"} if REPOSITORY else {}),
        **dict(PAPERS),
    },
    python_requires=">=3.10",
    packages=find_packages(include=["mmms_plugin", "mmms_plugin.*"]),
    package_data={"": ["*.html", "*.jinja", "*.json", "templates/*.jinja", "py.typed"]},
    cmdclass={"build_py": BuildWithConfigs},
    entry_points={"console_scripts": ["mmms = mmms_plugin.commands:script"]},
    install_requires=CORE,
    extras_require={
        "openmmlab": OPENMMLAB,
        # Maintained forks, which install into the same folders as the above. Without torch, as in pip's isolated build,
        # onedl-mmcv is built without its compiled operators.
        "onedl": [
            *("onedl-mmengine>=0.10.12,<0.11", "onedl-mmcv>=2.3.6,<2.4"),
            *("onedl-mmdetection>=3.5.1,<3.6", "onedl-mmsegmentation>=1.4.2,<1.5"),
            "scikit-learn",
        ],
        # Beside these hosts and these forks. Both import torchvision, which is left out on purpose: each of its builds
        # requires one build of torch, and pip would replace yours. Install the one that matches, from where torch came:
        # pip install torchvision --index-url https://download.pytorch.org/whl/cpu (or cu126, ...)
        "mmpretrain": ["mmpretrain==1.2.0", "importlib-metadata"],
        "onedl-mmpretrain": ["onedl-mmpretrain>=1.3.6,<1.4"],
        "policy": ["pyarrow"],  # for the table of mmms scale-policy as Parquet
        "docs": ["sphinx", "myst-nb", "furo", "pandas"],
        # torchvision, which mmpretrain needs, is installed by requirements/install.py: pip would replace torch for it
        "test": [
            *("pytest", "pytest-xdist", "coverage>=7.13"),
            *("ruff", "mypy", "import-linter"),
            *("mmpretrain==1.2.0", "pyarrow", "pandas", "onnxscript", "onnxruntime"),
        ],
    },
)
