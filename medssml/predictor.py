"""Predictor: a saved model with its transforms; files of any modalities in, probabilities or an embedding out."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from medssml.batch import Batch, Fused
from medssml.checkpoint import CheckpointError, model_folder, read_config
from medssml.data.collate import collate
from medssml.decoders import ReportDecoder
from medssml.drafts import Drafting
from medssml.manifest.columns import inline_columns
from medssml.manifest.row_rules import INLINE_VALUE
from medssml.model import TOKENIZER, MultimodalModel
from medssml.readers.arrays import as_array
from medssml.spaces import SharedSpace
from medssml.transforms.base import Source

#: One study: modality -> path, the text of a report or a table, or an array with what it needs to be read (`as_array` and the
#: `held_` functions of `medssml.readers.arrays`); None, NaN, pd.NA and "" are absent. Or a row of pandas.
Study = Mapping[str, Any] | pd.Series

#: Endings by which a text that is no file is known to name one. What a file holds is told by its content.
TEXT_SUFFIXES = (
    ".txt", ".text", ".md", ".rtf", ".htm", ".html", ".xml", ".cda", ".json", ".hl7", ".dcm", ".sr", ".csv", ".tsv",
    ".pdf", ".doc", ".docx", ".odt",
)  # fmt: skip

#: Letters of texts, tables and messages that the name of a file has not.
_NO_NAME = frozenset('\n\r\t{}<>|"')
_ROOTED = re.compile(r"(~?[/\\]|\.{1,2}[/\\]|[A-Za-z]:[/\\])\S")

#: Several: a list of them, or a table of pandas, a row of which is one.
Studies = Sequence[Study] | pd.DataFrame

_Part = TypeVar("_Part", SharedSpace, ReportDecoder)


class Predictor:
    """A model and the transforms that its inputs went through when it was trained.

        predictor = medssml.load("runs/demo")
        predictor.predict({"ct": "a.nii.gz", "report": "No acute findings."}, task="malignant")

    What a study has is a path; a text, for a report or a table; or what is in memory: (array, spacing in mm) of a CT in HU,
    an array of a radiograph, (array, Hz, channel names) of an EEG in uV, a dict of laboratory values. A study may be a row
    of a study table as pandas has it, too: its columns that are no modality are left alone. Several are a list, or a DataFrame.

    Args:
        model: put in evaluation mode.
        transforms: modality -> transform.
    """

    def __init__(self, model: MultimodalModel, transforms: Mapping[str, Any]) -> None:
        self.model = model.eval()
        self.transforms = dict(transforms)

    def __repr__(self) -> str:
        kinds = (f"{name} ({self._kind(name)})" for name in self.tasks)
        size = sum(parameter.numel() for parameter in self.model.parameters())
        kept = f", keeps {', '.join(self.model.kept)}" if self.model.kept else ""
        return (
            f"Predictor({' + '.join(self.modalities)} -> {', '.join(kinds) or 'embedding only: no task'}; "
            f"D = {self.model.dim}, {size:,} parameters{kept}, on {next(self.model.parameters()).device})"
        )

    def _kind(self, task: str) -> str:
        found = self.model.tasks[task]
        return found.kind + (f": {', '.join(found.classes)}" if found.kind == "multiclass" and found.classes else "")

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names that a study may have."""
        return self.model.modalities

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names that can be predicted."""
        return tuple(self.model.tasks)

    def batch(self, studies: Studies) -> Batch:
        """The batch of `studies`, read and transformed as in evaluation.

        Raises:
            KeyError: a modality that the model does not have.
            FileNotFoundError: a file is not there.
            ValueError: a study without anything, or an array of another shape or unit. TypeError: neither a path, nor a text,
            nor an array. medssml.readers.errors.ReadError: a file or an array that cannot be used.
        """
        samples = [self._sample(index, study) for index, study in enumerate(self._studies(studies))]
        device = next(self.model.parameters()).device
        return collate(samples, self.modalities).to(device)

    def predict(self, inputs: Study | Studies, task: str | None = None) -> Any:
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
        studies = self._studies(inputs)
        with torch.inference_mode():
            logits = self.model(self.batch(studies))
        names = self.tasks if task is None else (task,)
        values = {name: probability(logits[name], self.model.tasks[name].kind).tolist() for name in names}
        answers = [{name: values[name][row] for name in names} for row in range(len(studies))]
        return answers[0] if _is_one(inputs) else answers

    def embed(self, inputs: Study | Studies) -> Tensor:
        """(B, D) float32 embeddings of B studies; (1, D) of one."""
        studies = self._studies(inputs)
        batch = self.batch(studies)
        with torch.inference_mode():
            return self.model.fuse(self.model.encode(batch), batch.present).pooled.float()

    def place(self, inputs: Study | Studies) -> Tensor:
        """(B, d) unit vectors of B studies in the space that pretraining kept, in which modalities find each other.

        A study with several modalities of that space has the direction of their mean.

        Raises:
            ValueError: a study has none of them. CheckpointError: this model kept no such space.
        """
        studies = self._studies(inputs)
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

    def retrieve(self, query: Study, among: Studies, *, top: int = 5) -> list[tuple[int, float]]:
        """(position in `among`, cosine) of the `top` studies that are nearest to `query`, the nearest first.

            predictor.retrieve({"xray": "chest.png"}, [{"report": text} for text in reports])

        Raises:
            as `place`.
        """
        similarity = self.place(among) @ self.place(query)[0]
        order = similarity.argsort(descending=True, stable=True)[:top]
        return [(int(row), float(similarity[row])) for row in order]

    def zero_shot(
        self, inputs: Study | Studies, prompts: Mapping[str, str | Sequence[str]], *, temperature: float = 0.07
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
            as `place`. ValueError: fewer than two classes. TypeError: prompts is no dict.
        """
        if not isinstance(prompts, Mapping):
            raise TypeError(f"prompts is a {type(prompts).__name__}; fix: a dict of class and sentence")
        if len(prompts) < 2:
            raise ValueError(f"prompts names {list(prompts)}; fix: a sentence for each of two classes or more")
        scores = (self.place(inputs) @ self.directions(prompts).T / temperature).softmax(1)
        answers = [dict(zip(prompts, row, strict=True)) for row in scores.tolist()]
        return answers[0] if _is_one(inputs) else answers

    def directions(self, prompts: Mapping[str, str | Sequence[str]]) -> Tensor:
        """(K, d) unit vectors of K classes: the mean direction of the sentences of each.

        Raises:
            as `place`.
        """
        several = ([said] if isinstance(said, str) else list(said) for said in prompts.values())
        means = [self.place([{"report": f"{s}\n"} for s in sentences]).mean(0) for sentences in several]
        return torch.nn.functional.normalize(torch.stack(means), dim=1)

    def generate(self, inputs: Study | Studies, *, beams: int = 1, drafting: Drafting | None = None) -> Any:
        """The report that the model would write of one study (a text) or of several (a list), from what they have but it.

        Args:
            inputs: one study, or a list of studies.
            beams: texts kept while it is written; 1 takes the likeliest word after word.
            drafting: settle it from drafts instead.

        Raises:
            CheckpointError: this model kept no decoder. ValueError: a study has a report and nothing else.
        """
        studies = self._studies(inputs)
        shown = [{name: source for name, source in study.items() if name != "report"} for study in studies]
        bare = next((index for index, study in enumerate(shown) if all(map(_absent, study.values()))), None)
        if bare is not None and not _absent(studies[bare].get("report")):
            raise ValueError(f"study {bare} has nothing but a report, which is not shown; fix: something to describe")
        batch = self.batch(shown)
        with torch.inference_mode():
            fused = self.model.fuse(self.model.encode(batch), batch.present)
            texts = self.written(fused, beams=beams, drafting=drafting)
        return texts[0] if _is_one(inputs) else texts

    def written(self, fused: Fused, *, beams: int = 1, drafting: Drafting | None = None) -> list[str]:
        """The report of each of B studies from the fusion of what they show, which is anything but their report.

        Raises:
            CheckpointError: this model kept no decoder.
        """
        decoder = self._kept(ReportDecoder, "that writes reports", "Captioning")
        if drafting is None:
            ids = decoder.write(fused.tokens, fused.mask, beams=beams)
            return [self.words(row) for row in ids.tolist()]
        # Nothing is shown to one more study, whose drafts say what reports say of no one in particular.
        tokens = torch.cat([fused.tokens, fused.tokens.new_zeros(1, *fused.tokens.shape[1:])])
        mask = torch.cat([fused.mask, fused.mask.new_zeros(1, fused.mask.shape[1])])
        drawn = decoder.draft(tokens, mask, drafting.count).tolist()
        *drafts, blind = ([self.words(ids) for ids in texts] for texts in drawn)
        return [drafting.settle(texts, blind) for texts in drafts]

    def words(self, ids: Sequence[int]) -> str:
        """The text of a report's token ids."""
        return _words(self.transforms["report"], ids)

    def _kept(self, kind: type[_Part], what: str, objective: str) -> _Part:
        found = next((part for part in self.model.kept.values() if isinstance(part, kind)), None)
        if found is None:
            raise CheckpointError(
                f"this model kept nothing {what}; fix: pretrain with {objective}, and ask the pretrained model: "
                f"fine-tuning leaves it behind"
            )
        return found

    def _studies(self, inputs: Study | Studies) -> list[dict[str, Any]]:
        """The studies one by one, rows of a table as what they have of the modalities."""
        studies: list[Any]
        if isinstance(inputs, pd.DataFrame):
            studies = [row for _, row in inputs.iterrows()]
        else:
            studies = [inputs] if _is_one(inputs) else list(inputs)
        odd = next((study for study in studies if not _is_one(study)), None)
        if odd is not None:
            named = type(odd if not isinstance(inputs, str) else inputs).__name__
            raise TypeError(f"a study is a {named}; fix: a dict of what it has, such as {{'report': 'Clear lungs.'}}")
        return [_of_row(study, self.modalities) if isinstance(study, pd.Series) else dict(study) for study in studies]

    def _sample(self, index: int, study: Mapping[str, Any]) -> dict[str, Any]:
        unknown = sorted(set(study) - set(self.modalities))
        if unknown:
            raise KeyError(f"study {index}: unknown modality {unknown[0]!r}; this model takes {list(self.modalities)}")
        given = {name: study[name] for name in self.modalities if not _absent(study.get(name))}
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
            sample[name] = transform(transform.prepare(_source(f"study {index}: {name}", source, transform)), None)
        return sample


