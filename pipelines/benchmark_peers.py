"""Other packages' models for studies with absent modalities, learned from the same vectors: iMML's and MultiVae's.

    python -m venv peers && peers/bin/pip install "imml[deep]==0.6.0" multivae==1.0.3
    peers/bin/python pipelines/benchmark_peers.py VECTORS.npz ANSWERS.npz --seed 0 --models M3Care MUSE MVAE MMVAE MoPoE

VECTORS holds `modalities` (M names), `tasks` (T names) and, for each of train, validation and test, an array `SPLIT_MODALITY`
(n, d) per modality, a row of NaN where it is absent, and `SPLIT_labels` (n, T) of 0, 1, and NaN where unknown; `subsets` (S, M)
says from which modalities each test study is asked. ANSWERS gets an array (n, S, T) of probabilities per model: a study is asked
from what it has of the subset; where that is nothing, NaN. Nothing of medssml is imported: this runs where the peers are.

Vectors are brought to mean 0 and standard deviation 1 on training studies. Settings (SETTINGS, two for each model), the epoch and
the penalties of readers are chosen by the mean AUROC of validation studies, settings and epochs asked from the same subsets.

- M3Care learns all tasks at once, through its own `loss_fn`; MUSE one task after the other, as its loss compares one label. Both
  answer a study from its batch: an asked study stands among training studies, whose labels are not looked at, in a batch as large
  as in training. A batch asks one subset, so that no study meets itself with more modalities.
- MVAE, MMVAE and MoPoE learn from incomplete studies without labels. Logistic regressions on the mean of the joint latent, fitted
  to training studies with what these have, read the labels.
- MAP and RAGPT, iMML's two others, take one picture and one text through a pretrained ViLT: no road for vectors, left out.

What we met, and what is done about it:

- imml 0.6.0, MAP: not exported by `imml.classify`; `import imml.classify.map` ends in "NameError: name 'L' is not defined", and
  `imml.classify._vilt`, which it needs, is in no wheel that we opened (0.1.1, 0.3.1, 0.5.1, 0.6.0).
- imml 0.6.0, M3Care: without `vocab` it asks on the terminal whether it may download one, even where no modality is a text:
  [None] is given. Absent tabular modalities enter the similarity of studies (only texts are masked): left as it is.
- imml 0.6.0, MUSE: rows of NaN, by which its data set knows what is absent, go through a batch norm, and the loss becomes NaN:
  zeros are given in their place. A batch in which no label is known has the loss NaN, too: left out.
- multivae 1.0.3, MMVAE: `beta` of its config is never read: the scale of the decoders is chosen in its place, for all three.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

Array = np.ndarray
Setting = dict[str, Any]

#: What each is chosen from; iMML's defaults come first.
SETTINGS: dict[str, tuple[Setting, ...]] = {
    "M3Care": ({"learning_rate": 1e-4}, {"learning_rate": 1e-3}),
    "MUSE": ({"learning_rate": 2e-4}, {"learning_rate": 1e-3}),
    "MVAE": ({"scale": 1.0}, {"scale": 0.3}),
    "MMVAE": ({"scale": 1.0}, {"scale": 0.3}),
    "MoPoE": ({"scale": 1.0}, {"scale": 0.3}),
}
#: Epochs at most; after which of them validation studies are asked.
EPOCHS = {"M3Care": 30, "MUSE": 30, "MVAE": 60, "MMVAE": 20, "MoPoE": 40}
LOOKS = (2, 5, 10, 15, 20, 30, 40, 60)
PENALTIES = (0.01, 0.1, 1.0, 10.0)
BATCH, LATENT = 128, 32


class Split(NamedTuple):
    """n studies: modality -> vectors (n, d), 0 where absent; present (n, M) bool; labels (n, T), NaN where unknown."""

    vectors: dict[str, Array]
    present: Array
    labels: Array

    def at(self, rows: Array) -> Split:
        """The studies at `rows`."""
        return Split({name: x[rows] for name, x in self.vectors.items()}, self.present[rows], self.labels[rows])

    def within(self, subset: Array) -> Split:
        """The same studies with the modalities of `subset` (M,) bool alone."""
        vectors = {
            name: x if kept else np.zeros_like(x) for (name, x), kept in zip(self.vectors.items(), subset, strict=True)
        }
        return Split(vectors, self.present & subset, self.labels)

    def of(self, tasks: Sequence[int]) -> Split:
        """The same studies with the labels of `tasks` alone."""
        return self._replace(labels=self.labels[:, list(tasks)])


class Cohort(NamedTuple):
    """What a file of vectors holds, in standard deviations of the training studies; subsets (S, M) bool."""

    tasks: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    subsets: Array

    def of(self, tasks: Sequence[int]) -> Cohort:
        """The same cohort with the labels of `tasks` alone."""
        splits = {name: getattr(self, name).of(tasks) for name in ("train", "validation", "test")}
        return self._replace(tasks=tuple(self.tasks[task] for task in tasks), **splits)


class Learner(Protocol):
    """A model in training."""

    def learn(self, epoch: int) -> None:
        """One epoch, counted from 1."""

    def ask(self, studies: Split) -> Array:
        """(n, T) probabilities; every study has at least one modality."""


def read(path: Path) -> Cohort:
    """The cohort of a file of vectors. Training studies that have no modality at all are left out."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    modalities = tuple(map(str, _array(arrays, "modalities", path)))
    tasks = tuple(map(str, _array(arrays, "tasks", path)))
    train, validation, test = (
        _split(arrays, name, modalities, tasks, path) for name in ("train", "validation", "test")
    )
    subsets = _array(arrays, "subsets", path)
    if subsets.dtype != bool or subsets.ndim != 2 or subsets.shape[1] != len(modalities):
        raise ValueError(f"{path}: subsets is {subsets.dtype} {subsets.shape}, expected bool (S, {len(modalities)})")
    train = train.at(np.flatnonzero(train.present.any(1)))
    for column, name in enumerate(modalities):
        seen = train.vectors[name][train.present[:, column]]
        if not len(seen):
            raise ValueError(f"{path}: no training study has {name}; fix: leave it out of modalities")
        mean, deviation = seen.mean(0), seen.std(0) + 1e-6
        for split in (train, validation, test):
            scaled = (split.vectors[name] - mean) / deviation
            split.vectors[name] = np.where(split.present[:, [column]], scaled, 0).astype(np.float32)
    return Cohort(tasks, train, validation, test, subsets)


