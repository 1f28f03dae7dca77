"""Losses: the published numbers, gradients against finite differences, and an ACE written out voxel by voxel."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from segcal_cli.losses import ACELoss, CrossEntropyLoss, SoftDiceLoss, combine

PUBLISHED = np.load(Path(__file__).parent / "fixtures_losses" / "published.npz")
"""Values and gradients of the authors' code; the README beside it says which."""

EDGE_ACE = {"right": 0.34749999816219007, "left": 0.3641666647046804}
"""ACE of `edge_prob` with edges k/20 in float64."""


def one_hot(labels, classes):
    return torch.nn.functional.one_hot(torch.as_tensor(labels).long(), classes).movedim(-1, 1)


def softmax_case():
    return torch.from_numpy(PUBLISHED["mc_logit"]), one_hot(PUBLISHED["mc_label"], 4)


def region_case():
    return torch.from_numpy(PUBLISHED["reg_logit"]), torch.from_numpy(PUBLISHED["reg_label"])


def plain_ace(p, y, bins=20, closed="right"):
    """The average calibration error of one image and class, bin by bin, in float64."""
    p, y = np.asarray(p, np.float64).ravel(), np.asarray(y, np.float64).ravel()
    index = np.ceil(p * bins) - 1 if closed == "right" else np.floor(p * bins)
    index = np.clip(index, 0, bins - 1)
    return np.mean([abs(p[index == k].mean() - y[index == k].mean()) for k in np.unique(index)])


def plain_soft_ace(p, y, bins):
    """The same with each voxel shared between two bins, voxel by voxel."""
    n, e, o = np.zeros(bins), np.zeros(bins), np.zeros(bins)
    for value, truth in zip(p.ravel(), y.ravel(), strict=True):
        t = min(max(bins * value - 0.5, 0), bins - 1)
        k = min(int(t), bins - 2)
        for bin_, weight in ((k, 1 - (t - k)), (k + 1, t - k)):
            n[bin_] += weight
            e[bin_] += weight * value
            o[bin_] += weight * truth
    kept = n > 0.01
    return np.mean(np.abs(e[kept] - o[kept]) / n[kept])


SOFTMAX_VALUES = [
    ("loss_hard", ACELoss()),
    ("loss_hard_foreground", ACELoss(include_background=False)),
    ("loss_hard_absent_zero", ACELoss(absent="zero")),
    ("loss_soft", ACELoss(binning="soft")),
    ("loss_soft_absent_zero", ACELoss(binning="soft", absent="zero")),
    ("loss_dice_ce_ace", combine({"dice": 0.33, "ce": 0.33, "ace": 0.33})),
    ("loss_ce_ace", combine({"ce": 0.5, "ace": 0.5})),
    ("loss_dice_ace", combine({"dice": 0.5, "ace": 0.5})),
]


@pytest.mark.parametrize(("name", "loss"), SOFTMAX_VALUES, ids=[name for name, _ in SOFTMAX_VALUES])
def test_exclusive_classes_give_the_published_value(name, loss):
    value = loss(*softmax_case())
    assert value.dtype == torch.float32
    assert value.shape == ()
    assert value.item() == pytest.approx(float(PUBLISHED[name]), rel=0, abs=1e-6)


def test_independent_regions_give_the_published_value():
    value = ACELoss(activation="sigmoid")(*region_case())
    assert value.item() == pytest.approx(float(PUBLISHED["loss_hard_regions"]), rel=0, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "loss", "case", "tolerance"),
    [
        ("gradient_hard", ACELoss(), softmax_case, 1e-9),
        ("gradient_hard_regions", ACELoss(activation="sigmoid"), region_case, 1e-9),
        ("gradient_dice_ce_ace", combine({"dice": 0.33, "ce": 0.33, "ace": 0.33}), softmax_case, 1e-9),
        ("gradient_soft_absent_zero", ACELoss(binning="soft", absent="zero"), softmax_case, 5e-8),
    ],
)
def test_the_gradient_is_the_published_one(name, loss, case, tolerance):
    scores, target = case()
    scores.requires_grad_()
    loss(scores, target).backward()
    np.testing.assert_allclose(scores.grad.numpy(), PUBLISHED[name], rtol=0, atol=tolerance)


