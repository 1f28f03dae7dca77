from __future__ import annotations

import pickle
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segcal_cli.core.errors import GeometryError
from segcal_cli.core.volume import Grid
from segcal_cli.io import geometry, nifti
from segcal_cli.io.geometry import Space
from tests.io import builders_nifti as build

SHAPE = (5, 7, 6)
TOLERANCE = 0.009
"""A hundredth of the smallest of build.SPACING."""


def space(affine, shape=SHAPE, name="a.nii.gz", **forms):
    return Space(name, Grid(shape, affine), **forms)


def pair(affine, label_affine, shape=SHAPE, label_shape=None):
    return (
        space(affine, shape, "pred.nii.gz"),
        space(label_affine, shape if label_shape is None else label_shape, "label.nii.gz"),
    )


def forms(sform, qform, name, shape=SHAPE):
    """A file with these two affines (None: code 0)."""
    used = sform if sform is not None else qform
    codes = {"sform_code": int(sform is not None), "qform_code": int(qform is not None)}
    return Space(name, Grid(shape, used), sform=sform, qform=qform, pixdim_mm=build.SPACING, **codes)


def moved(affine, x=0.0, y=0.0, z=0.0):
    result = affine.copy()
    result[:3, 3] += (x, y, z)
    return result


def refused(error, text, call):
    with pytest.raises(error) as caught:
        call()
    assert isinstance(caught.value, GeometryError)
    assert str(caught.value) == text
    assert str(pickle.loads(pickle.dumps(caught.value))) == text


def label_field(shape=SHAPE):
    return np.random.default_rng(5).integers(0, 1000, shape).astype(np.uint16)


# One grid


@pytest.mark.parametrize("oblique", [0, 12])
@pytest.mark.parametrize("codes", build.ORIENTATIONS)
def test_the_same_grid_is_left_alone_and_its_distance_is_told(codes, oblique):
    affine = build.affine_of(codes, oblique=oblique)
    found = geometry.align(*pair(affine, moved(affine, x=0.005)))
    assert found.identity
    assert found.note is None
    assert found.distance_mm == pytest.approx(0.005)
    labels = label_field()
    assert found.apply(labels) is labels


def test_the_tolerance_is_a_hundredth_of_the_smallest_edge_but_at_least_2_micrometres():
    assert geometry.grid_tolerance(build.affine_of()) == pytest.approx(0.009)
    assert geometry.grid_tolerance(build.affine_of(), build.affine_of(spacing=(0.5, 1, 1))) == pytest.approx(0.005)
    assert geometry.grid_tolerance(build.affine_of(spacing=(0.1, 0.1, 0.1))) == 0.002


@pytest.mark.parametrize("oblique", [0, 12])
@pytest.mark.parametrize("codes", build.ORIENTATIONS)
def test_a_shift_of_0_9_tolerances_passes_and_of_1_1_is_refused(codes, oblique):
    affine = build.affine_of(codes, oblique=oblique)
    assert geometry.align(*pair(affine, moved(affine, y=0.9 * TOLERANCE))).identity
    refused(
        geometry.GridShifted,
        "pred.nii.gz and label.nii.gz differ by 0.0099 mm at a corner (allowed 0.009): shift. Resample the label first",
        lambda: geometry.align(*pair(affine, moved(affine, y=1.1 * TOLERANCE))),
    )


def test_another_spacing_and_another_rotation_are_named():
    affine = build.affine_of()
    with pytest.raises(geometry.GridShifted, match=r": spacing\. Resample"):
        geometry.align(*pair(affine, build.affine_of(spacing=(0.9, 1.15, 2.5))))
    with pytest.raises(geometry.GridShifted, match=r": rotation\. Resample"):
        geometry.align(*pair(affine, build.affine_of(oblique=1)))


