"""`medssml study phantom`: what pretraining is worth where the truth is known, on simulated cohorts."""

from __future__ import annotations

import json
from pathlib import Path


def study_phantom(
    *,
    out: Path,
    seeds: int = 3,
    studies: int = 2400,
    labels: float = 0.1,
    missing: float = 0.3,
    config: Path = Path("phantom"),
    finetune_config: Path = Path("phantom"),
    impact: bool = True,
    bootstrap: int = 1000,
    device: str | None = None,
    threads: int = 0,
    cache: Path | None = None,
) -> Path:
    """What pretraining is worth on simulated cohorts, several seeds, and how far that is from the best possible.

    For each seed a cohort is simulated, a model pretrained on its training studies without labels, and fine-tuned on a part
    of the labels; the same model is trained from scratch on the same labels. A third model is fine-tuned on all labels, for
    the impact of each modality against the true Shapley values. Run again, it continues where it stopped.

    Args:
        out: folder of all cohorts, runs, results.json, protocol.json and results.html.
        seeds: cohorts and pretrainings, from seed 0 on.
        studies: of each cohort.
        labels: share of the labelled training subjects that fine-tuning and training from scratch see.
        missing: share of absent modalities.
        config: of the pretraining: a file, or the name of a shipped one.
        finetune_config: of the fine-tuning, likewise.
        impact: also fine-tune on all labels and compare each modality's impact with the truth.
        bootstrap: resamples of the subjects.
        device: auto, cpu or cuda; of training what the configs say by default.
        threads: of torch; 0 = all cores.
        cache: folder of prepared studies; by default what MEDSSML_CACHE says, or a folder `cache` beside OUT.

    Returns:
        results.html.

    Raises:
        medssml.config.ConfigError: a wrong config. StudyStopped: a run was stopped.
        medssml.runs.run_folder.RunFolderError: the folder holds another study.
    """
    from medssml.bounds import bounded
    from medssml.runs import console
    from medssml.runs.cache_place import cache_place
    from medssml.studies.phantom_fits import Design, measure_impact, one_seed
    from medssml.studies.phantom_results import Collected
    from medssml.studies.resume import same_study
    from medssml.studies.start import ready

    bounded("--studies", studies, least=1)
    bounded("--labels", labels, above=0, most=1)
    out = ready(out, seeds=seeds, bootstrap=bootstrap, device=device, threads=threads)
    design = Design.of(cache_place(cache, out), studies, labels, missing, config, finetune_config, device)
    same_study(out, design.settings())
    collected = Collected(bootstrap)
    for seed in range(seeds):
        with console.step(f"seed {seed}"):
            collected.add(one_seed(out / f"seed{seed}", seed, design, all_labels=impact))
        if impact:
            measure_impact(out / f"seed{seed}", design)
        collected.write(out, design, seeds=seed + 1, impact=impact)
        console.say(f"{out / 'results.html'}: {seed + 1} of {seeds} seeds")
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    console.tell({"page": str(out / "results.html"), "results": results}, anew=True)
    return out / "results.html"
