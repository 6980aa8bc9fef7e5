"""SMIL against a second implementation with copies of the model, what each term teaches, and who chooses the weights."""

from __future__ import annotations

import copy
import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from medssml.batch import Batch
from medssml.config import LeftOut
from medssml.fusion import AdditiveFusion, MaskedAttention, PriorImputation
from medssml.model import MultimodalModel, Task
from medssml.objectives import SMIL, Step, Supervised
from medssml.objectives.clock import Clock
from medssml.objectives.divergence import tempered_divergence
from medssml.objectives.dropout_consistency import reduced_presence
from medssml.statistics.metrics import auroc, point
from medssml.trainers.finetune import finetuner
from medssml.trainers.loop import fit
from medssml.trainers.settings import Optim, TrainerSettings
from tests.fusion.test_imputation import DIM, NAMES, given, related
from tests.objectives.vectors import vector_batch, vector_model


def model_of(noise: float = 0.0, depth: int = 0) -> MultimodalModel:
    """A model whose prior is fitted to 150 studies."""
    torch.manual_seed(4)

    def fusion(names: Any, dim: int) -> PriorImputation:
        inside = AdditiveFusion(names, dim, depth, 2)
        return PriorImputation(names, dim, inside, centres=6, noise=noise, believe=True)

    model = vector_model(NAMES, DIM, fusion, {"y": Task()})
    for layer in model.standardise.values():
        layer.batches.fill_(1)  # type: ignore[union-attr]
    table, present = related(150, 1)
    model.fusion.fit([(given(table, present), present)])
    return model.eval()


def batch_of(count: int, seed: int, labelled: float = 1.0) -> Batch:
    """Studies whose label follows from the cause of all modalities, with noise."""
    table, present = related(count, seed)
    noise = torch.randn(count, generator=torch.Generator().manual_seed(seed))
    y = ((table.sum((1, 2)) - 36) / 6 + 0.5 * noise > 0).float()
    y[int(labelled * count) :] = torch.nan
    return vector_batch({n: table[:, c] for c, n in enumerate(NAMES)}, present, {"y": y})


