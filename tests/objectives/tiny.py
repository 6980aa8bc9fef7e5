"""A model of four modalities that fits in a test, and studies for it with ragged recordings and reports."""

import torch
from torch.nn.utils.rnn import pad_sequence

from medssml.batch import Batch
from medssml.encoders import EEGTransformer, TextEncoder, ViT
from medssml.fusion import MaskedAttention
from medssml.model import MultimodalModel
from medssml.objectives import (
    BagOfWords,
    CrossModalContrast,
    MaskedLanguageModelling,
    MaskedReconstruction,
    ModalityDropoutConsistency,
)

MODALITIES = ("ct", "xray", "eeg", "report")
VOCABULARY = 40

OBJECTIVES = {
    "contrast": lambda model: CrossModalContrast(model, dim=8),
    "reconstruction": lambda model: MaskedReconstruction(model, decoder_dim=16, decoder_depth=1, decoder_heads=2),
    "words": lambda model: BagOfWords(model, modalities=["ct", "xray"], pairs=16),
    "language": lambda model: MaskedLanguageModelling(model),
    "consistency": lambda model: ModalityDropoutConsistency(model, dim=8),
}

#: Which modalities each of ten studies has: every pattern that matters, and one study without anything.
PATTERNS = (
    ("ct", "xray", "eeg", "report"),
    ("ct", "report"),
    ("eeg",),
    ("ct", "eeg"),
    ("report",),
    ("xray", "report"),
    ("ct", "xray", "report"),
    ("ct", "xray"),
    (),
    ("xray", "eeg"),
)


def tiny_model(seed=0):
    torch.manual_seed(seed)
    encoders = {
        "ct": ViT((8, 8, 8), 4, 24, 1, 2),
        "xray": ViT((16, 16), 4, 24, 1, 2, skip_empty=True),
        "eeg": EEGTransformer(24, 1, 2, patch_samples=20, sfreq=100.0, channel_names=20),
        "report": TextEncoder(VOCABULARY, 24, 1, 2, max_length=32),
    }
    return MultimodalModel(encoders, MaskedAttention(MODALITIES, 16, 1, 2))


def study(number, modalities, *, subject=None, epoch=0):
    """One study; its content depends on `number` alone."""
    g = torch.Generator().manual_seed(number)
    xray = torch.rand(1, 16, 16, generator=g)
    xray[..., : 4 * (number % 3)] = 0  # beside the field of view
    channels, length, words = 2 + number % 3, 60 + 20 * (number % 4), 6 + number % 5
    everything = {
        "ct": torch.rand(1, 8, 8, 8, generator=g),
        "xray": xray,
        "eeg": (torch.randn(channels, length, generator=g) * 0.3, torch.randperm(19, generator=g)[:channels] + 1),
        "report": torch.cat(
            [torch.tensor([2]), torch.randint(5, VOCABULARY, (words,), generator=g), torch.tensor([3])]
        ),
    }
    return {
        "name": f"study-{number}",
        "subject": 100 + (number if subject is None else subject),
        "key": 1000 * epoch + number,
        "inputs": {m: everything[m] for m in modalities},
        "content": {m: 10 * number + MODALITIES.index(m) for m in modalities},
    }


def _stack(modality, values, dtype):
    if modality == "report":
        ids = pad_sequence(values, batch_first=True)
        return {
            "input_ids": ids,
            "attention_mask": pad_sequence([torch.ones_like(v) for v in values], batch_first=True),
        }
    if modality != "eeg":
        return torch.stack(values).to(dtype)
    channels, samples = (max(v[0].shape[axis] for v in values) for axis in (0, 1))
    signal = torch.zeros(len(values), channels, samples, dtype=dtype)
    names = torch.zeros(len(values), channels, dtype=torch.int64)
    for row, (trace, name) in enumerate(values):
        signal[row, : trace.shape[0], : trace.shape[1]] = trace
        names[row, : len(name)] = name
    return {"signal": signal, "channels": names, "length": torch.tensor([v[0].shape[1] for v in values])}


def batch_of(studies, dtype=torch.float32):
    inputs = {}
    for m in MODALITIES:
        values = [s["inputs"][m] for s in studies if m in s["inputs"]]
        if values:
            inputs[m] = _stack(m, values, dtype)
    return Batch(
        inputs=inputs,
        present=torch.tensor([[m in s["inputs"] for m in MODALITIES] for s in studies]).reshape(-1, len(MODALITIES)),
        modalities=MODALITIES,
        study_id=tuple(s["name"] for s in studies),
        subject=torch.tensor([s["subject"] for s in studies], dtype=torch.int64),
        key=torch.tensor([s["key"] for s in studies], dtype=torch.int64),
        content={
            m: torch.tensor([s["content"][m] for s in studies if m in s["content"]], dtype=torch.int64) for m in inputs
        },
    )


def ten_studies():
    return [study(number, pattern) for number, pattern in enumerate(PATTERNS)]
