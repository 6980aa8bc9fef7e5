"""The law of absence, for every encoder under every fusion.

In evaluation mode a study's output depends only on its own present modalities: NaN where something is absent, or another
study's values, move nothing; gradients stay finite; a batch without any of a modality, or of anything, is defined.
"""

from dataclasses import replace

import pytest
import torch

from medssml.batch import Batch, select_rows
from medssml.encoders import EEGTransformer, ResNet, TableEncoder, TextEncoder, ViT
from medssml.fusion import AdditiveFusion, ConcatFusion, MaskedAttention
from medssml.model import MultimodalModel

NAMES = ("ct", "xray", "eeg", "report", "table")
PRESENT = torch.tensor(
    [[1, 0, 1, 1, 0], [0, 1, 0, 0, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [0, 0, 1, 0, 1], [1, 1, 0, 1, 1]],
    dtype=torch.bool,
)

ENCODERS = {
    "transformers": lambda: {
        "ct": ViT((16, 16, 16), 8, 16, 1, 2, skip_empty=True),
        "xray": ViT((48, 48), 16, 16, 1, 2, pool="cls", positions="learned"),
        "eeg": EEGTransformer(16, 1, 2, 50, channel_names=9),
        "report": TextEncoder(40, 16, 1, 2, 12),
        "table": TableEncoder(5, 16, 1, 2),
    },
    "convolutions": lambda: {
        "ct": ResNet(3, 12, widths=(8, 8, 8, 8)),
        "xray": ResNet(2, widths=(8, 8, 8, 8), coordinates=True, norm="instance", stem_pool=False),
        "eeg": EEGTransformer(12, 1, 2, 50, channel_names=9, pool="attention"),
        "report": TextEncoder(40, 16, 1, 2, 12),
        "table": TableEncoder(5, 12, 1, 3, mlp_ratio=1.0),
    },
}
FUSIONS = {
    "concat": lambda: ConcatFusion(NAMES, 24),
    "attention": lambda: MaskedAttention(NAMES, 24, 2, 4),
    "additive": lambda: AdditiveFusion(NAMES, 24, 1, 4),
    "attention-all": lambda: MaskedAttention(NAMES, 24, 1, 4, tokens="all"),
}


@pytest.fixture(scope="module", params=[(e, f) for e in ENCODERS for f in FUSIONS], ids=lambda pair: "+".join(pair))
def model(request) -> MultimodalModel:
    torch.manual_seed(0)
    encoders, fusion = request.param
    tasks = {"finding": {"kind": "binary"}, "grade": {"kind": "multiclass", "n_classes": 3, "evidence": True}}
    made = MultimodalModel(ENCODERS[encoders](), FUSIONS[fusion](), tasks).eval()
    for parameter in made.heads["grade"].own.parameters():
        torch.nn.init.normal_(parameter)  # they begin at zero
    return made


def batch_of(present: torch.Tensor = PRESENT, seed: int = 0) -> Batch:
    """Studies of which row i looks the same whatever `present` says."""
    n, draw = len(present), torch.Generator().manual_seed(seed)
    length = torch.tensor([150, 200, 110, 200, 60, 170])[:n]
    words = torch.tensor([7, 3, 5, 7, 2, 6])[:n]
    signal = 0.3 * torch.randn(n, 3, 200, generator=draw)
    inputs = {
        "ct": torch.rand(n, 1, 16, 16, 16, generator=draw),
        "xray": torch.rand(n, 1, 48, 48, generator=draw),
        "eeg": {
            "signal": signal * (torch.arange(200) < length[:, None, None]),
            "channels": torch.tensor([[1, 2, 3], [4, 5, 0], [8, 1, 2], [1, 2, 3], [7, 0, 0], [3, 2, 1]])[:n],
            "length": length,
        },
        "report": {
            "input_ids": torch.randint(5, 40, (n, 7), generator=draw),
            "attention_mask": (torch.arange(7) < words[:, None]).long(),
        },
    }
    # Seen by everybody, and NaN where it was not measured.
    known = torch.arange(10)[:, None] % 5 != torch.arange(5)
    values = torch.randn(n, 5, generator=draw)
    inputs["table"] = {"values": torch.where(known[:n], values, torch.nan), "known": known[:n]}
    packed = {m: select_rows(inputs[m], present[:, i]) for i, m in enumerate(NAMES) if present[:, i].any()}
    ids = tuple(f"study{i}" for i in range(n))
    return Batch(packed, present, NAMES, ids, torch.arange(n), torch.arange(n))


def output(model: MultimodalModel, batch: Batch) -> torch.Tensor:
    """(B, 1 + 3) all logits side by side."""
    logits = model(batch)
    return torch.cat([logits["finding"].unsqueeze(1), logits["grade"]], dim=1)


def overwrite(batch: Batch, study: int, value: float) -> Batch:
    """The batch with every number of one study replaced: NaN, or anything."""
    inputs = {}
    for column, name in enumerate(NAMES):
        own = batch.inputs[name]
        row = int(batch.present[:study, column].sum())
        if not batch.present[study, column]:
            inputs[name] = own
        elif isinstance(own, dict):
            inputs[name] = {key: part.clone() for key, part in own.items()}
            if "signal" in own:
                inputs[name]["signal"][row] = value
            elif "values" in own:
                inputs[name]["values"][row] = value
            else:
                inputs[name]["input_ids"][row] = 39
        else:
            inputs[name] = own.clone()
            inputs[name][row] = value
    return replace(batch, inputs=inputs)


def test_another_study_moves_nothing(model):
    batch = batch_of()
    before = output(model, batch)
    others = torch.tensor([0, 1, 3, 4, 5])
    for value in (torch.nan, 1e4):
        after = output(model, overwrite(batch, 2, value))
        assert torch.equal(after[others], before[others])
        assert not torch.equal(after[2], before[2])


def test_a_study_alone_gives_what_it_gives_in_company(model):
    batch = batch_of()
    together = output(model, batch)
    for study in range(len(batch)):
        alone = torch.zeros_like(PRESENT)
        alone[study] = PRESENT[study]
        assert torch.allclose(output(model, batch_of(alone))[study], together[study], atol=1e-5)


def test_what_is_absent_was_never_there(model):
    """Removing a modality beforehand, and hiding its encoding afterwards, be it NaN, are the same."""
    batch = batch_of()
    encoded = model.encode(batch)
    for name in NAMES:
        without = batch.without(name)
        poisoned = {**encoded, name: encoded[name].each(lambda part: torch.full_like(part, torch.nan))}
        poisoned[name] = poisoned[name]._replace(mask=encoded[name].mask)
        hidden = model.predict_from(model.fuse(poisoned, batch.present, within=without.present))
        for task, logits in model(without).items():
            assert torch.allclose(hidden[task], logits, atol=1e-6)
            assert torch.isfinite(logits).all()


@pytest.mark.parametrize("present", ["nobody has one", "nothing at all", "one study, one modality"])
def test_gradients_are_finite_and_every_parameter_takes_part(model, present):
    rows = PRESENT.clone()
    if present == "nobody has one":
        rows[:, 0] = False
    elif present == "nothing at all":
        rows[:] = False
    else:
        rows[:] = False
        rows[1, 3] = True
    batch = batch_of(rows)
    model.zero_grad()
    out = output(model, batch)
    loss = model.zero_touch(out.square().sum())
    assert loss == out.square().sum()
    loss.backward()
    assert torch.isfinite(out).all()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_every_parameter_is_used_where_everything_is_present(model):
    model.zero_grad()
    output(model, batch_of()).square().sum().backward()
    unused = {name for name, p in model.named_parameters() if p.grad is None}
    # A fusion of all tokens does not look at the pooled vector, so neither at the weights that pool it.
    pooling = ("encoders.eeg.score.", "encoders.eeg.filters.", "encoders.eeg.context.")
    assert all(name.startswith(pooling) and model.fusion.reads == "tokens" for name in unused)


def test_studies_without_anything_are_equal(model):
    nothing = output(model, batch_of(torch.zeros_like(PRESENT)))
    assert torch.allclose(nothing, nothing[:1].expand_as(nothing), atol=1e-6)
    assert torch.allclose(output(model, batch_of())[3], nothing[0], atol=1e-6)
