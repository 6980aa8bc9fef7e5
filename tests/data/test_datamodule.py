"""Under Lightning: studies are prepared and split, and a run that was killed ends with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from medssml.manifest.manifest import Manifest


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
