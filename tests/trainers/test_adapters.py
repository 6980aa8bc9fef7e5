"""Adapters: what learns, what is written, and that the merged model answers as the adapted one and needs no library."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from medssml.model import MultimodalModel
from medssml.objectives import Supervised
from medssml.store.engines import MissingExtra
from medssml.trainers.adapters import Lora, adapt, merge_adapters
from medssml.trainers.finetune import finetuner
from medssml.trainers.learner import Learner
from medssml.trainers.settings import Optim
from tests.examples import batch_of, ten_studies, tiny_model


def learned(model: MultimodalModel, lora: Lora, steps: int = 3) -> Learner:
    learner = finetuner(model, Supervised(model), Optim(), lora=lora)
    optimiser = torch.optim.Adam([p for p in learner.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        learner.terms(batch_of(ten_studies()))["loss"].backward()
        optimiser.step()
    learner.eval()
    return learner


def answers(model: MultimodalModel) -> torch.Tensor:
    with torch.no_grad():
        return model(batch_of(ten_studies()))["finding"]


def test_adapters_projections_fusion_and_heads_learn_and_nothing_else() -> None:
    model = tiny_model().eval()
    before, first = answers(model), {name: value.clone() for name, value in model.state_dict().items()}
    adapt(model, Lora(rank=2))
    torch.testing.assert_close(answers(model), before, rtol=0, atol=0, msg="an adapter begins as nothing")
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name in learning if name.startswith("encoders")} == {
        name for name in dict(model.named_parameters()) if "lora_" in name
    }

    model = tiny_model()
    learned(model, Lora(rank=2))
    after = {name.replace(".base_layer", ""): value for name, value in model.state_dict().items()}
    frozen = [name for name in first if name.startswith("encoders")]
    assert frozen and all(torch.equal(first[name], after[name]) for name in frozen), "weights and statistics of norms"
    for part in ("project", "fusion", "heads"):
        assert any(not torch.equal(first[name], after[name]) for name in first if name.startswith(part)), part
    assert any(bool(value.any()) for name, value in after.items() if "lora_B" in name)


def test_the_merged_model_answers_alike_and_is_one_as_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, fresh = tiny_model(), tiny_model()
    learned(model, Lora(rank=2, alpha=6.0))
    adapted, start = answers(model), answers(fresh.eval())
    assert not torch.allclose(adapted, start, atol=1e-3)
    layer = model.encoders["ct"].embed
    a, b = layer.lora_A["default"].weight.detach().clone(), layer.lora_B["default"].weight.detach().clone()

    merge_adapters(model)
    torch.testing.assert_close(answers(model), adapted, rtol=1e-4, atol=1e-5)
    assert list(model.state_dict()) == list(fresh.state_dict())
    # Of the paper: W + (alpha / r) B A.
    torch.testing.assert_close(
        model.encoders["ct"].embed.weight, fresh.encoders["ct"].embed.weight + 6.0 / 2 * b @ a, rtol=1e-5, atol=1e-6
    )
    model.save(tmp_path / "model")
    monkeypatch.setitem(sys.modules, "peft", None)
    torch.testing.assert_close(answers(MultimodalModel.load(tmp_path / "model")), answers(model), rtol=0, atol=0)
    merge_adapters(model)  # without any there is nothing to do


def test_what_is_drawn_depends_on_the_seed_alone() -> None:
    """Nor does what is drawn next depend on adapters: both students of a pair go on alike."""
    drawn, then = [], []
    for noise, seed in ((1, 0), (2, 0), (3, 7)):
        model = tiny_model()
        torch.manual_seed(noise)
        expected = torch.rand(3, generator=torch.Generator().manual_seed(noise))
        adapt(model, Lora(rank=2), seed)
        drawn.append(model.encoders["ct"].embed.lora_A["default"].weight.detach())
        then.append(torch.equal(torch.rand(3), expected))
    assert all(then)
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_an_attention_of_pytorch_is_left_alone() -> None:
    """It reads the weights of its parts: an adapter inside would be passed by, and learn nothing."""
    model = tiny_model()
    model.encoders["xray"].attention = torch.nn.MultiheadAttention(8, 2)
    adapt(model, Lora(rank=2))
    assert not any("lora" in name for name, _ in model.encoders["xray"].attention.named_parameters())


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtra, match=r"package 'peft' is not installed; fix: pip install 'medssml\[lora\]'"):
        adapt(tiny_model(), Lora())


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"alpha": 0.0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"lora\.(rank|alpha)"):
        Lora(**wrong)
