"""Positions of slices: phases and copies are told by how often a position occurs, rounding is told from steps that vary."""

import numpy as np
import pytest

from medssml.readers import ReadError, ct_header, read_ct
from medssml.readers.errors import Flag
from medssml.readers.slice_positions import repeats
from tests.readers.test_read_ct import SHAPE, phantom, series, slice_dataset


def placed(folder, positions, **tags):
    """A series of the phantom's slices at `positions` (N, 3) mm."""
    folder.mkdir()
    for index, position in enumerate(positions):
        dataset = slice_dataset(index % SHAPE[2], ImagePositionPatient=list(position), **tags)
        dataset.SOPInstanceUID = f"1.2.3.{index}"
        dataset.save_as(folder / f"{index:03d}.dcm")
    return folder


def along_z(depths):
    return [(0.0, 0.0, float(depth)) for depth in depths]


def test_how_often_positions_occur():
    assert repeats([3.0, 1.0, 2.0]) == (3, 1, 1, 0, None) and not repeats([1.0]).phases
    found = repeats([1.0, 2.0, 1.0, 2.0 + 1e-5])
    assert found == (2, 2, 2, 2, 1.0) and found.phases
    assert repeats([1.0, 2.0, 2.0, 2.0, 3.0, 3.0]) == (3, 1, 3, 2, 2.0)


def test_phases_are_told_as_such_and_other_repeats_with_their_files(tmp_path):
    folder = placed(tmp_path / "a", along_z([2.5 * (index % 5) for index in range(15)]))
    with pytest.raises(
        ReadError, match=r"every one of 5 positions occurs 3 times: several phases in one series"
    ) as caught:
        ct_header(folder)
    assert "(000.dcm, 005.dcm, 010.dcm); fix: export one phase" in str(caught.value)
    folder = placed(tmp_path / "b", along_z([0, 2.5, 5, 7.5, 10, 2.5, 5, 2.5]))
    message = r"position 2\.5 mm appears 3 times, and 1 more of 5 positions repeatedly \(001.dcm, 005.dcm, 007.dcm\)"
    with pytest.raises(ReadError, match=message):
        ct_header(folder)


def test_copies_under_other_uids_are_left_out_and_flagged(tmp_path):
    folder = series(tmp_path / "s")
    for index in range(SHAPE[2]):
        slice_dataset(index, SOPInstanceUID=f"7.7.{index}").save_as(folder / f"again{index}.dcm")
    volume = read_ct(folder)
    np.testing.assert_array_equal(volume.array, phantom())
    (note,) = volume.notes
    assert isinstance(note, Flag) and note.code == "left_out"
    assert note.startswith("9 of 18 slices left out (again0.dcm, again1.dcm, again2.dcm and 6 more)")
    # the same pixels that stand for other values are no copies
    slice_dataset(4, SOPInstanceUID="7.7.4", RescaleIntercept=-1000).save_as(folder / "again4.dcm")
    with pytest.raises(ReadError, match="every one of 9 positions occurs twice"):
        ct_header(folder)


@pytest.mark.parametrize(
    ("step", "unit"), [(0.625, 1), (0.7, 1), (1.25, 1), (2.5, 0), (0.3125, 1), (0.335, 2), (5.55, 1)]
)
def test_rounded_positions_are_even_steps(tmp_path, step, unit):
    depths = [round(-100.03 + step * index, unit) for index in range(24)]
    folder = placed(tmp_path / "s", along_z(depths), SliceThickness=step)
    header = ct_header(folder)
    np.testing.assert_allclose(header.spacing[2], step, rtol=0.005)
    assert all(isinstance(note, Flag) and f"rounded to {10.0**-unit:g} mm: no slice" in note for note in header.notes)


def test_the_step_is_the_stated_one_where_it_fits_and_else_the_one_that_fits_best(tmp_path):
    depths = along_z([round(-100 + 0.625 * index, 1) for index in range(12)])
    for name, thickness in (("stated", 0.625), ("overlapping", 1.25)):
        header = ct_header(placed(tmp_path / name, depths, SliceThickness=thickness))
        (note,) = header.notes
        assert note.startswith(
            "positions are rounded to 0.1 mm: no slice lies further than 0.05 mm from even steps of 0.62"
        )
        np.testing.assert_allclose(header.spacing[2], 0.625, atol=1e-9 if name == "stated" else 0.005)


def test_positions_that_are_rounded_along_turned_axes(tmp_path):
    turn = np.deg2rad(30)
    normal = np.array([0, -np.sin(turn), np.cos(turn)])
    depths = [(0.625 * index * normal).round(1) for index in range(20)]
    folder = placed(tmp_path / "s", depths, ImageOrientationPatient=[1, 0, 0, 0, np.cos(turn), np.sin(turn)])
    header = ct_header(folder)
    np.testing.assert_allclose(header.spacing[2], 0.625, rtol=0.01)
    assert any("rounded to" in note for note in header.notes)


VARYING = {
    "steps that vary": ([0, 0.6, 1.3, 1.9, 2.5, 3.1, 3.8, 4.6, 5.5, 6.5], "spacing between slices varies"),
    "finer than the digits": (np.cumsum([0.61, 0.68] * 8), "spacing between slices varies from 0.61 to 0.68"),
    "a slice that is missing": (np.delete((0.625 * np.arange(16)).round(1), 7), r"gap 1\.\d mm after slice 7"),
    "the second is missing": (np.delete((0.625 * np.arange(16)).round(1), 1), r"gap 1\.\d mm after slice 1"),
    "rounded to half a step": ((2.0 * np.arange(12) * 0.73).round(0), "varies|gap"),
    "half a step further on": (
        np.concatenate([0.625 * np.arange(8), 0.3 + 0.625 * np.arange(8, 16)]).round(1),
        "varies|gap",
    ),
}


@pytest.mark.parametrize("fault", VARYING)
def test_steps_that_vary_stay_refused(tmp_path, fault):
    depths, message = VARYING[fault]
    with pytest.raises(ReadError, match=message):
        ct_header(placed(tmp_path / "s", along_z(depths)))