def test_the_distance_is_that_of_the_outer_corner_in_mm():
    """One per cent more along x, 6 voxels of 1 mm: the corner at -0.5 moves by 0.005, that at 5.5 by 0.055 mm."""
    affine, other = np.eye(4), np.diag([1.01, 1, 1, 1])
    assert geometry.corner_distance(affine, other, SHAPE) == pytest.approx(0.055)


def test_a_float32_quaternion_of_a_large_scan_is_no_difference():
    affine = build.affine_of("LPS", oblique=12, spacing=(0.7, 0.7, 2.5))
    shape = (800, 512, 512)
    qfac, bcd = nifti.quaternion(affine)
    b, c, d = (float(np.float32(q)) for q in bcd)
    from nibabel.quaternions import quat2mat

    a = np.sqrt(1 - b * b - c * c - d * d)
    stored = affine.copy()
    stored[:3, :3] = quat2mat([a, b, c, d]) * (0.7, 0.7, 2.5 * qfac)
    assert geometry.corner_distance(affine, stored, shape) < geometry.grid_tolerance(affine)


@pytest.mark.parametrize("degrees", [0.005, 0.01, 0.04, 0.06, 0.1, 1.0, 30.0])
@pytest.mark.parametrize("codes", build.ORIENTATIONS)
def test_the_rounding_of_a_quaternion_near_a_half_turn_is_no_second_place(tmp_path, codes, degrees):
    """At 0.01 degrees from LPS nibabel's own files have qform and sform 0.06 mm apart, six times the tolerance."""
    affine = build.affine_of(codes, spacing=(1, 1, 1))
    affine[:3, :3] = build.rotation(degrees, (0, 0, 1)) @ build.rotation(12, (1, 0, 0)) @ affine[:3, :3]
    path = tmp_path / "a.nii.gz"
    nifti.write(path, np.zeros((155, 240, 240), np.uint8), affine)
    both = nifti.probe(path).space()
    assert not both.ambiguous
    only = forms(both.sform, None, "l", (155, 240, 240))
    assert geometry.align(both, only).warnings == ()


def test_more_than_tolerance_and_rounding_is_a_second_place():
    affine = build.affine_of("LPS")
    slack = geometry.grid_tolerance(affine) + geometry.quaternion_rounding(affine, SHAPE)
    assert not forms(affine, moved(affine, x=0.99 * slack), "p").ambiguous
    assert forms(affine, moved(affine, x=1.01 * slack), "p").ambiguous


# Another order of axes


@pytest.mark.parametrize("oblique", [0, 12])
@pytest.mark.parametrize("shape", [SHAPE, (8, 8, 8)], ids=["non-cubic", "cubic"])
@pytest.mark.parametrize("codes", build.ORIENTATIONS)
def test_a_turned_label_is_brought_back_as_nibabel_turned_it(codes, shape, oblique):
    affine = build.affine_of("LPI", oblique=oblique)
    labels = label_field(shape)
    seen, seen_affine = build.turned(labels, affine, codes)
    found = geometry.align(*pair(affine, seen_affine, shape, seen.shape))
    np.testing.assert_array_equal(found.apply(seen), labels)
    assert found.apply(seen).flags.c_contiguous
    assert found.distance_mm == pytest.approx(0, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    start=st.sampled_from(build.ALL_ORIENTATIONS),
    codes=st.sampled_from(build.ALL_ORIENTATIONS),
    oblique=st.sampled_from([0.0, 12.0]),
)
def test_every_turn_of_every_shape_is_undone(shape, start, codes, oblique):
    affine = build.affine_of(start, oblique=oblique)
    labels = label_field(shape)
    seen, seen_affine = build.turned(labels, affine, codes)
    found = geometry.align(*pair(affine, seen_affine, shape, seen.shape))
    np.testing.assert_array_equal(found.apply(seen), labels)
    assert found.identity == (start == codes)