@pytest.mark.parametrize("bins", [1, 2, 5, 20, 100])
@pytest.mark.parametrize("closed", ["right", "left"])
def test_the_hard_value_is_the_mean_of_a_plain_ace_over_images_and_classes(bins, closed):
    rng = np.random.default_rng(0)
    p = rng.random((2, 3, 7, 6, 5))
    y = rng.random(p.shape) < p**1.5
    expected = np.mean([plain_ace(p[b, c], y[b, c], bins, closed) for b in range(2) for c in range(3)])
    loss = ACELoss(bins, closed=closed, activation="identity")
    assert loss(torch.from_numpy(p), torch.from_numpy(y)).item() == pytest.approx(expected, rel=0, abs=1e-12)


@pytest.mark.parametrize("closed", ["right", "left"])
def test_a_probability_on_an_edge_is_in_the_bin_that_is_closed_there(closed):
    p, y = PUBLISHED["edge_prob"], PUBLISHED["edge_label"]
    loss = ACELoss(closed=closed, activation="identity")
    value = loss(torch.from_numpy(p)[None, None], torch.from_numpy(y)[None, None]).item()
    assert value == pytest.approx(EDGE_ACE[closed], rel=0, abs=1e-7)
    assert value == pytest.approx(plain_ace(p, y, closed=closed), rel=0, abs=1e-7)


@pytest.mark.parametrize("bins", [2, 7, 20])
def test_the_soft_value_is_the_one_added_up_voxel_by_voxel(bins):
    rng = np.random.default_rng(1)
    p = np.concatenate([rng.random(150), [0.0, 1.0, 0.5 / bins, 1 - 0.5 / bins]])
    y = rng.random(p.size) < p
    loss = ACELoss(bins, binning="soft", activation="identity")
    value = loss(torch.from_numpy(p)[None, None], torch.from_numpy(y)[None, None]).item()
    assert value == pytest.approx(plain_soft_ace(p, y, bins), rel=0, abs=1e-12)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("absent", ["include", "zero", "skip"])
@pytest.mark.parametrize("binning", ["hard", "soft"])
def test_the_gradient_agrees_with_finite_differences(binning, absent, activation):
    """Hard bins have a jump at every edge and a kink where e = o, soft ones a kink at every centre: the inputs keep
    every probability 2e-5 away from these, more than twenty times the step.
    """
    scores = torch.from_numpy(np.random.default_rng(2).normal(0, 1.5, (2, 3, 4, 5)))
    target = one_hot(np.random.default_rng(3).integers(0, 2, (2, 4, 5)), 3)
    p = scores.softmax(1) if activation == "softmax" else scores.sigmoid()
    places = p * 5 if binning == "hard" else p * 5 - 0.5
    assert (places - places.round()).abs().min() > 1e-4
    loss = ACELoss(5, binning=binning, absent=absent, activation=activation)
    assert gradcheck(lambda s: loss(s, target), scores.requires_grad_(), eps=1e-6, atol=1e-7)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_the_gradient_of_dice_and_cross_entropy_agrees_with_finite_differences(activation):
    scores = torch.from_numpy(np.random.default_rng(4).normal(0, 1.5, (2, 3, 4, 5))).requires_grad_()
    target = one_hot(np.random.default_rng(5).integers(0, 3, (2, 4, 5)), 3)
    loss = combine({"dice": 0.7, "ce": 0.2}, activation=activation)
    assert gradcheck(lambda s: loss(s, target), scores)


