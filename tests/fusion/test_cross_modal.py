"""Cross-modal attention against a loop over studies, targets and sources in numpy, real tokens only."""

import numpy as np
import torch

from medssml.batch import restrict
from medssml.fusion import CrossModalAttention
from tests.fusion import plain
from tests.fusion.studies import EVERY, NAMES, encodings, numbers, stirred, tokens_of


def test_it_is_towers_for_each_direction_and_a_mean_over_real_tokens():
    """No causal mask, no padding as a key, no padding as what is read: each would be another number here."""
    fusion, encoded = stirred(CrossModalAttention(NAMES, 16, 2, 2)), encodings()
    fused = fusion(encoded, EVERY)
    for study in range(len(EVERY)):
        x = tokens_of(encoded, EVERY, study)
        expected = numbers(fusion.base).copy()
        for m in x:
            towers = []
            for n in x:
                if n != m:
                    y = x[m]
                    for layer in fusion.towers[f"{NAMES[n]} to {NAMES[m]}"]:
                        y = plain.cross_block(layer, y, x[n])
                    towers.append(y)
            mixed = plain.transformer(fusion.own[NAMES[m]], np.mean(towers, axis=0) if towers else x[m])
            expected += plain.linear(fusion.out[NAMES[m]], mixed.mean(0))
            row = int(EVERY[:study, m].sum())
            found = fused.parts[NAMES[m]].tokens[row][encoded[NAMES[m]].mask[row]].detach().numpy()
            np.testing.assert_allclose(found, mixed, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(fused.pooled[study].detach().numpy(), expected, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(fused.tokens[study, 0].detach().numpy(), expected, rtol=1e-3, atol=1e-4)


def test_a_record_says_the_same_with_more_padding():
    fusion, encoded = stirred(CrossModalAttention(NAMES, 16, 1, 2)), encodings()
    longer = {
        name: part._replace(
            tokens=torch.nn.functional.pad(part.tokens, (0, 0, 0, 3), value=7.0),
            mask=torch.nn.functional.pad(part.mask, (0, 3)),
        )
        for name, part in encoded.items()
    }
    torch.testing.assert_close(fusion(longer, EVERY).pooled, fusion(encoded, EVERY).pooled, rtol=1e-5, atol=1e-5)


def test_the_first_token_hears_of_the_last():
    """Nothing is causal: what the last word says reaches the first token of the CT."""
    fusion, encoded = stirred(CrossModalAttention(NAMES, 16, 1, 2)), encodings()
    within = torch.tensor([[True, False, True]])
    one = restrict(encoded, EVERY, torch.where(torch.arange(8)[:, None] == 7, within, False), NAMES)
    changed = dict(one)
    tokens = one["report"].tokens.clone()
    tokens[0, int(one["report"].mask[0].sum()) - 1] *= -1
    changed["report"] = one["report"]._replace(tokens=tokens)
    before, after = (fusion(given, within).parts["ct"].tokens[0, 0] for given in (one, changed))
    assert float((before - after).detach().abs().max()) > 1e-3


def test_one_modality_alone_needs_no_tower():
    assert len(CrossModalAttention(("ct",), 16, 1, 2).towers) == 0
    assert len(CrossModalAttention(NAMES, 16, 1, 2).towers) == 6
