"""What verbs there are: a line on each, and an example; nothing is imported for it."""

from __future__ import annotations

from typing import NamedTuple


class Verb(NamedTuple):
    """What the overview says of a verb, and which of its arguments go without a flag."""

    does: str
    example: str
    positional: tuple[str, ...] = ()


VERBS = {
    "demo": Verb("the whole story on a simulated cohort, offline, on a CPU", "demo --out runs/demo"),
    "doctor": Verb("what is installed, what is missing, and the command that fixes it", "doctor"),
    "phantom": Verb("simulate a cohort whose true causes are known", "phantom --out cohort --studies 200 --seed 0"),
    "import": Verb(
        "the manifest of a published layout, a DICOM tree, a FHIR export or any table",
        "import mimic-cxr data/mimic-cxr-jpg --out data/manifest.csv",
        ("name", "root"),
    ),
    "check": Verb(
        "every problem of a manifest and its files, before any training", "check cohort/manifest.csv", ("manifest",)
    ),
    "plan": Verb(
        "crop, spacing, lengths, batch, memory and time from what the files are like, as a config",
        "plan cohort/manifest.csv --out plan.yaml",
        ("manifest",),
    ),
    "prepare": Verb(
        "read and resample every file once, so that training only loads and crops",
        "prepare --config smoke/pretrain --manifest cohort/manifest.csv",
    ),
    "cache": Verb("list, verify or clear a cache of prepared studies", "cache ls --cache runs/cache", ("action",)),
    "pretrain": Verb(
        "learn from studies without labels",
        "pretrain --config smoke/pretrain --manifest cohort/manifest.csv --out runs/pretrain",
    ),
    "finetune": Verb(
        "learn a task from labels, starting from a pretrained run",
        "finetune --checkpoint runs/pretrain --manifest cohort/manifest.csv --task malignant --out runs/malignant",
    ),
    "suspects": Verb(
        "labels that a model's embeddings contradict, and the table with their weights",
        "suspects --checkpoint runs/pretrain --manifest cohort/manifest.csv --task malignant --out runs/suspects",
    ),
    "propagate": Verb(
        "labels of training studies that spread to similar ones without a label, and the table with them",
        "propagate --checkpoint runs/pretrain --manifest cohort/manifest.csv --task malignant --out runs/propagated",
    ),
    "select": Verb(
        "which unlabelled studies to label next",
        "select --checkpoint runs/pretrain --manifest cohort/manifest.csv --task malignant --out runs/selected --count 20",
    ),
    "transfer": Verb(
        "a student of one modality taught by a teacher of others: what it is worth, and whether it is kept",
        "transfer --teacher runs/malignant --student xray --manifest cohort/manifest.csv --task effusion --out runs/xray",
    ),
    "predict": Verb(
        "predictions for any subset of modalities, as CSV",
        "predict --checkpoint runs/malignant --manifest cohort/manifest.csv --out predictions.csv",
    ),
    "embed": Verb(
        "embeddings for any subset of modalities, as Parquet",
        "embed --checkpoint runs/pretrain --manifest cohort/manifest.csv --out embeddings.parquet",
    ),
    "evaluate": Verb(
        "probes, retrieval, zero-shot and metrics for every missing pattern",
        "evaluate --checkpoint runs/malignant --manifest cohort/manifest.csv --out runs/malignant",
    ),
    "impact": Verb(
        "what each modality contributes to the predictions",
        "impact --checkpoint runs/malignant --manifest cohort/manifest.csv --task malignant --out runs/malignant",
    ),
    "stress": Verb(
        "what absent, damaged and mispaired modalities cost, by severity",
        "stress --run runs/malignant --manifest cohort/manifest.csv --out runs/malignant",
    ),
    "ids": Verb(
        "the codes of results back to the ids of a manifest, for who holds the key",
        "ids cohort/manifest.csv --results predictions.csv --out named.csv",
        ("manifest",),
    ),
    "compare": Verb(
        "several runs side by side: metrics with paired intervals, curves, configs",
        "compare runs/scratch runs/finetuned --out compare.html",
        ("runs",),
    ),
    "report": Verb("one offline HTML page of a run folder", "report runs/malignant", ("run",)),
    "ui": Verb("MLflow's own pages on a run folder: curves, results, report", "ui runs/malignant", ("run",)),
    "study cohort": Verb(
        "one pretraining, every task, classical baselines, several seeds: on any cohort",
        "study cohort --manifest cohort/manifest.csv --out runs/cohort --tasks malignant effusion",
    ),
    "study phantom": Verb(
        "what pretraining is worth on simulated cohorts, beside the best that is possible",
        "study phantom --out runs/phantom --seeds 3",
    ),
    "study methods": Verb(
        "methods of pretraining side by side on simulated studies, each beside its random encoder",
        "study methods --out runs/methods --methods small simclr vicreg --seeds 1",
    ),
    "study obstacles": Verb(
        "recipes of fine-tuning under obstacles on simulated studies, by severity, beside the best that is possible",
        "study obstacles --out runs/obstacles --recipe default --recipe distillation --obstacle absent=0.5 --seeds 1",
    ),
}
