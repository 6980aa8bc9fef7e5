import pytest
import torch

from medssml.batch import Encoded, Fused
from medssml.encoders import Head

NAMES = ("ct", "eeg")


def fused(pooled: torch.Tensor, own: torch.Tensor | None = None, seen: torch.Tensor | None = None) -> Fused:
    """own: (B, M, D) the vector of each modality, of which only the rows of `seen` (B, M) are handed on."""
    plain = Fused(pooled[:, None], torch.ones(len(pooled), 1, dtype=torch.bool), pooled)
    if own is None or seen is None:
        return plain
    rows = {name: own[seen[:, column], column] for column, name in enumerate(NAMES[: own.shape[1]])}
    parts = {n: Encoded(v[:, None], torch.ones(len(v), 1, dtype=torch.bool), v) for n, v in rows.items() if len(v)}
    return plain._replace(parts=parts, present=seen)


@pytest.mark.parametrize(("kind", "shape"), [("binary", (5,)), ("regression", (5,)), ("multiclass", (5, 4))])
def test_shapes(kind, shape):
    assert Head(8, kind, 4)(fused(torch.rand(5, 8))).shape == shape
    own, seen = torch.rand(5, 2, 8), torch.rand(5, 2) > 0.5
    assert Head(8, kind, 4, ("ct", "eeg"))(fused(torch.rand(5, 8), own, seen)).shape == shape


def test_refuses_unknown_kinds():
    with pytest.raises(ValueError, match="binary, multiclass, regression"):
        Head(8, "ordinal")
    with pytest.raises(ValueError, match="at least 2"):
        Head(8, "multiclass", 1)


def test_evidence_begins_at_zero_and_is_a_sum_over_what_is_seen():
    torch.manual_seed(0)
    head = Head(3, "multiclass", 2, ("ct", "eeg"))
    pooled, own, seen = torch.rand(4, 3), torch.rand(4, 2, 3), torch.tensor([[1, 1], [1, 0], [0, 1], [0, 0]]).bool()
    assert torch.equal(head(fused(pooled, own, seen)), head.linear(pooled))
    for layer in head.own.values():
        torch.nn.init.normal_(layer.weight)
        torch.nn.init.normal_(layer.bias)
    out = head(fused(pooled, own, seen))
    for study in range(4):
        expected = head.linear(pooled[study])
        for column, name in enumerate(("ct", "eeg")):
            if seen[study, column]:
                expected = expected + head.own[name].weight @ own[study, column] + head.own[name].bias
        torch.testing.assert_close(out[study], expected)


def test_what_is_not_seen_moves_nothing():
    head = Head(3, evidence=("ct",))
    torch.nn.init.ones_(head.own["ct"].weight)
    pooled, seen = torch.rand(2, 3), torch.tensor([[True], [False]])
    out = head(fused(pooled, torch.rand(2, 1, 3), seen))
    torch.testing.assert_close(out[1], head.linear(pooled)[1, 0])


def test_without_the_vectors_of_the_modalities_it_says_what_to_do():
    with pytest.raises(ValueError, match=r"MultimodalModel\.fuse"):
        Head(3, evidence=("ct",))(fused(torch.rand(2, 3)))