@pytest.mark.parametrize("binning", ["hard", "soft"])
def test_two_and_three_dimensions_are_the_same_voxels(binning):
    scores, target = softmax_case()
    loss = ACELoss(binning=binning)
    flat = loss(scores.reshape(3, 4, 120, 8), target.reshape(3, 4, 120, 8))
    assert loss(scores, target).item() == flat.item()


def test_the_rules_for_an_absent_class():
    scores, target = softmax_case()
    p, y = scores.softmax(1).numpy(), target.numpy()
    error = np.array([[plain_ace(p[b, c], y[b, c]) for c in range(4)] for b in range(3)])
    present = y.any((2, 3, 4))
    assert present.sum() == 11
    for absent, expected in [
        ("include", error.mean()),
        ("zero", (error * present).sum() / 12),
        ("skip", error[present].mean()),
    ]:
        assert ACELoss(absent=absent)(scores, target).item() == pytest.approx(expected, rel=0, abs=1e-6)


@pytest.mark.parametrize("absent", ["zero", "skip"])
@pytest.mark.parametrize("binning", ["hard", "soft"])
def test_no_class_present_at_all_is_0_with_gradient_0(binning, absent):
    scores = torch.randn(1, 2, 5, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    value = ACELoss(binning=binning, absent=absent, activation="sigmoid")(scores, torch.zeros(1, 2, 5, 5))
    value.backward()
    assert value.item() == 0
    assert not scores.grad.any()


@pytest.mark.parametrize("binning", ["hard", "soft"])
@pytest.mark.parametrize("height", [-200.0, 0.0, 200.0])
def test_saturated_and_constant_scores_have_a_finite_value_and_gradient(height, binning):
    scores = torch.full((1, 1, 6, 6), height, requires_grad=True)
    value = ACELoss(binning=binning, activation="sigmoid")(scores, torch.zeros(1, 1, 6, 6))
    value.backward()
    assert value.item() == pytest.approx(torch.tensor(height).sigmoid().item(), abs=1e-6)
    assert scores.grad.isfinite().all()


LOSSES = [
    ACELoss(),
    ACELoss(binning="soft"),
    SoftDiceLoss(),
    CrossEntropyLoss(),
    combine({"dice": 1, "ce": 1, "ace": 1}),
]
NAMES = ["hard", "soft", "dice", "ce", "combined"]


@pytest.mark.parametrize("loss", LOSSES, ids=NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_scores_under_autocast_are_measured_in_float32(loss, dtype):
    scores, target = softmax_case()
    half = scores.to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        value = loss(half, target)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == loss(half.detach().float(), target).item()
    assert half.grad.dtype == dtype
    assert half.grad.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES, ids=NAMES)
def test_one_nan_score_makes_the_loss_nan(loss):
    scores, target = softmax_case()
    scores = scores.clone()
    scores[1, 2, 3, 4, 5] = torch.nan
    assert loss(scores, target).isnan()


@pytest.mark.parametrize("absent", ["include", "zero", "skip"])
@pytest.mark.parametrize("binning", ["hard", "soft"])
def test_a_nan_score_of_an_absent_class_makes_the_loss_nan(binning, absent):
    scores, target = torch.zeros(1, 2, 5, 5), torch.zeros(1, 2, 5, 5)
    target[0, 0] = 1
    scores[0, 1, 2, 2] = torch.nan
    assert ACELoss(binning=binning, absent=absent, activation="sigmoid")(scores, target).isnan()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.float64])
@pytest.mark.parametrize("loss", LOSSES, ids=NAMES)
def test_the_target_may_have_any_dtype(loss, dtype):
    scores, target = softmax_case()
    assert loss(scores, target.to(dtype)).item() == loss(scores, target).item()


@pytest.mark.parametrize("loss", LOSSES, ids=NAMES)
def test_the_arguments_are_left_as_they_were(loss):
    scores, target = softmax_case()
    before, truth = scores.clone(), target.clone()
    loss(scores, target)
    assert torch.equal(scores, before)
    assert torch.equal(target, truth)


