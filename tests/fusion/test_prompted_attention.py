"""Missing-aware prompts: every block in numpy; who reads which prompts; the transformer alone can be kept as it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medssml.fusion import MaskedAttention, PromptedAttention
from tests.fusion.plain import block, norm
from tests.fusion.studies import EVERY, NAMES, encodings, numbers, stirred, vectors_of


def made(**options: int) -> PromptedAttention:
    torch.manual_seed(0)
    fusion = stirred(PromptedAttention(NAMES, 16, 3, 2, length=2, **options))  # type: ignore[arg-type]
    assert isinstance(fusion, PromptedAttention)
    return fusion


def test_the_first_blocks_read_the_prompts_of_what_is_there_and_of_what_is_not() -> None:
    fusion, encoded = made(prompted=2), encodings()
    found = fusion(encoded, EVERY).pooled.detach().numpy()
    prompts = numbers(fusion.prompts)
    assert prompts.shape == (2, 3, 2, 2, 16)
    for study in range(len(EVERY)):
        vectors = vectors_of(encoded, EVERY, study)
        embedded = [vectors[c] + numbers(fusion.modality)[c] for c in sorted(vectors)]
        x = np.stack([numbers(fusion.fusion_token)[0, 0], *embedded])
        for place, layer in enumerate(fusion.transformer.blocks):
            if place < 2:
                own = np.concatenate([prompts[place, c, int(EVERY[study, c])] for c in range(3)])
                x = block(layer, np.concatenate([own, x]))[6:]
            else:
                x = block(layer, x)
        np.testing.assert_allclose(found[study], norm(fusion.transformer.norm, x)[0], rtol=2e-3, atol=2e-4)


def test_a_study_learns_the_prompts_of_its_own_pattern_alone() -> None:
    fusion = made()
    present = torch.tensor([[True, False, True]])
    encoded = {name: part.select(torch.tensor([0])) for name, part in encodings(torch.ones(8, 3).bool()).items()}
    fusion({name: encoded[name] for name in ("ct", "report")}, present).pooled.sum().backward()
    gradient = fusion.prompts.grad
    assert gradient is not None
    moved = gradient.abs().sum((0, 3, 4)) > 0
    assert torch.equal(moved, torch.tensor([[False, True], [True, False], [False, True]]))


def test_takes_the_weights_of_masked_attention_and_differs_by_its_prompts_alone() -> None:
    torch.manual_seed(1)
    plain, prompted = stirred(MaskedAttention(NAMES, 16, 3, 2)), made()
    left = prompted.load_state_dict(plain.state_dict(), strict=False)
    assert (left.missing_keys, left.unexpected_keys) == (["prompts"], [])
    names = {name for name, _ in prompted.named_parameters()}
    assert {name for name in names if name.startswith("transformer.")} and "prompts" in names
    assert not torch.allclose(plain(encodings(), EVERY).pooled, prompted(encodings(), EVERY).pooled)


def test_wrong_arguments() -> None:
    for wrong in ({"length": 0}, {"prompted": 0}, {"prompted": 3}):
        with pytest.raises(ValueError, match="at most all blocks"):
            PromptedAttention(NAMES, 16, 2, 2, **wrong)  # type: ignore[arg-type]