def test_what_is_done_to_a_label_is_said_in_words_that_name_no_case():
    affine = build.affine_of("RAS")
    seen, seen_affine = build.turned(label_field(), affine, "LPS")
    assert geometry.align(*pair(affine, seen_affine, SHAPE, seen.shape)).note == (
        "label turned onto the prediction's grid without loss (prediction's x, y, z are the label's -x, -y, +z)"
    )


def test_a_turned_and_shifted_label_is_refused():
    affine = build.affine_of("RAS")
    seen, seen_affine = build.turned(label_field(), affine, "LPS")
    with pytest.raises(geometry.GridShifted):
        geometry.align(*pair(affine, moved(seen_affine, z=0.01), SHAPE, seen.shape))


def test_a_whole_voxel_of_shift_is_never_undone():
    affine = build.affine_of()
    shifted = affine.copy()
    shifted[:3, 3] += affine[:3, 0]
    with pytest.raises(geometry.GridShifted, match="shift"):
        geometry.align(*pair(affine, shifted))


# Another shape


def test_another_shape_is_refused_with_both_in_the_order_x_y_z():
    affine = build.affine_of()
    refused(
        geometry.ShapeMismatch,
        "pred.nii.gz is 6 x 7 x 5, label.nii.gz is 60 x 7 x 9 (x y z)",
        lambda: geometry.align(*pair(affine, build.affine_of(oblique=30), SHAPE, (9, 7, 60))),
    )


@pytest.mark.parametrize("codes", ["RAS", "LPS"])
def test_a_resampled_label_is_recognised(codes):
    affine, shape = build.affine_of("RAS", oblique=12), (20, 30, 40)
    fine = affine @ np.diag([0.5, 0.5, 0.5, 1])
    fine[:3, 3] = (affine @ (-0.25, -0.25, -0.25, 1))[:3]
    if codes == "LPS":
        _, fine = build.turned(np.zeros((40, 60, 80)), fine, codes)
    refused(
        geometry.ShapeMismatch,
        "pred.nii.gz is 40 x 30 x 20, label.nii.gz is 80 x 60 x 40 (x y z): same extent, resampled",
        lambda: geometry.align(*pair(affine, fine, shape, (40, 60, 80))),
    )


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("offset", [(0, 0, 0), (3, 2, 1)])
def test_a_cropped_label_is_recognised(offset, swap):
    affine, shape, part = build.affine_of("LPS", oblique=12), (20, 30, 40), (19, 28, 37)
    cropped = affine.copy()
    cropped[:3, 3] = (affine @ (*offset, 1))[:3]
    grids = [(affine, shape), (cropped, part)]
    a, b = ("40 x 30 x 20", "37 x 28 x 19")
    if swap:
        grids.reverse()
        a, b = b, a
    refused(
        geometry.ShapeMismatch,
        f"pred.nii.gz is {a}, label.nii.gz is {b} (x y z): one holds the other, cropped",
        lambda: geometry.align(*pair(grids[0][0], grids[1][0], grids[0][1], grids[1][1])),
    )


def test_a_box_that_reaches_out_of_the_other_is_not_called_cropped():
    affine = build.affine_of()
    out = affine.copy()
    out[:3, 3] = (affine @ (30, 0, 0, 1))[:3]
    refused(
        geometry.ShapeMismatch,
        "pred.nii.gz is 40 x 30 x 20, label.nii.gz is 20 x 30 x 20 (x y z)",
        lambda: geometry.align(*pair(affine, out, (20, 30, 40), (20, 30, 20))),
    )


def test_without_an_affine_on_one_side_shapes_decide():
    assert geometry.align(space(None), space(build.affine_of())).identity
    assert geometry.align(space(None), space(None)).distance_mm is None
    refused(
        geometry.ShapeMismatch,
        "pred.nii.gz is 6 x 7 x 5, label.nii.gz is 5 x 7 x 6 (x y z)",
        lambda: geometry.align(*pair(None, build.affine_of(), SHAPE, SHAPE[::-1])),
    )


# Two affines in a file

SCANNER = build.affine_of("RAS")
TEMPLATE = build.affine_of("RAS", oblique=5)


