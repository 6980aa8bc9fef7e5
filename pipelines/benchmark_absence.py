"""Half of all modalities absent: how far every remedy stays from the best possible answer, over all subsets of modalities.

    medssml phantom --preset small --studies 3000 --missing 0 --seed 0 --out cohort
    medssml pretrain --config small --manifest cohort/manifest.csv --out runs/pretrain
    python pipelines/benchmark_absence.py --checkpoint runs/pretrain --manifest cohort/manifest.csv --out runs/absence

where the pretraining saw the same half (--set "data.obstacles=[{class_path: Absent, init_args: {severity: 0.6667}}]"). Encoders
stay as it left them; on their vectors every fusion and remedy learns all tasks in the same number of steps, with the settings
of its paper or its defaults: nothing is chosen. Training and validation studies lack modalities, test studies have all and are
asked from every subset. Of a task and a subset the gap is the AUROC of the best possible answer less that of the model. Where
absence depends on the label (of the first task), test studies are also asked from what it leaves of them, and from what its
reverse does. `--run NAME=FOLDER` adds a run of `medssml finetune`, whose encoders learn along; `--export` writes the vectors
for pipelines/benchmark_peers.py, and `--answers` reads what the peers said.

`--labels 0.25` learns from a quarter of the training subjects: what lacks data falls with more of it.

A row per model and pattern is a line of OUT/absence.jsonl; what is there is not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
from on_vectors import SPLITS, Cohort, Given, Vectors, read, train_to_the_end  # noqa: E402
from scipy.special import expit  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402

from medssml import fusion as fusions  # noqa: E402
from medssml import objectives  # noqa: E402
from medssml.config import load_config  # noqa: E402
from medssml.data.prepared_studies import prepare_studies  # noqa: E402
from medssml.evaluation.bayes import bayes_by_subset, known_truth  # noqa: E402
from medssml.evaluation.encoded_studies import (  # noqa: E402
    EncodedStudies,
    bits,
    encode_studies,
    subset_name,
    subsets,
)
from medssml.evaluation.pattern_ensemble import pattern_ensemble  # noqa: E402
from medssml.evaluation.subsets import predict_subsets  # noqa: E402
from medssml.fusion import Fusion  # noqa: E402
from medssml.manifest.manifest import Manifest  # noqa: E402
from medssml.model import MultimodalModel, Task  # noqa: E402
from medssml.objectives import Objective, Supervised  # noqa: E402
from medssml.obstacles import Absent, AbsentByLabel  # noqa: E402
from medssml.obstacles.absence import Absence  # noqa: E402
from medssml.predictor import load  # noqa: E402
from medssml.runs.labels import labelled_studies  # noqa: E402
from medssml.runs.presence_weights import label_weights_by_presence  # noqa: E402
from medssml.runs.training_config import FinetuneConfig  # noqa: E402
from medssml.shipped_configs import config_path  # noqa: E402
from medssml.statistics.calibration import calibration_error  # noqa: E402
from medssml.statistics.metrics import auroc  # noqa: E402
from medssml.trainers.finetune import finetuner  # noqa: E402
from medssml.trainers.probe_first import fit_heads  # noqa: E402
from medssml.trainers.settings import Optim, TrainerSettings  # noqa: E402

Array = np.ndarray
#: A share of what could go: of four modalities, half are absent.
SEVERITY = 2 / 3
EPOCHS, SIZE, WIDTH = 25, 64, 64
COMPLETE, MCAR, MNAR = "complete", "at random", "by the label"


class Row(NamedTuple):
    """A fusion of so many modalities, what is learned beside the labels, and what differs from the others in how.

    weights: labels are weighed by presence. probes: it begins as a stack of probes, and `scales` are of the rate.
    """

    fusion: Callable[[Sequence[str]], Fusion]
    others: Callable[[MultimodalModel], list[Objective]] = lambda model: []
    weights: bool = False
    probes: bool = False
    rate: float = 1e-3
    scales: Mapping[str, float] = {}


def additive(names: Sequence[str]) -> Fusion:
    """Log odds that add up, and no more."""
    return fusions.AdditiveFusion(names, WIDTH, 0)


def factors(names: Sequence[str]) -> Fusion:
    """That of configs/finetune/default.yaml."""
    return fusions.FactorFusion(names, WIDTH)


#: The rates of configs/finetune/default.yaml, of which the encoders' are not needed here.
DEFAULT = load_config(config_path("default", "finetune"), FinetuneConfig).optim
RATE, SCALES = DEFAULT.lr, {part: rate for part, rate in DEFAULT.scales.items() if not part.startswith("encoders")}
ROWS: dict[str, Row] = {
    "ConcatFusion": Row(lambda names: fusions.ConcatFusion(names, WIDTH)),
    "AdditiveFusion(depth=0)": Row(additive),
    "AdditiveFusion": Row(lambda names: fusions.AdditiveFusion(names, WIDTH)),
    "MaskedAttention": Row(lambda names: fusions.MaskedAttention(names, WIDTH, 1, 4)),
    "ProductOfExperts": Row(lambda names: fusions.ProductOfExperts(names, WIDTH)),
    "MixtureOfExperts": Row(lambda names: fusions.MixtureOfExperts(names, WIDTH)),
    "PromptedAttention (prompts)": Row(lambda names: fusions.PromptedAttention(names, WIDTH)),
    "PatternRouting (Flex-MoE)": Row(lambda names: fusions.PatternRouting(names, WIDTH)),
    "SharedSpecific (ShaSpec)": Row(
        lambda names: fusions.SharedSpecificFusion(names, WIDTH), lambda model: [objectives.SharedSpecific(model)]
    ),
    "MaskedModality (ActionMAE)": Row(additive, lambda model: [objectives.MaskedModality(model, weight=0.1)]),
    "SubsetDistillation": Row(additive, lambda model: [objectives.SubsetDistillation(model)]),
    "RegressionImputation": Row(lambda names: fusions.RegressionImputation(names, WIDTH, additive(names))),
    "RetrievalImputation": Row(lambda names: fusions.RetrievalImputation(names, WIDTH, additive(names))),
    "MMFormer": Row(lambda names: fusions.MMFormer(names, WIDTH)),
    "SMIL": Row(
        lambda names: fusions.PriorImputation(names, WIDTH, additive(names)), lambda model: [objectives.SMIL(model)]
    ),
    "weights by presence": Row(additive, weights=True),
    "FactorFusion": Row(factors, rate=RATE, scales=SCALES, probes=True),
    "FactorFusion, weights by presence": Row(factors, rate=RATE, scales=SCALES, probes=True, weights=True),
}


class Bench(NamedTuple):
    """A cohort, its truth, and which studies lack what."""

    cohort: Cohort
    truth: pd.DataFrame
    seed: int

    def absence(self, pattern: str, flipped: bool = False) -> Absence:
        """What befalls the studies, fitted to those of training."""
        kind = AbsentByLabel(SEVERITY, self.seed, task=self.cohort.tasks[0], flipped=flipped)
        obstacle = kind if pattern == MNAR else Absent(0.0 if pattern == COMPLETE else SEVERITY, self.seed)
        obstacle.fit(self.cohort.table["train"])
        return obstacle

    def present(self, split: str, pattern: str, flipped: bool = False) -> Array:
        """(N, M) bool of a split's studies, in their order."""
        return np.asarray(self.absence(pattern, flipped).applied(self.cohort.table[split]).present)


