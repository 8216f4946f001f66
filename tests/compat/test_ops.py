"""The ops that stand in for a compiled mmcv: against float64 loops, against torchvision's, and against mmcv's own."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mmms_plugin.compat import REPLACEMENT, mmcv_ext, roi_align, torchvision_ops
from mmms_plugin.compat import nms as plain_nms
from mmms_plugin.errors import UserError
from tests.oracles import nms as nms_oracle
from tests.oracles import roi_align as roi_oracle

needs_torchvision = pytest.mark.needs(
    torchvision_ops.usable("cpu"), reason="a torchvision whose compiled operators fit this torch"
)
SCALE = 0.25
ROI_CASES = [
    pytest.param(ratio, aligned, id=f"{ratio}-{'aligned' if aligned else 'legacy'}")
    for ratio in (0, 2)
    for aligned in (True, False)
]


@pytest.fixture
def compiled() -> ModuleType:
    """mmcv's own compiled ops."""
    extension = pytest.importorskip("mmcv._ext")
    if extension.__file__ == str(REPLACEMENT):
        pytest.skip("mmcv has no compiled ops here")
    return extension


def random_boxes(number: int, seed: int, extent: float = 100.0) -> Tensor:
    """Clustered boxes [number, 4] with every degree of overlap, some partly outside [0, extent], some empty."""
    random = torch.Generator().manual_seed(seed)
    centre = torch.rand(number // 6 + 1, 2, generator=random) * extent
    centre = centre.repeat(6, 1)[:number] + torch.randn(number, 2, generator=random) * 4
    half = torch.rand(number, 2, generator=random) * 0.15 * extent + 1
    half[::11] = 0
    return torch.cat([centre - half, centre + half], 1)


def distinct_scores(number: int, seed: int) -> Tensor:
    return torch.randperm(number, generator=torch.Generator().manual_seed(seed)).float() / max(number, 1)


# --- NMS ---


@pytest.fixture(params=["plain", pytest.param("torchvision", marks=needs_torchvision)])
def any_nms(request: pytest.FixtureRequest) -> Callable[..., Tensor]:
    return plain_nms.nms if request.param == "plain" else mmcv_ext.nms


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("number", [0, 1, 63, 64, 65, 300])
def test_nms_equals_loop(any_nms: Callable[..., Tensor], number: int, offset: int) -> None:
    boxes, scores = random_boxes(number, number), distinct_scores(number, number)
    kept = any_nms(boxes, scores, iou_threshold=0.4, offset=offset)
    assert kept.dtype == torch.int64
    assert kept.tolist() == nms_oracle.nms(boxes.tolist(), scores.tolist(), 0.4, offset)
    assert number < 65 or 0.1 * number < len(kept) < 0.9 * number


def test_nms_of_equal_scores_takes_the_first(any_nms: Callable[..., Tensor]) -> None:
    boxes = random_boxes(200, 1)
    scores = (distinct_scores(200, 1) * 5).floor()
    kept = any_nms(boxes, scores, iou_threshold=0.3, offset=0)
    assert kept.tolist() == nms_oracle.nms(boxes.tolist(), scores.tolist(), 0.3, 0)


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_nms_keeps_a_box_at_exactly_the_threshold(any_nms: Callable[..., Tensor], threshold: float) -> None:
    """IoU is the float32 nearest to the threshold, which is above it for 0.1, 0.3 and below it for 0.7, 0.9."""
    boxes = torch.tensor([[0.0, 0.0, 10.0, 1.0], [0.0, 0.0, round(10 * threshold), 1.0]])
    kept = any_nms(boxes, torch.tensor([0.9, 0.8]), iou_threshold=threshold, offset=0)
    assert kept.tolist() == [0, 1]


def test_nms_long_chain() -> None:
    """Each box overlaps the next: every second one falls, as slowly as the sweep can settle it."""
    left = torch.arange(150.0)[:, None]
    boxes = left + torch.tensor([0.0, 0.0, 1.9, 0.0])
    boxes[:, 1], boxes[:, 3] = 0, 1
    kept = plain_nms.nms(boxes, torch.arange(150, 0, -1).float(), iou_threshold=0.3, offset=0)
    assert kept.tolist() == list(range(0, 150, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_nms_dtypes(any_nms: Callable[..., Tensor], dtype: torch.dtype) -> None:
    boxes, scores = random_boxes(150, 3).to(dtype), distinct_scores(150, 3).to(dtype)
    kept = any_nms(boxes, scores, iou_threshold=0.4, offset=0)
    assert kept.tolist() == nms_oracle.nms(boxes.tolist(), scores.tolist(), 0.4, 0)


@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
def test_softnms_equals_loop(method: str) -> None:
    boxes, scores = random_boxes(120, 4), distinct_scores(120, 4)
    dets = torch.zeros(120, 5)
    number = ["naive", "linear", "gaussian"].index(method)
    kept = mmcv_ext.softnms(boxes, scores, dets, iou_threshold=0.3, sigma=0.5, min_score=0.05, method=number, offset=0)
    expected = nms_oracle.soft_nms(boxes.tolist(), scores.tolist(), 0.3, 0.5, 0.05, method, 0)
    assert kept.tolist() == [index for index, _ in expected]
    assert len(kept) < 115
    torch.testing.assert_close(dets[: len(kept), 4], torch.tensor([score for _, score in expected]))
    torch.testing.assert_close(dets[: len(kept), :4], boxes[kept])


@pytest.mark.compiled
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize(("number", "threshold"), [(0, 0.5), (1, 0.5), (16, 0.3), (1000, 0.3), (3000, 0.7)])
def test_nms_equals_compiled(
    any_nms: Callable[..., Tensor], compiled: ModuleType, number: int, threshold: float, offset: int
) -> None:
    boxes, scores = random_boxes(number, 5, extent=800.0), distinct_scores(number, 5)
    expected = compiled.nms(boxes, scores, iou_threshold=threshold, offset=offset)
    assert torch.equal(any_nms(boxes, scores, iou_threshold=threshold, offset=offset), expected)


@pytest.mark.compiled
def test_nms_ties_equal_compiled(any_nms: Callable[..., Tensor], compiled: ModuleType) -> None:
    """The compiled op's order among equal scores is arbitrary: it is given the first-comes-first one as scores."""
    boxes = random_boxes(500, 6)
    scores = (distinct_scores(500, 6) * 7).floor()
    ranks = torch.empty(500)
    ranks[scores.sort(stable=True, descending=True).indices] = -torch.arange(500.0)
    expected = compiled.nms(boxes, ranks, iou_threshold=0.4, offset=0)
    assert torch.equal(any_nms(boxes, scores, iou_threshold=0.4, offset=0), expected)


@pytest.mark.compiled
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("method", [0, 1, 2])
def test_softnms_equals_compiled(compiled: ModuleType, method: int, offset: int) -> None:
    boxes = random_boxes(400, 7)
    boxes[:, 2:] += 0.5  # none empty: the compiled op makes NaN of them
    scores = (distinct_scores(400, 7) * 40).floor() / 40  # with ties, which are decided by the order of bookkeeping
    ours, theirs = torch.zeros(400, 5), torch.zeros(400, 5)
    arguments = {"iou_threshold": 0.3, "sigma": 0.5, "min_score": 0.1, "method": method, "offset": offset}
    kept = mmcv_ext.softnms(boxes, scores, ours, **arguments)
    assert kept.tolist() == compiled.softnms(boxes, scores, theirs, **arguments).tolist()
    torch.testing.assert_close(ours, theirs)


# --- RoIAlign ---


def pool(
    ops: ModuleType, features: Tensor, rois: Tensor, grad: Tensor, ratio: int, aligned: bool
) -> tuple[Tensor, Tensor]:
    """Output and gradient, called as mmcv/ops/roi_align.py calls its extension."""
    output = features.new_zeros(grad.shape)
    places = [features.new_zeros(0) for _ in range(2)]
    arguments = {
        "aligned_height": grad.shape[2],
        "aligned_width": grad.shape[3],
        "spatial_scale": SCALE,
        "sampling_ratio": ratio,
        "pool_mode": 1,
        "aligned": aligned,
    }
    ops.roi_align_forward(features, rois, output, *places, **arguments)
    grad_input = torch.zeros_like(features)
    ops.roi_align_backward(grad, rois, *places, grad_input, **arguments)
    return output, grad_input


def random_rois(number: int, seed: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Features [3, 5, 13, 17], RoIs of 68 x 52 px images (inside, across, beyond the border, empty), gradient."""
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(3, 5, 13, 17, generator=random)
    corner = torch.rand(number, 2, generator=random) * torch.tensor([90.0, 70.0]) - 15
    size = torch.rand(number, 2, generator=random) ** 2 * torch.tensor([80.0, 60.0])
    size[4::9] = 0
    corner[5::9] += 500
    image = torch.randint(0, 3, (number, 1), generator=random)
    rois = torch.cat([image, corner, corner + size], 1)
    if dtype in (torch.float16, torch.bfloat16):  # coordinates that the short type holds exactly
        rois = rois.round()
    grad = torch.randn(number, 5, 3, 2, generator=random)
    return features.to(dtype), rois.to(dtype), grad.to(dtype)


def assert_pools_alike(ours: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], tolerance: float) -> None:
    for name, a, b in zip(("output", "gradient"), ours, expected, strict=True):
        difference = (a.double() - b.double()).abs().max() if a.numel() else torch.tensor(0.0)
        assert difference <= tolerance, f"{name} differs by {difference}"


@pytest.mark.parametrize(("ratio", "aligned"), ROI_CASES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-5), (torch.float64, 1e-12), (torch.float16, 2e-2), (torch.bfloat16, 2e-1)],
    ids=str,
)
def test_roi_align_equals_loop(ratio: int, aligned: bool, dtype: torch.dtype, tolerance: float) -> None:
    features, rois, grad = random_rois(27, 0, dtype)
    expected = roi_oracle.roi_align(
        features.double().numpy(), rois.double().numpy(), grad.double().numpy(), SCALE, ratio, aligned
    )
    ours = pool(mmcv_ext, features, rois, grad, ratio, aligned)
    assert_pools_alike(ours, tuple(map(torch.from_numpy, expected)), tolerance)


def test_roi_align_is_reproducible_in_any_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    features, rois, grad = random_rois(60, 1)
    first = pool(mmcv_ext, features, rois, grad, 0, True)
    again = pool(mmcv_ext, features, rois, grad, 0, True)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    monkeypatch.setattr(roi_align, "CHUNK", 100)
    monkeypatch.setattr(roi_align, "SCATTER_CHUNK", 500)
    assert_pools_alike(pool(mmcv_ext, features, rois, grad, 0, True), first, 1e-5)


def test_roi_align_takes_any_memory_format() -> None:
    features, rois, grad = random_rois(20, 2)
    expected = pool(mmcv_ext, features, rois, grad, 0, True)
    last = torch.channels_last
    ours = pool(mmcv_ext, features.to(memory_format=last), rois, grad.to(memory_format=last), 0, True)
    assert_pools_alike(ours, expected, 0.0)


def test_roi_align_without_rois() -> None:
    features, rois, grad = random_rois(0, 3)
    output, grad_input = pool(mmcv_ext, features, rois, grad, 0, True)
    assert output.shape == (0, 5, 3, 2)
    assert not grad_input.any()


def test_the_maximum_over_a_roi_is_refused() -> None:
    features, rois, grad = random_rois(3, 4)
    size = (3, 2, SCALE, 0, 0, True)  # the 0 before True: pool_mode 'max'
    with pytest.raises(UserError, match=r"'roi_align' with pool_mode='max' is not supplied.*'make mmcv'"):
        mmcv_ext.roi_align_forward(features, rois, torch.zeros_like(grad), grad, grad, *size)


@pytest.mark.parametrize(
    "roi", [[3.0, 0, 0, 9, 9], [-1.0, 0, 0, 9, 9], [0.0, 9, 0, 0, 9], [0.0, 0, 0, float("nan"), 9]], ids=str
)
def test_roi_align_names_an_impossible_roi(roi: list[float]) -> None:
    features, rois, grad = random_rois(3, 4)
    rois[1] = torch.tensor(roi)
    with pytest.raises(ValueError, match=r"rois\[1\] = .*must be \(image, x1, y1, x2, y2\) with image in 0\.\.2"):
        pool(mmcv_ext, features, rois, grad, 0, True)


@needs_torchvision
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align_in_torchvision_is_the_same(monkeypatch: pytest.MonkeyPatch, ratio: int, aligned: bool) -> None:
    """The code used on a GPU, tried on the CPU."""
    data = random_rois(40, 5)
    plain = pool(mmcv_ext, *data, ratio, aligned)
    monkeypatch.setattr(mmcv_ext, "_compiled_roi_align", lambda tensor: True)
    assert_pools_alike(pool(mmcv_ext, *data, ratio, aligned), plain, 1e-5)


@pytest.mark.compiled
@pytest.mark.parametrize(("ratio", "aligned"), ROI_CASES)
@pytest.mark.parametrize("number", [0, 1, 80])
def test_roi_align_equals_compiled(compiled: ModuleType, number: int, ratio: int, aligned: bool) -> None:
    data = random_rois(number, 6)
    ours = pool(mmcv_ext, *data, ratio, aligned)
    assert_pools_alike(ours, pool(compiled, *data, ratio, aligned), 1e-5)


@pytest.mark.compiled
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align_equals_compiled_in_float16(compiled: ModuleType, ratio: int) -> None:
    """The compiled op computes coordinates, too, in float16: RoIs whose samples it places exactly (bins of 2 or 4)."""
    random = torch.Generator().manual_seed(7)
    corner = torch.randint(0, 3, (12, 2), generator=random) * 8.0
    rois = torch.cat([torch.arange(12)[:, None] % 3, corner, corner + torch.tensor([16.0, 24.0])], 1).half()
    features = torch.randn(3, 5, 13, 17, generator=random).half()
    grad = torch.randn(12, 5, 3, 2, generator=random).half()
    ours = pool(mmcv_ext, features, rois, grad, ratio, True)
    assert_pools_alike(ours, pool(compiled, features, rois, grad, ratio, True), 2e-2)


# --- focal loss ---


@pytest.mark.parametrize("weighted", [False, True])
def test_focal_loss_and_its_gradient(weighted: bool) -> None:
    logits = (torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) * 4).requires_grad_()
    target = torch.arange(40) % 7  # 6 is the background
    weight = torch.rand(6) + 0.5 if weighted else torch.empty(0)
    hot = F.one_hot(target, 7)[:, :6].float()
    miss = (logits.sigmoid() - hot).abs()
    expected = (
        (0.25 * hot + 0.75 * (1 - hot)) * miss**2 * F.binary_cross_entropy_with_logits(logits, hot, reduction="none")
    )
    if weighted:
        expected = expected * torch.cat([weight, torch.ones(1)])[target][:, None]
    output, grad = torch.zeros(40, 6), torch.zeros(40, 6)
    with torch.no_grad():
        mmcv_ext.sigmoid_focal_loss_forward(logits, target, weight, output, gamma=2.0, alpha=0.25)
        mmcv_ext.sigmoid_focal_loss_backward(logits, target, weight, grad, gamma=2.0, alpha=0.25)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(grad, torch.autograd.grad(expected.sum(), logits)[0], atol=1e-5, rtol=1e-4)


def test_deformable_attention_and_its_gradients():
    """mmcv's GPU path, on any device: what mmcv computes in plain torch on a CPU, and autograd differentiates."""
    from mmcv.ops import multi_scale_deform_attn as theirs

    random = torch.Generator().manual_seed(0)
    shapes, heads, depth = torch.tensor([[5, 7], [3, 2]]), 2, 4
    value = torch.randn(2, 41, heads, depth, generator=random, dtype=torch.float64, requires_grad=True)
    where = torch.rand(2, 6, heads, 2, 3, 2, generator=random, dtype=torch.float64).mul(1.4).sub(0.2).requires_grad_()
    weights = torch.rand(2, 6, heads, 2, 3, generator=random, dtype=torch.float64, requires_grad=True)
    starts = torch.tensor([0, 35])
    ours = mmcv_ext.ms_deform_attn_forward(value, shapes, starts, where, weights, im2col_step=64)
    expected = theirs.multi_scale_deformable_attn_pytorch(value, shapes, where, weights)
    assert torch.equal(ours, expected)
    grad = torch.randn(ours.shape, generator=random, dtype=torch.float64)
    wanted = torch.autograd.grad(expected, (value, where, weights), grad)
    got = [torch.zeros_like(tensor) for tensor in (value, where, weights)]
    plain = (value.detach(), shapes, starts, where.detach(), weights.detach())
    with torch.no_grad():  # as inside an autograd function
        mmcv_ext.ms_deform_attn_backward(*plain, grad, *got, im2col_step=64)
    assert all(torch.allclose(one, other, atol=1e-12) for one, other in zip(got, wanted, strict=True))
    assert all(gradient.abs().sum() > 0 for gradient in got)
