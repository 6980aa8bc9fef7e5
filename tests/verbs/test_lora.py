"""The key lora of a fine-tuning and of a transfer: the saved run differs from its beginning by what adapters can hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
FEW = ["trainer.max_steps=2", "data.batch_size=4", "data.prepare_workers=0", "trainer.validate_every=0", "lora.rank=2"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def begun(cohort: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from medssml.verbs.pretrain import pretrain

    out = tmp_path_factory.mktemp("runs") / "begun"
    steps = ["trainer.max_steps=1", "trainer.validate_every=0"]
    pretrain(
        config=ROOT / "configs/smoke/pretrain.yaml", manifest=cohort, out=out, cache=cache, overrides=steps, track=False
    )
    return out


def changes(before: Path, after: Path, modality: str) -> dict[str, torch.Tensor]:
    """Name -> by how much a parameter of an encoder changed."""
    from medssml.model import MultimodalModel

    old, new = (dict(MultimodalModel.load(run).encoders[modality].named_parameters()) for run in (before, after))
    assert list(old) == list(new)
    return {name: (new[name] - old[name]).detach() for name in old}


def of_low_rank(found: dict[str, torch.Tensor]) -> bool:
    """Whether matrices changed by one of rank 2, and nothing else did."""
    moved = {name: change for name, change in found.items() if bool(change.abs().max() > 1e-7)}
    assert moved, "no adapter learned"
    return all(
        change.ndim >= 2 and int((torch.linalg.svdvals(change.flatten(1).double()) > 1e-5).sum()) <= 2
        for change in moved.values()
    )


def test_a_fine_tuning_by_adapters(begun: Path, cohort: Path, cache: Path, tmp_path: Path) -> None:
    import medssml
    from medssml.verbs.finetune import finetune

    out = tmp_path / "run"
    given: dict[str, Any] = {
        "manifest": cohort,
        "task": ["effusion"],
        "cache": cache,
        "track": False,
        "precision": "32",
    }
    steps = [*FEW, "optim.lr=0.05", "optim.weight_decay=0"]
    finetune(checkpoint=str(begun), out=out, overrides=steps, **given)
    assert of_low_rank(changes(begun, out, "xray"))
    assert "adapters of rank 2" in (out / "model" / "README.md").read_text()
    assert medssml.load(out).tasks == ("effusion",)

    for others, said in (
        ({"checkpoint": str(begun), "freeze": "encoders"}, "lora freezes the encoders"),
        (
            {"checkpoint": "none", "architecture": ROOT / "configs/smoke/pretrain.yaml"},
            "these are new; fix: --checkpoint RUN",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            finetune(out=tmp_path / "none", overrides=FEW, **given, **others)


def test_students_of_a_transfer_by_adapters(begun: Path, cohort: Path, cache: Path, tmp_path: Path) -> None:
    """Both begin with the weights of a run; with nothing to learn by they stay as they were."""
    from medssml.verbs.transfer import transfer

    given: dict[str, Any] = {
        "teacher": begun, "student": "xray", "manifest": cohort, "task": ["effusion"], "method": "features", "seeds": 1,
        "source": ["ct", "report"], "bootstrap": 20, "cache": cache, "precision": "32",
        "track": False,
    }  # fmt: skip
    with pytest.raises(ValueError, match="these are new; fix: --checkpoint RUN"):
        transfer(out=tmp_path / "none", overrides=FEW, **given)
    out = tmp_path / "run"
    transfer(out=out, checkpoint=str(begun), overrides=[*FEW, "optim.lr=0.05", "optim.weight_decay=0"], **given)
    for arm in ("alone", "taught"):
        assert of_low_rank(changes(begun, out / "students" / f"seed0-{arm}", "xray"))
