"""`medssml study cohort`: one pretraining, every task fine-tuned and probed, classical baselines, every subset of modalities."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path


def study_cohort(
    *,
    manifest: Path,
    out: Path,
    test_manifest: Path | None = None,
    data_root: Path | None = None,
    tasks: Sequence[str] = (),
    config: Path = Path("cohort"),
    finetune_config: Path = Path("cohort"),
    seeds: int = 3,
    folds: int = 6,
    cross_validate_below: int = 20,
    choice_folds: int = 3,
    bootstrap: int = 1000,
    device: str | None = None,
    threads: int = 0,
    cache: Path | None = None,
) -> Path:
    """What pretraining is worth on any cohort: one model per seed, every task, beside classical baselines.

    One model is pretrained per seed on the training studies, without labels. For each binary `label_*` column it is then
    fine-tuned, and probed with its weights frozen; a classical baseline is fitted for each subset of modalities. All are
    evaluated on the test studies of the manifest (and of --test-manifest). A task with few labelled test studies is also
    cross-validated by subject over all labelled studies. Whether the probe or the fine-tuned model is to be used is chosen per
    task on validation studies or, where they are few, by cross-validation over the subjects who are not test; then validation
    studies are learned from as well, where the fine-tuning has a fixed length. Run again, it continues where it stopped.

    Args:
        manifest: the study table, with a split.
        out: folder of all runs, results.json ({task: {method: {subset: ..}}}), choice.json (the same of what the choice stands
            on), protocol.json and results.html.
        test_manifest: further studies; its test rows are answered too, all rows where it has no split.
        data_root: what the paths of the manifests are relative to; the folder of each by default.
        tasks: only these label columns, without `label_`; every binary one by default.
        config: of the pretraining: a file, or the name of a shipped one.
        finetune_config: of the fine-tuning, likewise.
        seeds: pretrainings, from seed 0 on.
        folds: of the cross-validation by subject.
        cross_validate_below: a task with fewer labelled test studies than this is also cross-validated.
        choice_folds: of the training subjects, to choose between probe and fine-tuned model where fewer than 50 validation
            studies of a class have the label; each is one more fine-tuning. 0 = validation studies alone.
        bootstrap: resamples of the subjects.
        device: auto, cpu or cuda; of training what the configs say by default.
        threads: of torch; 0 = all cores.
        cache: folder of prepared studies; by default what MEDSSML_CACHE says, or a folder `cache` beside OUT.

    Returns:
        results.html.

    Raises:
        medssml.config.ConfigError: a wrong config. medssml.manifest.table_text.ManifestError: a wrong table. KeyError: no such
            task. StudyStopped: a run was stopped. medssml.runs.run_folder.RunFolderError: the folder holds another study.
    """
    from medssml.bounds import bounded
    from medssml.runs import console
    from medssml.runs.cache_place import cache_place
    from medssml.studies.cohort_choice import choice_plans, chosen_by, learned_whole
    from medssml.studies.cohort_fits import chosen_tasks, merged_table, plans_of, pretrain_once, study_of
    from medssml.studies.cohort_results import Collected, protocol_of
    from medssml.studies.resume import same_study
    from medssml.studies.start import ready

    bounded("--folds", folds, least=2)
    if choice_folds:
        bounded("--choice-folds (0 = none)", choice_folds, least=2)
    out = ready(out, seeds=seeds, bootstrap=bootstrap, device=device, threads=threads)
    study = study_of(
        out, cache_place(cache, out), manifest, test_manifest=test_manifest, data_root=data_root, config=config,
        finetune_config=finetune_config, device=device,
    )  # fmt: skip
    settings = study.settings() | {"folds": folds, "cross_validate_below": cross_validate_below}
    table, further = merged_table(study)
    chosen = chosen_tasks(table, tasks)
    same_study(out, settings)
    by = {task: chosen_by(table, task, choice_folds) for task in chosen}
    by_folds, whole = [task for task in chosen if by[task] == "folds"], learned_whole(study, by)
    few = cross_validate_below
    plans = [p for t in chosen for p in plans_of(study, table, t, further, folds, few, t in whole)]
    plans += [p for t in by_folds for p in choice_plans(study, table, t, choice_folds, t in whole)]
    collected = Collected(further, {t: f"{choice_folds} folds" if name == "folds" else name for t, name in by.items()})
    for plan in plans:
        collected.ask_classical(study, plan)
    for seed in range(seeds):
        with console.step(f"seed {seed}: pretraining"):
            pretrained = pretrain_once(study, seed)
        for plan in plans:
            with console.step(f"seed {seed}: {plan.name}"):
                collected.ask_models(study, plan, pretrained, seed)
        protocol = protocol_of(study, table, seed + 1, folds, few, bootstrap, sorted(whole))
        collected.write(out, protocol, bootstrap)
        console.say(f"{out / 'results.html'}: {seed + 1} of {seeds} seeds")
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    console.tell({"page": str(out / "results.html"), "results": results}, anew=True)
    return out / "results.html"
