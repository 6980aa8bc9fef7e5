"""medssml predict: predictions, or written reports, for any subset of modalities, as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal


def predict(
    *,
    checkpoint: str,
    manifest: Path | None = None,
    shards: str | None = None,
    out: Path,
    task: Sequence[str] = (),
    split: Literal["test", "val", "train", "all"] = "all",
    subset: str | None = None,
    generate: bool = False,
    beams: int = 1,
    drafts: int = 0,
    least: float = 0.5,
    margin: float = 0.0,
    device: str = "auto",
    cache: Path | None = None,
    workers: int = 0,
    data_root: Path | None = None,
    allow_outside: bool = False,
    plain_ids: bool = False,
    plugins: Sequence[str] = (),
    track: bool = True,
) -> Path | int:
    """One row per study and task (and class): study_id, task, subset (what was seen), probability.

    With generate one row per study: study_id, subset (what was shown), report (what was written). Where studies have a report of
    their own, it is not shown, and how near the written ones are to them is said.

    Args:
        checkpoint: run folder of a fine-tuning, or its model folder; with generate, of a pretraining that kept a decoder.
        manifest: the study table, CSV or Parquet; labels are not needed.
        shards: in place of a manifest, where medssml prepare --shards wrote: a folder or a URL.
        out: CSV file.
        task: only these tasks of the model; may be given several times.
        split: train, val, test, or all.
        subset: show only these modalities, such as ct+report; studies with none of them are left out.
        generate: write the report of each study from its other modalities, in place of predictions.
        beams: texts that are kept while a report is written; 1 takes the likeliest word after word.
        drafts: with generate, settle each report from so many drafts, by what most of them state where a rule reads findings
            (simulated studies), else by their words; 0 writes one text.
        least: share of the drafts that must state a finding.
        margin: how far that share must lie from the share where nothing is shown; what is not so far is not spoken of.
        device: auto, cpu or cuda.
        cache: folder of prepared studies; MEDSSML_CACHE, or beside the run, by default.
        workers: processes that load studies.
        data_root: what the paths of the manifest are relative to; its own folder by default.
        allow_outside: accept paths that leave the data root.
        plain_ids: ids as the manifest has them, not as keyed hashes; see docs/privacy.md.
        plugins: a package of yours that classes may come from; may be given several times.
        track: note in MLflow, with the training of the model, how many studies of which manifest were predicted.

    Returns:
        the file; exit code 4 where more studies were left out than the limit.

    Raises:
        medssml.checkpoint.CheckpointError: no model, or one that is refused. KeyError: no such task or modality.
    """
    import pandas as pd

    from medssml.bounds import bounded
    from medssml.data.prepared_studies import prepare_studies
    from medssml.drafts import Drafting
    from medssml.evaluation.bayes import find_truth
    from medssml.evaluation.encoded_studies import encode_studies, subset_mask
    from medssml.evaluation.generation import write_reports
    from medssml.evaluation.subsets import answers_table
    from medssml.files import refuse_overwriting, require_ending, write_csv
    from medssml.phantom.report import findings_of
    from medssml.predictor import load
    from medssml.runs import console
    from medssml.runs.cache_place import cache_of_model
    from medssml.runs.inference import asked_tasks, chosen_device, conclude, open_studies, say_hidden
    from medssml.runs.modality_account import of_reported
    from medssml.runs.result_tables import say_predictions, say_reports
    from medssml.tracking import add_predictions

    bounded("--workers", workers, least=0)
    bounded("--beams", beams, least=1)
    bounded("--drafts", drafts, least=0)
    bounded("--least", least, above=0, below=1)
    bounded("--margin", margin, least=0, below=1)
    require_ending("--out", out, ".csv")
    refuse_overwriting("--out", out, manifest)
    where, out = chosen_device(device), Path(out)
    predictor = load(checkpoint, plugins, where)
    mask = None if subset is None else subset_mask(subset, predictor.modalities)
    truth = None if manifest is None else find_truth(manifest)
    drafting = Drafting(drafts, findings_of if truth else None, least, margin) if drafts else None
    names = [] if generate else asked_tasks(task, predictor.tasks)
    table, prepared = open_studies(
        manifest, shards, predictor, cache_of_model(cache, checkpoint, out),
        data_root=data_root, allow_outside=allow_outside, plain_ids=plain_ids, labels=False,
    )  # fmt: skip
    of_reported(checkpoint, predictor.modalities, table, split)
    table = table if split == "all" else table.split(split)
    studies = prepare_studies(table, predictor.transforms, prepared, num_workers=workers)
    frames = [
        write_reports(predictor, studies.batches(part), mask, beams=beams, drafting=drafting, device=where)
        if generate
        else answers_table(
            predictor.model, encode_studies(predictor.model, studies.batches(part), where), names, mask, where
        )
        for part in studies.parts()
    ]
    answers = pd.concat(frames, ignore_index=True)
    # What a report itself says is no result and stays where it is.
    write_csv(out, answers.drop(columns="reference", errors="ignore"))
    if track:
        add_predictions(checkpoint, split=split, studies=answers["study_id"].nunique(), manifest_sha256=table.sha256)
    scores = say_reports(answers, truth) if generate else say_predictions(answers)
    lack = "nothing but a report" if generate else "nothing that the model reads"
    say_hidden(len(studies.manifest) - answers["study_id"].nunique(), studies.asked, subset, lack)
    console.tell({"tasks": names, "rows": len(answers), "answered": answers["study_id"].nunique(), **scores})
    return conclude([studies], out, "predict")
