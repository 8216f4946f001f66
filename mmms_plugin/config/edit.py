"""Changing a config: its nested dictionaries, and ``--cfg-options``.

An option whose key is misspelt or has no effect is reported before training starts. mmengine is imported only by the
functions that need it: the options of commands import this module.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mmms_plugin.errors import UserError, first_line, printable, shown

if TYPE_CHECKING:
    from mmengine.config import Config

# Keys that mmengine's Runner and the hosts read, in addition to the arguments of Runner
READ_ELSEWHERE = {
    "activation_checkpointing", "auto_scale_lr", "compile", "custom_imports", "efficient_conv_bn_eval",
    "find_unused_parameters", "model_wrapper_cfg", "runner_type", "sync_bn", "tta_model", "tta_pipeline",
}  # fmt: skip
READS = {"ann_file", "data_prefix", "data_root"}  # arguments of data sets that read files
LIKE = 0.75  # difflib's ratio from which a name counts as a misspelling of another


def dicts_in(node: Any) -> Iterator[dict[str, Any]]:
    """Every dictionary in a nested config, outer ones first."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list | tuple):
        for item in node:
            yield from dicts_in(item)


def class_name(part: Mapping[str, Any]) -> str:
    """The name of the class that a part of a config builds, without scope and module; empty if it names none."""
    kind = part.get("type")
    name = kind if isinstance(kind, str) else getattr(kind, "__name__", "")
    return str(name).rpartition(".")[2]


def value_at(config: Mapping[str, Any], path: str) -> Any:
    """The value under a key such as ``optim_wrapper.optimizer.lr``; None if there is none."""
    first, *others = path.split(".")
    node = config.get(first)  # mmengine's Config is not a dict, its parts are
    for key in others:
        if isinstance(node, list | tuple):
            node = node[int(key)] if key.isdecimal() and int(key) < len(node) else None
        else:
            node = node.get(key) if isinstance(node, dict) else None
    return node


