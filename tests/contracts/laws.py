"""What every encoder, fusion operator, objective and loss promises, as functions that fail with an AssertionError.

Each law takes an example and knows nothing of its class, so that one that nobody thought of is held to it as well.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from medssml.batch import Batch, Encoded, select_rows
from medssml.config import build, describe
from medssml.fusion import Fusion
from medssml.model import MultimodalModel
from medssml.objectives import Objective, Step
from tests.examples import (
    MODALITIES,
    EncoderExample,
    batch_of,
    encoded_of,
    step_of,
    study,
    ten_studies,
    tiny_model,
)

Make = Callable[[MultimodalModel], Objective]

# Encoders. Rows never see each other.


def _rows(example: EncoderExample, numbers: tuple[int, ...] = (0, 1, 2, 3)) -> Any:
    return batch_of([study(n, (example.modality,)) for n in numbers], modalities=(example.modality,)).inputs[
        example.modality
    ]


def _made(example: EncoderExample) -> nn.Module:
    torch.manual_seed(0)
    return example.make().eval()


def an_encoder_lets_no_row_see_another(example: EncoderExample) -> None:
    encoder, inputs = _made(example), _rows(example)
    before = encoded_of(encoder, inputs)
    for change in (lambda x: x * 3 + 1, lambda x: torch.full_like(x, torch.nan)):
        changed = _with_row(inputs, 1, change)
        after = encoded_of(encoder, changed)
        for row in (0, 2, 3):
            assert torch.equal(after.pooled[row], before.pooled[row])
            assert torch.equal(after.tokens[row][after.mask[row]], before.tokens[row][before.mask[row]])


def an_encoder_gives_a_row_alone_what_it_gives_it_in_company(example: EncoderExample) -> None:
    encoder, inputs = _made(example), _rows(example)
    together = encoded_of(encoder, inputs)
    for row in range(4):
        alone = encoded_of(encoder, select_rows(inputs, torch.tensor([row])))
        torch.testing.assert_close(alone.pooled[0], together.pooled[row], rtol=1e-4, atol=1e-5)


def an_encoder_in_training_lets_no_row_see_another(example: EncoderExample) -> None:
    """No batch statistics: the rows of a modality differ from batch to batch, and there may be one only."""
    encoder, inputs = _made(example).train(), _rows(example)
    for part in encoder.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    one = encoded_of(encoder, select_rows(inputs, torch.tensor([0])))
    torch.testing.assert_close(one.pooled[0], encoded_of(encoder, inputs).pooled[0], rtol=1e-4, atol=1e-5)


def an_encoder_has_finite_gradients_and_the_shapes_it_says(example: EncoderExample) -> None:
    encoder = _made(example)
    encoded = encoded_of(encoder, _rows(example))
    assert encoded.pooled.shape == (4, encoder.dim)
    assert encoded.tokens.shape[:2] == encoded.mask.shape and encoded.tokens.shape[2] == encoder.dim
    (encoded.pooled.square().sum() + encoded.tokens[encoded.mask].square().sum()).backward()
    gradients = {name: p.grad for name, p in encoder.named_parameters()}
    assert not [name for name, g in gradients.items() if g is None], "a parameter that nothing depends on"
    assert all(bool(torch.isfinite(g).all()) for g in gradients.values() if g is not None)


def an_encoder_gives_its_last_layers(example: EncoderExample) -> None:
    encoder, inputs = _made(example), _rows(example)
    found = encoder(inputs, layers=1)
    assert len(found.layers) == 1 and found.layers[0].shape[0] == 4
    torch.testing.assert_close(found.pooled, encoder(inputs).pooled)


def an_encoder_is_built_again_from_its_config(example: EncoderExample) -> None:
    encoder = _made(example)
    again = build(describe(encoder))
    again.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(
        encoded_of(again.eval(), _rows(example)).pooled, encoded_of(encoder, _rows(example)).pooled
    )


def _with_row(inputs: Any, row: int, change: Callable[[Tensor], Tensor]) -> Any:
    """The same with the numbers of one row changed; words become other words."""
    if isinstance(inputs, dict):
        out = {}
        for name, value in inputs.items():
            out[name] = value.clone()
            if value.is_floating_point():
                out[name][row] = change(value[row])
            elif name == "input_ids":
                out[name][row] = torch.where(value[row] > 5, 6 + (value[row] - 5) % 30, value[row])
        return out
    out = inputs.clone()
    out[row] = change(inputs[row])
    return out


# Fusion operators. A study's output depends on its own present modalities only.

Fuse = Callable[[Any, int], Fusion]


def _fused_model(make: Fuse) -> MultimodalModel:
    model = tiny_model(fusion=make)
    model.add_task("seen", {"kind": "binary", "evidence": True})
    for parameter in model.heads["seen"].own.parameters():
        nn.init.normal_(parameter)  # they begin at zero
    return model.eval()


def _logits(model: MultimodalModel, batch: Batch) -> Tensor:
    answers = model(batch)
    return torch.cat([value.reshape(len(batch), -1) for value in answers.values()], dim=1)


def a_fusion_lets_no_study_see_another(make: Fuse) -> None:
    model, studies = _fused_model(make), ten_studies()
    before = _logits(model, batch_of(studies))
    for number in (0, 3, 6):
        others = [row for row in range(10) if row != number]
        for factor in (100.0, torch.nan):
            batch = batch_of(studies)
            inputs = {
                m: _with_row(v, int(batch.present[:number, batch.column(m)].sum()), lambda x, f=factor: x * f)
                if bool(batch.present[number, batch.column(m)])
                else v
                for m, v in batch.inputs.items()
            }
            after = _logits(model, replace(batch, inputs=inputs))
            assert torch.equal(after[others], before[others])
            assert not torch.equal(after[number], before[number])


def a_fusion_gives_a_study_alone_what_it_gives_it_in_company(make: Fuse) -> None:
    model, studies = _fused_model(make), ten_studies()
    together = _logits(model, batch_of(studies))
    for row, one in enumerate(studies):
        torch.testing.assert_close(_logits(model, batch_of([one]))[0], together[row], rtol=1e-4, atol=1e-5)


def a_fusion_in_training_lets_no_study_see_another(make: Fuse) -> None:
    torch.manual_seed(0)
    fusion = make(MODALITIES, 16).train()
    for part in fusion.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    model = tiny_model().eval()
    batch = batch_of(ten_studies())
    encoded = model.encode(batch)
    whole = fusion(encoded, batch.present).pooled
    for row in (0, 4, 7):
        rows = {m: int(batch.present[:row, batch.column(m)].sum()) for m in MODALITIES}
        one = {m: e.select(torch.tensor([rows[m]])) for m, e in encoded.items() if batch.present[row, batch.column(m)]}
        torch.testing.assert_close(
            fusion(one, batch.present[row : row + 1]).pooled[0], whole[row], rtol=1e-4, atol=1e-5
        )


def a_fusion_takes_what_is_absent_as_never_there(make: Fuse) -> None:
    """Removing a modality beforehand, and hiding its encoding afterwards, be it NaN, are the same."""
    model, batch = _fused_model(make), batch_of(ten_studies())
    encoded = model.encode(batch)
    for name in MODALITIES:
        without = batch.without(name)
        poisoned = {**encoded, name: encoded[name].each(lambda part: torch.full_like(part, torch.nan))}
        poisoned[name] = poisoned[name]._replace(mask=encoded[name].mask)
        hidden = model.predict_from(model.fuse(poisoned, batch.present, within=without.present))
        for task, logits in model(without).items():
            torch.testing.assert_close(hidden[task], logits, rtol=1e-4, atol=1e-5)
            assert bool(torch.isfinite(logits).all())


def a_fusion_has_finite_gradients_whatever_is_there(make: Fuse) -> None:
    model = _fused_model(make)
    batches = [[study(0, ())], [study(0, ("report",))], [study(n, ("ct",)) for n in range(3)], ten_studies()]
    for studies in batches:
        model.zero_grad()
        batch = batch_of(studies)
        out = _logits(model, batch)
        loss = model.zero_touch(out.square().sum())
        assert loss == out.square().sum()
        loss.backward()
        assert bool(torch.isfinite(out).all())
        assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters())
    unused = [n for n, p in model.fusion.named_parameters() if p.grad is not None and not bool(p.grad.any())]
    assert not unused, f"nothing depends on {unused}"


def a_fusion_gives_parts_of_what_was_there_in_any_order(make: Fuse) -> None:
    model, batch = _fused_model(make), batch_of(ten_studies())
    encoded = model.encode(batch)
    fused = model.fuse(encoded, batch.present)
    turned = model.fuse(dict(reversed(encoded.items())), batch.present)
    assert torch.equal(fused.pooled, turned.pooled)
    assert set(fused.parts) == set(encoded)
    for name, part in fused.parts.items():
        assert len(part.tokens) == len(encoded[name].pooled) and part.tokens.shape[:2] == part.mask.shape
        assert torch.equal(part.pooled, encoded[name].pooled)


def a_fusion_says_which_of_its_tokens_are_real(make: Fuse) -> None:
    """A token for each place, and none more where less of a study is seen."""
    model, batch = _fused_model(make), batch_of(ten_studies())
    encoded = model.encode(batch)
    whole = model.fuse(encoded, batch.present)
    first = batch.present & (batch.present.cumsum(1) == 1)
    for fused in (whole, model.fuse(encoded, batch.present, first)):
        assert fused.mask.dtype == torch.bool and fused.mask.shape == fused.tokens.shape[:2]
        assert bool((fused.mask.sum(1) <= whole.mask.sum(1)).all())


def a_fusion_reads_no_more_than_it_says(make: Fuse) -> None:
    model, batch = _fused_model(make), batch_of(ten_studies())
    encoded = model.encode(batch)
    bare = {n: Encoded(p.tokens[:, :0], p.mask[:, :0], p.pooled) for n, p in encoded.items()}
    if model.fusion.reads == "pooled":
        assert torch.equal(model.fuse(bare, batch.present).pooled, model.fuse(encoded, batch.present).pooled)
    else:
        changed = {n: p._replace(tokens=p.tokens + 1) for n, p in encoded.items()}
        moved = model.fuse(changed, batch.present).pooled
        assert not torch.equal(moved, model.fuse(encoded, batch.present).pooled)


def a_fusion_lets_no_padding_move_anything(make: Fuse) -> None:
    model, batch = _fused_model(make), batch_of(ten_studies())
    encoded = model.encode(batch)
    wild = {n: p._replace(tokens=torch.where(p.mask.unsqueeze(-1), p.tokens, torch.nan)) for n, p in encoded.items()}
    assert any(not bool(part.mask.all()) for part in encoded.values())
    assert torch.equal(model.fuse(wild, batch.present).pooled, model.fuse(encoded, batch.present).pooled)


def a_fusion_leaves_what_it_is_given_as_it_is(make: Fuse) -> None:
    """Asked again, it answers the same."""
    model, batch = _fused_model(make), batch_of(ten_studies())
    encoded = model.encode(batch)
    before = {name: part.each(torch.clone) for name, part in encoded.items()}
    first = model.fuse(encoded, batch.present).pooled
    assert list(before) == list(encoded)
    for name, part in before.items():
        assert all(torch.equal(a, b) for a, b in zip(part[:3], encoded[name][:3], strict=True))
    assert torch.equal(model.fuse(encoded, batch.present).pooled, first)


def a_fusion_moves_every_number_that_it_registers_and_has_no_other(make: Fuse) -> None:
    """Every parameter changes in a step, and the copy that is built from the config and the state answers the same."""
    model, batch = _fused_model(make), batch_of(ten_studies())
    fusion = model.fusion
    before = {name: p.detach().clone() for name, p in fusion.named_parameters()}
    if before:
        _logits(model, batch).square().sum().backward()
        torch.optim.SGD(fusion.parameters(), lr=1.0).step()
    still = [name for name, p in fusion.named_parameters() if torch.equal(p.detach(), before[name])]
    assert not still, f"not moved: {still}"
    torch.manual_seed(99)
    again = build(describe(fusion)).eval()
    again.load_state_dict(fusion.state_dict())
    encoded = model.encode(batch)
    assert torch.equal(again(encoded, batch.present).pooled, fusion(encoded, batch.present).pooled)


def a_fusion_runs_under_bf16_autocast(make: Fuse) -> None:
    model, batch = _fused_model(make), batch_of(ten_studies())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model.fuse(model.encode(batch), batch.present).pooled
    found.float().square().sum().backward()
    exact = model.fuse(model.encode(batch), batch.present).pooled
    torch.testing.assert_close(found.float(), exact, rtol=0.05, atol=0.05 * float(exact.abs().max().detach()))


def a_fusion_is_restricted_by_its_class(make: Fuse) -> None:
    node = describe(make(MODALITIES, 16))
    kind = type(make(MODALITIES, 16))
    for left in (("ct",), ("xray", "report")):
        arguments = kind.restricted_to(node["init_args"], left)
        fewer = build({**node, "init_args": arguments})
        assert fewer.modalities == left
        tokens = torch.randn(3, 2, 16)
        one = Encoded(tokens, torch.ones(3, 2, dtype=torch.bool), tokens[:, 0])
        fused = fewer({left[0]: one}, torch.tensor([[True] + [False] * (len(left) - 1)] * 3))
        assert fused.pooled.shape == (3, 16) and bool(fused.pooled.isfinite().all())


# Objectives.


def _objective(make: Make, model: MultimodalModel) -> Objective:
    torch.manual_seed(1)
    return make(model).eval()


def _asked(model: MultimodalModel, objective: Objective, studies: list[Any], **options: Any) -> dict[str, Tensor]:
    """What a copy of the objective answers, so that the next one that is asked has seen nothing."""
    one = copy.deepcopy(objective)
    answer = one(step_of(model, one, studies, **options))
    assert answer is not None
    return answer


def _loss_and_gradients(
    model: MultimodalModel, objective: Objective, step: Step
) -> tuple[Tensor | None, dict[str, Tensor | None]]:
    parameters = dict(model.named_parameters(prefix="model")) | dict(objective.named_parameters(prefix="objective"))
    answer = objective(step)
    if answer is None:
        return None, dict.fromkeys(parameters)
    gradients = torch.autograd.grad(answer["loss"], list(parameters.values()), allow_unused=True)
    return answer["loss"].detach(), dict(zip(parameters, gradients, strict=True))


def an_objective_gives_a_finite_scalar_and_the_rest_detached(make: Make) -> None:
    model = tiny_model().eval()
    objective = _objective(make, model)
    answer = objective(step_of(model, objective, ten_studies()))
    assert answer is not None
    for key, value in answer.items():
        assert value.shape == () and bool(value.isfinite()), key
        assert value.requires_grad == (key == "loss"), key


def an_objective_moves_all_that_is_its_own_with_finite_gradients(make: Make) -> None:
    model = tiny_model().eval()
    objective = _objective(make, model)
    _, gradients = _loss_and_gradients(model, objective, step_of(model, objective, ten_studies()))
    assert all(bool(g.isfinite().all()) for g in gradients.values() if g is not None)
    assert any(bool(g.any()) for g in gradients.values() if g is not None)
    # A second model has parts that only other objectives use, as the first one does.
    peers = {id(p) for peer in objective.peers for p in peer.parameters()}
    own = {name: p for name, p in objective.named_parameters() if p.requires_grad and id(p) not in peers}
    trained = {f"objective.{name}" for name in own}
    still = [n for n in trained if gradients[n] is None or not bool(gradients[n].any())]  # type: ignore[union-attr]
    assert not still, f"nothing depends on {still}"


def an_objective_does_not_mind_the_order_of_the_studies(make: Make) -> None:
    model = tiny_model().eval()
    objective, studies = _objective(make, model), ten_studies()
    shuffled = [studies[i] for i in (7, 2, 9, 0, 4, 8, 1, 6, 5, 3)]
    a, b = (_asked(model, objective, s) for s in (studies, shuffled))
    torch.testing.assert_close(a["loss"], b["loss"], rtol=1e-4, atol=1e-5)


def an_objective_does_not_mind_a_study_without_anything(make: Make) -> None:
    model = tiny_model().eval()
    objective, studies = _objective(make, model), ten_studies()
    empty = {**studies[8], "targets": dict.fromkeys(studies[8]["targets"], float("nan"))}
    a, b = (_asked(model, objective, s) for s in (studies[:8] + [empty] + studies[9:], studies[:8] + studies[9:]))
    torch.testing.assert_close(a["loss"], b["loss"], rtol=1e-4, atol=1e-5)


def an_objective_takes_what_is_absent_as_never_there(make: Make) -> None:
    """NaN in the rows of a removed modality: the same loss and gradients as if it had never been there."""
    model = tiny_model().eval()
    objective, studies = _objective(make, model), ten_studies()
    for gone in MODALITIES:

        def removed(batch: Batch, gone: str = gone) -> Batch:
            for one in (batch, *batch.views):
                poisoned = one.inputs[gone]
                for value in poisoned.values() if isinstance(poisoned, dict) else [poisoned]:
                    value[:] = torch.nan if value.is_floating_point() else 0
            return batch.without(gone)

        never = [
            {
                **s,
                "inputs": {m: v for m, v in s["inputs"].items() if m != gone},
                "content": {m: v for m, v in s["content"].items() if m != gone},
            }
            for s in studies
        ]
        one, other = copy.deepcopy(objective), copy.deepcopy(objective)
        loss, gradients = _loss_and_gradients(model, one, step_of(model, one, studies, change=removed))
        expected, reference = _loss_and_gradients(model, other, step_of(model, other, never))
        assert (loss is None) == (expected is None)
        if loss is not None:
            torch.testing.assert_close(loss, expected)
        for key, gradient in gradients.items():
            assert (gradient is None) == (reference[key] is None), key
            if gradient is not None:
                torch.testing.assert_close(gradient, reference[key], rtol=1e-4, atol=1e-6)


def an_objective_is_defined_whatever_is_there(make: Make) -> None:
    """No pair, one study, one modality, nothing: finite, or no term at all."""
    model = tiny_model().eval()
    objective = _objective(make, model)
    for size in (0, 1, 2):
        for modalities in combinations(MODALITIES, size):
            for count in (1, 3):
                one = copy.deepcopy(objective)
                loss, gradients = _loss_and_gradients(
                    model, one, step_of(model, one, [study(n, modalities) for n in range(count)])
                )
                assert loss is None or bool(loss.isfinite()), modalities
                assert all(bool(g.isfinite().all()) for g in gradients.values() if g is not None), modalities


def an_objective_lets_no_study_be_known_by_its_place(make: Make) -> None:
    """The same draws for the same keys, whatever the batch: a second call gives the same loss."""
    model = tiny_model().eval()
    objective = _objective(make, model)
    first, again = (_asked(model, objective, ten_studies()) for _ in range(2))
    assert torch.equal(first["loss"], again["loss"])


def an_objective_takes_columns_in_any_order(make: Make) -> None:
    model = tiny_model().eval()
    objective = _objective(make, model)
    names = ("report", "ct", "xray")

    def turned(batch: Batch) -> Batch:
        fewer = batch.without("eeg")
        columns = [batch.column(m) for m in names]

        def one(part: Batch) -> Batch:
            return replace(part, present=part.present[:, columns], modalities=names, views=())

        return replace(one(fewer), views=tuple(one(view) for view in fewer.views))

    a, b = (
        _asked(model, objective, ten_studies(), change=change)
        for change in (turned, lambda batch: batch.without("eeg"))
    )
    torch.testing.assert_close(a["loss"], b["loss"])


def an_objective_is_built_again_from_its_config_without_the_model(make: Make) -> None:
    model = tiny_model().eval()
    objective = _objective(make, model)
    node = describe(objective)
    assert "model" not in node["init_args"]
    again = build(node, Objective, model=model)
    assert type(again) is type(objective)
    again.load_state_dict(objective.state_dict())
    assert not {id(p) for p in model.parameters()} & {id(p) for p in objective.parameters()}


def an_objective_keeps_parts_that_a_config_can_name(make: Make) -> None:
    model = tiny_model()
    objective = make(model)
    for name, part in objective.kept().items():
        assert "." not in name
        build(describe(part)).load_state_dict(part.state_dict())
    assert set(objective.kept()) <= {"space", "decoder", "prototypes"}, "a name that some verb knows"


def an_objective_learns(make: Make) -> None:
    model = tiny_model()
    torch.manual_seed(1)
    objective = make(model)
    optimiser = torch.optim.Adam([*model.parameters(), *objective.parameters()], lr=3e-4)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        answer = objective(step_of(model, objective, ten_studies()))
        answer["loss"].backward()
        optimiser.step()
        losses.append(answer["loss"].item())
    assert min(losses[-10:]) < 0.9 * max(losses[:10])


def an_objective_runs_under_bf16_autocast(make: Make) -> None:
    model = tiny_model().eval()
    objective = _objective(make, model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answer = _asked(model, objective, ten_studies())
        answer["loss"].backward()
    assert answer["loss"].dtype == torch.float32
    exact = _asked(model, objective, ten_studies())
    torch.testing.assert_close(answer["loss"], exact["loss"], rtol=0.05, atol=0.05)


def an_objective_is_the_mean_over_the_terms_of_a_step(make: Make) -> None:
    """Of two batches that are taken in one step each weighs by its terms: it asks for its share, and shares average to 1."""
    model = tiny_model().eval()
    objective, studies = _objective(make, model), ten_studies()
    parts = [batch_of(studies[:3], views=objective.views), batch_of(studies[3:], views=objective.views)]
    teacher = step_of(model, objective, studies)._teacher
    asked: list[Tensor] = []

    def watch(self: Step, counts: Callable[[Step], Tensor]) -> tuple[Tensor, Tensor]:
        asked.append(torch.stack([original(Step(model, part, group=parts), counts)[0] for part in parts]).sum(0))
        return original(self, counts)

    original = Step._shares
    Step._shares = watch  # type: ignore[method-assign]
    try:
        answers = [objective(Step(model, part, group=parts, teacher=teacher)) for part in parts]
    finally:
        Step._shares = original  # type: ignore[method-assign]
    assert all(answer is None or bool(answer["loss"].isfinite()) for answer in answers)
    assert asked or not any(answers), "neither `share` nor `mean_of_means` is asked"
    for total in asked:
        assert bool((((total - 2).abs() < 1e-5) | (total == 0)).all())


ENCODER_LAWS = [value for name, value in sorted(globals().items()) if name.startswith("an_encoder_")]
FUSION_LAWS = [value for name, value in sorted(globals().items()) if name.startswith("a_fusion_")]
OBJECTIVE_LAWS = [value for name, value in sorted(globals().items()) if name.startswith("an_objective_")]
