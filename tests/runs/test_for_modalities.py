"""Every shipped pretraining config on every subset of modalities: it is built and learns, or says what it needs."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from torch import nn

from medssml.config import LeftOut, build, load_config
from medssml.encoders import TextEncoder
from medssml.fusion import ConcatFusion, Fusion
from medssml.manifest.manifest import Manifest
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective
from medssml.runs.training_config import Finetuning, PretrainConfig, for_modalities
from medssml.trainers.learner import Learner
from medssml.trainers.settings import Optim

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted([*(ROOT / "configs" / "pretrain").glob("*.yaml"), *(ROOT / "configs" / "smoke").glob("*.yaml")])
CONFIGS = [path for path in CONFIGS if path.stem != "finetune"]


def built(config: PretrainConfig, encoders: dict[str, nn.Module]) -> tuple[MultimodalModel, list[Objective]]:
    """The model and objectives of a config, of encoders that are there."""
    node = config.model["init_args"]
    model = MultimodalModel({name: encoders[name] for name in node["encoders"]}, build(node["fusion"], Fusion))
    return model, [build(objective, Objective, model=model) for objective in config.objectives]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_config_for_part_of_its_modalities(path: Path) -> None:
    config = load_config(path, PretrainConfig)
    encoders = {name: build(node) for name, node in config.model["init_args"]["encoders"].items()}
    names = tuple(config.transforms)
    for left in (part for size in range(1, len(names) + 1) for part in combinations(names, size)):
        try:
            part, remarks = for_modalities(config, left)
        except ValueError as error:
            # One line: what each objective needs, and the way out.
            assert "nothing is left to learn" in str(error) and "needs" in str(error) and "fix:" in str(error)
            assert "\n" not in str(error)
            continue
        try:
            model, objectives = built(part, encoders)
        except LeftOut as error:
            # What only the encoders can say; `pretrain` leaves that objective out as well.
            assert str(error).startswith("needs ")
            continue
        except ValueError as error:
            assert "fix:" in str(error) and "\n" not in str(error)
            continue
        assert set(model.modalities) == set(left) and objectives
        dropped = len(config.objectives) - len(objectives)
        assert sum("is left out: it needs" in remark for remark in remarks) == dropped


def test_what_is_dropped_and_what_shrinks_is_said() -> None:
    config = load_config(ROOT / "configs" / "pretrain" / "cohort.yaml", PretrainConfig)
    part, remarks = for_modalities(config, ("ct", "xray", "eeg"))
    kept = [node["class_path"] for node in part.objectives]
    assert kept == ["MaskedReconstruction", "ModalityDropoutConsistency"]
    assert "BagOfWords is left out: it needs report" in remarks
    assert "CrossModalContrast is left out: it needs ct+report or xray+report" in remarks
    _, fewer = for_modalities(config, ("ct", "report"))
    assert any(remark.startswith("CrossModalContrast: pairs is ['ct+report']") for remark in fewer)
    with pytest.raises(ValueError, match="nothing is left to learn: BagOfWords is left out: it needs report; "):
        for_modalities(replace(config, objectives=config.objectives[:2]), ("ct",))


def rates(learner: Learner) -> set[float]:
    return {group["base_lr"] for group in learner.configure_optimizers().param_groups}


def test_the_learning_rate_of_an_absent_modality_is_left_out_with_it() -> None:
    from medssml.verbs.pretrain import _learner

    config = load_config(ROOT / "configs" / "pretrain" / "small.yaml", PretrainConfig)
    config = replace(config, optim=replace(config.optim, lr=1e-3, scales={"encoders.ct": 10.0, "encoders.report": 3.0}))
    assert rates(_learner(config, config, ())[0]) == {1e-3, 3.0 * 1e-3, 10.0 * 1e-3}
    part, _ = for_modalities(config, ("xray", "report"))
    assert rates(_learner(part, config, ())[0]) == {1e-3, 3.0 * 1e-3}
    wrong = replace(config, optim=Optim(scales={"encoders.cd": 3.0}))
    part, _ = for_modalities(wrong, ("xray", "report"))
    with pytest.raises(ValueError, match="optim.scales names encoders.cd, which no parameter begins with"):
        rates(_learner(part, wrong, ())[0])


def test_a_finetuning_of_a_model_without_a_modality_takes_the_same_config(tmp_path: Path) -> None:
    """The shipped finetune/phantom.yaml has `scales: {encoders: 0.3, encoders.ct: 5.0}`."""
    from medssml.verbs.finetune import _learner

    rows = [f"p{i},s{i},train,No effusion.,{i % 2}" for i in range(6)]
    (tmp_path / "m.csv").write_text("\n".join(["subject_id,study_id,split,report_text,label_sick", *rows]) + "\n")
    table = Manifest.read(tmp_path / "m.csv")
    model = MultimodalModel({"report": TextEncoder(30, 8, 1, 2, 8)}, ConcatFusion(("report",), 8))
    scales = {"encoders": 0.5, "encoders.ct": 5.0, "project.ct": 2.0}
    config = Finetuning(tasks=["sick"], optim=Optim(lr=1.0, scales=scales))
    assert rates(_learner(model, config, table, {}, ())) == {0.5, 1.0}
    wrong = replace(config, optim=Optim(scales={"encoder.ct": 5.0}))
    with pytest.raises(ValueError, match="optim.scales names encoder.ct"):
        rates(_learner(model, wrong, table, {}, ()))
