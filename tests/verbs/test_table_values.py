"""Laboratory values through the verbs: pretrained beside reports, fine-tuned, loaded again with their figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import medssml
from medssml import cli

CONFIG = {
    "model": {
        "class_path": "MultimodalModel",
        "init_args": {
            "encoders": {
                "report": {
                    "class_path": "TextEncoder",
                    "init_args": {"vocab_size": 128, "dim": 16, "depth": 1, "heads": 2, "max_length": 16},
                },
                "table": {
                    "class_path": "TableEncoder",
                    "init_args": {"features": 2, "dim": 16, "depth": 1, "heads": 2},
                },
            },
            "fusion": {"class_path": "ConcatFusion", "init_args": {"modalities": ["report", "table"], "dim": 16}},
        },
    },
    "transforms": {
        "report": {"class_path": "ReportTransform", "init_args": {"vocab_size": 128, "max_length": 16}},
        "table": {"class_path": "TableTransform", "init_args": {"features": {"crp": "mg/l", "ldh": "U/l"}}},
    },
    "objectives": [{"class_path": "CrossModalContrast", "init_args": {"dim": 16}}],
    "trainer": {"max_epochs": 2},
    "data": {"batch_size": 8, "prepare_workers": 0},
    "privacy": {"strict": False},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 studies: who is ill has a high CRP and says so in words; a third lacks each of the values."""
    root = tmp_path_factory.mktemp("values")
    rng = np.random.default_rng(0)
    ill = rng.integers(0, 2, 60)
    crp = np.where(ill, 80, 5) + rng.normal(0, 1, 60)
    ldh = rng.normal(200, 30, 60)

    def measured(values: np.ndarray) -> list[str]:
        return [f"{value:.1f}" if known else "" for value, known in zip(values, rng.random(60) > 0.3, strict=True)]

    table = pd.DataFrame(
        {
            "subject_id": [f"p{i:02d}" for i in range(60)],
            "study_id": [f"s{i:02d}" for i in range(60)],
            "split": ["train"] * 40 + ["val"] * 10 + ["test"] * 10,
            "report_text": [f"There is {'a' if i else 'no'} consolidation." for i in ill],
            "table_crp": measured(crp),
            "table_ldh": measured(ldh),
            "label_ill": ill,
        }
    )
    table.to_csv(root / "manifest.csv", index=False)
    (root / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    return root


def test_from_the_manifest_to_a_prediction(place: Path) -> None:
    given = ["--manifest", str(place / "manifest.csv"), "--no-track"]
    run = ["--config", str(place / "config.yaml"), *given, "--out", str(place / "pretrained")]
    assert cli.main(["pretrain", *run]) == 0
    tuned = ["--checkpoint", str(place / "pretrained"), *given, "--task", "ill", "--out", str(place / "tuned")]
    quick = ["--set", "trainer.max_epochs=20", "--set", "optim.lr=0.01", "--set", "data.prepare_workers=0"]
    assert cli.main(["finetune", *tuned, *quick, "--set", "privacy.strict=false"]) == 0
    asked = ["--checkpoint", str(place / "tuned"), "--manifest", str(place / "manifest.csv"), "--plain-ids"]
    assert cli.main(["predict", *asked, "--subset", "table", "--out", str(place / "p.csv")]) == 0

    table = pd.read_csv(place / "manifest.csv", dtype=str).set_index("study_id")
    answers = pd.read_csv(place / "p.csv").set_index("study_id")
    known = table[["table_crp", "table_ldh"]].notna().any(axis=1)
    assert set(answers.index) == set(table.index[known]) and set(answers["subset"]) == {"table"}
    measured = answers.join(table).dropna(subset="table_crp")
    assert ((measured["probability"] > 0.5) == (measured["label_ill"] == "1")).mean() > 0.9

    model = medssml.load(str(place / "tuned"))
    train = table.loc[table["split"] == "train", "table_crp"].astype(float)
    np.testing.assert_allclose(model.transforms["table"].steps[-1].scale["crp"][0], train.mean())
    study = table.loc[measured.index[0]]
    values = f'{{"crp": {study.table_crp}, "ldh": {study.table_ldh if isinstance(study.table_ldh, str) else "null"}}}'
    alone = model.predict({"table": values}, task="ill")["ill"]
    assert alone == pytest.approx(measured["probability"].iloc[0], abs=1e-4)


def test_the_shipped_config_of_laboratory_values_runs(place: Path, tmp_path: Path) -> None:
    table = pd.read_csv(place / "manifest.csv", dtype=str, keep_default_na=False).rename(
        columns={"table_ldh": "table_lactate"}
    )
    table.to_csv(tmp_path / "manifest.csv", index=False)
    given = ["--config", "laboratory", "--manifest", str(tmp_path / "manifest.csv"), "--out", str(tmp_path / "run")]
    short = ["trainer.max_steps=2", "trainer.validate_every=0", "data.batch_size=16", "data.prepare_workers=0"]
    flags = [word for setting in [*short, "privacy.strict=false"] for word in ("--set", setting)]
    assert cli.main(["pretrain", *given, *flags, "--no-track"]) == 0
    model = medssml.load(str(tmp_path / "run"))
    assert set(model.modalities) == {"report", "table"}  # nobody here has a radiograph
    assert model.embed({"table": '{"crp": 80.0}'}).shape == (1, 128)
