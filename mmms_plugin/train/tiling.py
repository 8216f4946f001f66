"""Detectors on tiles of large pictures: what runs on them, for ``--tiles``; see `config.tiles`.

A picture is read once. Its tiles are cut from it one after another, and what was found on them stays as boxes and as
run lengths of the masks, so that memory grows with the picture's pixels and the objects, not with their product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import mmcv
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset, Compose, pseudo_collate
from mmengine.hooks import Hook
from mmengine.registry import DATASETS as ROOT
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from pycocotools import mask as mask_utils

from mmms_plugin.coco.frames import moved
from mmms_plugin.coco.run_lengths import RLE
from mmms_plugin.config.tiles import TileOptions
from mmms_plugin.errors import UserError
from mmms_plugin.registry import DATASETS, HOOKS, TRANSFORMS
from mmms_plugin.tiles.cutting import KEPT, cut_objects
from mmms_plugin.tiles.grid import Tile, tiles_in
from mmms_plugin.tiles.merging import merged
from mmms_plugin.train.hooks import unwrapped

TOGETHER = 1 << 22  # px of the tiles that run together: each has up to a hundred masks of its size
Step = Callable[[Any], Sequence[Any]]
Watch = Callable[[Sequence[Any]], Iterable[Any]]  # passes them on, and shows how far it is


class TiledDetector:
    """A detector that runs on the tiles of a picture.

    Args:
        step: a model's ``test_step``.
        pipeline: from the pixels of a tile to what the model takes.
        options: of the tiles.
        batch: most tiles that run together; fewer do if they are large.
        score: lowest score of an object; those below it are dropped before objects are merged.
        watch: of the batches of a picture.
    """

    def __init__(
        self, step: Step, pipeline: Compose, options: TileOptions, batch: int = 1, score: float = 0.0,
        watch: Watch = iter,
    ) -> None:  # fmt: skip
        self.step, self.pipeline, self.options = step, pipeline, options
        self.batch = max(1, min(batch, TOGETHER // (options.tiles or 1) ** 2))
        self.score, self.watch = score, watch

    def __call__(self, picture: np.ndarray, info: Mapping[str, Any]) -> InstanceData:
        """The objects of a picture, the best first, with ``masks`` as a list of RLEs if the model has masks.

        Args:
            picture: ``[height, width, channels]``, as the test pipeline loads it.
            info: what the pipeline knows about the picture, such as ``img_path``.

        Raises:
            UserError: the model predicts no boxes with sides parallel to the picture's.
        """
        height, width = picture.shape[:2]
        tiles = tiles_in(width, height, self.options.tiles or 0, self.options.overlap)
        found = list(self._on_tiles(picture, info, tiles))
        if self.options.whole and len(tiles) > 1:
            found.append(self._on_whole(picture, info))
        boxes, scores, labels = (torch.cat([part[key] for part in found]) for key in ("bboxes", "scores", "labels"))
        groups = merged(boxes.double().numpy(), scores.double().numpy(), labels.numpy(), self.options.rule)
        best = torch.tensor([group[0] for group in groups], dtype=torch.long)
        joined = [torch.cat((boxes[group, :2].amin(0), boxes[group, 2:].amax(0))) for group in groups]
        objects = InstanceData(
            bboxes=torch.stack(joined) if joined else boxes[:0], scores=scores[best], labels=labels[best]
        )
        if all("masks" in part for part in found):
            masks: list[RLE] = [mask for part in found for mask in part.masks]
            objects.masks = [
                masks[group[0]] if len(group) == 1 else mask_utils.merge([masks[i] for i in group]) for group in groups
            ]
        return objects

    def _on_tiles(self, picture: np.ndarray, info: Mapping[str, Any], tiles: Sequence[Tile]) -> Iterator[InstanceData]:
        for together in self.watch([tiles[i : i + self.batch] for i in range(0, len(tiles), self.batch)]):
            batch = [self._packed(picture[t.top : t.bottom, t.left : t.right], info) for t in together]
            for tile, sample in zip(together, self.step(pseudo_collate(batch)), strict=True):
                objects = self._objects(sample)
                objects.bboxes = objects.bboxes + objects.bboxes.new_tensor([tile.left, tile.top] * 2)
                if "masks" in objects:
                    masks = np.asarray(objects.masks, np.uint8)
                    objects.masks = [_placed(mask, tile.left, tile.top, picture) for mask in masks]
                yield objects

    def _on_whole(self, picture: np.ndarray, info: Mapping[str, Any]) -> InstanceData:
        """As of a tile; masks come in the size of the network's input, where they fit into memory, and are enlarged."""
        packed = self._packed(picture, info)
        meta = packed["data_samples"].metainfo
        factors = np.array(meta.get("scale_factor", (1.0, 1.0)), float)  # across and down
        packed["data_samples"].set_metainfo({"ori_shape": meta["img_shape"], "scale_factor": (1.0, 1.0)})
        (sample,) = self.step(pseudo_collate([packed]))
        objects = self._objects(sample)
        objects.bboxes = objects.bboxes / objects.bboxes.new_tensor(np.tile(factors, 2))
        if "masks" in objects:
            objects.masks = [_enlarged(mask, factors, picture) for mask in np.asarray(objects.masks, np.uint8)]
        return objects

    def _packed(self, pixels: np.ndarray, info: Mapping[str, Any]) -> Any:
        shape = pixels.shape[:2]
        return self.pipeline({**info, "img": np.ascontiguousarray(pixels), "img_shape": shape, "ori_shape": shape})

    def _objects(self, sample: Any) -> InstanceData:
        found = sample.get("pred_instances")
        if found is None or "bboxes" not in found or found.bboxes.shape[-1] != 4:
            raise UserError("--tiles: this model predicts no upright boxes, which tiles are merged by")
        found = found[found.scores >= self.score].cpu()
        boxes = getattr(found.bboxes, "tensor", found.bboxes)
        masks = dict(masks=found.masks) if "masks" in found else {}
        return InstanceData(bboxes=boxes, scores=found.scores, labels=found.labels, **masks)