def _array(arrays: dict[str, Array], name: str, path: Path) -> Array:
    if name not in arrays:
        raise KeyError(f"{path} has no array {name}; it has {', '.join(sorted(arrays))}")
    return arrays[name]


def _split(arrays: dict[str, Array], split: str, modalities: Sequence[str], tasks: Sequence[str], path: Path) -> Split:
    labels = _array(arrays, f"{split}_labels", path).astype(float)
    if labels.ndim != 2 or labels.shape[1] != len(tasks) or not (np.isnan(labels) | np.isin(labels, (0, 1))).all():
        raise ValueError(f"{path}: {split}_labels {labels.shape}: expected (n, {len(tasks)}) of 0, 1 and NaN")
    vectors, present = {}, np.zeros((len(labels), len(modalities)), dtype=bool)
    for column, name in enumerate(modalities):
        x = _array(arrays, f"{split}_{name}", path)
        if x.ndim != 2 or len(x) != len(labels):
            raise ValueError(f"{path}: {split}_{name} is {x.shape}, expected ({len(labels)}, d) as {split}_labels")
        unknown = np.isnan(x)
        present[:, column] = ~unknown.all(1)
        torn = np.flatnonzero(unknown.any(1) & present[:, column])
        if len(torn):
            raise ValueError(
                f"{path}: row {torn[0]} of {split}_{name} is NaN in part; an absent vector is NaN throughout"
            )
        vectors[name] = np.nan_to_num(x).astype(np.float32)
    return Split(vectors, present, labels)