def with_labels_of(cohort: Cohort, share: float, seed: int) -> Cohort:
    """The same with a share of the training subjects, as `medssml finetune --labels` chooses them."""
    fewer = labelled_studies(cohort.table["train"], cohort.tasks, share, seed=seed)
    place = {study: row for row, study in enumerate(cohort.studies["train"].study_id)}
    rows = np.array([place[str(study)] for study in fewer.study_codes])
    studies = {**cohort.studies, "train": cohort.studies["train"].take(rows)}
    return cohort._replace(studies=studies, table={**cohort.table, "train": fewer})


def learned(bench: Bench, row: Row, pattern: str, folder: Path) -> Array:
    """(N, 2^M, T) logits of the test studies by one training on the vectors."""
    cohort, seed = bench.cohort, bench.seed
    torch.manual_seed(seed)
    widths = {m: vectors.shape[1] for m, vectors in cohort.studies["train"].raw.items()}
    names, tasks = cohort.studies["train"].modalities, cohort.tasks
    model = MultimodalModel({m: Given(widths[m]) for m in names}, row.fusion(names), {task: Task() for task in tasks})
    targets = {task: cohort.studies["train"].targets[task] for task in tasks}
    present = bench.present("train", pattern)
    train = Vectors(cohort.studies["train"], targets, seed, SIZE, present)
    ids = cohort.studies["train"].study_id
    given = {task: label_weights_by_presence(ids, names, present, y) for task, y in targets.items()}
    weights = given if row.weights else {}
    listed = {task: counts.of_whole(ids).tolist() for task, counts in weights.items()} or None
    taught = Supervised(model, modality_dropout=0.3, unimodal_weight=0.5, study_weights=listed)
    optim = Optim(lr=row.rate, weight_decay=0.05, warmup=0.1, scales=dict(row.scales))
    learner = finetuner(model, taught, optim, others=row.others(model), seed=seed)
    model.standardise.load_state_dict(cohort.standardise.state_dict())
    if row.probes:
        fit_heads(model, tasks, encode_studies(model, train), seed, weights)
    settings = TrainerSettings(
        max_epochs=EPOCHS, validate_every=0, ema=0.98, device="cpu", precision="32", save_every_steps=10**9, log_every=10**6
    )  # fmt: skip
    train_to_the_end(learner, train, folder, settings, studies=train)
    model.eval()
    return answered(model, encode_studies(model, Vectors(cohort.studies["test"], {}, seed, SIZE)), tasks)