def _placed(mask: np.ndarray, left: int, top: int, picture: np.ndarray) -> RLE:
    """The mask of a part of a picture, as one of the picture."""
    return moved(mask_utils.encode(np.asfortranarray(mask)), -left, -top, *picture.shape[:2])


def _enlarged(mask: np.ndarray, factors: np.ndarray, picture: np.ndarray) -> RLE:
    """The mask of a resized picture, as one of the picture; only the object's own part is ever decoded."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return _placed(mask[:1, :1], 0, 0, picture)
    starts, ends = np.array([columns[0], rows[0]]), np.array([columns[-1], rows[-1]]) + 1
    left, top = corner = np.round(starts / factors).astype(int)
    size = np.maximum(np.round(ends / factors).astype(int) - corner, 1)
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] * np.uint8(255)
    return _placed(np.uint8(mmcv.imresize(part, tuple(size.tolist())) > 127), int(left), int(top), picture)


@DATASETS.register_module()  # type: ignore[type-var]  # mmengine registers functions too
def cut_into_tiles(dataset: dict[str, Any], size: int, overlap: float = 0.2, kept: float = KEPT) -> BaseDataset:
    """Build a data set whose pictures are the tiles of a detector's data set; `CutTile` cuts their pixels.

    An epoch has every tile once, row by row before it is shuffled. A tile without an object that counts is left out
    where ``filter_cfg.filter_empty_gt`` leaves out pictures without objects, and one with a side below its
    ``min_size``, too.

    Args:
        dataset: config of the data set.
        size: side of a tile, px.
        overlap: share of a tile that its neighbour shows too.
        kept: share of an object's box from which a part of it counts; see `tiles.cutting`.

    Raises:
        UserError: it is not a data set of boxes, or does not state the sizes of its pictures.
    """
    built = ROOT.build(dataset)
    if not isinstance(built, BaseDataset):
        raise UserError(f"--tiles: {type(built).__name__} is not a BaseDataset, whose pictures can be cut")
    built.full_init()
    rule = (not built.test_mode and built.filter_cfg) or {}
    polygons = any(getattr(step, "poly2mask", True) is False for step in built.pipeline.transforms)
    tiles: list[dict[str, Any]] = []
    for info in (built.get_data_info(i) for i in range(len(built))):
        width, height = info.get("width"), info.get("height")
        if not width or not height or "instances" not in info:
            raise UserError(f"--tiles: {type(built).__name__} states no width, height and instances of its pictures")
        places = tiles_in(width, height, size, overlap)
        cut = cut_objects(info["instances"], places, (width, height), kept, polygons)
        for tile, objects in zip(places, cut, strict=True):
            sides = tile.right - tile.left, tile.bottom - tile.top
            if min(sides) < rule.get("min_size", 0):
                continue
            if rule.get("filter_empty_gt") and all(part["ignore_flag"] for part in objects):
                continue
            tiles.append({**info, "tile": tuple(tile), "width": sides[0], "height": sides[1], "instances": objects})
    built.data_list = tiles
    if built.serialize_data:
        built.data_bytes, built.data_address = built._serialize_data()
    return built


@TRANSFORMS.register_module()
class CutTile(BaseTransform):
    """Cuts the tile out of a picture that was loaded for `cut_into_tiles`; the step after the one that loads it."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replace ``img`` by the tile, as if that were the file's content."""
        left, top, right, bottom = results["tile"]
        whole = results["img"].shape[:2]
        if right > whole[1] or bottom > whole[0]:
            raise UserError(f"{results['img_path']}: {whole[1]} x {whole[0]} px, smaller than its annotations say")
        results["img"] = np.ascontiguousarray(results["img"][top:bottom, left:right])
        results["img_shape"] = results["ori_shape"] = results["img"].shape[:2]
        return results


