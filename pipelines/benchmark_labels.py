"""What remedies for wrong labels give back: the same studies with right labels, with wrong ones, and with each remedy.

    medssml phantom --preset small --studies 1200 --seed 0 --out cohort
    medssml pretrain --config small --manifest cohort/manifest.csv --out runs/pretrain
    python pipelines/benchmark_labels.py --checkpoint runs/pretrain --manifest cohort/manifest.csv --out runs/labels

The encoders stay as pretraining left them and run once; what is trained on their vectors is a network that can learn wrong
labels by heart, for a fixed number of epochs. Labels of training and validation are turned (`LabelsSymmetric`), those of the test
never. Remedies have the numbers of their papers: nothing is chosen. Intervals are 95 %, by drawing subjects of the test.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from on_vectors import Cohort, Given, Vectors, read, train_to_the_end  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from medssml.batch import Encoded  # noqa: E402
from medssml.evaluation.suspects import find_suspects, joined_embeddings  # noqa: E402
from medssml.fusion import ConcatFusion  # noqa: E402
from medssml.model import MultimodalModel, Task  # noqa: E402
from medssml.objectives import (  # noqa: E402
    CoTeaching,
    CrossEntropy,
    EarlyLearning,
    GeneralisedCrossEntropy,
    StudyLoss,
    Supervised,
    SymmetricCrossEntropy,
)
from medssml.obstacles import LabelsSymmetric  # noqa: E402
from medssml.statistics.bootstrap import draw_weights  # noqa: E402
from medssml.statistics.metrics import auroc  # noqa: E402
from medssml.trainers.finetune import finetuner  # noqa: E402
from medssml.trainers.settings import Optim, TrainerSettings  # noqa: E402

BATCH, EPOCHS, HIDDEN, DROPOUT, HIDDEN_RATE = 64, 40, 256, 0.1, 0.25
RESAMPLES = 1000
#: Remedy -> its loss, with the numbers of its paper.
LOSSES: dict[str, StudyLoss] = {
    "label smoothing": CrossEntropy(0.1),
    "generalised cross-entropy": GeneralisedCrossEntropy(),
    "generalised cross-entropy, truncated": GeneralisedCrossEntropy(k=0.5),
    "symmetric cross-entropy": SymmetricCrossEntropy(),
    "early learning (ELR)": EarlyLearning(),
}
RIGHT, WRONG, STOPPED = "right labels", "wrong labels", "best validation epoch"
CLEANED, TWO_MODELS = "suspicious labels left out", "co-teaching"


#: Task -> score of each study of the test.
Scores = dict[str, list[float]]


class TwoLayers(Given):
    """Vectors that another model made, through two layers."""

    def __init__(self, width: int, dim: int = HIDDEN) -> None:
        super().__init__(dim)
        self.layers = nn.Sequential(nn.Linear(width, dim), nn.GELU(), nn.Dropout(DROPOUT), nn.Linear(dim, dim))

    def forward(self, inputs: Any, keep: Tensor | None = None, layers: int = 0) -> Encoded:
        return super().forward(self.layers(inputs))


def told(cohort: Cohort, split: str, severity: float, seed: int) -> dict[str, np.ndarray]:
    """Task -> what the table says of a split's studies."""
    applied = LabelsSymmetric(severity=severity, seed=seed).applied(cohort.table[split])
    return {task: applied.targets[task] for task in cohort.tasks}