def answers(ask: Callable[[Split], Array], studies: Split, subsets: Array) -> Array:
    """(n, S, T) probabilities of `studies`, each asked from what it has of each subset; NaN where that is nothing."""
    found = np.full((len(studies.labels), len(subsets), studies.labels.shape[1]), np.nan)
    for number, subset in enumerate(subsets):
        part = studies.within(subset)
        rows = np.flatnonzero(part.present.any(1))
        if len(rows):
            found[rows, number] = ask(part.at(rows))
    return found


def mean_auroc(found: Array, labels: Array) -> Array:
    """(T,) AUROC of answers (n, S, T), the mean over subsets; NaN where no subset has studies of both classes."""
    values = np.full(found.shape[1:], np.nan)
    for subset, task in np.ndindex(values.shape):
        told = ~np.isnan(found[:, subset, task]) & ~np.isnan(labels[:, task])
        if len(np.unique(labels[told, task])) == 2:
            values[subset, task] = roc_auc_score(labels[told, task], found[told, subset, task])
    counts = (~np.isnan(values)).sum(0)
    return np.where(counts > 0, np.nansum(values, 0) / np.maximum(counts, 1), np.nan)


def chosen(make: Callable[[Setting], Learner], settings: Sequence[Setting], epochs: int, cohort: Cohort) -> Array:
    """(n, S, T) answers of the setting and epoch that answer validation studies best; says which they are.

    Raises ValueError where no task has validation studies of both classes.
    """
    best, said, found = -np.inf, "", np.empty(0)
    for setting in settings:
        learner = make(setting)
        for epoch in range(1, epochs + 1):
            learner.learn(epoch)
            if epoch not in LOOKS:
                continue
            values = mean_auroc(answers(learner.ask, cohort.validation, cohort.subsets), cohort.validation.labels)
            if np.isnan(values).all():
                raise ValueError(
                    f"{', '.join(cohort.tasks)}: no validation studies of both classes, nothing can be chosen"
                )
            if np.nanmean(values) > best:
                best, said = float(np.nanmean(values)), f"{setting} after {epoch} epochs"
                found = answers(learner.ask, cohort.test, cohort.subsets)
    print(f"  {', '.join(cohort.tasks)}: {said}, validation AUROC {best:.3f}", flush=True)
    return found


