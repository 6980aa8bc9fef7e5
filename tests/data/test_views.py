"""Several looks at one study: the first is what a single look is, bit for bit; each has draws of its own."""

from __future__ import annotations

import torch

from medssml.data.datamodule import StudyDataModule
from medssml.manifest.manifest import Manifest
from tests.plain_cohort import Bytes


def batches(plain: Manifest, transforms: dict[str, Bytes], views: int, count: int = 6, workers: int = 0) -> list:
    data = StudyDataModule(plain, transforms, batch_size=8, seed=3, num_workers=workers, prepare_workers=0)
    data.prepare()
    data.views = views
    loader = data.train_dataloader()
    found = [loader.take() for _ in range(count)]
    loader.close()
    return found


def test_the_first_look_is_the_only_one_bit_for_bit(plain: Manifest, transforms: dict[str, Bytes]) -> None:
    one, three = batches(plain, transforms, 1), batches(plain, transforms, 3)
    for single, several in zip(one, three, strict=True):
        assert single.study_id == several.study_id and single.views == () and len(several.views) == 2
        for modality, value in single.inputs.items():
            assert torch.equal(value, several.inputs[modality])


def test_every_look_has_draws_of_its_own_of_the_same_studies(plain: Manifest, transforms: dict[str, Bytes]) -> None:
    batch = batches(plain, transforms, 3, count=1)[0]
    for view in batch.views:
        assert view.study_id == batch.study_id and torch.equal(view.present, batch.present)
        assert torch.equal(view.index, batch.index) and not torch.equal(view.key, batch.key)
        assert all(torch.equal(view.content[m], batch.content[m]) for m in batch.content)
    first, second = batch.views
    for modality in batch.inputs:
        noise = [view.inputs[modality] - batch.inputs[modality] for view in (first, second)]
        assert all(bool(part.abs().gt(0).all()) for part in noise) and not torch.equal(*noise)


def test_any_number_of_workers_gives_the_same_looks(plain: Manifest, transforms: dict[str, Bytes]) -> None:
    here, there = batches(plain, transforms, 2, count=3), batches(plain, transforms, 2, count=3, workers=1)
    for a, b in zip(here, there, strict=True):
        assert all(torch.equal(a.views[0].inputs[m], b.views[0].inputs[m]) for m in a.inputs)


def test_evaluation_has_one_look_and_the_index_is_the_place(plain: Manifest, transforms: dict[str, Bytes]) -> None:
    data = StudyDataModule(plain, transforms, batch_size=8, seed=3, prepare_workers=0)
    data.prepare()
    data.views = 2
    found = list(data.loader("train"))
    assert all(batch.views == () for batch in found)
    assert torch.cat([batch.index for batch in found]).tolist() == list(range(len(data.manifest.split("train"))))