def leaf_datasets(dataloader: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The data sets of a dataloader's config, inside wrappers such as ConcatDataset and RepeatDataset."""
    if not dataloader:
        return []
    return [part for part in dicts_in(dataloader["dataset"]) if "type" in part and READS & part.keys()]


def drop_doubles(dataloader: dict[str, Any], after: Callable[[dict[str, Any]], Any]) -> int:
    """Drop joined data sets that will be equal to an earlier one, as all do that are pointed at the same data.

    Those that are equal already stay: the same pictures with two pipelines, say.

    Args:
        dataloader: its config.
        after: what a data set will read, which decides whether it is equal to another.

    Returns:
        The number of data sets that were dropped.
    """
    dropped = 0
    for wrapper in dicts_in(dataloader):
        if not isinstance(wrapper.get("datasets"), list):
            continue
        kept: list[Any] = []
        seen: list[tuple[Any, Any]] = []  # what each kept part reads now, and later
        for part in wrapper["datasets"]:
            leaves = leaf_datasets({"dataset": part})
            now = [[leaf.get(key) for key in ("data_root", "ann_file", "data_prefix")] for leaf in leaves]
            later = [after(leaf) for leaf in leaves]
            if not any(later == others and now != other for other, others in seen):
                kept.append(part)
                seen.append((now, later))
        dropped += len(wrapper["datasets"]) - len(kept)
        wrapper["datasets"] = kept
    return dropped


def data_metainfo(config: dict[str, Any], split: str) -> dict[str, Any]:
    """Classes and palette of a split's data, from the config or else from its type; {} if unknown."""
    for dataset in leaf_datasets(config.get(f"{split}_dataloader")):
        kind = registered(dataset["type"], config.get("default_scope") or "mmengine", ("DATASETS",))
        return {**getattr(kind, "METAINFO", {}), **(dataset.get("metainfo") or {})}
    return {}


def data_classes(config: dict[str, Any], split: str) -> tuple[str, ...] | None:
    """Names of the classes of a split's data, fit for a message; None if unknown."""
    metainfo = data_metainfo(config, split)
    names = metainfo.get("classes") or metainfo.get("CLASSES")
    names = (names,) if isinstance(names, str) else names or ()
    return tuple(printable(str(name)) for name in names) or None


def class_count_owners(model: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts of a model's config that have a ``num_classes``."""
    return [part for part in dicts_in(model) if isinstance(part.get("num_classes"), int)]


def set_num_classes(model: dict[str, Any], count: int) -> None:
    """Set every ``num_classes`` in a model's config."""
    for part in class_count_owners(model):
        part["num_classes"] = count


def loading_files(pipeline: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The steps of a classifier's pipeline for the files of pictures.

    Those for pictures in memory, such as CIFAR's, lack the steps that load them. In memory they are RGB.
    """
    if not pipeline or any(class_name(step).startswith("Load") for step in pipeline):
        return [*pipeline]
    to_rgb = dict(type="mmpretrain.NumpyToPIL", to_rgb=True), dict(type="mmpretrain.PILToNumpy")
    return [dict(type="LoadImageFromFile"), *to_rgb, *pipeline]


def evaluators(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The configs of all metrics for validation and test."""
    return [d for key in ("val_evaluator", "test_evaluator") for d in dicts_in(config.get(key)) if "type" in d]


def coco_metrics(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The configs of the metrics that read COCO annotations and write COCO results."""
    return [m for m in evaluators(config) if "ann_file" in m or m["type"].endswith(("CocoMetric", "SizeAPMetric"))]


def replace_components(model: dict[str, Any], components: Mapping[str, Mapping[str, Any]]) -> int:
    """Update every part of a model config whose type is in ``components``; returns the number of parts."""
    parts = [part for part in dicts_in(model) if part.get("type") in components]
    for part in parts:
        part.update(components[part["type"]])
    return len(parts)


def apply_cfg_options(config: Config, options: Mapping[str, Any]) -> list[str]:
    """Merge ``KEY=VALUE`` options, keys such as ``optim_wrapper.optimizer.lr``, into ``config``.

    Returns:
        Remarks for the log: keys that are new to the config and may be right.

    Raises:
        UserError: a key is misspelt, has no effect, or leads through a value that is not a dictionary or list.
    """
    remarks: list[str] = []
    for key in sorted(options, key=lambda key: not key.endswith(".type")):  # a new type decides on its arguments
        remarks += filter(None, (_check_read(config, key), _check_spelling(config, key)))
        try:
            merge_option(config, key, options[key])
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise UserError(f"--cfg-options {key}: {type(error).__name__}: {first_line(error)}") from error
    return remarks


def merge_option(config: Config, key: str, value: Any) -> None:
    """Merge an option into ``config``; a dictionary in place of a list becomes a list of one."""
    old = value_at(config, key)
    if isinstance(old, list) and isinstance(value, dict) and not all(str(name).isdigit() for name in value):
        value = [value]
    config.merge_from_dict({key: value})


def _check_read(config: Config, key: str) -> str | None:
    """Refuse a variable of the config file and name the keys that it was copied to; only a remark if there are none."""
    from mmengine.runner import Runner

    first, _, rest = key.partition(".")
    read = set(inspect.signature(Runner.__init__).parameters) - {"self", "cfg"} | READ_ELSEWHERE
    if value_at(config, "model.data_preprocessor"):
        read.discard("data_preprocessor")  # runners prefer the model's
    if first in read:
        return None
    if first not in config:
        near = [path for path, _ in _paths(_plain(config._cfg_dict)) if path.endswith(f".{key}")]
        near = near or difflib.get_close_matches(first, read | set(config), n=1, cutoff=LIKE)
        hint = f"did you mean {near[0]}?" if near else "no part of OpenMMLab reads it"
        raise UserError(f"--cfg-options {key}: the config has no {first!r}; {hint}")
    value = _plain(config[first])
    places = [path for path, other in _paths(_plain(config._cfg_dict)) if path != first and other == value]
    if not isinstance(value, dict | list) or not value:  # equal numbers alone prove nothing
        places = [path for path in places if path.rsplit(".", 1)[-1] == first]
    if places := [path for path in places if path.partition(".")[0] in read]:
        full = ", ".join(f"{path}.{rest}" if rest else path for path in places[:3])
        raise UserError(
            f"--cfg-options {key}: {first} is a variable of the config file, copied from there when the file was read, "
            f"so that changing it has no effect; change {full}"
        )
    return f"--cfg-options {key}: {first} is a variable of the config file that no part of OpenMMLab reads: no effect"


def _plain(node: Any) -> Any:
    """A nested config as dictionaries and lists, without the scope that mmengine adds to parts of a host's file."""
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items() if key != "_scope_"}
    return [_plain(item) for item in node] if isinstance(node, list | tuple) else node


def _paths(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of a nested config, as ``--cfg-options`` writes it, and its value."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        here = f"{path}.{key}" if path else str(key)
        yield here, value
        yield from _paths(value, here)


def _check_spelling(config: Config, key: str) -> str | None:
    """Refuse a key that its part of the config neither has nor takes; only a remark if it is merely new."""
    parts, node = key.split("."), config._cfg_dict
    for depth, part in enumerate(parts):
        here = ".".join(parts[:depth])
        if isinstance(node, list | tuple):
            if not part.isdigit() or int(part) >= len(node):
                raise UserError(
                    f"--cfg-options {key}: {here} is a list of {len(node)}, allowed are 0 to {len(node) - 1}"
                )
            node = node[int(part)]
        elif not isinstance(node, dict):
            return None if node is None else f"--cfg-options {key}: {here} was {shown(node)}"
        elif part in node:
            node = node[part]
        else:
            break
    else:
        return None
    accepted, others = arguments_of(config, node.get("type"))
    if not here or part == "_delete_" or part in accepted:
        return None
    near = difflib.get_close_matches(part, {*node, *accepted}, n=1, cutoff=LIKE)
    if near or not others:
        hint = f"did you mean {near[0]}?" if near else f"allowed are {', '.join(sorted(accepted))}"
        raise UserError(f"--cfg-options {key}: {here} has no {part!r}; {hint}")
    return f"--cfg-options {key}: new, {here} had no {part!r}"


def arguments_of(config: Mapping[str, Any], kind: Any) -> tuple[set[str], bool]:
    """Names of the arguments that a registered type takes, and whether it may take others."""
    known = registered(kind, config.get("default_scope") or "mmengine")
    return (set(), True) if known is None else _signature(known)


def registered(kind: Any, scope: str, registries: Sequence[str] = ()) -> Any:
    """The class or function that is registered under a name, as seen from a host's scope; None if there is none.

    Args:
        registries: names of the registries to look in; () for all.
    """
    if not isinstance(kind, str):
        return None
    from mmengine.registry import root

    with suppress(ImportError):
        import_module(f"{scope}.registry")  # adds the host's registries to mmengine's
    for registry in (value for name, value in vars(root).items() if name.isupper() and name in (registries or (name,))):
        if (known := registry.children.get(scope, registry).get(kind)) is not None:
            return known
    return None


def _signature(kind: type) -> tuple[set[str], bool]:
    """Arguments of a class and of the bases that its ``**kwargs`` may reach, and whether it may take others."""
    names: set[str] = set()
    for cls in kind.__mro__ if inspect.isclass(kind) else ():
        if "__init__" not in vars(cls):
            continue
        if cls is object:
            break
        parameters = inspect.signature(vars(cls)["__init__"]).parameters.values()
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if all(p.kind is not p.VAR_KEYWORD for p in parameters):
            return names - {"self"}, False
    return names - {"self"}, True