def probability(logits: Tensor, kind: str) -> Tensor:
    """(B,) or (B, K) probabilities from the logits of a task of this kind; a regression's values stay themselves."""
    if kind == "regression":
        return logits
    logits = logits.float()
    return logits.sigmoid() if kind == "binary" else logits.softmax(-1)


def _words(transform: Any, ids: Sequence[int]) -> str:
    """The text of token ids, by the vocabulary of a report's transform or of one of its steps."""
    for step in (transform, *getattr(transform, "steps", ())):
        if hasattr(step, "vocabulary"):
            return str(step.vocabulary.decode(ids))
    raise CheckpointError(f"the transform of report, {type(transform).__name__}, has no vocabulary to write with")


def _is_one(inputs: Any) -> bool:
    return isinstance(inputs, (Mapping, pd.Series))


def _of_row(row: pd.Series, modalities: Collection[str]) -> dict[str, Any]:
    """The study of a row of a table, as a manifest reads one: the files of modalities, else what stands in the row itself."""
    study: dict[str, Any] = {}
    for name in modalities:
        cells = {str(column): row[column] for column in inline_columns(name, map(str, row.index))}
        cells = {column: cell for column, cell in cells.items() if not _absent(cell)}
        if name in row.index and not _absent(row[name]):
            study[name] = row[name]
        elif cells and name == "table":
            study[name] = json.dumps({column.removeprefix(INLINE_VALUE): str(cell) for column, cell in cells.items()})
        elif cells:
            study[name] = next(iter(cells.values()))
    return study


