"""Another fusion in the place of a model's: which weights go on, which begin, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from medssml.config import ConfigError, load_config
from medssml.fusion import AdditiveFusion, MaskedAttention, PromptedAttention, RegressionImputation
from medssml.model import MultimodalModel
from medssml.runs.finetuning import learner_of
from medssml.runs.fusion_exchange import exchange_fusion
from medssml.runs.training_config import FinetuneConfig, Finetuning
from medssml.shipped_configs import built_on, config_path
from tests.examples import MODALITIES, batch_of, ten_studies, tiny_model


def pooled_model() -> MultimodalModel:
    return tiny_model(fusion=lambda names, dim: MaskedAttention(names, dim, 1, 2)).eval()


def node(name: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": name, "init_args": arguments}


def test_an_imputing_fusion_wraps_the_one_that_is_there_and_answers_as_it_did_until_it_is_fitted() -> None:
    model, batch = pooled_model(), batch_of(ten_studies())
    before = model.fuse(model.encode(batch), batch.present).pooled
    said = exchange_fusion(model, node("RegressionImputation", shrinkage=0.3), seed=0)
    assert said == (
        "the fusion is RegressionImputation around MaskedAttention in the place of MaskedAttention; MaskedAttention goes on from "
        "its weights"
    )
    assert isinstance(model.fusion, RegressionImputation) and model.fusion.shrinkage == 0.3
    assert torch.equal(model.eval().fuse(model.encode(batch), batch.present).pooled, before)
    # Another one around the same, and not one around the other.
    exchange_fusion(model, node("RetrievalImputation"), seed=0)
    assert type(model.fusion.fusion) is MaskedAttention
    assert torch.equal(model.eval().fuse(model.encode(batch), batch.present).pooled, before)


def test_a_class_that_derives_from_it_begins_with_its_weights_and_another_one_does_not() -> None:
    model = pooled_model()
    earlier = {name: value.clone() for name, value in model.fusion.state_dict().items()}
    shapes = f"{len(earlier)} of its {len(earlier) + 1} weights go on"
    assert shapes in exchange_fusion(model, node("PromptedAttention", depth=1, heads=2), seed=0)
    found = model.fusion.state_dict()
    assert isinstance(model.fusion, PromptedAttention)
    assert all(torch.equal(found[name], value) for name, value in earlier.items())

    assert exchange_fusion(model, node("AdditiveFusion", heads=2), seed=0).endswith("its weights are new")
    assert isinstance(model.fusion, AdditiveFusion) and model.fusion.between is not None
    drawn = model.fusion.between.fusion_token.clone()
    assert not torch.equal(drawn, earlier["fusion_token"])
    for seed, same in ((0, True), (1, False)):
        exchange_fusion(model, node("ConcatFusion"), seed=5)
        exchange_fusion(model, node("AdditiveFusion", heads=2), seed=seed)
        assert torch.equal(model.fusion.between.fusion_token, drawn) == same  # type: ignore[union-attr]


def test_what_read_the_old_one_leaves_and_the_model_is_saved_with_the_new_one(tmp_path: Path) -> None:
    model = pooled_model()
    encoders = {name: value.clone() for name, value in model.encoders.state_dict().items()}
    exchange_fusion(model, node("RegressionImputation", fusion=node("ConcatFusion")), seed=0)
    assert not model.tasks and len(model.heads) == 0 and len(model.kept) == 0
    again = MultimodalModel.load(model.save(tmp_path / "model"))
    assert isinstance(again.fusion, RegressionImputation) and not again.tasks
    assert all(torch.equal(value, again.encoders.state_dict()[name]) for name, value in encoders.items())
    batch = batch_of(ten_studies())
    ours, theirs = (one.eval().fuse(one.encode(batch), batch.present).pooled for one in (model, again))
    assert torch.equal(ours, theirs)


def test_what_cannot_be_is_refused_and_the_model_stays_as_it_was() -> None:
    model = pooled_model()
    fusion, tasks = model.fusion, dict(model.tasks)
    for wrong, words in (
        (node("ConcatFusion", dim=8), "joins ct, xray, eeg, report in width 8, and the model gives .* width 16; fix"),
        (node("ConcatFusion", modalities=["ct", "report"]), "joins ct, report in width 16.*fix: leave modalities"),
        (node("ConcatFusion", modalities=list(reversed(MODALITIES))), "joins report, eeg, xray, ct"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            exchange_fusion(model, wrong, seed=0)
    tokens = tiny_model()
    with pytest.raises(ConfigError, match="'fusion'.*fills in pooled vectors, and MaskedAttention reads tokens; fix"):
        exchange_fusion(tokens, node("RegressionImputation"), seed=0)
    assert model.fusion is fusion and model.tasks == tasks and isinstance(tokens.fusion, MaskedAttention)


@pytest.mark.parametrize("recipe", built_on("plain", "finetune"))
def test_every_shipped_recipe_learns_from_a_pretrained_model(recipe: str) -> None:
    settings = replace(load_config(config_path(recipe, "finetune"), Finetuning), tasks=["finding", "grade"])
    model = tiny_model(fusion=lambda names, dim: AdditiveFusion(names, dim, 1, 2))
    tasks = dict(model.tasks)
    if settings.fusion is not None:
        exchange_fusion(model, settings.fusion, seed=0)
        assert type(model.fusion).__name__ == settings.fusion["class_path"].rpartition(".")[2]
    for name, task in tasks.items():
        model.add_task(name, task)
    learner = learner_of(settings, model, None)
    loss = learner.terms(batch_of(ten_studies()))["loss"]
    loss.backward()
    assert bool(loss.isfinite())
    still = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None and n.startswith("fusion.")]
    assert not still, "of the fusion, nothing learns from"


# As a config says it.


def config(tmp_path: Path, text: str) -> FinetuneConfig:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return load_config(path, FinetuneConfig)


def test_a_config_need_not_state_what_the_model_knows_and_what_it_states_is_checked(tmp_path: Path) -> None:
    assert config(tmp_path, "seed: 1\n").fusion is None
    found = config(
        tmp_path, "fusion: {class_path: RegressionImputation, init_args: {fusion: {class_path: ConcatFusion}}}\n"
    )
    assert found.fusion == node(
        "RegressionImputation", fusion=node("ConcatFusion", hidden=None, dropout=0.0), shrinkage=0.1
    )
    assert config(tmp_path, "fusion: {class_path: RegressionImputation}\n").fusion == node(
        "RegressionImputation", shrinkage=0.1
    )
    for text, words in (
        ("fusion: {class_path: RegressionImputation, init_args: {shrinkag: 1.0}}", "'shrinkag'.*did you mean 'shrinkage'"),
        ("fusion: {class_path: PromptedAttention, init_args: {length: two}}", "expected an integer"),
        ("fusion: {class_path: Supervised}", "is no Fusion"),
        ("fusion: {class_path: ConcatFusion}\nfreeze: all_but_heads", "keeps the fusion as it is.*fix: freeze: encoders"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            config(tmp_path, text + "\n")


def test_elsewhere_a_fusion_still_states_its_width(tmp_path: Path) -> None:
    """Only where there is a model already: nothing else would know."""
    from medssml.runs.training_config import PretrainConfig

    bad = (
        config_path("smoke/pretrain", "pretrain").read_text().replace("{dim: 32, depth: 1, heads: 2}", "{depth: 1}", 1)
    )
    (tmp_path / "mine.yaml").write_text(bad)
    with pytest.raises(ConfigError, match="key 'dim' of MaskedAttention is missing"):
        load_config(tmp_path / "mine.yaml", PretrainConfig)