def apart():
    return geometry.corner_distance(SCANNER, TEMPLATE, SHAPE)


def test_two_affines_that_both_agree_pass_with_one_warning():
    found = geometry.align(forms(SCANNER, TEMPLATE, "p"), forms(SCANNER, TEMPLATE, "l"))
    assert found.identity
    assert found.warnings == (f"p: qform and sform differ by {apart():.3g} mm; the two files agree in both",)


@pytest.mark.parametrize(
    ("label", "which"),
    [
        ((SCANNER, SCANNER), "sform"),
        ((TEMPLATE, TEMPLATE), "qform"),
        ((SCANNER, None), "sform"),
        ((None, TEMPLATE), "qform"),
        ((None, SCANNER), "sform"),
        ((SCANNER, build.affine_of("RAS", oblique=9)), "sform"),
    ],
)
def test_two_affines_of_which_one_agrees_are_refused(label, which):
    refused(
        geometry.FormsDisagree,
        f"p: qform and sform differ by {apart():.3g} mm, and p and l agree in {which} only",
        lambda: geometry.align(forms(SCANNER, TEMPLATE, "p"), forms(*label, "l")),
    )


def test_the_file_whose_affines_differ_is_named_if_it_is_the_label():
    with pytest.raises(geometry.FormsDisagree, match=re.escape("l: qform and sform differ by")):
        geometry.align(forms(SCANNER, SCANNER, "p"), forms(SCANNER, TEMPLATE, "l"))


def test_two_affines_of_which_none_agrees_are_refused_as_any_other_grid():
    with pytest.raises(geometry.GridShifted):
        geometry.align(forms(SCANNER, TEMPLATE, "p"), forms(moved(SCANNER, x=9), moved(TEMPLATE, x=9), "l"))


def test_affines_that_differ_within_the_tolerance_are_one():
    close = moved(SCANNER, x=0.5 * TOLERANCE)
    assert geometry.align(forms(SCANNER, close, "p"), forms(SCANNER, None, "l")).warnings == ()


def test_voxel_volumes_that_depend_on_the_reader_are_refused_where_mm3_are_given():
    same, other = build.affine_of(), build.affine_of(spacing=(0.9, 1.1, 3))
    geometry.check_voxel_size(forms(same, TEMPLATE, "p"))
    geometry.check_voxel_size(forms(same, None, "p"))
    geometry.check_voxel_size(forms(same, build.affine_of(spacing=(0.9, 1.1, 2.5 * 1.0009)), "p"))
    refused(
        geometry.VoxelSizeAmbiguous,
        "p: voxel size is 0.9 x 1.1 x 2.5 mm by sform and 0.9 x 1.1 x 3 mm by qform; fix the header",
        lambda: geometry.check_voxel_size(forms(same, other, "p")),
    )
    with pytest.raises(geometry.VoxelSizeAmbiguous):
        geometry.check_voxel_size(forms(same, build.affine_of(spacing=(0.9, 1.1, 2.5 * 1.0011)), "p"))


def test_a_file_with_neither_is_compared_like_any_other_and_warned_about():
    alone = np.diag([*build.SPACING, 1.0])
    bare = Space("l", Grid(SHAPE, alone), pixdim_mm=build.SPACING)
    found = geometry.align(forms(alone, alone, "p"), bare)
    assert found.identity
    assert found.warnings == ("l: neither qform nor sform is set; its place in space is taken from pixdim alone",)
    with pytest.raises(geometry.GridShifted):
        geometry.align(forms(SCANNER, SCANNER, "p"), bare)


# Affines that are none


def test_sheared_axes_are_refused_only_where_distances_are_used():
    affine = np.eye(4)
    affine[0, 1] = np.tan(np.deg2rad(3))
    geometry.align(*pair(affine, affine))
    refused(
        geometry.ShearedAxes,
        "a.nii.gz: axes are sheared by 3 degrees; distances in mm are undefined",
        lambda: geometry.check_distances(space(affine)),
    )
    geometry.check_distances(space(build.affine_of("PLS", oblique=12)))
    geometry.check_distances(space(None))


