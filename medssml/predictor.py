"""Predictor: a saved model with its transforms; files of any modalities in, probabilities or an embedding out."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from medssml.batch import Batch
from medssml.checkpoint import CheckpointError, model_folder, read_config
from medssml.data.collate import collate
from medssml.decoders import ReportDecoder
from medssml.model import TOKENIZER, MultimodalModel
from medssml.spaces import SharedSpace

#: One study: modality -> path, or the text of a report.
Study = Mapping[str, "str | os.PathLike[str]"]

#: Endings by which a text is known to name a file.
TEXT_SUFFIXES = {".txt", ".xml", ".json", ".dcm", ".csv"}


_Part = TypeVar("_Part", SharedSpace, ReportDecoder)


class Predictor:
    """A model and the transforms that its inputs went through when it was trained.

        predictor = medssml.load("runs/demo")
        predictor.predict({"ct": "a.nii.gz", "report": "No acute findings."}, task="malignant")

    Args:
        model: put in evaluation mode.
        transforms: modality -> transform.
    """

    def __init__(self, model: MultimodalModel, transforms: Mapping[str, Any]) -> None:
        self.model = model.eval()
        self.transforms = dict(transforms)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names that a study may have."""
        return self.model.modalities

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names that can be predicted."""
        return tuple(self.model.tasks)

    def batch(self, studies: Sequence[Study]) -> Batch:
        """The batch of `studies`, read and transformed as in evaluation.

        Raises:
            KeyError: a modality that the model does not have.
            FileNotFoundError: a file is not there.
            ValueError: a study without anything.
        """
        samples = [self._sample(index, study) for index, study in enumerate(studies)]
        device = next(self.model.parameters()).device
        return collate(samples, self.modalities).to(device)

    def predict(self, inputs: Study | Sequence[Study], task: str | None = None) -> Any:
        """Probability of each task; a list of K for a multiclass task, the value for a regression.

        Args:
            inputs: one study, or a list of studies.
            task: only this one; None for all.

        Returns:
            {task: probability}, or a list of such dicts for a list of studies.

        Raises:
            KeyError: no such task.
        """
        if task is not None and task not in self.model.tasks:
            raise KeyError(f"no task {task!r}; this model has {list(self.tasks) or 'none: it is pretrained only'}")
        studies = [inputs] if isinstance(inputs, Mapping) else list(inputs)
        with torch.inference_mode():
            logits = self.model(self.batch(studies))
        names = self.tasks if task is None else (task,)
        values = {name: probability(logits[name], self.model.tasks[name].kind).tolist() for name in names}
        answers = [{name: values[name][row] for name in names} for row in range(len(studies))]
        return answers[0] if isinstance(inputs, Mapping) else answers

    def embed(self, inputs: Study | Sequence[Study]) -> Tensor:
        """(B, D) float32 embeddings of B studies; (1, D) of one."""
        studies = [inputs] if isinstance(inputs, Mapping) else list(inputs)
        batch = self.batch(studies)
        with torch.inference_mode():
            return self.model.fuse(self.model.encode(batch), batch.present).pooled.float()

    def place(self, inputs: Study | Sequence[Study]) -> Tensor:
        """(B, d) unit vectors of B studies in the space that pretraining kept, in which modalities find each other.

        A study with several modalities of that space has the direction of their mean.

        Raises:
            ValueError: a study has none of them. CheckpointError: this model kept no such space.
        """
        studies = [inputs] if isinstance(inputs, Mapping) else list(inputs)
        space = self._kept(SharedSpace, "in which to compare modalities", "CrossModalContrast")
        batch = self.batch(studies)
        with torch.inference_mode():
            encoded = self.model.encode(batch)
            total = batch.present.new_zeros(len(batch), space.dim, dtype=torch.float32)
            for name in space.modalities:
                if name in encoded:
                    total = total.index_add(0, batch.rows(name), space(name, encoded[name].pooled))
        if not bool(total.any(1).all()):
            index = int((~total.any(1)).nonzero()[0])
            raise ValueError(f"study {index} has none of {list(space.modalities)}, which can be compared; fix: add one")
        return torch.nn.functional.normalize(total, dim=1)

    def retrieve(self, query: Study, among: Sequence[Study], *, top: int = 5) -> list[tuple[int, float]]:
        """(position in `among`, cosine) of the `top` studies that are nearest to `query`, the nearest first.

            predictor.retrieve({"xray": "chest.png"}, [{"report": text} for text in reports])

        Raises:
            as `place`.
        """
        similarity = self.place(among) @ self.place(query)[0]
        order = similarity.argsort(descending=True, stable=True)[:top]
        return [(int(row), float(similarity[row])) for row in order]

    def zero_shot(
        self, inputs: Study | Sequence[Study], prompts: Mapping[str, str | Sequence[str]], *, temperature: float = 0.07
    ) -> Any:
        """Probability of each class from sentences that name it (Radford et al. 2021): no label was learned.

            predictor.zero_shot({"ct": "a.nii.gz"}, {"effusion": "Large pleural effusion.", "none": "No effusion."})

        Args:
            inputs: one study, or a list of studies.
            prompts: class -> a report's sentence, or several, of which the mean direction is taken.
            temperature: of the softmax over the classes.

        Returns:
            {class: probability}, or a list of such dicts for a list of studies.

        Raises:
            as `place`. ValueError: fewer than two classes.
        """
        if len(prompts) < 2:
            raise ValueError(f"prompts names {list(prompts)}; fix: a sentence for each of two classes or more")
        directions = []
        for said in prompts.values():
            sentences = [said] if isinstance(said, str) else list(said)
            directions.append(
                torch.nn.functional.normalize(self.place([{"report": s} for s in sentences]).mean(0), dim=0)
            )
        scores = (self.place(inputs) @ torch.stack(directions).T / temperature).softmax(1)
        answers = [dict(zip(prompts, row, strict=True)) for row in scores.tolist()]
        return answers[0] if isinstance(inputs, Mapping) else answers

    def generate(self, inputs: Study | Sequence[Study]) -> Any:
        """The report that the model would write of one study (a text) or of several (a list), from what they have but it.

        Raises:
            CheckpointError: this model kept no decoder. ValueError: a study has a report and nothing else.
        """
        studies = [inputs] if isinstance(inputs, Mapping) else list(inputs)
        decoder = self._kept(ReportDecoder, "that writes reports", "Captioning")
        shown = [{name: source for name, source in study.items() if name != "report"} for study in studies]
        batch = self.batch(shown)
        with torch.inference_mode():
            fused = self.model.fuse(self.model.encode(batch), batch.present)
            ids = decoder.write(fused.tokens, fused.mask)
        texts = [_words(self.transforms["report"], row) for row in ids.tolist()]
        return texts[0] if isinstance(inputs, Mapping) else texts

    def _kept(self, kind: type[_Part], what: str, objective: str) -> _Part:
        found = next((part for part in self.model.kept.values() if isinstance(part, kind)), None)
        if found is None:
            raise CheckpointError(
                f"this model kept nothing {what}; fix: pretrain with {objective}, and ask the pretrained model: "
                f"fine-tuning leaves it behind"
            )
        return found

    def _sample(self, index: int, study: Study) -> dict[str, Any]:
        unknown = sorted(set(study) - set(self.modalities))
        if unknown:
            raise KeyError(f"study {index}: unknown modality {unknown[0]!r}; this model takes {list(self.modalities)}")
        given = {name: study[name] for name in self.modalities if study.get(name)}
        if not given:
            raise ValueError(f"study {index} has nothing; give at least one of {list(self.modalities)}")
        sample: dict[str, Any] = {"study_id": str(index), "subject": index, "key": index, "targets": {}}
        sample["content"] = dict.fromkeys(given, index)
        for name, source in given.items():
            if name not in self.transforms:
                raise CheckpointError(
                    f"this model was saved without a transform for {name}; fix: save it with transforms"
                )
            transform = self.transforms[name]
            sample[name] = transform(transform.prepare(_source(name, source, transform)), None)
        return sample


def probability(logits: Tensor, kind: str) -> Tensor:
    """(B,) or (B, K) probabilities from the logits of a task of this kind; a regression's values stay themselves."""
    logits = logits.float()
    if kind == "binary":
        return logits.sigmoid()
    return logits.softmax(-1) if kind == "multiclass" else logits


