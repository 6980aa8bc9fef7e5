"""Under Lightning: studies are prepared and split, and a run that was killed ends with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from medssml.manifest.manifest import Manifest
from medssml.obstacles import CTDose, ReportTruncated


def build(plain: Manifest, transforms: dict, tmp_path: Path, **options: Any) -> Any:
    from medssml.data.datamodule import StudyDataModule

    defaults = {"batch_size": 4, "seed": 5, "cache_dir": tmp_path / "cache", "prepare_workers": 0}
    return StudyDataModule(plain, transforms, **(defaults | options))


def test_studies_without_anything_or_with_a_bad_file_are_left_out(
    plain: Manifest, transforms: dict, tmp_path: Path
) -> None:
    (plain.root / "x3.txt").write_text("bad")
    data = build(plain, transforms, tmp_path)
    problems = data.prepare()
    assert [problem.study_id for problem in problems] == ["003"] and data.excess is None
    assert len(data.manifest) + len(problems) + data.studies.empty == len(plain) == 40
    assert "003" not in data.manifest.study_ids and data.modalities == ("xray", "report")
    assert [len(batch) for batch in data.batches("test")] == [4, 1]
    assert len({study for batch in data.batches(None) for study in batch.study_id}) == 35
    assert all(type(batch.inputs["report"]) is torch.Tensor for batch in data.batches("val"))


def test_over_the_limit(plain: Manifest, transforms: dict, tmp_path: Path) -> None:
    for i in range(0, 36, 3):
        (plain.root / f"x{i}.txt").write_text("bad")
    data = build(plain, transforms, tmp_path)
    data.prepare()
    assert data.excess == "11 of 40 studies are quarantined, the limit is 5"
    assert "xray" in data.modalities


def test_balanced_batches_and_unknown_names(plain: Manifest, transforms: dict, tmp_path: Path) -> None:
    data = build(plain, transforms, tmp_path, balance="modality", balance_power=0.0, batch_size=9)
    shares = torch.stack([batch.present.sum(0) for batch in data.train_dataloader()]).sum(0)
    assert abs(int(shares[0]) - int(shares[1])) <= 1
    with pytest.raises(KeyError, match="balance"):
        build(plain, transforms, tmp_path, balance="nothing")
    with pytest.raises(KeyError, match="label"):
        build(plain, transforms, tmp_path, tasks=["nothing"])


def reports(tmp_path: Path, **options: Any) -> Any:
    """Thirty studies of a report of six words, and what loads them."""
    from medssml.transforms import ReportTransform

    words = ["lungs clear heart normal no effusion", "left nodule seen heart large effusion"]
    splits = [["train", "train", "val", "test"][i % 4] for i in range(30)]
    rows = {"study_id": [f"s{i}" for i in range(30)], "subject_id": [f"p{i}" for i in range(30)], "split": splits}
    table = pd.DataFrame({**rows, "report_text": [words[i % 2] for i in range(30)]})
    return build(
        Manifest.from_table(table, tmp_path),
        {"report": ReportTransform(vocab_size=64, max_length=16)},
        tmp_path,
        **options,
    )


def test_a_damage_befalls_training_and_validation_and_never_the_test(tmp_path: Path) -> None:
    """At severity 1 a report keeps a tenth of its words: one of six."""
    whole, cut = reports(tmp_path), reports(tmp_path, damages=[ReportTruncated(1.0)])

    def lengths(data: Any, split: str) -> set[int]:
        return {n for batch in data.batches(split) for n in (batch.inputs["report"]["input_ids"] != 0).sum(1).tolist()}

    assert lengths(cut, "train") == lengths(cut, "val") == {3}, "a word and both ends"
    assert min(lengths(cut, "test")) >= 8 and min(lengths(whole, "train")) >= 8
    assert {batch.inputs["report"]["input_ids"].shape[1] for batch in cut.train_dataloader()} == {3}
    encode = [data.transforms["report"].steps[-1].vocabulary.encode for data in (whole, cut)]
    known, unknown = (len(of("effusion")) for of in encode)
    assert known < unknown or encode[1]("effusion") == encode[1]("nodule"), (
        "the vocabulary is that of the damaged studies"
    )


def test_a_damage_that_can_do_nothing_is_refused(plain: Manifest, transforms: dict, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ct_dose can change nothing: no study has ct; fix"):
        build(plain, transforms, tmp_path, damages=[CTDose(0.5)])
    with pytest.raises(
        ValueError, match="report_truncated can change nothing: the transform of report, Bytes, is none"
    ):
        build(plain, transforms, tmp_path, damages=[ReportTruncated(0.5)])


def module() -> Any:
    """A model whose weights remember which batches it saw, and in which order."""
    import lightning as L

    class Remembers(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(4))
            self.seen: list[tuple[str, ...]] = []

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            self.seen.append(batch.study_id)
            drawn = sum(value.sum(0) for value in batch.inputs.values())
            return ((self.weight - drawn / 100) ** 2).sum() * (1 + self.weight.sum() ** 2)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=0.01)

    return Remembers


def trainer(folder: Path, epochs: int = 3) -> Any:
    import lightning as L
    from lightning.pytorch.callbacks import ModelCheckpoint

    save = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    return L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        callbacks=[save],
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def test_a_killed_run_ends_with_the_same_weights(plain: Manifest, transforms: dict, tmp_path: Path) -> None:
    """27 studies in batches of 4: 6 steps an epoch; killed in its middle, at its last step and just after its edge."""
    whole = module()()
    trainer(tmp_path / "whole").fit(whole, datamodule=build(plain, transforms, tmp_path))
    assert len(whole.seen) == 18
    for cut in (4, 6, 7):
        resumed = module()()
        saved = next((tmp_path / "whole").glob(f"step={cut}.ckpt"))
        trainer(tmp_path / f"cut{cut}").fit(
            resumed, datamodule=build(plain, transforms, tmp_path), ckpt_path=str(saved)
        )
        assert resumed.seen == whole.seen[cut:], cut
        assert torch.equal(resumed.weight, whole.weight), cut


def test_a_second_fit_of_the_same_data_starts_at_its_beginning(
    plain: Manifest, transforms: dict, tmp_path: Path
) -> None:
    data = build(plain, transforms, tmp_path)
    runs = []
    for name in ("one", "two"):
        model = module()()
        trainer(tmp_path / name, epochs=1).fit(model, datamodule=data)
        runs.append(model.seen)
    assert runs[0] == runs[1]
