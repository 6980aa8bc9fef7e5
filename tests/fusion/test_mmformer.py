"""mmFormer: both transformers in numpy, what absent and padded tokens hold moves nothing, and who goes through which."""

from __future__ import annotations

import numpy as np
import torch

from medssml.fusion import MaskedAttention, MMFormer
from tests.fusion import plain
from tests.fusion.studies import EVERY, NAMES, encodings, numbers, stirred, tokens_of


def made() -> MMFormer:
    torch.manual_seed(0)
    fusion = stirred(MMFormer(NAMES, 16, 2, 2, 1), 0.2)
    assert isinstance(fusion, MMFormer)
    return fusion


def test_each_by_itself_then_all_that_a_study_has_in_numpy() -> None:
    fusion, encoded = made(), encodings()
    found = fusion(encoded, EVERY)
    for study in range(len(EVERY)):
        rows = [numbers(fusion.fusion_token)[0]]
        for column, tokens in tokens_of(encoded, EVERY, study).items():
            own = plain.transformer(fusion.within[NAMES[column]], tokens)
            rows.append(own + numbers(fusion.modality)[column])
        expected = plain.transformer(fusion.transformer, np.concatenate(rows))
        np.testing.assert_allclose(found.pooled[study].detach().numpy(), expected[0], rtol=1e-3, atol=1e-4)
        place = 1
        for column, tokens in tokens_of(encoded, EVERY, study).items():
            part, row = found.parts[NAMES[column]], int(EVERY[:study, column].sum())
            mixed = part.tokens[row][part.mask[row]].detach().numpy()
            np.testing.assert_allclose(mixed, expected[place : place + len(tokens)], rtol=1e-3, atol=1e-4)
            assert torch.equal(part.pooled, encoded[NAMES[column]].pooled)
            place += len(tokens)


def test_what_no_study_has_and_what_is_padding_may_hold_anything() -> None:
    fusion, encoded = made(), encodings()
    wild = {n: p._replace(tokens=torch.where(p.mask.unsqueeze(-1), p.tokens, torch.nan)) for n, p in encoded.items()}
    answer = fusion(wild, EVERY)
    assert torch.equal(answer.pooled, fusion(encoded, EVERY).pooled)
    answer.pooled.sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in fusion.parameters() if p.grad is not None)
    # What a study lacks is seen by nobody, whatever the others have: the same as without them.
    one = torch.tensor([[True, False, True]])
    alone = {n: encoded[n].select(torch.tensor([1])) for n in ("ct", "report")}
    beside = {n: part.select(torch.tensor([1, 2])) for n, part in encoded.items()}
    beside["xray"] = encoded["xray"].select(torch.tensor([2]))
    both = fusion(beside, torch.tensor([[True, False, True], [True, True, True]]))
    torch.testing.assert_close(both.pooled[0], fusion(alone, one).pooled[0], rtol=1e-4, atol=1e-5)


def test_a_batch_without_a_modality_leaves_its_transformer_as_it_is() -> None:
    fusion = made()
    present = EVERY.clone()
    present[:, 1] = False
    fusion(encodings(present), present).pooled.square().sum().backward()
    moved = {name for name, layer in fusion.within.items() if any(p.grad is not None for p in layer.parameters())}
    assert moved == {"ct", "report"}


def test_it_takes_the_weights_of_masked_attention() -> None:
    left = made().load_state_dict(MaskedAttention(NAMES, 16, 2, 2, "all").state_dict(), strict=False)
    assert not left.unexpected_keys and {name.split(".")[0] for name in left.missing_keys} == {"within"}
