"""Masked multimodal modelling against one pass that is written out; pairs only; hidden patches move no word."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from medssml.losses import normalise_patches
from medssml.model import MultimodalModel
from medssml.objectives import MaskedLanguageModelling, MaskedMultimodal, Step
from medssml.objectives.masked_reconstruction import study_masking
from tests.examples import batch_of, study, tiny_model


@pytest.fixture(scope="module")
def model() -> MultimodalModel:
    return tiny_model().eval()


def small(model: MultimodalModel, **options: object) -> MaskedMultimodal:
    torch.manual_seed(0)
    sizes = {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2}
    return MaskedMultimodal(model, **sizes, **options).eval()  # type: ignore[arg-type]


def test_one_pass_of_what_is_left_answers_both(model):
    objective = small(model, modalities=["ct"], word_mask=0.3)
    step = Step(model, batch_of([study(n, ("ct", "report")) for n in range(4)]))
    masking = study_masking(step, "ct", 0.75, "masked_multimodal")
    shown, asked = objective.language._corruption(step)

    # Encode the visible tokens and the report as shown, fuse, read both.
    inputs = {**step.batch.inputs["report"], "input_ids": shown}
    raw = {
        "ct": model.encoders["ct"](step.batch.inputs["ct"], keep=masking.keep),
        "report": model.encoders["report"](inputs),
    }
    fused = model.fuse(model.projected(raw), step.present)
    language = objective.language
    states = language.transform(fused.parts["report"].tokens[asked])
    logits = states @ model.encoders["report"].bert.get_input_embeddings().weight.T + language.bias
    words = F.cross_entropy(logits, step.batch.inputs["report"]["input_ids"][asked])
    encoder, ct = model.encoders["ct"], step.batch.inputs["ct"]
    predicted = objective.decoders["ct"](
        fused.parts["ct"].tokens, masking, encoder.positions(ct), encoder.token_mask(ct)
    )
    error = (predicted - normalise_patches(encoder.patches(ct)))[masking.masked].square().mean()
    assert float(objective(step)["loss"].detach()) == pytest.approx(float((words + error).detach()), rel=1e-4)


def test_unpaired_studies_enter_only_where_pairs_are_not_asked_for(model):
    alone = [study(0, ("ct",)), study(1, ("report",)), study(2, ("eeg",)), study(3, ("ct",))]
    paired = [study(5, ("ct", "report")), study(6, ("xray", "report"))]
    strict, free = small(model, paired=True), small(model)
    assert strict(Step(model, batch_of(alone))) is None, "without any pair all mismatched ones enter in a known code"
    assert free(Step(model, batch_of(alone))) is not None
    together, by_themselves = (strict(Step(model, batch_of(some)))["loss"] for some in ([*alone, *paired], paired))
    torch.testing.assert_close(together, by_themselves, rtol=1e-4, atol=1e-5)
    everything = float(free(Step(model, batch_of([*alone, *paired])))["loss"].detach())
    assert everything != pytest.approx(float(by_themselves.detach()), rel=1e-3)


def test_words_are_read_from_the_images_and_images_from_the_words(model):
    objective, studies = small(model, word_mask=0.3), [study(n, ("ct", "report")) for n in range(4)]
    before = objective(Step(model, batch_of(studies)))
    batch = batch_of(studies)
    batch.inputs["ct"].add_(torch.linspace(0, 3, 8))
    after = objective(Step(model, batch))
    assert float(after["loss_report"]) != pytest.approx(float(before["loss_report"]), rel=1e-6)
    words = batch_of(studies)
    ids = words.inputs["report"]["input_ids"]
    words.inputs["report"]["input_ids"] = torch.where(ids > 5, 6 + (ids * 7) % 30, ids)
    assert float(objective(Step(model, words))["loss_ct"]) != pytest.approx(float(before["loss_ct"]), rel=1e-6)


def hidden_changed(model: MultimodalModel, purpose: str, studies: list) -> Step:
    """The step of the same studies with other content where patches of the CT are hidden."""
    masked = study_masking(Step(model, batch_of(studies)), "ct", 0.75, purpose).masked
    batch = batch_of(studies)
    for row in range(len(studies)):
        for token in masked[row].nonzero().squeeze(1).tolist():
            x, y, z = (int(p) * 4 for p in torch.unravel_index(torch.tensor(token), (2, 2, 2)))
            batch.inputs["ct"][row, 0, x : x + 4, y : y + 4, z : z + 4] += 5
    return Step(model, batch)


def test_hidden_patches_move_no_word(model):
    studies = [study(n, ("ct", "report")) for n in range(4)]
    objective = small(model, word_mask=0.3)
    before = objective(Step(model, batch_of(studies)))["loss_report"]
    torch.testing.assert_close(objective(hidden_changed(model, "masked_multimodal", studies))["loss_report"], before)


def test_mrm_shows_the_words_the_same_quarter_of_the_images_that_restores_them(model):
    studies = [study(n, ("ct", "report")) for n in range(4)]
    torch.manual_seed(0)
    masked = MaskedLanguageModelling(model, mask_ratio=0.5, context=["ct"], context_mask=0.75).eval()
    with torch.no_grad():
        masked.context["ct"].weight.mul_(100)  # that what is seen counts
    whole = MaskedLanguageModelling(model, mask_ratio=0.5, context=["ct"]).eval()
    whole.load_state_dict(masked.state_dict())
    changed = hidden_changed(model, "masked_reconstruction", studies)
    before = [objective(Step(model, batch_of(studies)))["loss"] for objective in (masked, whole)]
    after = [objective(changed)["loss"] for objective in (masked, whole)]
    torch.testing.assert_close(after[0], before[0])
    assert not torch.allclose(after[1], before[1], rtol=1e-5)
    visible = batch_of(studies)
    visible.inputs["ct"].add_(torch.linspace(0, 3, 8))
    assert not torch.allclose(masked(Step(model, visible))["loss"], before[0], rtol=1e-5)
