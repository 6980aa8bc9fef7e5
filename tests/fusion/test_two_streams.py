"""Co-attention and the cross-modality encoder against loops over layers and streams in numpy."""

import numpy as np

from medssml.fusion import CoAttention, CrossModalityEncoder
from tests.fusion import plain
from tests.fusion.studies import EVERY, NAMES, encodings, numbers, stirred, tokens_of, vectors_of


def led_tokens(encoded, study):
    """Column -> [pooled; real tokens] of what a study has."""
    tokens, vectors = tokens_of(encoded, EVERY, study), vectors_of(encoded, EVERY, study)
    return {m: np.concatenate([vectors[m][None], tokens[m]]) for m in tokens}


def others(x, m):
    return np.concatenate([x[n] for n in x if n != m])


def compare_parts(fused, encoded, study, x):
    for m in x:
        row = int(EVERY[:study, m].sum())
        found = fused.parts[NAMES[m]].tokens[row][encoded[NAMES[m]].mask[row]].detach().numpy()
        np.testing.assert_allclose(found, x[m][1:], rtol=1e-3, atol=1e-4)


def test_co_attention_looks_at_the_others_then_at_itself():
    fusion, encoded = stirred(CoAttention(NAMES, 16, 2, 2), 0.2), encodings()
    fused = fusion(encoded, EVERY)
    for study in range(len(EVERY)):
        x = led_tokens(encoded, study)
        for layer in range(2):
            looked = {
                m: plain.cross_block(fusion.co[NAMES[m]][layer], x[m], others(x, m))
                if len(x) > 1
                # Alone: no attention, the perceptron of the block only.
                else x[m] + plain.mlp(fusion.co[NAMES[m]][layer].mlp, plain.norm(fusion.co[NAMES[m]][layer].norm, x[m]))
                for m in x
            }
            x = {m: plain.block(fusion.own[NAMES[m]][layer], looked[m]) for m in x}
        expected = np.ones(16)
        for m in x:
            first = plain.norm(fusion.norm, x[m][0])
            expected *= first @ numbers(fusion.factors.weight)[m] + numbers(fusion.factors.bias)[m]
        np.testing.assert_allclose(fused.pooled[study].detach().numpy(), expected, rtol=1e-3, atol=1e-3)
        compare_parts(fused, encoded, study, x)


def test_the_cross_modality_encoder_looks_across_by_shared_weights():
    fusion, encoded = stirred(CrossModalityEncoder(NAMES, 16, 2, 2, 1), 0.2), encodings()
    fused = fusion(encoded, EVERY)
    for study in range(len(EVERY)):
        x = {m: plain.transformer(fusion.before[NAMES[m]], v) for m, v in led_tokens(encoded, study).items()}
        for layer in range(2):
            look, across = fusion.look[layer], fusion.across[layer]
            looked = {
                m: x[m] + plain.cross_attention(across, plain.norm(look, x[m]), plain.norm(look, others(x, m)))
                if len(x) > 1
                else x[m]
                for m in x
            }
            x = {m: plain.block(fusion.own[NAMES[m]][layer], looked[m]) for m in x}
        firsts = [plain.norm(fusion.norm, v[0]) for v in x.values()]
        mean = np.mean(firsts, axis=0) if firsts else numbers(fusion.nothing)
        expected = np.tanh(plain.linear(fusion.pool, mean))
        np.testing.assert_allclose(fused.pooled[study].detach().numpy(), expected, rtol=1e-3, atol=1e-4)
        compare_parts(fused, encoded, study, x)


def test_one_modality_has_nothing_to_look_at():
    assert len(CoAttention(("ct",), 16).co) == 0 and len(CrossModalityEncoder(("ct",), 16).across) == 0
