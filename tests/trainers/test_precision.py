"""What "auto" means on a device, and that a run says which precision it chose and does not change it unseen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medssml.runs.run_folder import RunFolder, RunFolderError
from medssml.runs.training_config import Finetuning, with_precision
from medssml.trainers import precision
from medssml.trainers.settings import TrainerSettings


def gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] | None) -> None:
    """A machine with such a GPU, or none, whatever this test runs on."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)


@pytest.mark.parametrize("units", [True, False])
def test_auto_is_float32_on_every_processor(monkeypatch: pytest.MonkeyPatch, units: bool) -> None:
    """Also on one with units for bf16: what is learned must not depend on it."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: units)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: units)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", units)
    assert precision.chosen_precision("auto", "cpu") == "32"


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "32"), ((8, 0), "bf16-mixed"), ((9, 0), "bf16-mixed")])
def test_auto_is_bf16_from_ampere_on(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert precision.chosen_precision("auto", "cuda") == expected


@pytest.mark.parametrize("asked", ["32", "bf16-mixed"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_was_asked_for_is_taken_on_every_device(monkeypatch: pytest.MonkeyPatch, asked: str, device: str) -> None:
    gpu(monkeypatch, (8, 0))
    assert precision.chosen_precision(asked, device) == asked


def test_a_config_names_what_auto_chose_and_another_device_is_told_the_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = Finetuning(trainer=TrainerSettings(precision="auto", device="auto", max_epochs=1))
    gpu(monkeypatch, (9, 0))
    chosen = with_precision(config)
    assert chosen.trainer.precision == "bf16-mixed" and config.trainer.precision == "auto"
    RunFolder(tmp_path).begin(chosen.written(), "hash")
    assert "precision: bf16-mixed" in (tmp_path / "config.yaml").read_text()

    gpu(monkeypatch, None)
    with pytest.raises(RunFolderError, match="fix: --precision bf16-mixed continues it"):
        RunFolder(tmp_path).begin(with_precision(config).written(), "hash")


@pytest.mark.parametrize(
    ("asked", "gpu", "found"),
    [
        ("auto", True, "cuda"),
        ("auto", False, "cpu"),
        ("cuda", True, "cuda"),
        ("cpu", True, "cpu"),
        ("cpu", False, "cpu"),
    ],
)
def test_a_gpu_is_taken_where_there_is_one_and_nothing_else_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, asked: str, gpu: bool, found: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert precision.device_type(asked) == found


def test_a_gpu_that_is_not_there_is_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError) as caught:
        precision.device_type("cuda")
    assert str(caught.value) == (
        "device is cuda, but torch sees no GPU; fix: --device cpu, or install the CUDA build of torch"
    )