def test_probabilities_given_as_such_are_left_as_they_were():
    p = torch.rand(1, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    before = p.clone()
    ACELoss(activation="identity")(p, torch.zeros(1, 2, 4, 4))
    assert torch.equal(p, before)


def test_more_voxels_in_one_bin_than_float32_can_count():
    """2^24 + 2^20 voxels with p = 2^-12 and no label: ACE is 2^-12 exactly; a float32 sum stops short of it."""
    p = torch.full((1, 1, 17, 1024, 1024), 2.0**-12)
    value = ACELoss(activation="identity")(p, torch.zeros((), dtype=torch.bool).expand_as(p))
    assert value.item() == 2.0**-12


def test_soft_dice_is_one_minus_the_smoothed_quotient_without_squares():
    p = torch.tensor([[[0.2, 0.6, 0.9]]], dtype=torch.float64)
    y = torch.tensor([[[0, 1, 1]]])
    expected = 1 - (2 * 1.5 + 1e-5) / (1.7 + 2 + 1e-5)
    assert SoftDiceLoss(activation="identity")(p, y).item() == pytest.approx(expected, rel=1e-14)


def test_cross_entropy_of_one_voxel_is_the_logarithm_of_its_probability():
    scores = torch.tensor([[[1.0], [3.0]]], dtype=torch.float64)
    target = torch.tensor([[[0], [1]]])
    assert CrossEntropyLoss()(scores, target).item() == pytest.approx(np.log1p(np.exp(-2.0)), rel=1e-14)
    expected = (np.log1p(np.exp(1.0)) + np.log1p(np.exp(-3.0))) / 2
    assert CrossEntropyLoss(activation="sigmoid")(scores, target).item() == pytest.approx(expected, rel=1e-14)


def test_a_combination_is_the_weighted_sum_with_the_options_passed_on():
    scores, target = region_case()
    loss = combine(
        {"dice": 2, "ce": 3, "ace": 5},
        bins=7,
        binning="soft",
        absent="skip",
        activation="sigmoid",
        include_background=False,
    )
    ace = ACELoss(7, binning="soft", absent="skip", activation="sigmoid", include_background=False)
    dice = SoftDiceLoss(activation="sigmoid", include_background=False)
    expected = 2 * dice(scores, target) + 3 * CrossEntropyLoss(activation="sigmoid")(scores, target)
    assert loss(scores, target).item() == pytest.approx((expected + 5 * ace(scores, target)).item(), rel=1e-6)
    left = combine({"ace": 1}, closed="left", activation="sigmoid")(scores, target)
    assert left.item() == ACELoss(closed="left", activation="sigmoid")(scores, target).item()


@pytest.mark.parametrize("loss", LOSSES, ids=NAMES)
def test_shapes_that_do_not_fit_are_refused_with_both_shapes(loss):
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 4\) and the target \(2, 4, 4\)"):
        loss(torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4))
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 4\) and the target \(2, 1, 4, 4\)"):
        loss(torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4))
    for shape in [(6, 3), (2, 3, 0, 4)]:
        with pytest.raises(ValueError, match=r"voxel axes"):
            loss(torch.zeros(shape), torch.zeros(shape))
    with pytest.raises(ValueError, match=r"\(2, 1, 4, 4\)"):
        loss(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4))
    with pytest.raises(ValueError, match=r"int64"):
        loss(torch.zeros(2, 3, 4, 4, dtype=torch.int64), torch.zeros(2, 3, 4, 4))


def test_one_class_without_its_background_is_refused():
    with pytest.raises(ValueError, match="no class left"):
        ACELoss(activation="sigmoid", include_background=False)(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4))


