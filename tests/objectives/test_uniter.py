import pytest
import torch
from torch.nn import functional as F

from medssml.fusion import ConcatFusion
from medssml.losses.ipot import ipot
from medssml.objectives import UNITER, Matching, Step
from tests.examples import batch_of, ten_studies, tiny_model


def test_is_matching_and_the_transport_of_whole_less_that_of_mixed_studies():
    """Written out study by study. Both terms are there: the copies that keep only that of whole studies would fail."""
    model = tiny_model().eval()
    torch.manual_seed(0)
    objective = UNITER(model, modalities=["ct", "eeg"], alignment=0.1).eval()
    step = Step(model, batch_of(ten_studies()))
    matching = Matching(model, modalities=["ct", "eeg"]).eval()
    matching.head.load_state_dict(objective.head.state_dict())
    plain = matching(step)["loss"]

    own, other = objective._sources(step)
    mixed = own.clone()
    mixed[:, model.modalities.index("report")] = other
    total, pairs = 0.0, 0
    for sign, sources in ((1, own), (-1, mixed)):
        for source in sources:
            fused = step.fuse_made_up(step.encoded, source[None])
            for name in {"ct", "eeg"} & fused.parts.keys():
                tokens = [fused.parts[n].tokens[fused.parts[n].mask] for n in ("report", name)]
                w, v = (F.normalize(x, dim=-1)[None] for x in tokens)
                plan = ipot(1 - w @ v.mT, *(torch.ones(x.shape[:2]).bool() for x in (w, v)))
                total += sign * float((plan * (1 - w @ v.mT)).sum().detach())
                pairs += 1
    answer = objective(step)
    assert pairs == 8
    assert answer["distance"].item() == pytest.approx(total / pairs, abs=1e-5)
    torch.testing.assert_close(answer["loss"], plain + 0.1 * answer["distance"], rtol=1e-4, atol=1e-6)


def test_a_fusion_without_tokens_is_refused():
    pooled = tiny_model(fusion=lambda names, dim: ConcatFusion(names, dim))
    with pytest.raises(ValueError, match="UNITER: ConcatFusion reads pooled vectors; fix: tokens: all"):
        UNITER(pooled)
