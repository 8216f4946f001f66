"""Finding and loading configs: a path, the name of a config of the package, or ``HOST::NAME``.

The wheels of the hosts and of this package carry configs and scripts in a folder ``.mim``; a clone has them beside the
package. Finding them imports no host.
"""

from __future__ import annotations

import difflib
import functools
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmms_plugin.compat.hosts import not_installed
from mmms_plugin.errors import UserError, first_line, shown

if TYPE_CHECKING:
    from types import ModuleType

    from mmengine.config import Config

_PACKAGE = Path(__file__).resolve().parent.parent
HOSTS = ("mmdet", "mmseg", "mmpretrain")
SEPARATOR = "::"
SUFFIXES = (".py", ".json", ".yaml", ".yml")


def config_root() -> Path:
    """The folder of the configs, in the installed package or in the clone that it is imported from."""
    installed = _PACKAGE / ".mim" / "configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def config_names() -> dict[str, Path]:
    """The file of every config of the package, by its path below the config folder, without the suffix."""
    root = config_root()
    files = (f for f in sorted(root.rglob("*.py")) if not f.relative_to(root).parts[0].startswith("_"))
    return {f.relative_to(root).with_suffix("").as_posix(): f for f in files}


def find_config(name: str) -> Path:
    """The file of a config given as a path, as a name such as ``mask_rcnn_ps_r50_fpn_1x``, or as ``mmdet::NAME``.

    Raises:
        UserError: there is no such config, and the message lists the nearest names, or its format is unknown.
    """
    path = Path(name)
    if path.is_file():
        if path.suffix not in SUFFIXES:
            *others, last = SUFFIXES
            raise UserError(f"config {name}: the suffix is {path.suffix!r}, allowed are {', '.join(others)} and {last}")
        return path
    name = name.removeprefix(f"mmms_plugin{SEPARATOR}")
    if SEPARATOR in name:
        return find_host_file(name, "configs")
    names = config_names()
    wanted = name.removesuffix(".py").removeprefix("configs/")
    matches = [f for key, f in names.items() if wanted in (key, key.rsplit("/", 1)[-1])]
    if len(matches) == 1:
        return matches[0]
    near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
    hint = f"the nearest are {', '.join(near)}" if near else "`mmms configs` lists all"
    raise UserError(f"config {name!r}: no such file and no config of that name; {hint}")


def load_config(name: str) -> Config:
    """Load a config, given as for ``find_config``.

    Raises:
        UserError: it cannot be read.
    """
    path = find_config(name)
    from mmengine.config import Config  # `mmms configs` works without it

    if path.suffix in (".yaml", ".yml"):
        from mmms_plugin.coco.yaml_files import check_yaml_config

        check_yaml_config(path)
    try:
        config = Config.fromfile(path)
    except Exception as error:  # a config is code and may raise anything
        raise UserError(f"config {path}: {type(error).__name__}: {first_line(error)}") from error
    for key in ("model", "train_dataloader", "val_dataloader", "test_dataloader"):
        if not isinstance(config.get(key) or {}, dict):
            raise UserError(f"config {path}: {key}={shown(config[key])}: must be a dictionary")
    return with_preprocessor(config)


def with_preprocessor(config: Config) -> Config:
    """The config, whose model has the ``data_preprocessor`` that mmpretrain's configs state beside it.

    Runners pass it on; a model that is built alone would not normalise its pictures.
    """
    stated = config.get("data_preprocessor")
    if isinstance(stated, dict) and isinstance(config.get("model"), dict) and not config.model.get("data_preprocessor"):
        config.model["data_preprocessor"] = stated
    return config


def host_files(host: str, kind: str) -> dict[str, Path]:
    """Every file of a host, by its path below the folder ``kind``, without the suffix.

    Args:
        host: 'mmdet', 'mmseg' or 'mmpretrain'.
        kind: 'configs' or 'tools'.

    Raises:
        UserError: the host is unknown, not installed, or came without these files.
    """
    if host not in HOSTS:
        raise UserError(f"{host}{SEPARATOR}: no such host; allowed are {', '.join(HOSTS)}")
    spec = find_spec(host)
    if spec is None:
        raise UserError(f"{host}{SEPARATOR}: {not_installed(host)}")
    package = Path(next(iter(spec.submodule_search_locations or [host])))
    for root in (package / ".mim" / kind, package.parent / kind):
        if root.is_dir():
            return {file.relative_to(root).with_suffix("").as_posix(): file for file in sorted(root.rglob("*.py"))}
    raise UserError(f"{host}{SEPARATOR}: the installed {host} came without its {kind}")


def find_host_file(name: str, kind: str) -> Path:
    """The file of ``HOST::PATH``; PATH may lack its folders and its suffix.

    Args:
        name: such as 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', or 'mmdet::train' with ``kind`` 'tools'.
        kind: 'configs' or 'tools'.

    Raises:
        UserError: no file or several files have this name; the message lists the nearest names.
    """
    host, _, rest = name.partition(SEPARATOR)
    files = host_files(host, kind)
    wanted = rest.removesuffix(".py").removeprefix(f"{kind}/")
    if wanted in files:
        return files[wanted]
    matches = [key for key in files if key.rsplit("/", 1)[-1] == wanted]
    if len(matches) == 1:
        return files[matches[0]]
    near = matches
    if not near:  # names without their folders first
        by_stem = {key.rsplit("/", 1)[-1]: key for key in files}
        stems = difflib.get_close_matches(wanted.rsplit("/", 1)[-1], by_stem, n=3, cutoff=0.5)
        near = [by_stem[stem] for stem in stems] or [key for key in files if not key.startswith("_base_")][:3]
    problem = "several have this name" if matches else "no such file"
    raise UserError(f"{name}: {problem} among the {kind} of {host}; the nearest are {', '.join(near)}")


def take_names_of_configs(module: ModuleType) -> None:
    """Change ``mmengine.infer.infer``: the hosts' inferencers take names of the package's configs.

    mmengine cannot register names of models: it looks them up in the metafile of the host's package. The weights are
    those that the caller gives, or random.
    """
    of_host = module.BaseInferencer._load_model_from_metafile
    if hasattr(of_host, "__wrapped__"):
        return

    @functools.wraps(of_host)
    def of_name(self: Any, model: str) -> tuple[Any, str | None]:
        return (load_config(model), None) if model in config_names() else of_host(self, model)

    module.BaseInferencer._load_model_from_metafile = of_name
