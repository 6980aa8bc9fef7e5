"""One name, several files: the picture and not its mask, the whole and not the thumbnail; and paths that nearly agree."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from medssml.importers.account import Account
from medssml.importers.same_name import looks_like_labels, pixels
from medssml.importers.tree import Tree
from tests.importers.trees import put


def picture(path: Path, seed: int, side: int = 40, values: int = 256) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    gray = np.random.default_rng(seed).integers(0, values, (side, side)) * (255 // (values - 1))
    Image.fromarray(gray.astype(np.uint8)).save(path)
    return path


def volume(path: Path, voxels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-1.0, -1.0, 2.0, 1.0])), path)
    return path


def tree(root: Path) -> Tree:
    return Tree(root, Account())


def why(found: Tree, path: str) -> str:
    return next(line.reason for line in found.account.lines() if line.file == path)


def test_masks_are_told_by_their_folder(tmp_path: Path) -> None:
    put(tmp_path, {"Masks/a.png": b"1", "original/a.png": b"2", "lung_segmentations/b.png": b"3"})
    found = tree(tmp_path)
    assert found.find("images/a.png", 1) == "original/a.png" and found.find("images/b.png", 1) is None
    assert why(found, "Masks/a.png") == "a mask or another annotation, as its folder says"
    assert found.find("lung_segmentations/b.png") == "lung_segmentations/b.png", (
        "a table that names the folder means it"
    )


def test_masks_are_told_by_what_they_hold(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "x.png", 1, values=2)
    picture(tmp_path / "b" / "x.png", 2)
    found = tree(tmp_path)
    assert found.find("img/x.png", 1) == "b/x.png", "a comes first in the alphabet and is a mask"
    assert "b/x.png has the same name" in why(found, "a/x.png")
    assert any("several files that differ" in note for note in found.account.notes)


def test_a_smaller_copy_comes_last(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "x.png", 1, side=20)
    picture(tmp_path / "z" / "deep" / "x.png", 1, side=60)
    picture(tmp_path / "images_resized" / "y.png", 2, side=60)
    picture(tmp_path / "images_full" / "y.png", 2, side=60)
    found = tree(tmp_path)
    assert found.find("img/x.png", 1) == "z/deep/x.png" and pixels(tmp_path / "a" / "x.png") == 400
    assert found.find("img/y.png", 1) == "images_full/y.png"
    only = tree(picture(tmp_path / "only" / "thumbs" / "q.png", 3).parent.parent)
    assert only.find("img/q.png", 1) == "thumbs/q.png", "where nothing else is there it is what the user has"


def test_a_copy_is_called_one_where_its_bytes_are_the_same(tmp_path: Path) -> None:
    put(tmp_path, {"a/x.png": b"same", "b/c/x.png": b"same", "d/x.png": b"diff"})
    found = tree(tmp_path)
    assert found.find("img/x.png", 1) == "a/x.png"
    assert why(found, "b/c/x.png") == "a copy of a/x.png, byte for byte" and "has the same name" in why(
        found, "d/x.png"
    )


def test_as_many_names_as_possible_agree(tmp_path: Path) -> None:
    put(tmp_path, {"small/train/p1/s1/v.jpg": b"1", "full/train/p1/s1/v.jpg": b"2", "full/part 2/p2/s1/v.jpg": b"3"})
    found = tree(tmp_path)
    assert found.find("release/full/train/p1/s1/v.jpg", 3) == "full/train/p1/s1/v.jpg"
    assert found.find("full/train/p2/s1/v.jpg", 3) == "full/part 2/p2/s1/v.jpg", "the folder in the middle differs"
    assert found.find("full/train/p2/s1/v.jpg") is None and found.find("full/train/p3/s1/v.jpg", 3) is None


def test_a_folder_that_all_share_says_nothing(tmp_path: Path) -> None:
    put(tmp_path, {"segmentation project/images/x.png": b"1", "segmentation project/more/y.png": b"1"})
    assert tree(tmp_path).find("pics/x.png", 1) == "segmentation project/images/x.png"


@pytest.mark.parametrize(
    ("voxels", "expected"),
    [
        (np.random.default_rng(0).integers(0, 117, (12, 12, 8)).astype(np.int16), True),
        (np.random.default_rng(0).integers(0, 2, (12, 12, 8)).astype(np.uint8), True),
        (np.zeros((12, 12, 8), np.uint8), True),
        (np.random.default_rng(0).integers(-1000, 1000, (12, 12, 8)).astype(np.int16), False),
        (np.random.default_rng(0).integers(0, 4000, (12, 12, 8)).astype(np.int16), False),
        (np.random.default_rng(0).integers(0, 256, (12, 12, 8)).astype(np.uint8), False),
        (np.random.default_rng(0).random((12, 12, 8)).astype(np.float32), True),
        (np.random.default_rng(0).random((12, 12, 8)).astype(np.float32) * 200, False),
    ],
)
def test_labels_of_a_volume(tmp_path: Path, voxels: np.ndarray, expected: bool) -> None:
    assert looks_like_labels(volume(tmp_path / "v.nii.gz", voxels)) is expected


def test_a_radiograph_of_16_bits_is_no_mask(tmp_path: Path) -> None:
    gray = np.random.default_rng(0).integers(3000, 60000, (40, 40)).astype(np.uint16)
    Image.fromarray(gray).save(tmp_path / "x.png")
    assert not looks_like_labels(tmp_path / "x.png") and not looks_like_labels(tmp_path / "gone.png")
