"""Packaging: the package itself, and the configs as its data (``mmms train NAME`` works from any folder)."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "mmms_plugin/__init__.py").read_text(encoding="utf-8")).group(1)
CONFIG_FOLDERS = {
    ".".join(("mmms_plugin", *folder.relative_to(HERE).parts)): str(folder.relative_to(HERE))
    for folder in (HERE / "configs", *sorted((HERE / "configs").rglob("*")))
    if folder.is_dir() and folder.name != "__pycache__"
}

setup(
    name="mmms_plugin",
    version=VERSION,
    description="Multi-scale convolution layers and backbones for OpenMMLab (mmdet, mmseg, mmpretrain)",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=[*find_packages(include=["mmms_plugin", "mmms_plugin.*"]), *CONFIG_FOLDERS],
    package_dir=CONFIG_FOLDERS,
    package_data={"": ["*.html", "*.jinja", "*.json", "templates/*.jinja"]},
    entry_points={"console_scripts": ["mmms = mmms_plugin.commands:script"]},
    install_requires=[
        "torch>=2.6",  # loads with weights_only=True by default; an installed build is kept
        "mmengine>=0.10.7,<0.11",
        "mmcv-lite==2.1.0",  # the compiled mmcv of this version is used instead if it is installed
        "mmdet>=3.3,<3.4",
        "mmsegmentation>=1.2.2,<1.3",
        "setuptools<81",  # mmengine 0.10 imports pkg_resources
        "ftfy",
        "regex",
        "pycocotools>=2.0.8",
        "matplotlib",
        "numpy",
        "scipy",  # Student's t, for methods with several seeds
        "scikit-learn",  # t-SNE of scale policies
        "pillow",
        "jinja2",
        "rich",
        "safetensors>=0.4",
        "msgspec>=0.18",
        "shtab>=1.6",  # tab completion
        "filelock>=4",  # one training per work folder; unfinished files of killed processes
        "psutil>=5.9",  # memory of processes, on Windows
    ],
    extras_require={
        # mmpretrain imports torchvision, which is left out on purpose: each of its builds requires one build of torch,
        # and pip would replace the installed torch. Install the one that matches yours from where your torch came:
        # pip install torchvision --index-url https://download.pytorch.org/whl/cpu (or cu126, ...)
        "mmpretrain": ["mmpretrain==1.2.0", "importlib-metadata"],
        "policy": ["pyarrow"],  # for the table of mmms scale-policy as Parquet
        "docs": ["sphinx", "myst-parser", "furo"],
        # torchvision, which mmpretrain needs, is installed by requirements/install.py: pip would replace torch for it
        "test": [
            *("pytest", "pytest-xdist", "coverage>=7.13"),
            *("ruff", "mypy", "import-linter"),
            *("mmpretrain==1.2.0", "pyarrow", "onnxscript", "onnxruntime"),
        ],
    },
)
