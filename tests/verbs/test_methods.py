"""Every shipped method from its config to a model that is used: pretraining with validation, and what each keeps."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

SMOKE = Path(__file__).parents[2] / "configs" / "smoke"
#: What each keeps with its model, where it keeps anything.
KEPT = {
    "captioning": ("decoder",),
    "siglip": ("space",),
    "robust_contrast": ("space",),
    "rectified_pairs": ("space",),
    "convirt": ("space",),
    "gloria": ("space",),
    "token_alignment": ("space",),
    "mgca": ("space",),
    "albef": ("space",),
    "prefix_language": ("decoder",),
    "coca": ("decoder", "space"),
    "generation": ("decoder", "space"),
    "swav": ("space",),
    "pair_free": ("space",),
    "label_bridge": ("space",),
    "conclugen": ("space",),
    "flava": ("space",),
    "masked_modality": ("space",),
    "shared_specific": ("space",),
}
METHODS = sorted(path.stem for path in SMOKE.glob("*.yaml") if path.stem not in ("pretrain", "finetune"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of 40 small studies."""
    from medssml.verbs.phantom import phantom

    out = tmp_path_factory.mktemp("small")
    phantom(out=out, studies=40, seed=1, missing=0.2, preset="small")
    return out / "manifest.csv"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def reports_are_written(run: Path, manifest: Path, cache: Path, out: Path) -> None:
    """`medssml predict --generate`: of every study that has anything but a report, and none of a report's own words."""
    from medssml.verbs.predict import predict

    predict(
        checkpoint=str(run), manifest=manifest, out=out, cache=cache, generate=True, beams=2, split="test", track=False
    )
    written = pd.read_csv(out, keep_default_na=False)
    assert list(written.columns) == ["study_id", "subset", "report"] and len(written) > 0
    assert not written["subset"].str.contains("report").any() and written["subset"].ne("").all()


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_method_learns_is_validated_and_kept(method: str, small: Path, cache: Path, tmp_path: Path) -> None:
    import medssml
    from medssml.trainers.history import read
    from medssml.verbs.pretrain import pretrain

    run = pretrain(
        config=SMOKE / f"{method}.yaml", manifest=small, out=tmp_path / "run", cache=cache, track=False, device="cpu",
        overrides=["trainer.max_epochs=2", "trainer.precision='32'", "data.batch_size=8"],
    )  # fmt: skip
    assert run == tmp_path / "run"
    rows = read(tmp_path / "run" / "history.csv")
    assert any("train/loss" in row for row in rows) and any("val/feature_spread" in row for row in rows)

    predictor = medssml.load(tmp_path / "run")
    assert tuple(predictor.model.kept) == KEPT.get(method, ())
    if "decoder" in KEPT.get(method, ()):
        image = next((small.parent / "xray").iterdir())
        assert isinstance(predictor.generate({"xray": image}), str)
        reports_are_written(tmp_path / "run", small, cache, tmp_path / "reports.csv")
    else:
        assert predictor.embed({"report": "No effusion."}).isfinite().all()
