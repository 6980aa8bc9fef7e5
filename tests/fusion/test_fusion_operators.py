"""Fusion operators: an absent modality is as if it had never been there; the order of a dict means nothing."""

import pytest
import torch

from medssml.batch import Encoded, restrict
from medssml.fusion import AdditiveFusion, ConcatFusion, MaskedAttention

NAMES = ("ct", "xray", "report")
PRESENT = torch.tensor([[1, 0, 1], [0, 1, 0], [1, 1, 1], [0, 0, 0]]).bool()
TOKENS = {"ct": 4, "xray": 3, "report": 5}


def operators():
    torch.manual_seed(0)
    return [
        MaskedAttention(NAMES, 16, 2, 4),
        MaskedAttention(NAMES, 16, 1, 2, tokens="all"),
        ConcatFusion(NAMES, 16),
        ConcatFusion(NAMES, 16, hidden=7),
        AdditiveFusion(NAMES, 16, 1, 4),
        AdditiveFusion(NAMES, 16, depth=0),
    ]


def encodings(present: torch.Tensor = PRESENT, seed: int = 0) -> dict[str, Encoded]:
    generator = torch.Generator().manual_seed(seed)
    out = {}
    for column, name in enumerate(NAMES):
        tokens = torch.randn(len(present), TOKENS[name], 16, generator=generator)
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
        mask[1::2, -1] = False
        pooled = torch.randn(len(present), 16, generator=generator)
        if present[:, column].any():
            out[name] = Encoded(tokens, mask, pooled).select(present[:, column])
    return out


each = pytest.mark.parametrize(
    "fusion", operators(), ids=["pooled", "all", "concat", "concat-narrow", "additive", "sum"]
)


@each
def test_shapes_and_the_order_of_the_dict(fusion):
    encoded = encodings()
    fused = fusion(encoded, PRESENT)
    turned = fusion(dict(reversed(encoded.items())), PRESENT)
    assert fused.pooled.shape == (4, 16) and fused.tokens.shape[:2] == fused.mask.shape
    assert torch.equal(fused.pooled, turned.pooled)
    assert torch.isfinite(fused.pooled).all()


@each
def test_the_order_of_the_studies_means_nothing(fusion):
    order = torch.tensor([2, 0, 3, 1])
    encoded = encodings()
    shuffled = {}
    for column, name in enumerate(NAMES):
        rank = PRESENT[:, column].long().cumsum(0) - 1  # study -> row of encoded
        shuffled[name] = encoded[name].select(rank[order][PRESENT[order, column]])
    assert torch.allclose(fusion(shuffled, PRESENT[order]).pooled, fusion(encoded, PRESENT).pooled[order], atol=1e-6)


@each
def test_a_study_alone_gives_what_it_gives_in_company(fusion):
    encoded = encodings()
    together = fusion(encoded, PRESENT).pooled
    for row in range(4):
        within = torch.zeros_like(PRESENT)
        within[row] = PRESENT[row]
        alone = fusion(restrict(encoded, PRESENT, within, NAMES), PRESENT[row : row + 1])
        assert torch.allclose(alone.pooled[0], together[row], atol=1e-6)


@each
def test_every_parameter_gets_a_gradient(fusion):
    fusion.zero_grad()
    fusion(encodings(), PRESENT).pooled.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in fusion.parameters())


@each
def test_padding_tokens_move_nothing(fusion):
    encoded = encodings()
    wild = {
        name: part._replace(tokens=torch.where(part.mask.unsqueeze(-1), part.tokens, torch.nan))
        for name, part in encoded.items()
    }
    assert torch.equal(fusion(encoded, PRESENT).pooled, fusion(wild, PRESENT).pooled)


@each
def test_refuses_what_does_not_fit(fusion):
    encoded = encodings()
    with pytest.raises(ValueError, match="3 studies where present is True|2 studies where"):
        fusion({**encoded, "ct": encoded["ct"].select(torch.tensor([0]))}, PRESENT)
    with pytest.raises(ValueError, match=r"expected \(B, 3\)"):
        fusion(encoded, PRESENT[:, :2])
    with pytest.raises(KeyError, match="eeg"):
        fusion({"eeg": encoded["ct"]}, PRESENT)


