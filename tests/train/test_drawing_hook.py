"""`mmms test --show-dir`: truth beside prediction, in the picture's pixels, in files named as the pictures."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from PIL import Image

from mmms_plugin.errors import UserError
from mmms_plugin.train.predictions import DrawingHook, SampleHook


class Pictures:
    """A data set of pictures of 64 px; what mmdet's and mmseg's offer of it."""

    def __init__(self, folder, names, instances=()):
        self.paths = [folder / "in" / name for name in names]
        self.metainfo = dict(classes=("cell", "debris"), palette=[(250, 0, 0), (0, 0, 250)])
        self.data_prefix = dict(img=f"{folder / 'in'}/")
        self.instances = list(instances)
        for path in self.paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (64, 64), (120, 120, 120)).save(path)

    def __len__(self):
        return len(self.paths)

    def get_data_info(self, index):
        return dict(img_path=str(self.paths[index]), instances=self.instances)


def draw(dataset, out, samples):
    hook = DrawingHook(str(out))
    runner = SimpleNamespace(test_dataloader=SimpleNamespace(dataset=dataset))
    hook.before_test(runner)
    hook.after_test_iter(runner, 0, outputs=samples)


def detected(path, boxes, scores):
    sample = BaseDataElement(metainfo=dict(img_path=str(path)))
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor(boxes), scores=torch.tensor(scores), labels=torch.ones(len(scores), dtype=torch.long)
    )
    return sample


def test_detections_beside_the_annotations_of_the_file(tmp_path):
    """Polygons, boxes of ignored crowds left out, detections below the score left out."""
    polygon = [8.0, 8.0, 24.0, 8.0, 24.0, 24.0, 8.0, 24.0]
    instances = [
        dict(bbox=[8, 8, 24, 24], bbox_label=0, mask=[polygon], ignore_flag=0),
        dict(bbox=[40, 40, 60, 60], bbox_label=1, mask=dict(size=[64, 64], counts=[0, 64 * 64]), ignore_flag=1),
    ]
    dataset = Pictures(tmp_path, ["a/one.png"], instances)
    draw(dataset, tmp_path / "out", [detected(dataset.paths[0], [[8.0, 8, 24, 24], [40, 40, 60, 60]], [0.9, 0.1])])
    sheet = np.asarray(Image.open(tmp_path / "out/a/one.png"))
    half = (sheet.shape[1] - 6) // 2
    top = next(row for row in range(60) if (sheet[row, :5] == 120).all())
    truth, found = sheet[top : top + 512, :half], sheet[top : top + 512, -half:]
    assert truth.shape[:2] == (512, 512)  # 8 times
    assert tuple(truth[128, 128]) == (172, 72, 72)  # tinted with the first class
    assert (truth[330:470, 330:470] == 120).all()  # the crowd
    assert tuple(found[128, 62]) == (0, 0, 250)  # the box of the second class
    assert (found[330:470, 330:470] == 120).all()
    assert (sheet[:top] < 60).any(2)[:, :half].any()  # titles
    assert (sheet[:top] < 60).any(2)[:, half + 6 :].any()


def test_names_follow_the_pictures(tmp_path):
    dataset = Pictures(tmp_path, ["a/x.png", "b/x.png", "x.jpg", "y.png", "y.bmp"])
    draw(dataset, tmp_path / "out", [detected(path, [[8.0, 8, 24, 24]], [0.9]) for path in dataset.paths])
    names = sorted(str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*.*"))
    assert names == ["a/x.png", "b/x.png", "x.jpg", "y.bmp.png", "y.png"]
    with pytest.raises(UserError, match="is one of the pictures and would be replaced"):
        draw(dataset, tmp_path / "in", [detected(dataset.paths[0], [[8.0, 8, 24, 24]], [0.9])])


@pytest.mark.parametrize("known_side", [64, 128])
def test_segmentations_beside_the_true_masks(tmp_path, known_side):
    """Also where the pipeline resized the masks."""
    dataset = Pictures(tmp_path, ["one.png"])
    sample = BaseDataElement(metainfo=dict(img_path=str(dataset.paths[0])))
    known = torch.zeros(1, known_side, known_side, dtype=torch.long)
    known[:, : known_side // 2] = 1
    sample.gt_sem_seg = PixelData(data=known)
    sample.pred_sem_seg = PixelData(data=torch.ones(1, 64, 64, dtype=torch.long))
    draw(dataset, tmp_path / "out", [sample])
    sheet = np.asarray(Image.open(tmp_path / "out/one.png"))
    half = (sheet.shape[1] - 6) // 2
    colours = [tuple(int(v) for v in sheet[row, column]) for row in (100, 450) for column in (50, half + 56)]
    red, blue = (172, 72, 72), (72, 72, 172)
    assert colours == [blue, blue, red, blue]


def classified(path, truth, scores):
    sample = BaseDataElement(metainfo=dict(img_path=str(path)))
    sample.gt_label, sample.pred_score = torch.tensor(truth, dtype=torch.long), torch.tensor(scores)
    return sample


def test_samples_are_spread_over_the_validation(tmp_path):
    """The same pictures on every sheet, of any task; those of data sets without files are left out."""
    dataset = Pictures(tmp_path, [f"{i}.png" for i in range(7)])
    loop = SimpleNamespace()
    runner = SimpleNamespace(
        val_dataloader=SimpleNamespace(dataset=dataset), world_size=1, work_dir=str(tmp_path), train_loop=loop, iter=5
    )
    hook, sizes = SampleHook(2), []
    for number, sample in enumerate((
        lambda path: detected(path, [[8.0, 8, 24, 24]], [0.9]), lambda path: classified(path, [1], [0.2, 0.8]),
        lambda path: classified(path, [], [0.2, 0.3]),
    )):  # fmt: skip
        runner.iter = number
        hook.before_val_epoch(runner)
        for i, path in enumerate(dataset.paths):
            hook.after_val_iter(runner, i, outputs=[sample(path)])
        assert list(hook._drawings) == [str(dataset.paths[0]), str(dataset.paths[3])]
        hook.after_val_epoch(runner)
        sizes.append(Image.open(tmp_path / f"samples/iter_{number}.jpg").size)
    assert sizes[0][0] > 1000
    assert sizes[1] == sizes[2]
    runner.iter = 8
    hook.before_val_epoch(runner)
    depths = [BaseDataElement(metainfo=dict(img_path=str(path))) for path in dataset.paths]
    hook.after_val_iter(runner, 0, outputs=[0.5, *depths])  # of models of other kinds
    hook.after_val_epoch(runner)
    assert not (tmp_path / "samples/iter_8.jpg").exists()
    for path in dataset.paths:
        path.unlink()
    runner.iter = 9
    hook.before_val_epoch(runner)
    hook.after_val_iter(runner, 0, outputs=[detected(path, [[8.0, 8, 24, 24]], [0.9]) for path in dataset.paths])
    hook.after_val_epoch(runner)
    assert not (tmp_path / "samples/iter_9.jpg").exists()
