"""Bottleneck fusion against a loop over layers and present modalities in numpy."""

import numpy as np
import pytest
import torch

from medssml.fusion import BottleneckFusion
from tests.fusion import plain
from tests.fusion.studies import EVERY, NAMES, encodings, numbers, stirred, tokens_of, vectors_of


def test_each_modality_sees_its_own_tokens_and_the_mean_of_the_copies():
    fusion, encoded = stirred(BottleneckFusion(NAMES, 16, 3, 2, bottlenecks=2)), encodings()
    fused = fusion(encoded, EVERY)
    for study in range(len(EVERY)):
        tokens, vectors = tokens_of(encoded, EVERY, study), vectors_of(encoded, EVERY, study)
        x = {m: np.concatenate([vectors[m][None], tokens[m]]) for m in tokens}
        z = numbers(fusion.bottleneck)
        for layer in range(3):
            copies = []
            for m in x:
                out = plain.block(fusion.blocks[NAMES[m]][layer], np.concatenate([x[m], z]))
                x[m] = out[:-2]
                copies.append(out[-2:])
            z = np.mean(copies, axis=0) if copies else z
        firsts = [plain.norm(fusion.norm, part[0]) for part in x.values()]
        expected = np.mean(firsts, axis=0) if firsts else plain.norm(fusion.norm, z.mean(0))
        np.testing.assert_allclose(fused.pooled[study].detach().numpy(), expected, rtol=1e-3, atol=1e-4)
        for m in x:
            row = int(EVERY[:study, m].sum())
            found = fused.parts[NAMES[m]].tokens[row][encoded[NAMES[m]].mask[row]].detach().numpy()
            np.testing.assert_allclose(found, x[m][1:], rtol=1e-3, atol=1e-4)


def test_modalities_hear_of_each_other_through_the_bottleneck_alone():
    """With a bottleneck that no block can change, the CT's tokens do not depend on the report."""
    fusion, encoded = stirred(BottleneckFusion(NAMES, 16, 2, 2)), encodings()
    louder = {**encoded, "report": encoded["report"]._replace(tokens=-encoded["report"].tokens)}
    both = EVERY[EVERY[:, 0]][:, 2]

    def ct(given):
        return fusion(given, EVERY).parts["ct"].tokens.detach()

    change = (ct(louder) - ct(encoded)).abs().amax((1, 2))
    assert bool((change[both] > 1e-4).all()) and bool((change[~both] == 0).all())
    for name in NAMES:  # the first block leaves the shared tokens out: attention and perceptron answer 0
        for part in (fusion.blocks[name][0].attention.out, fusion.blocks[name][0].mlp[3]):
            torch.nn.init.zeros_(part.weight)
            torch.nn.init.zeros_(part.bias)
    assert torch.equal(ct(louder), ct(encoded))


def test_fewer_than_two_blocks_would_fuse_nothing():
    with pytest.raises(ValueError, match="at least 2 blocks"):
        BottleneckFusion(NAMES, 16, depth=1)
    with pytest.raises(ValueError, match="1 bottleneck"):
        BottleneckFusion(NAMES, 16, bottlenecks=0)
    assert BottleneckFusion(NAMES, 16).bottleneck.shape == (4, 16)