def answered(model: MultimodalModel, studies: EncodedStudies, tasks: Sequence[str]) -> Array:
    """(N, 2^M, T) logits."""
    found = predict_subsets(model, studies)
    return np.stack([found.outputs[task] for task in tasks], axis=-1)


def classical(bench: Bench, pattern: str, ensemble: bool) -> Array:
    """(N, 2^M, T) logits without a network: a head of each subset, or one regression on zeros and flags."""
    train, test, tasks = bench.cohort.studies["train"], bench.cohort.studies["test"], bench.cohort.tasks
    seen = bench.present("train", pattern)
    if ensemble:
        part = encode_studies(_plain(train), Vectors(train, {t: train.targets[t] for t in tasks}, 0, SIZE, seen))
        asked = encode_studies(_plain(train), Vectors(test, {}, 0, SIZE))
        found = pattern_ensemble(part, asked, {task: Task() for task in tasks}, seed=bench.seed)
        return np.stack([found.outputs[task] for task in tasks], axis=-1)
    x = np.stack([train.raw[m].numpy() for m in train.modalities], 1)
    mean = np.stack([x[seen[:, j], j].mean(0) for j in range(x.shape[1])])
    sd = np.stack([x[seen[:, j], j].std(0) for j in range(x.shape[1])]) + 1e-6
    out = np.zeros((len(test), 2 ** x.shape[1], len(tasks)))
    asked_x = (np.stack([test.raw[m].numpy() for m in test.modalities], 1) - mean) / sd

    def flagged(values: Array, there: Array) -> Array:
        return np.hstack([(values * there[..., None]).reshape(len(values), -1), there.astype(float)])

    for k, task in enumerate(tasks):
        model = LogisticRegression(C=0.01, max_iter=1000).fit(flagged((x - mean) / sd, seen), train.targets[task])
        for mask in subsets(test.modalities)[1:]:
            there = np.tile([(mask >> j) & 1 == 1 for j in range(x.shape[1])], (len(test), 1))
            out[:, mask, k] = model.decision_function(flagged(asked_x, there))
    return out


def _plain(studies: EncodedStudies) -> MultimodalModel:
    """A model that leaves vectors as they are."""
    widths = {m: vectors.shape[1] for m, vectors in studies.raw.items()}
    model = MultimodalModel(
        {m: Given(w) for m, w in widths.items()}, fusions.AdditiveFusion(list(widths), max(widths.values()), 0)
    )
    with torch.no_grad():
        for name in model.modalities:
            model.project[name].load_state_dict(
                {"weight": torch.eye(model.dim, widths[name]), "bias": torch.zeros(model.dim)}
            )
    return model


