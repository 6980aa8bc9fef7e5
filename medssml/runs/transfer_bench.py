"""Students with and without a teacher, one pair per seed: trained, asked, compared, and one of them kept."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medssml.batch import Batch
from medssml.data.datamodule import StudyDataModule
from medssml.data.shard_dataset import Shards
from medssml.evaluation.encoded_studies import encode_studies
from medssml.evaluation.subsets import predict_subsets
from medssml.model import MultimodalModel
from medssml.obstacles.base import Damage
from medssml.predictor import Predictor
from medssml.runs import training
from medssml.runs.calibration import calibration_of
from medssml.runs.finetuning import counted_labels, learner_of, study_weights
from medssml.runs.inference import chosen_device
from medssml.runs.labels import label_account, task_records
from medssml.runs.mixed_batches import mixed, others
from medssml.runs.run_folder import RunFolder
from medssml.runs.student import Student
from medssml.runs.training_config import Transferring
from medssml.runs.transfer_studies import TransferStudies
from medssml.tracking import parent_tags
from medssml.trainers.heads import begin_heads
from medssml.trainers.learner import Learner
from medssml.trainers.probe_first import fit_heads
from medssml.transfer.base import Lesson
from medssml.transfer.gain import Answers
from medssml.transfer.methods import transfer_called

#: Folder of the students' own runs.
FITS = "students"
#: The two students of a seed.
ALONE, TAUGHT = "alone", "taught"
#: What the folder of the kept student takes from the student's own run, beside the model.
TAKEN = ("presence.json", "training_subjects.json", "history.csv", "labels.json", "problems.csv")


@dataclass(frozen=True)
class Bench:
    """All that a pair of students has in common.

    Args:
        teacher: the model that teaches. student: what students are built from.
        config: of the whole; each student's own has its seed and `arm`.
        studies: who learns from what.
        class_weights: task -> weight of each class in the loss of labels.
        before: the subjects that a student has seen through the weights it began with, and through its teacher.
        folder: of the run; students lie below it. cache: folder of prepared studies, or prepared shards.
        plugins: packages that classes may come from.
        sentences: of each class of a task; see `sentence_batches`.
        track: log to MLflow, each student as a run of its own below that of the whole.
        damages: what befalls training and validation studies when they are loaded. suffered: a line on each obstacle of theirs.
    """

    teacher: MultimodalModel
    student: Student
    config: Transferring
    studies: TransferStudies
    class_weights: Mapping[str, Sequence[float]]
    before: Mapping[str, Collection[str]]
    transforms: Mapping[str, Any]
    folder: RunFolder
    cache: Path | Shards
    plugins: Collection[str] = ()
    sentences: Sequence[Batch] = ()
    track: bool = False
    damages: Sequence[Damage] = ()
    suffered: Sequence[str] = ()

    @cached_property
    def data(self) -> dict[str, StudyDataModule]:
        """The studies of either student. A step of the one that is taught has as many labels as one of the other, and as many
        studies without a label beside them."""
        own = {self.student.modality: self.student.transform}
        both = {**own, **self.transforms}
        taught = self.config
        if others(self.studies.taught):
            taught = replace(self.config, data=mixed(self.config.data))
        # A damage of what nobody sees is refused by the one who sees all.
        alone = [damage for damage in self.damages if damage.modality in own]
        return {
            TAUGHT: training.studies(self.studies.taught, both, taught, self.cache, taught.tasks, self.damages),
            ALONE: training.studies(self.studies.alone, own, self.config, self.cache, self.config.tasks, alone),
        }

    @cached_property
    def lesson(self) -> Lesson:
        """Who teaches what. What is asked of other studies or of sentences is read where a method needs it."""
        config = self.config
        return Lesson(self.teacher, config.source, config.tasks, config.weight, self._shown(), self.sentences)

    def _shown(self) -> Iterable[Batch]:
        """The training studies that the teacher sees, as it sees them."""
        if len(table := self.studies.shown):
            damages = [damage for damage in self.damages if damage.modality in self.transforms]
            yield from training.studies(
                table, self.transforms, self.config, self.cache, self.config.tasks, damages
            ).loader("train")

    def refuse(self) -> None:
        """Refuses what cannot be, before anything is trained.

        Raises:
            ValueError: damages that change nothing, or a teacher that does not know what the method asks for.
        """
        _ = self.data
        if not transfer_called(self.config.method).paired:
            self.learner(self.config.seed, TAUGHT)

    def fitted(self, seed: int, arm: str) -> RunFolder:
        """The run folder of a student."""
        return RunFolder(self.folder.path / FITS / f"seed{seed}-{arm}")

    def own_config(self, seed: int, arm: str) -> Transferring:
        """The config of a student; nothing of the teacher is in that of the one that is alone, but what its model is made for."""
        own = replace(self.config, seed=seed, seeds=1, arm=arm)
        if arm == TAUGHT or transfer_called(own.method).alters_student:
            return own
        return replace(own, method="", weight=0.0, source=(), taught_by="")

    def fit(self, seed: int, arm: str) -> int:
        """Trains a student, unless it is done; 0, or the exit code of a training that was stopped."""
        config, folder, data = self.own_config(seed, arm), self.fitted(seed, arm), self.data[arm]
        folder.begin(config.written(), data.all_studies.sha256)
        if folder.done:
            return 0
        folder.tags = {**self.folder.tags, **parent_tags(self.folder.path)}
        with folder.starting(), folder.logging():
            data.reseed(seed)
            training.prepare(data, folder, self.before[arm])
            folder.write_labels(label_account(self.studies.alone, config.tasks))
            learner = self.learner(seed, arm)
            finish = calibration_of(learner.model, data, config)
            card = {"Training": self.said(arm)}
            outcome = training.train(learner, data, folder, config, track=self.track, card=card, finish=finish)
        return outcome.exit_code if outcome.status == "stopped" else 0

    def learner(self, seed: int, arm: str) -> Learner:
        """Labels, and beside them the transfer for the student that is taught. Both arms begin with the same weights."""
        config = self.config
        model, method = self.student.begin(seed, self.plugins), transfer_called(config.method)
        method.prepare(model, self.teacher)
        begin_heads(model, task_records(self.studies.alone, config.tasks, evidence=config.evidence), config.freeze)
        if config.probe_first:
            alone = self.data[ALONE]
            model.fit_descriptors(alone.loader("train"))
            encoded = encode_studies(model, alone.loader("train"))
            fit_heads(model, config.tasks, encoded, seed, counted_labels(config, alone.manifest))
        # The transfer's own weights are drawn last, so that nothing before them depends on the arm.
        torch.manual_seed(seed)
        taught = arm == TAUGHT
        others = [method.of(model, self.lesson)] if taught else []
        return learner_of(
            config, model, self.class_weights, others=others, given=self.teacher if taught else None, seed=seed,
            study_weights=study_weights(config, self.data[arm].manifest), plugins=self.plugins,
        )  # fmt: skip

    def said(self, arm: str) -> str:
        """What the model card says of the training."""
        config, labelled = self.config, self.studies.counts["labelled"]
        text = f"A student of {config.student} for {', '.join(config.tasks)} from {labelled} labelled studies"
        if arm == ALONE:
            return f"{text}, without a teacher."
        shown, both = " and ".join(config.source), self.studies.counts["seen by both"]
        if not both:
            return f"{text}, taught ({config.method}) by a model of {shown}, without a study that both see."
        return f"{text}, taught ({config.method}) on {both} studies, labelled or not, by a model that was shown {shown} of them."

    def answers(self, split: str, seeds: Sequence[int]) -> dict[str, Answers]:
        """Task -> what the students of all seeds answer for the studies of a split."""
        found: dict[str, dict[str, list[np.ndarray]]] = {task: {ALONE: [], TAUGHT: []} for task in self.config.tasks}
        told = None
        for seed in seeds:
            for arm in (ALONE, TAUGHT):
                model = MultimodalModel.load(self.fitted(seed, arm).path, self.plugins)
                batches = self.data[ALONE].loader(split)
                told = predict_subsets(model, batches, self.config.tasks, chosen_device(self.config.trainer.device))
                for task in self.config.tasks:
                    found[task][arm].append(told.observed(told.probabilities(task)))
        if told is None:
            raise ValueError("no seed, so no answer; fix: --seeds 1 or more")
        return {
            task: Answers(
                told.kinds[task], told.target(task), told.subject, np.stack(arms[ALONE]), np.stack(arms[TAUGHT])
            )
            for task, arms in found.items()
        }

    def keep(self, seed: int, arm: str) -> None:
        """Puts a student's model into the run folder, last of all: a run that has one is done."""
        fit, beside = self.fitted(seed, arm), self.folder.path / ".model.tmp"
        for name in TAKEN:
            if (fit.path / name).exists():
                shutil.copyfile(fit.path / name, self.folder.path / name)
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(fit.model, beside)
        shutil.rmtree(self.folder.model, ignore_errors=True)
        beside.rename(self.folder.model)


