import pytest
import torch

from medssml.losses import normalise_patches
from medssml.objectives import MaskedReconstruction, Step
from medssml.objectives.masking import draw_masking
from tests.examples import batch_of, study, ten_studies, tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


def ragged():
    real = torch.ones(5, 12, dtype=torch.bool)
    for row, count in enumerate((12, 9, 4, 1, 0)):
        real[row, count:] = False
    return real


def test_hides_the_ratio_of_each_study_and_shows_the_rest():
    real, keys = ragged(), torch.arange(5)
    masking = draw_masking(real, keys, 0.75, "test")
    assert masking.masked.sum(1).tolist() == [9, 7, 3, 0, 0]
    assert not (masking.masked & ~real).any()
    assert masking.keep.shape == (5, 3)
    for row in range(5):
        visible = {i for i in masking.keep[row].tolist() if real[row, i]}
        assert visible == set((real[row] & ~masking.masked[row]).nonzero().squeeze(1).tolist())


def test_restore_is_the_way_back():
    masking = draw_masking(ragged(), torch.arange(5), 0.5, "test")
    shown = torch.cat([masking.keep, torch.full((5, 1), -1)], dim=1)
    back = shown.gather(1, masking.restore)
    place = torch.arange(12).expand(5, -1)
    visible = ragged() & ~masking.masked
    assert torch.equal(back[visible], place[visible])
    assert (back[~visible] == -1).all()


def test_draw_belongs_to_the_study_not_to_the_batch_or_the_padding():
    real, keys = ragged(), torch.arange(5)
    masked = draw_masking(real, keys, 0.5, "test").masked
    order = torch.tensor([3, 1, 4, 0, 2])
    assert torch.equal(draw_masking(real[order], keys[order], 0.5, "test").masked, masked[order])
    padded = torch.cat([real, torch.zeros(5, 30, dtype=torch.bool)], dim=1)
    assert torch.equal(draw_masking(padded, keys, 0.5, "test").masked[:, :12], masked)


def test_each_token_is_hidden_equally_often():
    real = torch.ones(2000, 8, dtype=torch.bool)
    share = draw_masking(real, torch.arange(2000), 0.75, "test").masked.float().mean(0)
    torch.testing.assert_close(share, torch.full((8,), 0.75), atol=0.04, rtol=0)


def test_loss_is_that_of_the_hidden_patches_by_hand(model):
    torch.manual_seed(0)
    objective = MaskedReconstruction(model, modalities=["ct"], decoder_dim=16, decoder_depth=1, decoder_heads=2)
    batch = batch_of([study(0, ("ct",)), study(1, ("ct",))])
    encoder, decoder = model.encoders["ct"], objective.decoders["ct"]
    real = encoder.token_mask(batch.inputs["ct"])
    masking = draw_masking(real, batch.key, 0.75, "masked_reconstruction/ct")
    visible = encoder(batch.inputs["ct"], keep=masking.keep).tokens
    predicted = decoder(visible, masking, encoder.positions(batch.inputs["ct"]), real)
    target = normalise_patches(encoder.patches(batch.inputs["ct"]))
    errors = [
        (predicted[i, j] - target[i, j]).square().mean() for i in range(2) for j in range(8) if masking.masked[i, j]
    ]
    assert len(errors) == 12
    torch.testing.assert_close(objective(Step(model, batch))["loss"], torch.stack(errors).mean())


def test_the_model_never_sees_what_is_hidden(model):
    torch.manual_seed(0)
    objective = MaskedReconstruction(model, modalities=["ct"], decoder_dim=16, decoder_depth=1, decoder_heads=2)
    batch = batch_of([study(0, ("ct",))])
    hidden = draw_masking(torch.ones(1, 8, dtype=torch.bool), batch.key, 0.75, "masked_reconstruction/ct").masked[0]

    seen = {}
    hook = objective.decoders["ct"].predict.register_forward_hook(lambda module, args, out: seen.update(out=out))
    objective(Step(model, batch))
    first = seen["out"]
    patch = hidden.nonzero()[0].item()
    x, y, z = (4 * c for c in (patch // 4, patch // 2 % 2, patch % 2))
    batch.inputs["ct"][0, 0, x : x + 4, y : y + 4, z : z + 4] = 0.123
    objective(Step(model, batch))
    hook.remove()
    assert torch.equal(seen["out"], first)


def test_mean_over_the_modalities_that_are_there(model):
    torch.manual_seed(0)
    objective = MaskedReconstruction(model, decoder_dim=16, decoder_depth=1, decoder_heads=2)
    answer = objective(Step(model, batch_of(ten_studies())))
    parts = torch.stack([answer[f"loss_{m}"] for m in ("ct", "xray", "eeg")])
    torch.testing.assert_close(answer["loss"].detach(), parts.mean())
    answer = objective(Step(model, batch_of([study(0, ("ct",)), study(1, ("report", "eeg"))])))
    assert "loss_xray" not in answer
    torch.testing.assert_close(answer["loss"].detach(), (answer["loss_ct"] + answer["loss_eeg"]) / 2)


def test_gradient_reaches_encoders_and_decoders_and_no_fusion(model):
    objective = MaskedReconstruction(model, modalities=["eeg"], decoder_dim=16, decoder_depth=1, decoder_heads=2)
    model.zero_grad()
    objective(Step(model, batch_of(ten_studies())))["loss"].backward()
    reached = {name.split(".")[1] for name, p in model.named_parameters() if p.grad is not None}
    assert reached == {"eeg"}
    model.zero_grad()


def test_an_encoder_that_cannot_leave_tokens_out_is_refused(model):
    with pytest.raises(ValueError, match="of report: its encoder TextEncoder cannot leave tokens out"):
        MaskedReconstruction(model, modalities=["ct", "report"])
    with pytest.raises(ValueError, match="mask_ratio 1.5"):
        MaskedReconstruction(model, mask_ratio=1.5)
    with pytest.raises(ValueError, match=r"the model has \['ct', 'xray', 'eeg', 'report'\]"):
        MaskedReconstruction(model, modalities=["mri"])