def measured(bench: Bench, logits: Array, pattern: str) -> dict[str, Any]:
    """Gaps to the best possible answer, calibration and confidence per subset, and what the reverse pattern costs."""
    test, tasks = bench.cohort.studies["test"], bench.cohort.tasks
    masks = subsets(test.modalities)[1:]
    gaps, errors, sure, right = ({} for _ in range(4))
    one = np.ones((1, len(test)))
    for k, task in enumerate(tasks):
        best, y = _best(bench, task), test.targets[task]
        for mask in masks:
            name, p = subset_name(mask, test.modalities), expit(logits[:, mask, k].astype(float))
            gaps[task, name] = float(auroc(y, best[name], one)[0] - auroc(y, p, one)[0])
            errors[task, name] = float(calibration_error(y, p, one)[0])
            sure[task, mask] = float(np.maximum(p, 1 - p).mean())
            right[task, mask] = float(((p > 0.5) == (y > 0.5)).mean())
    found: dict[str, Any] = {
        "gap": float(np.mean(list(gaps.values()))),
        "gap_complete": float(np.mean([gaps[task, subset_name(masks[-1], test.modalities)] for task in tasks])),
        "worst": max(gaps, key=lambda key: gaps[key]),
        "worst_gap": max(gaps.values()),
        "by_task": {task: float(np.mean([gap for (t, _), gap in gaps.items() if t == task])) for task in tasks},
        "calibration_error": float(np.mean(list(errors.values()))),
        "calibration_error_worst": max(errors.values()),
        "surer_with_less": surer(sure, right, tasks, masks),
    }  # fmt: skip
    if pattern == MNAR:
        found |= {
            name: _as_left(bench, logits, flipped) for name, flipped in (("gap_same", False), ("gap_reversed", True))
        }
    return found


def _best(bench: Bench, task: str) -> dict[str, Array]:
    test = bench.cohort.studies["test"]
    found = bayes_by_subset(bench.truth, test.study_id, task, test.modalities)
    if found is None:
        raise ValueError(f"no best possible answer of {task} is known; fix: a simulated cohort")
    return found


def surer(sure: Mapping[Any, float], right: Mapping[Any, float], tasks: Sequence[str], masks: Sequence[int]) -> float:
    """The share of (task, subset, modality taken away) after which answers are surer without being right more often."""
    steps = [(t, m, m & ~(1 << j)) for t in tasks for m in masks for j in range(8) if m >> j & 1 and m & ~(1 << j)]
    return float(np.mean([sure[t, less] > sure[t, m] and right[t, less] <= right[t, m] for t, m, less in steps]))


def _as_left(bench: Bench, logits: Array, flipped: bool) -> float:
    """Mean gap of the tasks, each test study asked from what absence leaves of it."""
    test, one = bench.cohort.studies["test"], np.ones((1, len(bench.cohort.studies["test"])))
    left = bits(bench.present("test", MNAR, flipped))
    found = []
    for k, task in enumerate(bench.cohort.tasks):
        best = _best(bench, task)
        y, rows = test.targets[task], np.arange(len(test))
        of = np.array(
            [best[subset_name(int(mask), test.modalities)][row] for row, mask in zip(rows, left, strict=True)]
        )
        found.append(auroc(y, of, one)[0] - auroc(y, logits[rows, left, k].astype(float), one)[0])
    return float(np.mean(found))


def of_run(folder: str, manifest: Path, cache: Path, tasks: Sequence[str]) -> Array:
    """(N, 2^M, T) logits of the test studies by a run of its own encoders."""
    predictor = load(folder)
    table = Manifest.read(manifest, modalities=predictor.modalities).split("test")
    return answered(
        predictor.model,
        encode_studies(predictor.model, prepare_studies(table, predictor.transforms, cache).batches()),
        tasks,
    )