def sentence_batches(
    teacher: MultimodalModel, transforms: Mapping[str, Any], prompts: Mapping[str, Mapping[str, Sequence[str]]]
) -> list[Batch]:
    """The sentences of each task as studies that have a report alone, labelled with the class that they name.

    Args:
        prompts: task -> class -> its sentences, the classes in their order.

    Raises:
        ValueError: the teacher reads no report.
    """
    if prompts and "report" not in teacher.modalities:
        raise ValueError(
            f"--prompts are sentences, and the teacher reads {', '.join(teacher.modalities)}; fix: a teacher that reads reports"
        )
    found = []
    for task, classes in prompts.items():
        said = [(sentence, place) for place, several in enumerate(classes.values()) for sentence in several]
        batch = Predictor(teacher, transforms).batch([{"report": sentence} for sentence, _ in said])
        found.append(replace(batch, targets={task: torch.tensor([float(place) for _, place in said])}))
    return found


def best_seed(tasks: Mapping[str, Answers], seeds: Sequence[int], *, taught: bool) -> int:
    """The seed whose student has the best mean metric on these studies; the first where none is defined."""
    scores: list[np.ndarray] = []
    for answers in tasks.values():
        if answers.reason is None:
            once = np.ones((1, len(answers.y)))
            scores.append(answers.metric(once, answers.transfer if taught else answers.without)[0])
    return seeds[int(np.mean(scores, axis=0).argmax())] if scores else seeds[0]