def answers(
    cohort: Cohort,
    folder: Path,
    seed: int,
    severity: float,
    loss: StudyLoss | None = None,
    best_epoch: bool = False,
    two_models: bool = False,
    discard: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] | None = None,
) -> Scores:
    """Task -> scores of the test studies by one training; read where it is done already."""
    kept = folder / "answers.json"
    if kept.exists():
        return json.loads(kept.read_text())  # type: ignore[no-any-return]
    torch.manual_seed(seed)
    widths = {m: vectors.shape[1] for m, vectors in cohort.studies["train"].raw.items()}
    model = MultimodalModel(
        {m: TwoLayers(width) for m, width in widths.items()},
        ConcatFusion(cohort.studies["train"].modalities, HIDDEN),
        {task: Task() for task in cohort.tasks},
    )
    targets = told(cohort, "train", severity, seed)
    train = Vectors(cohort.studies["train"], targets if discard is None else discard(targets), seed, BATCH)
    val = Vectors(cohort.studies["val"], told(cohort, "val", severity, seed), seed, BATCH)
    taught = (
        CoTeaching(model, forget=severity, modality_dropout=HIDDEN_RATE)
        if two_models
        else Supervised(model, loss=loss, modality_dropout=HIDDEN_RATE)
    )
    learner = finetuner(model, taught, Optim(lr=1e-3, weight_decay=0.01, warmup=0.05), seed=seed)
    settings = TrainerSettings(
        max_epochs=EPOCHS,
        validate_every=int(best_epoch),
        device="cpu",
        precision="32",
        save_every_steps=10**9,
        log_every=10**6,
    )
    train_to_the_end(learner, train, folder, settings, val=val)
    with torch.no_grad():
        parts = [model(batch) for batch in Vectors(cohort.studies["test"], {}, seed, BATCH)]
    found = {task: torch.cat([part[task] for part in parts]).tolist() for task in cohort.tasks}
    kept.write_text(json.dumps(found))
    return found


def without_suspects(cohort: Cohort, seed: int) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """Forgets the training labels that `find_suspects` doubts."""
    studies = cohort.studies["train"]

    def discard(targets: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        x, left = joined_embeddings(studies), {}
        for task, y in targets.items():
            found = find_suspects(x, y, studies.subject, seed=seed)
            left[task] = y if isinstance(found, str) else np.where(found.suspect, np.nan, y)
        return left

    return discard


def main(checkpoint: str, manifest: Path, out: Path, cache: Path, seeds: int, severity: float) -> None:
    torch.set_num_threads(1)
    cohort = read(checkpoint, manifest, cache)
    arms: dict[str, list[Scores]] = {name: [] for name in (RIGHT, WRONG, STOPPED, CLEANED, *LOSSES, TWO_MODELS)}
    for seed in range(seeds):
        for name, found in arms.items():
            start = time.monotonic()
            discard = without_suspects(cohort, seed) if name == CLEANED else None
            turned = 0.0 if name == RIGHT else severity
            folder = out / f"{name}-seed{seed}"
            found.append(
                answers(cohort, folder, seed, turned, LOSSES.get(name), name == STOPPED, name == TWO_MODELS, discard)
            )
            print(f"seed {seed}, {name}: {time.monotonic() - start:.0f} s", flush=True)
    report(cohort, arms, out, severity)


def report(cohort: Cohort, arms: dict[str, list[Scores]], out: Path, severity: float) -> None:
    """Mean AUROC over tasks and seeds, and the share of what wrong labels cost that each arm gives back."""
    test = cohort.studies["test"]
    draws = np.concatenate(list(draw_weights(test.subject, RESAMPLES, np.random.default_rng(0))))
    weights = np.concatenate([np.ones((1, len(test))), draws])
    values = {
        name: np.array(
            [[auroc(test.targets[t], np.array(one[t]), weights) for t in cohort.tasks] for one in found]
        ).mean(0)
        for name, found in arms.items()
    }
    means = {name: found.mean(0) for name, found in values.items()}
    lost = means[RIGHT] - means[WRONG]
    rows = {}
    for name, value in means.items():
        share = (value - means[WRONG]) / lost
        low, high = np.quantile(share[1:], [0.025, 0.975])
        rows[name] = {
            "auroc": value[0], "by_task": dict(zip(cohort.tasks, values[name][:, 0].tolist(), strict=True)),
            "recovered": share[0], "ci_low": low, "ci_high": high, "by_seed": [
                float(np.mean([auroc(test.targets[t], np.array(one[t]), weights[:1])[0] for t in cohort.tasks]))
                for one in arms[name]
            ],
        }  # fmt: skip
        print(f"{name:40} {value[0]:.3f}  {share[0]:+.0%} [{low:+.0%}, {high:+.0%}]")
    counts = {split: len(studies) for split, studies in cohort.studies.items()}
    protocol = {
        "seeds": len(arms[RIGHT]),
        "severity": severity,
        "epochs": EPOCHS,
        "batch": BATCH,
        "studies": counts,
        "tasks": cohort.tasks,
    }
    (out / "labels.json").write_text(json.dumps({"rows": rows, "protocol": protocol}, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--severity", type=float, default=0.3)
    main(**vars(parser.parse_args()))