def _words(transform: Any, ids: Sequence[int]) -> str:
    """The text of token ids, by the vocabulary of a report's transform or of one of its steps."""
    for step in (transform, *getattr(transform, "steps", ())):
        if hasattr(step, "vocabulary"):
            return str(step.vocabulary.decode(ids))
    raise CheckpointError(f"the transform of report, {type(transform).__name__}, has no vocabulary to write with")


def _source(name: str, source: str | os.PathLike[str], transform: Any) -> Path | str:
    """The file; of a report or a table also the text itself, where it names no file."""
    path = Path(source)
    if isinstance(source, str) and getattr(transform, "takes_text", False):
        named = path.suffix.lower() in TEXT_SUFFIXES and "\n" not in source
        if not named or (" " in source and not path.exists()):
            return source
    if not path.exists():
        raise FileNotFoundError(f"{name}: no file {source}")
    return path


def load_transforms(folder: str | Path, plugins: Collection[str] = ()) -> dict[str, Any]:
    """Modality -> the transform that was saved with the model.

    Raises:
        CheckpointError: a transform cannot be built.
    """
    from medssml.transforms.road import built_road

    folder = model_folder(folder)
    transforms = {}
    for name, part in read_config(folder).get("transforms", {}).items():
        nodes = [_with_tokenizer(node, folder) for node in (part if isinstance(part, list) else [part])]
        try:
            transforms[name] = built_road(name, nodes if isinstance(part, list) else nodes[0], plugins)
        except (KeyError, TypeError, ValueError) as error:
            reason = error.args[0] if error.args else error
            raise CheckpointError(f"the transform of {name} in {folder} cannot be built: {reason}") from error
    return transforms


def _with_tokenizer(node: Any, folder: Path) -> Any:
    """The node of a step, its tokenizer the one that was saved in the folder."""
    arguments = dict(node.get("init_args") or {})
    if arguments.get("tokenizer") != TOKENIZER:
        return node
    return {**node, "init_args": {**arguments, "tokenizer": str(folder / TOKENIZER)}}


def load(path: str | Path, plugins: Collection[str] = (), device: str = "cpu") -> Predictor:
    """The predictor of a run folder or model folder.

    Args:
        path: written by a verb, or by `MultimodalModel.save`.
        plugins: packages outside medssml that its classes may come from.
        device: "cpu" or "cuda".

    Raises:
        medssml.checkpoint.CheckpointError: a pickle, damaged, of another format, or weights that do not fit.
    """
    return Predictor(MultimodalModel.load(path, plugins).to(device), load_transforms(path, plugins))
