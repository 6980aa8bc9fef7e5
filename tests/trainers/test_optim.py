"""The learning rate against its formula; which weights decay; clipping."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from medssml.encoders import ResNet, ViT
from medssml.fusion import AdditiveFusion
from medssml.model import MultimodalModel, Task
from medssml.trainers.lars import LARS
from medssml.trainers.optim import (
    clip_gradients,
    lr_factor,
    optimiser,
    parameter_groups,
    scale_of,
    set_lr,
    warmup_steps,
)
from medssml.trainers.settings import Optim, TrainerSettings


def test_warm_up_then_cosine_is_the_closed_form() -> None:
    optim = Optim(lr=1.0, warmup=0.2, final=0.1)
    factors = [lr_factor(step, 100, optim) for step in range(100)]
    assert warmup_steps(optim, 100) == 20
    assert factors[:20] == pytest.approx([(step + 1) / 21 for step in range(20)])
    cosine = [0.1 + 0.9 * (1 + math.cos(math.pi * (step - 20) / 80)) / 2 for step in range(20, 100)]
    assert factors[20:] == pytest.approx(cosine)
    assert max(factors) == factors[20] == 1.0


def test_other_schedules_and_warm_up_in_steps() -> None:
    assert lr_factor(5, 10, Optim(warmup=0.0, schedule="constant")) == 1.0
    assert lr_factor(5, 10, Optim(warmup=0.0, schedule="linear")) == pytest.approx(0.5)
    assert warmup_steps(Optim(warmup_steps=3), 1000) == 3
    assert lr_factor(0, 1, Optim(warmup=0.0)) == 1.0


def test_total_steps_come_from_the_settings() -> None:
    assert TrainerSettings(max_epochs=3).total_steps(10) == 30
    assert TrainerSettings(max_epochs=3, accumulate=4).total_steps(10) == 7
    assert TrainerSettings(max_epochs=3, limit_train_batches=2).total_steps(10) == 6
    assert TrainerSettings(max_epochs=3, max_steps=11).total_steps(10) == 11
    assert TrainerSettings(max_steps=11).total_steps(2) == 11


@pytest.mark.parametrize(
    "wrong", [{}, {"max_epochs": 0}, {"max_epochs": 1, "ema": 1.5}, {"max_epochs": 1, "precision": "fp8"}]
)
def test_contradictory_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="fix|accepted"):
        TrainerSettings(**wrong)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({"ct": nn.Sequential(nn.Conv2d(1, 2, 3), nn.LayerNorm(2))})
        self.words = nn.Embedding(5, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 4))
        self.scale = nn.Parameter(torch.zeros(()))
        self.head = nn.Linear(4, 2)
        self.tied = nn.Linear(4, 5)
        self.tied.weight = self.words.weight
        self.attention = nn.MultiheadAttention(4, 2)


def test_only_matrices_of_maps_decay_and_encoders_have_their_own_rate() -> None:
    net = Net()
    groups = parameter_groups(net, Optim(lr=0.1, weight_decay=0.3, scales={"encoders": 0.5}))
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    decayed = {names[id(p)] for group in groups if group["weight_decay"] > 0 for p in group["params"]}
    assert decayed == {"encoders.ct.0.weight", "head.weight", "attention.in_proj_weight", "attention.out_proj.weight"}
    slow = {names[id(p)] for group in groups if group["base_lr"] == pytest.approx(0.05) for p in group["params"]}
    assert slow == {name for name in names.values() if name.startswith("encoders")}
    assert sum(len(group["params"]) for group in groups) == len(names)

    optimizer = optimiser(groups, Optim(lr=0.1))
    set_lr(optimizer, 0.5)
    assert {group["lr"] for group in optimizer.param_groups} == {0.025, 0.05}


def test_the_longest_prefix_of_a_name_says_the_rate_and_0_freezes() -> None:
    net = Net()
    net.encoders["eeg"] = nn.Linear(2, 2)
    learner = nn.ModuleDict({"model": net})  # what a learner trains is named from its model on
    optim = Optim(lr=0.1, scales={"encoders": 0.5, "encoders.eeg": 0.2, "encoders.eeg.bias": 0.0})
    groups = parameter_groups(learner, optim)
    rate = {id(parameter): group["base_lr"] for group in groups for parameter in group["params"]}
    assert rate[id(net.encoders["eeg"].weight)] == pytest.approx(0.02)
    assert id(net.encoders["eeg"].bias) not in rate
    assert [rate[id(p)] for p in net.encoders["ct"].parameters()] == pytest.approx([0.05] * 4)
    assert rate[id(net.scale)] == pytest.approx(0.1)


class OfModels(nn.Module):
    """A learner as far as the optimiser looks."""

    def __init__(self, encoders: dict[str, nn.Module]) -> None:
        super().__init__()
        self.model = MultimodalModel(encoders, AdditiveFusion(list(encoders), 8, 0), {"finding": Task()})


def rates(learner: nn.Module, optim: Optim) -> dict[str, float]:
    """Parameter -> its learning rate after warm-up."""
    of = {id(p): group["base_lr"] for group in parameter_groups(learner, optim) for p in group["params"]}
    return {name: of[id(p)] for name, p in learner.model.named_parameters()}


def test_layers_near_the_input_learn_more_slowly_by_the_published_rule() -> None:
    """BEiT and MAE: lr d^(L - l), the embedding being layer 0, blocks 1 to n, the norm behind them and the head L = n + 1."""
    learner = OfModels({"ct": ViT((8, 8, 8), 4, 24, 3, 2, pool="cls"), "xray": ResNet(2, 12, widths=(8, 8, 8, 8))})
    found = rates(learner, Optim(lr=2.0, layer_decay=0.75))
    layer = {"embed": 0, "cls": 0, "transformer.blocks.0": 1, "transformer.blocks.1": 2, "transformer.blocks.2": 3}
    for name, rate in found.items():
        expected = 2.0
        if name.startswith("encoders.ct."):
            part = name.removeprefix("encoders.ct.")
            place = next((place for prefix, place in layer.items() if part.startswith(prefix)), 4)
            expected = 2.0 * 0.75 ** (4 - place)
        if name.startswith("encoders.xray."):
            stage = next((number for number in range(1, 5) if f"layer{number}." in name), None)
            before = any(part in name for part in ("conv1", "bn1")) and stage is None
            expected = 2.0 * 0.75 ** (5 - (0 if before else stage or 5))
        assert rate == pytest.approx(expected), name
    assert found["encoders.ct.embed.weight"] == pytest.approx(2.0 * 0.75**4)
    last = [rate for name, rate in found.items() if "layer4." in name]
    assert last and last == pytest.approx([1.5] * len(last))
    assert found["project.ct.weight"] == found["fusion.base"] == 2.0


def test_decay_by_depth_and_rates_of_parts_are_multiplied() -> None:
    plain = nn.Linear(3, 8)
    plain.dim = 8  # type: ignore[assignment]
    learner = OfModels({"ct": ViT((8, 8, 8), 4, 24, 1, 2), "table": plain})
    found = rates(learner, Optim(lr=1.0, layer_decay=0.5, scales={"encoders.ct": 0.1}))
    assert found["encoders.ct.embed.weight"] == pytest.approx(0.1 * 0.25)
    assert found["encoders.ct.transformer.blocks.0.attention.qkv.weight"] == pytest.approx(0.1 * 0.5)
    assert found["encoders.table.weight"] == pytest.approx(0.5), "an encoder without blocks is one"
    assert set(rates(learner, Optim(lr=1.0)).values()) == {1.0}


@pytest.mark.parametrize("decay", [0.0, 1.5])
def test_a_layer_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=r"optim\.layer_decay"):
        Optim(layer_decay=decay)


def test_a_prefix_is_a_whole_part_of_a_name() -> None:
    assert scale_of("encoders.ct2.weight", {"encoders.ct": 0.5}) == 1.0


def test_a_negative_scale_is_refused() -> None:
    with pytest.raises(ValueError, match=r"optim.scales.encoders is -1.0; fix: 0 or more"):
        Optim(scales={"encoders": -1.0})


def test_a_scale_for_a_part_that_is_not_there_is_refused() -> None:
    with pytest.raises(
        ValueError, match="names encoders.cd, which no parameter begins with; did you mean 'encoders.ct'"
    ):
        parameter_groups(Net(), Optim(scales={"encoders.cd": 1.0}))


@pytest.mark.parametrize("decay", [0.1, 0.0])
def test_lars_is_the_formula_and_plain_momentum_without_trust(decay: float) -> None:
    weights, bias = nn.Parameter(torch.tensor([3.0, 4.0])), nn.Parameter(torch.tensor([1.0]))
    groups = [
        {"params": [weights], "base_lr": 0.5, "weight_decay": decay},
        {"params": [bias], "base_lr": 0.5, "weight_decay": 0.0, "trust": 0.0},
    ]
    made = optimiser(groups, Optim(name="lars", lr=0.5, momentum=0.9))
    expected, velocity, plain, speed = weights.detach().clone(), torch.zeros(2), bias.detach().clone(), torch.zeros(1)
    for _ in range(3):
        weights.grad, bias.grad = torch.tensor([1.0, -2.0]), torch.tensor([0.5])
        made.step()
        direction = torch.tensor([1.0, -2.0]) + decay * expected
        velocity = 0.9 * velocity + 0.001 * expected.norm() / direction.norm() * direction
        expected = expected - 0.5 * velocity
        speed = 0.9 * speed + 0.5
        plain = plain - 0.5 * speed
    torch.testing.assert_close(weights.detach(), expected)
    torch.testing.assert_close(bias.detach(), plain)


def test_lars_takes_matrices_layer_by_layer_also_without_weight_decay() -> None:
    net, optim = Net(), Optim(name="lars", lr=0.5, momentum=0.0, weight_decay=0.0)
    made = optimiser(parameter_groups(net, optim), optim)
    weight, bias = net.head.weight.detach().clone(), net.head.bias.detach().clone()
    net.head.weight.grad, net.head.bias.grad = torch.full((2, 4), 3.0), torch.full((2,), 3.0)
    made.step()
    moved = (net.head.weight - weight).detach()
    assert float(moved.norm()) == pytest.approx(0.5 * 0.001 * float(weight.norm()), rel=1e-4)
    torch.testing.assert_close(net.head.bias.detach(), bias - 0.5 * 3.0)


def test_sgd_by_name() -> None:
    made = optimiser(parameter_groups(Net(), Optim(name="sgd", momentum=0.8)), Optim(name="sgd", momentum=0.8))
    assert isinstance(made, torch.optim.SGD) and made.param_groups[0]["momentum"] == 0.8
    with pytest.raises(ValueError, match="accepted: adamw, sgd, lars"):
        Optim(name="adam")  # type: ignore[arg-type]


def test_nothing_trainable_is_an_error() -> None:
    net = Net().requires_grad_(False)
    with pytest.raises(ValueError, match="freeze less"):
        optimiser(parameter_groups(net, Optim()), Optim())


def test_clipping_returns_the_norm_before_and_leaves_the_norm_after() -> None:
    parameter = nn.Parameter(torch.zeros(4))
    parameter.grad = torch.full((4,), 2.0)
    assert float(clip_gradients([parameter], 0.0)) == pytest.approx(4.0)
    assert float(parameter.grad.norm()) == pytest.approx(4.0)
    assert float(clip_gradients([parameter], 1.0)) == pytest.approx(4.0)
    assert float(parameter.grad.norm()) == pytest.approx(1.0, rel=1e-4)


def test_the_default_is_adamw_with_the_settings_of_each_group() -> None:
    optim = Optim(lr=0.2, weight_decay=0.3, betas=(0.8, 0.7))
    made = optimiser(parameter_groups(Net(), optim), optim)
    assert isinstance(made, torch.optim.AdamW) and made.defaults["fused"] is True
    assert made.defaults["lr"] == 0.2 and made.defaults["weight_decay"] == 0.3
    for group in made.param_groups:
        assert (group["lr"], group["betas"]) == (0.2, (0.8, 0.7))
        assert group["weight_decay"] in (0.3, 0.0) and (group["trust"] > 0) == (group["weight_decay"] > 0)
    assert Optim().betas == (0.9, 0.95) and Optim().weight_decay == 0.05
    sgd = optimiser(parameter_groups(Net(), Optim(name="sgd", lr=0.7)), Optim(name="sgd", lr=0.7))
    assert sgd.defaults["lr"] == 0.7 and sgd.defaults["fused"] is True and sgd.param_groups[0]["momentum"] == 0.9


def test_what_is_frozen_is_in_no_group_but_its_name_is_known() -> None:
    net = Net()
    net.head.requires_grad_(False)
    groups = parameter_groups(net, Optim(scales={"head": 0.5, "encoders": 0.5, "words": 2.0}))
    inside = {id(parameter) for group in groups for parameter in group["params"]}
    assert not inside & {id(parameter) for parameter in net.head.parameters()}
    # By rate, and of one rate first what does not decay.
    assert [group["base_lr"] for group in groups] == pytest.approx([0.0005, 0.0005, 0.001, 0.001, 0.002])
    assert [group["weight_decay"] for group in groups] == [0.0, 0.05, 0.0, 0.05, 0.0]


def test_a_scale_names_the_parts_that_are_there() -> None:
    with pytest.raises(ValueError) as caught:
        parameter_groups(Net(), Optim(scales={"heads": 1.0}))
    assert str(caught.value) == "optim.scales names heads, which no parameter begins with; did you mean 'head.bias'?"
    assert scale_of("encoders.ct", {"encoders.ct": 0.5}) == 0.5
    assert scale_of("encoders.ct.weight", {"encoders": 0.3, "encoders.ct": 0.5, "enc": 9.0}) == 0.5
    assert scale_of("fusion.weight", {}) == 1.0


def test_schedules_end_where_they_should() -> None:
    linear = Optim(warmup=0.0, schedule="linear", final=0.2)
    assert [lr_factor(step, 10, linear) for step in (0, 5, 10, 15)] == pytest.approx([1.0, 0.6, 0.2, 0.2])
    constant = Optim(warmup_steps=2, schedule="constant", final=0.2)
    assert [lr_factor(step, 10, constant) for step in (0, 1, 2, 9)] == pytest.approx([1 / 3, 2 / 3, 1.0, 1.0])
    # A warm-up as long as the run, or longer: no division by nothing.
    assert lr_factor(4, 4, Optim(warmup_steps=4)) == 1.0
    assert [lr_factor(5, 4, Optim(warmup_steps=4, schedule=name, final=0.1)) for name in ("cosine", "linear")] == (
        pytest.approx([0.1, 0.1])
    )
    assert [warmup_steps(Optim(warmup=0.05), total) for total in (10, 29, 31)] == [0, 1, 2]
    assert warmup_steps(Optim(warmup_steps=0, warmup=0.5), 10) == 0


def test_lars_by_default_and_where_there_is_no_weight_or_no_gradient() -> None:
    made = LARS([nn.Parameter(torch.ones(2))], 0.5)
    assert made.defaults == {"lr": 0.5, "momentum": 0.9, "weight_decay": 0.0, "trust": 0.001}
    zero, still, idle = (nn.Parameter(torch.full((2,), value)) for value in (0.0, 1.0, 1.0))
    made = LARS([zero, still, idle], 0.5, momentum=0.0, weight_decay=0.0, trust=0.1)
    zero.grad, still.grad = torch.ones(2), torch.zeros(2)
    assert made.step(lambda: torch.tensor(3.0, requires_grad=True) * 2) == 6.0
    assert zero.tolist() == [-0.5, -0.5], "weights of no size take a plain step"
    assert still.tolist() == idle.tolist() == [1.0, 1.0] and made.step() is None


def test_lars_calls_its_closure_with_gradients() -> None:
    weight = nn.Parameter(torch.ones(2))
    made = LARS([weight], 0.5, momentum=0.0)

    def closure() -> torch.Tensor:
        loss = (weight * torch.tensor([3.0, 4.0])).sum()
        loss.backward()
        return loss

    assert float(made.step(closure).detach()) == 7.0
    direction = torch.tensor([0.6, 0.8])
    torch.testing.assert_close(weight.detach(), torch.ones(2) - 0.5 * 0.001 * 2**0.5 * direction)