@TRANSFORMS.register_module()
class PackPicture(BaseTransform):
    """The last step of a test pipeline on tiles: packs the whole picture, which `TilesHook` cuts.

    Args:
        pipeline: the steps of a tile, from its pixels to those packed for the model.
        batch: most tiles that run together.
        options: of `config.tiles.TileOptions`, by their names.
    """

    def __init__(self, pipeline: Sequence[Mapping[str, Any]], batch: int = 1, **options: Any) -> None:
        self.steps, self.batch, self.options = Compose(pipeline), batch, TileOptions(**options)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Pack the picture without copying it: ``inputs`` are ``[height, width, channels]``."""
        picture = results.pop("img")
        packed = self.steps.transforms[-1](results)
        return {**packed, "inputs": torch.from_numpy(np.ascontiguousarray(picture))}


@HOOKS.register_module()
class TilesHook(Hook):
    """Lets evaluations whose pictures are packed by `PackPicture` run on tiles."""

    priority = "LOWEST"  # after OptimizeHook, which tests a copy of the model

    def before_val_epoch(self, runner: Runner) -> None:
        self._tile(runner, runner.val_dataloader.dataset, "val_step")

    def before_test_epoch(self, runner: Runner) -> None:
        self._tile(runner, runner.test_dataloader.dataset, "test_step")

    def _tile(self, runner: Runner, dataset: Any, name: str) -> None:
        """Replace a step of the model."""
        while not hasattr(dataset, "pipeline"):
            dataset = dataset.datasets[0] if hasattr(dataset, "datasets") else dataset.dataset
        last = dataset.pipeline.transforms[-1]
        self.model, self.name = unwrapped(runner.model), name
        detector = TiledDetector(getattr(self.model, name), last.steps, last.options, last.batch)

        def step(data: Mapping[str, Any]) -> list[Any]:
            samples = list(data["data_samples"])
            for picture, sample in zip(data["inputs"], samples, strict=True):
                sample.pred_instances = detector(picture.numpy(), sample.metainfo)
            return samples

        setattr(self.model, name, step)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        delattr(self.model, self.name)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        delattr(self.model, self.name)