def by_copies(model: MultimodalModel, batch: Batch, rate: float, distil: float, align: float) -> Tensor:
    """The meta loss: a copy of the model takes the inner step as any optimiser would, and is asked."""
    part = reduced_presence(batch.present, batch.key, 0.5)
    labels, known = batch.targets["y"].nan_to_num(0.0), batch.targets["y"].isfinite()

    def answers(one: MultimodalModel, within: Tensor) -> Tensor:
        return one.heads["y"](one.fuse(one.encode(batch), batch.present, within))  # type: ignore[no-any-return]

    def loss_of(one: MultimodalModel, within: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(answers(one, within)[known], labels[known].to(torch.float64))

    other = copy.deepcopy(model)
    theta = [p for n, p in other.named_parameters() if n.startswith(("fusion.fusion.", "heads.y."))]
    loss_of(other, part).backward()
    with torch.no_grad():
        for weight in theta:
            weight -= rate * weight.grad  # type: ignore[operator]
        whole, of_part = answers(other, batch.present), answers(other, part)
        apart = tempered_divergence(Task(), of_part, whole, 4.0)[batch.present.sum(1) > 1].mean()
        expected = other.fuse(other.encode(batch), batch.present, part).extra["expected"]
        known_vectors = other.fusion.table(other.encode(batch), batch.present)
        errors = (expected - known_vectors).square().mean(2)[batch.present & ~part]
        return loss_of(other, batch.present) + distil * apart + align * errors.mean()


@pytest.mark.parametrize("depth", [0, 1])
def test_loss_and_gradients_are_those_of_a_model_that_takes_the_step(depth: int) -> None:
    """Gradients by differences: they go through the step, also to what fills in."""
    model = model_of(depth=depth).double()
    batch = batch_of(14, 3, labelled=0.8)
    batch = replace(batch, inputs={n: v.double() for n, v in batch.inputs.items()})  # type: ignore[union-attr]
    terms = {"distil": 0.3, "align": 0.2}
    objective = SMIL(model, inner_lr=2.0, **terms).eval()
    answer = objective(Step(model, batch, clock=Clock(0, 100)))
    assert answer is not None
    torch.testing.assert_close(
        answer["loss"].detach().double(), by_copies(model, batch, 2.0, **terms), rtol=1e-5, atol=0
    )

    # Of the label's part alone: the further terms hold something fixed.
    bare = SMIL(model, inner_lr=2.0, distil=0.0, align=0.0).eval()
    named = (
        "fusion.weights.weight",
        "fusion.present.weight",
        "fusion.believed.weight",
        "fusion.fusion.base",
        "heads.y.linear.weight",
    )
    watched = {name: dict(model.named_parameters())[name] for name in named}  # fmt: skip
    gradients = torch.autograd.grad(bare(Step(model, batch, clock=Clock(0, 100)))["loss"], list(watched.values()))
    for (name, weight), gradient in zip(watched.items(), gradients, strict=True):
        place, step, found = int(gradient.abs().argmax()), 1e-5, []
        for sign in (1, -1):
            with torch.no_grad():
                weight.view(-1)[place] += sign * step
            found.append(by_copies(model, batch, 2.0, 0.0, 0.0))
            with torch.no_grad():
                weight.view(-1)[place] -= sign * step
        slope = float((found[0] - found[1]) / (2 * step))
        assert float(gradient.view(-1)[place]) == pytest.approx(slope, rel=1e-3), name
    still = SMIL(model, inner_lr=0.0, distil=0.0, align=0.0).eval()
    other = torch.autograd.grad(still(Step(model, batch))["loss"], watched["fusion.weights.weight"])[0]
    assert not torch.allclose(other, gradients[0], rtol=1e-2), "without the step what fills in learns otherwise"


def test_without_step_and_terms_it_is_the_labels_and_the_step_fades_as_published() -> None:
    model, batch = model_of(), batch_of(14, 3, labelled=0.8)
    plain = Supervised(model).eval()(Step(model, batch))
    none = SMIL(model, inner_lr=0.0, distil=0.0, align=0.0).eval()(Step(model, batch))
    assert plain is not None and none is not None
    torch.testing.assert_close(none["loss"], plain["loss"])

    def at(step: int, rate: float) -> float:
        answer = SMIL(model, inner_lr=rate, distil=0.0, align=0.0).eval()(Step(model, batch, clock=Clock(step, 80)))
        assert answer is not None
        return float(answer["loss"].detach())

    assert at(10, 10.0) == at(0, 1.0) == at(9, 1.0) and at(20, 100.0) == at(0, 1.0) != at(0, 10.0)


def test_no_label_is_no_term_and_studies_of_one_modality_have_no_further_ones() -> None:
    model = model_of()
    assert SMIL(model)(Step(model, batch_of(8, 3, labelled=0.0))) is None
    alone = batch_of(8, 3).without("b", "c")
    answer = SMIL(model).eval()(Step(model, alone))
    assert answer is not None and not {"distilled", "aligned"} & set(answer)


def test_what_fills_in_beats_the_mean_on_studies_that_it_has_not_seen() -> None:
    """Learned by the meta loss; the alignment teaches what fills in, and no vector."""
    model, batch = model_of(noise=0.05), batch_of(150, 1)
    objective = SMIL(model, distil=0.0, align=1.0)
    for layer in model.project.values():
        layer.requires_grad_(True)
    part = reduced_presence(batch.present, batch.key, 0.5)
    objective._aligned(model, _studies(model, batch), part).sum().backward()
    moved = {
        ".".join(n.split(".")[:2]) for n, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())
    }
    assert moved == {"fusion.present", "fusion.weights"}

    optimiser = torch.optim.Adam(model.fusion.parameters(), lr=0.02)
    model.fusion.train()  # and no statistics of vectors, which are to stay as they are
    for number in range(200):
        optimiser.zero_grad()
        again = replace(batch, key=batch.key + 1000 * number)
        objective(Step(model, again, clock=Clock(number, 200)))["loss"].backward()
        optimiser.step()
    table, present = related(200, 3)
    with torch.no_grad():
        expected = model.eval().fusion.expected(torch.where(present[..., None], table, 0.0), present)  # type: ignore[operator]
    train, there = related(150, 1)
    mean = torch.stack([train[there[:, c], c].mean(0) for c in range(3)]).expand_as(table)
    error, of_the_mean = ((guess - table)[~present].square().mean() for guess in (expected, mean))
    assert error < 0.6 * of_the_mean