@pytest.mark.parametrize(("cosine", "is_sheared"), [(0.9e-3, False), (1.1e-3, True)])
def test_axes_count_as_sheared_from_a_cosine_of_a_thousandth(cosine, is_sheared):
    affine = np.eye(4)
    affine[0, 1] = cosine
    assert geometry.sheared(affine) == is_sheared


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ((0.0, 0.0, 0.0, 7.0), "affine y = 0 0 0 7"),
        ((0.0, float("nan"), 0.0, 7.0), "affine y = 0 nan 0 7"),
        ((0.0, 1.0, 0.0, float("inf")), "affine y = 0 1 0 inf"),
        ((1.0, 0.0, 0.0, 7.0), "affine axes lie in one plane, 1 0 0 1 0 0 0 0 1"),
    ],
)
@pytest.mark.parametrize("side", [0, 1])
def test_zero_nan_and_infinite_affines_are_refused(row, said, side):
    bad = np.eye(4)
    bad[1] = row
    sides = [space(np.eye(4)), space(np.eye(4))]
    sides[side] = space(bad, name="bad.nii")
    refused(geometry.AffineUnusable, f"bad.nii: affine is not usable: {said}", lambda: geometry.align(*sides))


@pytest.mark.parametrize("edge", [0.0, float("nan"), float("inf")])
def test_zero_nan_and_infinite_pixdims_are_refused(edge):
    bad = Space("b.nii", Grid(SHAPE, SCANNER), sform=SCANNER, sform_code=1, pixdim_mm=(1.0, edge, 2.0))
    refused(
        geometry.AffineUnusable,
        f"b.nii: affine is not usable: pixdim = 1 {edge:g} 2",
        lambda: geometry.check_usable(bad),
    )


def test_a_voxel_of_a_micrometre_is_usable():
    geometry.check_usable(space(np.diag([1e-3, 1e-3, 1e-3, 1])))


# Files


def test_files_in_metres_and_in_mm_lie_on_one_grid(tmp_path):
    affine = build.affine_of("LPS", oblique=12)
    labels = np.ones(SHAPE, "u1")
    mm = build.save(tmp_path / "mm.nii", labels, affine)
    metres = build.save(tmp_path / "metres.nii", labels, np.diag([1e-3, 1e-3, 1e-3, 1]) @ affine, units=1)
    found = geometry.align(nifti.probe(mm).space(), nifti.probe(metres).space())
    assert found.identity
    assert found.distance_mm < 1e-4


def test_a_file_with_a_zero_pixdim_is_refused_and_named(tmp_path):
    path = build.save(tmp_path / "a.nii", build.field(SHAPE))
    build.edit(path, 80, bytes(4))
    refused(
        geometry.AffineUnusable,
        f"{path}: affine is not usable: pixdim = 0 1.1 2.5",
        lambda: geometry.check_usable(nifti.probe(path).space()),
    )


@pytest.mark.parametrize("oblique", [0, 12])
@pytest.mark.parametrize("codes", build.ORIENTATIONS)
def test_a_label_file_in_another_orientation_is_read_onto_the_predictions_grid(tmp_path, codes, oblique):
    affine = build.affine_of("LPS", oblique=oblique)
    labels = label_field()
    seen, seen_affine = build.turned(labels, affine, codes)
    prediction, label = tmp_path / "p.nii.gz", tmp_path / "l.nii.gz"
    nifti.write(prediction, build.field((2, *SHAPE)), affine)
    build.save(label, seen, seen_affine)
    header = nifti.probe(label)
    found = geometry.align(nifti.probe(prediction).space(), header.space())
    np.testing.assert_array_equal(found.apply(nifti.read_raw(header)), labels)
    assert found.warnings == ()
