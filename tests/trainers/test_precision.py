"""What "auto" means on a device, and that a run says which precision it chose and does not change it unseen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medssml.runs.run_folder import RunFolder, RunFolderError
from medssml.runs.training_config import Finetuning, with_precision
from medssml.trainers import precision
from medssml.trainers.settings import TrainerSettings


def processor(
    monkeypatch: pytest.MonkeyPatch, *, onednn: bool = True, avx512_bf16: bool = False, amx: bool = False
) -> None:
    """A CPU with these units, whichever this test runs on."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: onednn)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(precision, "_onednn_takes_bf16", lambda: True)


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        ({}, "32"),
        ({"avx512_bf16": True}, "bf16-mixed"),
        ({"amx": True}, "bf16-mixed"),
        ({"amx": True, "onednn": False}, "32"),
    ],
    ids=["plain", "AVX512-BF16", "AMX", "AMX without oneDNN"],
)
def test_auto_is_bf16_where_a_processor_has_units_for_it(
    monkeypatch: pytest.MonkeyPatch, units: dict[str, bool], expected: str
) -> None:
    processor(monkeypatch, **units)
    assert precision.chosen_precision("auto", "cpu") == expected


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "32"), ((8, 0), "bf16-mixed"), ((9, 0), "bf16-mixed")])
def test_auto_is_bf16_from_ampere_on(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert precision.chosen_precision("auto", "cuda") == expected


@pytest.mark.parametrize("asked", ["32", "bf16-mixed"])
def test_what_was_asked_for_is_taken_on_every_processor(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    processor(monkeypatch, amx=True)
    assert precision.chosen_precision(asked, "cpu") == asked


def test_a_config_names_what_auto_chose_and_another_processor_is_told_the_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = Finetuning(trainer=TrainerSettings(precision="auto", device="cpu", max_epochs=1))
    processor(monkeypatch, amx=True)
    chosen = with_precision(config)
    assert chosen.trainer.precision == "bf16-mixed" and config.trainer.precision == "auto"
    RunFolder(tmp_path).begin(chosen.written(), "hash")
    assert "precision: bf16-mixed" in (tmp_path / "config.yaml").read_text()

    processor(monkeypatch)
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


@pytest.mark.parametrize(("enabled", "takes"), [(True, True), (False, True), (True, False)])
def test_bf16_is_fast_only_where_onednn_is_switched_on_and_takes_it(
    monkeypatch: pytest.MonkeyPatch, enabled: bool, takes: bool
) -> None:
    processor(monkeypatch, amx=True)
    monkeypatch.setattr(precision, "_onednn_takes_bf16", lambda: takes)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", enabled)
    assert precision.has_fast_bf16("cpu") == (enabled and takes)


def test_what_onednn_says_is_asked_of_it() -> None:
    assert precision._onednn_takes_bf16() == torch.ops.mkldnn._is_mkldnn_bf16_supported()