def _absent(source: Any) -> bool:
    """Whether a value stands for nothing: None, NaN, pd.NA, NaT, a text of blanks, or values of which none is known."""
    if source is None or (isinstance(source, str) and not source.strip()):
        return True
    if isinstance(source, Mapping):
        return all(map(_absent, source.values()))
    array = as_array(source)
    if array is not None and array.ndim < 2:
        return array.dtype.kind == "f" and bool(np.isnan(array).all())
    return bool(pd.api.types.is_scalar(source) and pd.isna(source))


def _source(name: str, source: Any, transform: Any) -> Source:
    """The file; of a report or a table also the text itself, where it names no file; else what is in memory."""
    if not isinstance(source, (str, os.PathLike)):
        held: Source = transform.held(name, source)
        return held
    text = isinstance(source, str) and getattr(transform, "takes_text", False)
    if text and not _is_file(str(source)):
        if not _names_file(str(source)):
            return str(source)
        raise FileNotFoundError(
            f"{name}: no file {source}; fix: the path, or end a text that is meant as it is with a line end"
        )
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"{name}: no file {source}")
    return path


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # longer than a path may be
        return False


def _names_file(text: str) -> bool:
    """Whether a text can only be meant as a path: one line that has an ending of reports, or slashes and no blank."""
    if _NO_NAME & set(text):
        return False
    known, slash = text.lower().endswith(TEXT_SUFFIXES), "/" in text or "\\" in text
    if " " in text:
        return (known and slash) or _ROOTED.match(text) is not None
    return known or slash


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
