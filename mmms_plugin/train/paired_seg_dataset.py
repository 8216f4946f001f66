"""mmseg's data set for pictures and masks of any file type, listed by their paths.

A file of its own, because importing it imports mmseg.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mmseg.datasets import BaseSegDataset

from mmms_plugin.registry import DATASETS


@DATASETS.register_module()
class PairedSegDataset(BaseSegDataset):
    """``BaseSegDataset`` whose ``ann_file`` has lines of JSON: [path of the picture, path of its mask].

    mmseg's lists contain names without endings, so that all pictures need the same ending.

    Args:
        ann_file: the list of pictures and masks.
        relabel: labels of masks that are read as others, as pairs of old and new; 255 is ignored.
        pipeline, metainfo, others: as for ``BaseSegDataset``.
    """

    def __init__(
        self, ann_file: str, pipeline: list[Any], metainfo: dict[str, Any], relabel: Sequence[tuple[int, int]] = (),
        lazy_init: bool = False, test_mode: bool = False, serialize_data: bool = True,
    ) -> None:  # fmt: skip
        self.relabel = dict(relabel)
        super().__init__(
            ann_file=ann_file, data_root=None, data_prefix=dict(img_path=None, seg_map_path=None), pipeline=pipeline,
            metainfo=metainfo, lazy_init=lazy_init, test_mode=test_mode, serialize_data=serialize_data,
        )  # fmt: skip

    def load_data_list(self) -> list[dict[str, Any]]:
        """One record for each line, with the fields that mmseg's transforms read."""
        with open(self.ann_file, encoding="utf-8") as file:
            pairs = [json.loads(line) for line in file]
        label_map = self.relabel or None
        return [
            dict(img_path=image, seg_map_path=mask, label_map=label_map, reduce_zero_label=False, seg_fields=[])
            for image, mask in pairs
        ]
