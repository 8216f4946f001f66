"""mmseg's data set for pictures and masks of any file type, listed by their paths.

A file of its own, because importing it imports mmseg.
"""

from __future__ import annotations

import json
from typing import Any

from mmseg.datasets import BaseSegDataset

from mmms_plugin.registry import DATASETS


@DATASETS.register_module()
class PairedSegDataset(BaseSegDataset):
    """``BaseSegDataset`` whose ``ann_file`` has lines of JSON: [path of the picture, path of its mask].

    mmseg's lists contain names without endings, so that all pictures need the same ending.

    Args:
        ann_file: the list of pictures and masks.
        void_is_class: class that label 255 is read as; None to ignore it, as usual.
        pipeline, metainfo, others: as for ``BaseSegDataset``.
    """

    def __init__(
        self, ann_file: str, pipeline: list[Any], metainfo: dict[str, Any], void_is_class: int | None = None,
        lazy_init: bool = False, test_mode: bool = False, serialize_data: bool = True,
    ) -> None:  # fmt: skip
        self.void_is_class = void_is_class
        super().__init__(
            ann_file=ann_file, data_root=None, data_prefix=dict(img_path=None, seg_map_path=None), pipeline=pipeline,
            metainfo=metainfo, lazy_init=lazy_init, test_mode=test_mode, serialize_data=serialize_data,
        )  # fmt: skip

    def load_data_list(self) -> list[dict[str, Any]]:
        """One record for each line, with the fields that mmseg's transforms read."""
        label_map = None if self.void_is_class is None else {255: self.void_is_class}
        with open(self.ann_file, encoding="utf-8") as file:
            pairs = [json.loads(line) for line in file]
        return [
            dict(img_path=image, seg_map_path=mask, label_map=label_map, reduce_zero_label=False, seg_fields=[])
            for image, mask in pairs
        ]