def test_masked_attention_is_a_transformer_over_what_is_there():
    """One study, its present tokens only, no mask: an independent way to the same number."""
    fusion = operators()[0]
    encoded = encodings()
    fused = fusion(encoded, PRESENT)
    own = torch.stack(
        [
            fusion.fusion_token[0, 0],
            encoded["ct"].pooled[0] + fusion.modality[0],
            encoded["report"].pooled[0] + fusion.modality[2],
        ]
    )
    assert torch.allclose(fused.pooled[0], fusion.transformer(own.unsqueeze(0))[0, 0], atol=1e-6)
    empty = fusion.transformer(fusion.fusion_token)[0, 0]
    assert torch.allclose(fused.pooled[3], empty, atol=1e-6)


def test_concatenation_is_its_formula():
    fusion = operators()[2]
    encoded = encodings()
    row = torch.cat([encoded["ct"].pooled[0], fusion.absent[1], encoded["report"].pooled[0]])
    assert torch.allclose(fusion(encoded, PRESENT).pooled[0], fusion.mlp(row), atol=1e-6)
    assert torch.allclose(fusion(encoded, PRESENT).pooled[3], fusion.mlp(fusion.absent.flatten()), atol=1e-6)


def test_additive_fusion_is_its_formula():
    fusion = operators()[4]
    encoded = encodings()
    total = fusion.base + encoded["ct"].pooled[0] + encoded["report"].pooled[0]
    between = fusion.share * fusion.between(encoded, PRESENT).pooled
    assert torch.allclose(fusion(encoded, PRESENT).pooled[0], total + between[0], atol=1e-6)
    assert torch.allclose(fusion(encoded, PRESENT).pooled[3], fusion.base + between[3], atol=1e-6)


def test_without_attention_the_log_odds_of_modalities_add_up():
    """Of a linear head: what a modality adds is the same whatever else is there."""
    fusion = operators()[5]
    encoded = encodings(torch.ones(4, 3).bool())
    whole = torch.ones(4, 3).bool()
    head = torch.randn(16, generator=torch.Generator().manual_seed(2))

    def odds(*seen):
        within = torch.tensor([[name in seen for name in NAMES]]).expand(4, 3)
        return fusion(restrict(encoded, whole, within, NAMES), within).pooled @ head

    gain = odds("ct", "xray", "report") - odds("xray", "report")
    assert torch.allclose(gain, odds("ct") - odds(), atol=1e-5)


@pytest.mark.parametrize("names", [(), ("ct", "ct")])
def test_names_are_given_once(names):
    with pytest.raises(ValueError, match="each once"):
        ConcatFusion(names, 8)


def test_tokens_is_one_of_two():
    with pytest.raises(ValueError, match="pooled, all"):
        MaskedAttention(NAMES, 8, tokens="some")


def test_defaults_drop_nothing_and_begin_small():
    torch.manual_seed(0)
    concat, additive, masked = ConcatFusion(NAMES, 8), AdditiveFusion(NAMES, 8), MaskedAttention(NAMES, 8)
    for fusion in (concat, additive, masked):
        assert all(part.p == 0 for part in fusion.modules() if isinstance(part, torch.nn.Dropout))
    assert concat.mlp[1].out_features == 16 and ConcatFusion(NAMES, 8, 5).mlp[1].out_features == 5
    assert (len(additive.between.transformer.blocks), len(masked.transformer.blocks)) == (1, 2)
    # What is learned begins near zero, so that a modality is told by what it holds.
    for learned in (concat.absent, masked.fusion_token, masked.modality):
        assert 0 < float(learned.detach().abs().max()) < 0.1
    assert float(additive.base.detach().abs().max()) == 0 and torch.equal(
        additive.share.detach(), torch.full((8,), 0.1)
    )
