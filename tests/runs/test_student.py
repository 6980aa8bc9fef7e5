"""A student of one modality answers as the model that it is a part of does from that modality alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medssml.fusion import AdditiveFusion, ConcatFusion
from medssml.model import MultimodalModel
from medssml.runs.student import Student, part_of_weights
from medssml.transforms import CTTransform, EEGTransform, ReportTransform, XrayTransform
from tests.examples import batch_of, study, tiny_model


def saved(model: MultimodalModel, folder: Path) -> Path:
    report = ReportTransform(vocab_size=64, max_length=32)
    report.vocabulary.fit(["No acute findings."])
    transforms = {
        "ct": CTTransform(spacing=(8, 8, 8), size=(8, 8, 8)),
        "xray": XrayTransform(size=16),
        "eeg": EEGTransform(window_s=2.0, eval_window_s=4.0),
        "report": report,
    }
    model.save(folder / "model", transforms=transforms)
    return folder


def test_the_part_of_a_run_embeds_as_the_whole_does_from_the_modality_alone(tmp_path: Path) -> None:
    whole = tiny_model(fusion=lambda names, dim: AdditiveFusion(names, dim, 1, 2)).eval()
    run = saved(whole, tmp_path)
    part = Student.of_run("xray", run, "--checkpoint", trained=True).begin(seed=3).eval()
    assert part.modalities == ("xray",) and not part.tasks
    batch = batch_of([study(number, ("xray",)) for number in range(3)])
    own, aligned = part.align(batch), whole.align(batch)
    with torch.inference_mode():
        found = part.fuse(part.encode(own), own.present).pooled
        expected = whole.fuse(whole.encode(aligned), aligned.present).pooled
    torch.testing.assert_close(found, expected)


def test_new_weights_follow_from_the_seed(tmp_path: Path) -> None:
    run = saved(tiny_model(fusion=lambda names, dim: AdditiveFusion(names, dim, 1, 2)), tmp_path)
    new = Student.of_run("xray", run, "--teacher", trained=False)
    first, again, other = (new.begin(seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_fusion_that_has_no_part_of_one_modality_is_refused() -> None:
    whole = tiny_model(fusion=ConcatFusion)
    part = ConcatFusion(["xray"], 16)
    alone = MultimodalModel({"xray": whole.encoders["xray"]}, part)
    whole.drop_task("finding"), whole.drop_task("grade")
    with pytest.raises(ValueError, match="cannot be taken for xray alone; fix: --checkpoint none"):
        part_of_weights(whole.state_dict(), alone.state_dict(), whole.modalities, "xray")


def test_a_modality_that_the_run_does_not_read_is_refused(tmp_path: Path) -> None:
    run = saved(tiny_model(), tmp_path / "run")
    with pytest.raises(ValueError, match="--teacher run does not read table, but .*fix: --architecture"):
        Student.of_run("table", run, "--teacher", trained=False)
