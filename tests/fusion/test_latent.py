"""Latent fusion against a loop over passes and present modalities in numpy; it overwrites nothing that it reads."""

import numpy as np
import pytest
import torch

from medssml.fusion import LatentFusion
from tests.fusion import plain
from tests.fusion.studies import EVERY, NAMES, encodings, numbers, stirred, tokens_of


@pytest.mark.parametrize("tied", [True, False])
def test_latents_read_one_modality_after_the_other_and_skip_the_absent(tied):
    fusion, encoded = stirred(LatentFusion(NAMES, 16, 2, 2, latents=3, tied=tied)), encodings()
    fused = fusion(encoded, EVERY)
    for study in range(len(EVERY)):
        latents = numbers(fusion.latents)
        for turn in range(2):
            place = 0 if tied else turn
            for m, x in tokens_of(encoded, EVERY, study).items():
                latents = plain.cross_block(fusion.read[NAMES[m]][place], latents, x)
            latents = plain.block(fusion.blocks[place], latents)
        latents = plain.norm(fusion.norm, latents)
        np.testing.assert_allclose(fused.tokens[study].detach().numpy(), latents, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(fused.pooled[study].detach().numpy(), latents.mean(0), rtol=1e-3, atol=1e-4)


def test_what_it_reads_stays_as_it_was():
    """One published network flattens the caller's tensors in place, so that a second pass reads something else."""
    fusion, encoded = stirred(LatentFusion(NAMES, 16)), encodings()
    before = {name: (part.tokens.clone(), part.mask.clone(), part.pooled.clone()) for name, part in encoded.items()}
    given = dict(encoded)
    first = fusion(given, EVERY).pooled
    assert all(given[name] is encoded[name] for name in NAMES)
    for name, tensors in before.items():
        assert all(torch.equal(a, b) for a, b in zip(tensors, encoded[name], strict=False))
    assert torch.equal(fusion(given, EVERY).pooled, first)


def test_tied_passes_share_their_weights():
    tied, own = LatentFusion(NAMES, 16, 3), LatentFusion(NAMES, 16, 3, tied=False)
    assert len(tied.blocks) == 1 and len(own.blocks) == 3 and len(own.read["ct"]) == 3
    assert tied.latents.shape == (16, 16)
    with pytest.raises(ValueError, match="latents 0"):
        LatentFusion(NAMES, 16, latents=0)