def export(bench: Bench, pattern: str, path: Path) -> None:
    """The vectors for pipelines/benchmark_peers.py."""
    names, tasks = bench.cohort.studies["train"].modalities, bench.cohort.tasks
    out: dict[str, Any] = {"modalities": np.array(names), "tasks": np.array(tasks)}
    for split, called in zip(SPLITS, ("train", "validation", "test"), strict=True):
        studies = bench.cohort.studies[split]
        there = studies.has if split == "test" else bench.present(split, pattern)
        for j, name in enumerate(names):
            out[f"{called}_{name}"] = np.where(there[:, [j]], studies.raw[name].numpy(), np.nan).astype(np.float32)
        out[f"{called}_labels"] = np.stack([studies.targets[task] for task in tasks], 1)
    out["subsets"] = np.array([[(m >> j) & 1 == 1 for j in range(len(names))] for m in subsets(names)[1:]])
    np.savez(path, **out)


def main(args: argparse.Namespace) -> None:
    """A line per model and pattern."""
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    cohort = read(args.checkpoint, args.manifest, args.cache)
    cohort = with_labels_of(cohort, args.labels, args.seed)
    truth = known_truth(args.manifest, None)
    if truth is None or not cohort.studies["train"].has.all():
        raise SystemExit(f"{args.manifest}: no complete simulated cohort; fix: medssml phantom --missing 0")
    bench = Bench(cohort, truth, args.seed)
    lines = args.out / "absence.jsonl"
    done = (
        {
            (row["model"], row["pattern"], row.get("labels", 1.0))
            for row in map(json.loads, lines.read_text().splitlines())
        }
        if lines.exists()
        else set()
    )

    def note(model: str, pattern: str, answers: Callable[[], Array]) -> None:
        if (model, pattern, args.labels) in done or (args.model and model not in args.model):
            return
        start = time.monotonic()
        found = measured(bench, answers(), pattern)
        row = {
            "model": model,
            "pattern": pattern,
            "seed": bench.seed,
            "labels": args.labels,
            **found,
            "seconds": round(time.monotonic() - start, 1),
        }
        with lines.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(
            f"{pattern}, {model}: gap {found['gap']:.4f}, complete {found['gap_complete']:.4f}, {row['seconds']} s",
            flush=True,
        )

    for pattern in args.pattern:
        if args.export:
            export(bench, pattern, args.export)
            continue
        note("zeros and flags", pattern, lambda p=pattern: classical(bench, p, False))  # type: ignore[misc]
        note("an ensemble per pattern", pattern, lambda p=pattern: classical(bench, p, True))  # type: ignore[misc]
        for name, row in ROWS.items():
            folder = args.out / "trainings" / f"{name}-{pattern}-{args.labels:g}"
            note(name, pattern, lambda r=row, p=pattern, f=folder: learned(bench, r, p, f))  # type: ignore[misc]
        if args.answers:
            with np.load(args.answers) as said:
                for name in said.files:
                    note(f"{name} (peer)", pattern, lambda a=said[name]: _of_peer(a, bench))  # type: ignore[misc]
        for given in args.run:
            name, _, folder = given.partition("=")
            note(name, pattern, lambda f=folder: of_run(f, args.manifest, args.cache, cohort.tasks))  # type: ignore[misc]


def _of_peer(probabilities: Array, bench: Bench) -> Array:
    """(N, 2^M, T) logits from (N, 2^M - 1, T) probabilities."""
    names = bench.cohort.studies["test"].modalities
    out = np.zeros((len(probabilities), 2 ** len(names), probabilities.shape[2]))
    p = np.clip(probabilities.astype(float), 1e-6, 1 - 1e-6)
    out[:, subsets(names)[1:]] = np.log(p) - np.log(1 - p)
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--labels", type=float, default=1.0, help="share of the training subjects that are learned from"
    )
    parser.add_argument("--pattern", action="append", choices=[COMPLETE, MCAR, MNAR], help="all three by default")
    parser.add_argument("--model", action="append", help="a row of the table; all by default")
    parser.add_argument(
        "--run", action="append", default=[], help="NAME=FOLDER of a fine-tuned run, taught with the one pattern"
    )
    parser.add_argument("--export", type=Path, help="an .npz for pipelines/benchmark_peers.py; one pattern")
    parser.add_argument("--answers", type=Path, help="the .npz that it wrote")
    given = parser.parse_args()
    given.pattern = given.pattern or [COMPLETE, MCAR, MNAR]
    if len(given.pattern) > 1 and (given.run or given.export or given.answers):
        parser.error("--run, --export and --answers are of one --pattern")
    main(given)