@pytest.mark.parametrize(
    "make",
    [
        lambda: ACELoss(0),
        lambda: ACELoss(1, binning="soft"),
        lambda: ACELoss(20.0),
        lambda: ACELoss(True),
        lambda: ACELoss(binning="kernel"),
        lambda: ACELoss(closed="both"),
        lambda: ACELoss(absent="ignore"),
        lambda: ACELoss(activation="relu"),
        lambda: SoftDiceLoss(activation="relu"),
        lambda: CrossEntropyLoss(activation="identity"),
        lambda: combine({}),
        lambda: combine({"focal": 1}),
        lambda: combine({"dice": 1, "ace": 0}),
        lambda: combine({"dice": float("nan")}),
        lambda: combine({"dice": "1"}),
    ],
)
def test_options_that_make_no_sense_are_refused(make):
    with pytest.raises(ValueError, match=r"allowed|weights|logits"):
        make()


def test_a_module_shows_its_options_and_weights():
    text = repr(combine({"dice": 0.5, "ace": 1}, bins=10, activation="sigmoid"))
    assert "dice: 0.5, ace: 1" in text
    assert "bins=10, binning='hard', closed='right', absent='include', activation='sigmoid'" in text


def test_only_soft_bins_give_the_slope_of_the_loss_over_a_whole_image():
    """The derivative with respect to a temperature: hard bins leave out the voxels that cross an edge."""
    torch.manual_seed(0)
    scores = 8 * torch.randn(1, 1, 300, 300, dtype=torch.float64)
    target = torch.rand_like(scores) < (0.3 * scores).sigmoid()
    step, slopes = 0.05, {}
    for binning in ("hard", "soft"):
        loss = ACELoss(20, binning=binning, activation="sigmoid")
        temperature = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
        loss(scores / temperature, target).backward()
        across = loss(scores / (1 + step), target) - loss(scores / (1 - step), target)
        slopes[binning] = temperature.grad.item(), across.item() / (2 * step)
    assert slopes["soft"][0] == pytest.approx(slopes["soft"][1], rel=0.01)
    assert abs(slopes["hard"][0] - slopes["hard"][1]) > 0.5 * abs(slopes["hard"][1])


def test_the_example_of_the_documentation_runs():
    page = (Path(__file__).parent.parent / "docs" / "losses.md").read_text(encoding="utf-8")
    found: dict = {}
    exec(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1].replace("96", "12"), found)
    assert found["scores"].grad.isfinite().all()
    assert found["regions"](found["scores"], found["target"]).item() > 0


def test_the_module_needs_torch_and_nothing_else_of_segcal():
    code = (
        "import sys, segcal_cli.losses\n"
        "print(sorted(m for m in sys.modules if m.startswith('segcal_cli')), 'nibabel' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent
    )
    assert run.stdout.strip() == "['segcal_cli', 'segcal_cli.losses'] False"


@pytest.mark.gpu
@pytest.mark.parametrize("binning", ["hard", "soft"])
def test_the_gpu_agrees_with_the_cpu(binning):
    scores, target = softmax_case()
    here, there = scores.clone().requires_grad_(), scores.cuda().requires_grad_()
    loss = combine({"dice": 1, "ce": 1, "ace": 1}, binning=binning)
    on_cpu, on_gpu = loss(here, target), loss(there, target.cuda())
    on_cpu.backward()
    on_gpu.backward()
    assert on_gpu.item() == pytest.approx(on_cpu.item(), rel=0, abs=1e-6)
    torch.testing.assert_close(there.grad.cpu(), here.grad, rtol=0, atol=5e-8)


@pytest.mark.gpu
@pytest.mark.parametrize("loss", LOSSES, ids=NAMES)
def test_float16_under_autocast_on_the_gpu_is_measured_in_float32(loss):
    scores, target = (tensor.cuda() for tensor in softmax_case())
    half = scores.half().requires_grad_()
    with torch.autocast("cuda", dtype=torch.float16):
        value = loss(half, target)
    value.backward()
    assert value.dtype == torch.float32
    assert half.grad.isfinite().all()
