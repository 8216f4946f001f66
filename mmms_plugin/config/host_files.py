"""Configs and scripts that come with the hosts, by name: ``mmdet::retinanet_r50_fpn_1x_coco``, ``mmdet::train``.

The hosts' wheels carry them in a folder ``.mim``; a clone has them beside the package. Finding them imports no host.
"""

from __future__ import annotations

import difflib
from importlib.util import find_spec
from pathlib import Path

from mmms_plugin.errors import UserError

HOSTS = ("mmdet", "mmseg", "mmpretrain")
SEPARATOR = "::"


def host_files(host: str, kind: str) -> dict[str, Path]:
    """Every file of a host's ``kind``, 'configs' or 'tools', by its path below that folder, without the suffix.

    Raises:
        UserError: the host is unknown, not installed, or came without these files.
    """
    if host not in HOSTS:
        raise UserError(f"{host}{SEPARATOR}: no such host; allowed are {', '.join(HOSTS)}")
    spec = find_spec(host)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"{host}{SEPARATOR}: {host} is not installed")
    package = Path(spec.submodule_search_locations[0])
    for root in (package / ".mim" / kind, package.parent / kind):
        if root.is_dir():
            return {file.relative_to(root).with_suffix("").as_posix(): file for file in sorted(root.rglob("*.py"))}
    raise UserError(f"{host}{SEPARATOR}: the installed {host} came without its {kind}")


def find_host_file(name: str, kind: str) -> Path:
    """The file for ``HOST::PATH``, where PATH may lack its folders and its suffix.

    Args:
        name: such as 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', or 'mmdet::train' with ``kind`` 'tools'.
        kind: 'configs' or 'tools'.

    Raises:
        UserError: there is none, or there are several; the message has the nearest names.
    """
    host, _, rest = name.partition(SEPARATOR)
    files = host_files(host, kind)
    wanted = rest.removesuffix(".py").removeprefix(f"{kind}/")
    if wanted in files:
        return files[wanted]
    matches = [key for key in files if key.rsplit("/", 1)[-1] == wanted]
    if len(matches) == 1:
        return files[matches[0]]
    near = matches or _nearest(wanted, list(files))
    problem = "several have this name" if matches else "no such file"
    raise UserError(f"{name}: {problem} among the {kind} of {host}; the nearest are {', '.join(near)}")


def _nearest(wanted: str, names: list[str]) -> list[str]:
    """Three names like ``wanted``, compared without their folders first."""
    stem = wanted.rsplit("/", 1)[-1]
    by_stem = {name.rsplit("/", 1)[-1]: name for name in names}
    nearest = [by_stem[near] for near in difflib.get_close_matches(stem, by_stem, n=3, cutoff=0.5)]
    return nearest or [name for name in names if not name.startswith("_base_")][:3]
