"""CoCa as a list of objectives: two times captioning and once contrast, written out; the shipped config says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from torch.nn import functional as F

from medssml.objectives import Captioning, CrossModalContrast
from medssml.trainers.learner import Learner
from medssml.trainers.settings import Optim
from tests.examples import batch_of, study, tiny_model

CONFIG = Path(__file__).parents[2] / "configs" / "pretrain" / "coca.yaml"


def test_the_loss_is_two_parts_captioning_and_one_part_contrast():
    """As CoCaLoss of open_clip: 1.0 x mean of both directions' cross-entropy + 2.0 x cross-entropy of the words."""
    weights = {
        part["class_path"]: part["init_args"]["weight"] for part in yaml.safe_load(CONFIG.read_text())["objectives"]
    }
    model = tiny_model().eval()
    torch.manual_seed(0)
    captioning = Captioning(model, dim=16, depth=1, heads=2, weight=weights["Captioning"])
    contrast = CrossModalContrast(model, dim=8, batch_norm=False, weight=weights["CrossModalContrast"])
    learner = Learner(model, [captioning, contrast], Optim()).eval()
    studies = [study(n, ("xray", "report")) for n in range(5)]
    batch = batch_of(studies)
    found = float(learner.terms(batch)["loss"].detach())

    encoded = model.encode(batch)
    image, text = (contrast.space(name, encoded[name].pooled) for name in ("xray", "report"))
    logits, own = image @ text.T / 0.07, torch.arange(5)
    clip = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    shown = batch.without("report")
    fused = model.fuse(model.encode(shown), shown.present)
    ids, real = batch.inputs["report"]["input_ids"], batch.inputs["report"]["attention_mask"].bool()
    words = captioning.decoder(ids[:, :-1], fused.tokens, fused.mask)
    caption = F.cross_entropy(words.transpose(1, 2), ids[:, 1:].masked_fill(~real[:, 1:], -100), ignore_index=-100)
    assert found == pytest.approx(float((2 * caption + clip).detach()), rel=1e-4)