def batches(studies: int, seed: int, epoch: int) -> Iterator[Array]:
    """Rows of one epoch in an order of its own, in batches of nearly BATCH."""
    order = np.random.default_rng((seed, epoch)).permutation(studies)
    yield from np.array_split(order, -(-studies // BATCH))


class Graph:
    """iMML's M3Care and MUSE, which answer a study among the studies of its batch."""

    def __init__(self, name: str, cohort: Cohort, seed: int, setting: Setting) -> None:
        import torch
        from imml import classify, load

        torch.manual_seed(seed)
        self.train, self.seed = cohort.train, seed
        self.dataset = getattr(load, f"{name}Dataset")
        kinds = ["tabular"] * len(cohort.train.vectors)
        widths = [x.shape[1] for x in cohort.train.vectors.values()]
        tasks = len(cohort.tasks)
        if name == "M3Care":
            own: Setting = {"vocab": [None], "output_dim": tasks, "loss_fn": _known_cross_entropy}
        else:
            own = {}
        self.estimator = getattr(classify, name)(modalities=kinds, input_dim=widths, **own, **setting)
        self.estimator.get_probs = torch.nn.Sigmoid()
        # What configure_optimizers gives, fused: the same steps in a fraction of the time on a processor.
        rates = {"lr": self.estimator.learning_rate, "weight_decay": self.estimator.weight_decay}
        self.optimiser = torch.optim.Adam(self.estimator.parameters(), **rates, fused=True)
        self.stored = self._stored(cohort.train)

    def _stored(self, studies: Split) -> Any:
        """The package's data set of `studies`."""
        present = studies.present.T[:, :, None]
        vectors = [np.where(there, x, np.nan) for there, x in zip(present, studies.vectors.values(), strict=True)]
        labels = studies.labels[:, 0] if studies.labels.shape[1] == 1 else studies.labels
        return self.dataset(Xs=vectors, y=labels.astype(np.float32))

    def _batch(self, stored: Any, rows: Array) -> tuple[Any, ...]:
        """What the package's loader gives of `rows`, with 0 for NaN."""
        import torch

        vectors = [torch.nan_to_num(x[rows]) for x in stored.Xs]
        if hasattr(stored, "y_indicator"):
            return vectors, stored.y[rows], stored.missing_mod_indicator[rows], stored.y_indicator[rows]
        return vectors, stored.y[rows], stored.observed_mod_indicator[rows]

    def learn(self, epoch: int) -> None:
        self.estimator.train()
        for rows in batches(len(self.train.labels), self.seed, epoch):
            if np.isnan(self.train.labels[rows]).all():
                continue
            self.optimiser.zero_grad()
            self.estimator.training_step(self._batch(self.stored, rows)).backward()
            self.optimiser.step()

    def ask(self, studies: Split) -> Array:
        """(n, T) probabilities, half of each batch asked, the other half training studies."""
        import torch

        asked = len(studies.labels)
        both = (
            np.concatenate([a, b]) for a, b in zip(studies.vectors.values(), self.train.vectors.values(), strict=True)
        )
        vectors = dict(zip(studies.vectors, both, strict=True))
        present = np.concatenate([studies.present, self.train.present])
        labels = np.zeros((len(present), studies.labels.shape[1]))
        stored = self._stored(Split(vectors, present, labels))
        order = np.random.default_rng(self.seed).permutation(len(self.train.labels)) + asked
        found = []
        self.estimator.eval()
        with torch.no_grad():
            for rows in np.array_split(np.arange(asked), -(-asked // (BATCH // 2))):
                batch = self._batch(stored, np.concatenate([rows, order[: BATCH - len(rows)]]))
                found.append(self.estimator.predict_step(batch)[: len(rows)].reshape(len(rows), -1).numpy())
        return np.concatenate(found)


def _known_cross_entropy(logits: Any, labels: Any) -> Any:
    """Binary cross-entropy () of the labels (n,) or (n, T) that are known."""
    import torch

    known = ~torch.isnan(labels)
    return torch.nn.functional.binary_cross_entropy_with_logits(logits.reshape(labels.shape)[known], labels[known])


class Autoencoder:
    """MultiVae's models and, for each task, a logistic regression on the mean of the joint latent."""

    def __init__(self, name: str, cohort: Cohort, seed: int, setting: Setting) -> None:
        import torch
        from multivae import models

        torch.manual_seed(seed)
        self.cohort, self.seed = cohort, seed
        # Names of our own: MoPoE joins names by "_" to say a subset.
        self.names = [f"m{number}" for number in range(len(cohort.train.vectors))]
        widths = {name: (x.shape[1],) for name, x in zip(self.names, cohort.train.vectors.values(), strict=True)}
        # MVAE draws subsets of complete studies only: of incomplete ones each is a subset already.
        own = {"use_subsampling": bool(cohort.train.present.all())} if name == "MVAE" else {}
        config = getattr(models, f"{name}Config")(
            n_modalities=len(widths),
            input_dims=widths,
            latent_dim=LATENT,
            decoder_dist_params={name: {"scale": setting["scale"]} for name in widths},
            **own,
        )
        self.model = getattr(models, name)(config)
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=1e-3, fused=True)
        self.readers: list[LogisticRegression | None] = []

    def _tensors(self, studies: Split) -> dict[str, Any]:
        import torch

        return {name: torch.from_numpy(x) for name, x in zip(self.names, studies.vectors.values(), strict=True)}

    def learn(self, epoch: int) -> None:
        import torch
        from multivae.data.datasets import IncompleteDataset

        train = self.cohort.train
        vectors = self._tensors(train)
        self.model.train()
        rounds = list(batches(len(train.labels), self.seed, epoch))
        for number, rows in enumerate(rounds):
            masks = {name: torch.from_numpy(train.present[rows, column]) for column, name in enumerate(self.names)}
            batch = IncompleteDataset({name: x[rows] for name, x in vectors.items()}, masks)
            self.optimiser.zero_grad()
            self.model(batch, epoch=epoch, batch_ratio=number / len(rounds)).loss.backward()
            self.optimiser.step()
        self.readers = []

    def latent(self, studies: Split) -> Array:
        """(n, latent) mean of the joint posterior, the studies of each pattern together."""
        import torch
        from multivae.data.datasets import MultimodalBaseDataset

        found = np.zeros((len(studies.labels), self.model.latent_dim), dtype=np.float32)
        patterns, numbers = np.unique(studies.present, axis=0, return_inverse=True)
        self.model.eval()
        with torch.no_grad():
            for number, pattern in enumerate(patterns):
                rows = np.flatnonzero(numbers.ravel() == number)
                names = [name for name, there in zip(self.names, pattern, strict=True) if there]
                batch = MultimodalBaseDataset(self._tensors(studies.at(rows)))
                found[rows] = self.model.encode(batch, names, return_mean=True).z.reshape(len(rows), -1).numpy()
        return found

    def ask(self, studies: Split) -> Array:
        if not self.readers:
            self.readers = self._readers()
        latent = self.latent(studies)
        found = np.full((len(latent), len(self.readers)), 0.5)
        for task, reader in enumerate(self.readers):
            if reader is not None:
                found[:, task] = reader.predict_proba(latent)[:, 1]
        return found

    def _readers(self) -> list[LogisticRegression | None]:
        """One reader per task, its penalty chosen on validation studies; None where training labels are of one class."""
        train, validation = self.cohort.train, self.cohort.validation
        validation = validation.at(np.flatnonzero(validation.present.any(1)))
        latent, asked = self.latent(train), self.latent(validation)
        chosen: list[LogisticRegression | None] = []
        for task in range(train.labels.shape[1]):
            known = ~np.isnan(train.labels[:, task])
            if len(np.unique(train.labels[known, task])) < 2:
                chosen.append(None)
                continue
            fits = [
                LogisticRegression(C=c, max_iter=1000).fit(latent[known], train.labels[known, task]) for c in PENALTIES
            ]
            scores = [
                mean_auroc(fit.predict_proba(asked)[:, 1][:, None, None], validation.labels[:, [task]])[0]
                for fit in fits
            ]
            chosen.append(fits[int(np.argmax(np.nan_to_num(scores)))])
        return chosen


def learned(name: str, cohort: Cohort, seed: int) -> Array:
    """(n_test, S, T) probabilities of one model."""
    kind = Graph if name in ("M3Care", "MUSE") else Autoencoder
    every = list(range(len(cohort.tasks)))
    parts = [cohort.of(tasks) for tasks in ([[task] for task in every] if name == "MUSE" else [every])]
    found = [chosen(partial(kind, name, part, seed), SETTINGS[name], EPOCHS[name], part) for part in parts]
    return np.concatenate(found, axis=2)


def main(vectors: Path, out: Path, seed: int, models: Sequence[str]) -> None:
    """Answers of each model into `out`, written anew after each; its time and its AUROC on the test are printed."""
    cohort = read(vectors)
    found: dict[str, Array] = {}
    for name in models:
        print(f"{name}, chosen from {', '.join(map(str, SETTINGS[name]))}", flush=True)
        begun, work = time.perf_counter(), time.process_time()
        found[name] = learned(name, cohort, seed)
        values = mean_auroc(found[name], cohort.test.labels)
        told = ", ".join(f"{task} {value:.3f}" for task, value in zip(cohort.tasks, values, strict=True))
        taken = f"{time.perf_counter() - begun:.0f} s, {time.process_time() - work:.0f} s of processor time"
        print(f"  {taken}; AUROC over subsets {np.nanmean(values):.3f} ({told})", flush=True)
        with out.open("wb") as file:
            np.savez(file, allow_pickle=False, **found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("vectors", type=Path)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", nargs="+", choices=tuple(SETTINGS), default=tuple(SETTINGS))
    given = parser.parse_args()
    main(given.vectors, given.answers, given.seed, given.models)