def _studies(model: MultimodalModel, batch: Batch) -> Any:
    from medssml.objectives.smil import _Studies

    return _Studies.of(Step(model, batch), ["y"])


class Loader:
    """Batches of eight studies in their order; for a validation all of them, once."""

    def __init__(self, studies: Batch) -> None:
        self.studies, self.step = studies, 0

    def __len__(self) -> int:
        return len(self.studies) // 8

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["epoch"] * len(self) + state["batch"]

    def take(self) -> Batch:
        self.step += 1
        return self._rows((self.step - 1) % len(self) * 8, 8)

    def __iter__(self) -> Iterator[Batch]:
        return (self._rows(start, 8) for start in range(0, len(self.studies), 8))

    def _rows(self, start: int, count: int) -> Batch:
        table, there = self._table()
        rows = slice(start, start + count)
        one = vector_batch(
            {n: table[rows, c] for c, n in enumerate(NAMES)}, there[rows], {"y": self.studies.targets["y"][rows]}
        )
        return replace(one, key=self.studies.key[rows] + 1000 * self.step, index=self.studies.index[rows])  # type: ignore[index]

    def _table(self) -> tuple[Tensor, Tensor]:
        there = self.studies.present
        table = torch.zeros(len(self.studies), len(NAMES), DIM)
        for column, name in enumerate(NAMES):
            table[there[:, column], column] = self.studies.inputs[name]  # type: ignore[assignment]
        return table, there


def test_the_weights_that_are_kept_are_those_that_validation_studies_choose(tmp_path: Path) -> None:
    """The published script keeps those that are best on the test. Labels by chance are learned, so that the last epoch is not the
    best one of the validation; no test study is at hand."""
    torch.set_num_threads(1)
    model = model_of(noise=0.05)
    learner = finetuner(model, SMIL(model), Optim(lr=0.05, warmup=0.0), seed=3)
    wrong = batch_of(32, 5)
    wrong = replace(wrong, targets={"y": torch.rand(32, generator=torch.Generator().manual_seed(8)).round()})
    val = Loader(batch_of(48, 9))
    settings = TrainerSettings(max_epochs=6, log_every=1, device="cpu", precision="32")
    outcome = fit(learner, Loader(wrong), tmp_path, settings, val=val, studies=Loader(wrong))

    seen = [
        float(row["val/auroc"]) for row in csv.DictReader((tmp_path / "history.csv").open()) if row.get("val/auroc")
    ]
    assert len(seen) == 6 and outcome.score == pytest.approx(max(seen), abs=1e-6) and max(seen) > seen[-1] + 0.01
    with torch.no_grad():
        answers = torch.cat([model(batch)["y"] for batch in val]).double().numpy()
    kept = point(auroc, val.studies.targets["y"].double().numpy(), answers)
    assert kept == pytest.approx(max(seen), abs=1e-6)


def test_wrong_arguments() -> None:
    model = model_of()
    other = vector_model(NAMES, DIM, lambda names, dim: MaskedAttention(names, dim, 1, 2), {"y": Task()})
    with pytest.raises(
        ValueError, match="MaskedAttention does not say what it expects; fix: fusion: {class_path: Prior"
    ):
        SMIL(other)
    for wrong in ({"p": 1.0}, {"inner_lr": -1.0}, {"distil": -0.1}, {"align": -0.1}):
        with pytest.raises(ValueError, match="fix: p between 0 and 1"):
            SMIL(model, **wrong)  # type: ignore[arg-type]
    with pytest.raises(LeftOut, match="two modalities"):
        SMIL.restricted_to({}, ["a"])
