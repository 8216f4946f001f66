"""Channels that do not fit between the parts of a model, in the words of its config.

torch reports the weight of some convolution (``expected input to have 2048 channels, but got 512``). Here the maps that
backbone and neck really give are compared with the ``in_channels`` of what takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from mmms_plugin.errors import UserError

HEADS = ("rpn_head", "bbox_head", "head", "decode_head", "auxiliary_head", "mask_head", "panoptic_head")
EXTRACTORS = {"bbox_roi_extractor": "bbox_head", "mask_roi_extractor": "mask_head"}  # of a roi_head, and who takes it


@contextmanager
def channels_explained(model: nn.Module, config: Mapping[str, Any]) -> Iterator[None]:
    """Where a run of the model fails and channels do not fit, raise a UserError that names the value of the config.

    Args:
        model: without a wrapper.
        config: of the model.
    """
    maps: dict[str, list[int]] = {}
    parts = {name: part for name in ("backbone", "neck") if isinstance(part := getattr(model, name, None), nn.Module)}
    hooks = [part.register_forward_hook(_recorder(maps, name)) for name, part in parts.items()]
    try:
        yield
    except Exception as error:
        if fault := channel_fault(config, maps.get("backbone"), maps.get("neck")):
            raise UserError(fault) from error
        raise
    finally:
        for hook in hooks:
            hook.remove()


def _recorder(maps: dict[str, list[int]], name: str) -> Callable[..., None]:
    def record(_: nn.Module, __: Any, output: Any) -> None:
        tensors = output if isinstance(output, list | tuple) else [output]
        if all(isinstance(value, Tensor) and value.dim() > 1 for value in tensors):
            maps[name] = [int(value.shape[1]) for value in tensors]

    return record


def channel_fault(config: Mapping[str, Any], backbone: list[int] | None, neck: list[int] | None) -> str | None:
    """The first part of a model whose ``in_channels`` are not those of the maps that it gets; None if all fit.

    Args:
        config: of the model.
        backbone, neck: channels of the maps that each gave; None if it did not get that far, or there is none.
    """
    if backbone is None:
        return None
    giver, maps = "backbone", backbone
    if necks := _parts(config.get("neck")):
        if fault := _of_maps("neck", necks[0].get("in_channels"), backbone, "backbone"):
            return fault
        if neck is None:
            return None
        giver, maps = "neck", neck
    for name in HEADS:
        for number, head in enumerate(several := _parts(config.get(name))):
            path = f"{name}.{number}" if len(several) > 1 else name
            if fault := _of_head(path, head, maps, giver):
                return fault
    return _of_regions(config.get("roi_head"), maps, giver)


def _parts(config: Any) -> list[Mapping[str, Any]]:
    """The dictionaries of a part that may be one, several in a list, or none."""
    return [part for part in (config if isinstance(config, list | tuple) else [config]) if isinstance(part, Mapping)]


def _of_maps(path: str, wanted: Any, maps: list[int], giver: str) -> str | None:
    """``in_channels`` of something that takes all maps (a list) or maps of one width (a number)."""
    if isinstance(wanted, int) and not isinstance(wanted, bool):
        fits = wanted in maps
    else:
        fits = not isinstance(wanted, list | tuple) or list(wanted) == maps
    given: Any = maps if isinstance(wanted, list | tuple) or len(set(maps)) > 1 else maps[0]
    return None if fits else _fault(f"{path}.in_channels", wanted, given, giver)


def _of_head(path: str, head: Mapping[str, Any], maps: list[int], giver: str) -> str | None:
    wanted, index = head.get("in_channels"), head.get("in_index")
    if index is None and path.startswith(("decode_head", "auxiliary_head")):
        index = -1  # mmseg's default
    indices: list[Any] = list(index) if isinstance(index, list | tuple) else [index]
    if not all(isinstance(place, int) for place in indices):
        return _of_maps(path, wanted, maps, giver)
    if any(not -len(maps) <= place < len(maps) for place in indices):
        return f"{path}.in_index is {index}, the {giver} gives {len(maps)} maps: set model.{path}.in_index to those"
    taken: Any = [maps[place] for place in indices]
    if not isinstance(index, list | tuple):
        taken = taken[0]
        wanted = wanted[0] if isinstance(wanted, list | tuple) and len(wanted) == 1 else wanted
    fits = wanted is None or (list(wanted) if isinstance(wanted, list | tuple) else wanted) == taken
    return None if fits else _fault(f"{path}.in_channels", wanted, taken, giver)


def _of_regions(config: Any, maps: list[int], giver: str) -> str | None:
    """The extractors of a ``roi_head`` and the heads behind them."""
    if not isinstance(config, Mapping) or config.get("shared_head"):
        return None
    for name, taker in EXTRACTORS.items():
        extractors = _parts(config.get(name))
        for extractor in extractors:
            width, strides = extractor.get("out_channels"), extractor.get("featmap_strides") or ()
            given = maps[: len(strides)] or maps
            joins = extractor.get("aggregation") == "concat"
            if isinstance(width, int) and not joins and given != [width] * len(given):
                return _fault(f"roi_head.{name}.out_channels", width, given, giver)
        for head in _parts(config.get(taker)):
            wanted, width = head.get("in_channels"), extractors[0].get("out_channels") if extractors else None
            if isinstance(wanted, int) and isinstance(width, int) and wanted != width:
                return _fault(f"roi_head.{taker}.in_channels", wanted, width, f"roi_head's {name}")
    return None


def _fault(path: str, wanted: Any, given: Any, giver: str) -> str:
    shown = list(wanted) if isinstance(wanted, tuple) else wanted
    return f"{path} is {shown}, the {giver} gives {given}: set model.{path} to that"
