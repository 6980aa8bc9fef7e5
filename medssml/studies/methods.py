"""`medssml study methods`: every method of pretraining on the same studies, beside its own random encoder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path


def study_methods(
    *,
    out: Path,
    methods: Sequence[str] = (),
    seeds: int = 1,
    manifest: Path | None = None,
    data_root: Path | None = None,
    base: str | None = None,
    studies: int | None = None,
    steps: int = 240,
    labels: Sequence[float] = (0.1, 1.0),
    tasks: Sequence[str] = (),
    missing: float | None = None,
    bootstrap: int = 1000,
    device: str | None = None,
    threads: int = 0,
    cache: Path | None = None,
    workers: int = 0,
) -> Path:
    """Methods of pretraining side by side: one cohort, the same steps, the same labels, several seeds.

    A cohort of the small preset is simulated, or the studies are yours (--manifest). For each method and seed a model is
    pretrained on the training studies without labels (label_bridge sees some, and is marked). Linear probes are fitted on its
    frozen embedding, of each modality and of all together, and on that of the same model with its first, random weights. Methods
    are ordered by their mean rank over tasks on the validation studies; what is reported are the test studies. A method that
    cannot run says why, and the others go on. Run again, it continues where it stopped.

    Args:
        out: folder of the cohort, cells/METHOD-seedN.json, results.json, protocol.json and results.html.
        methods: names of shipped pretraining configs, or files; by default all that build on small.yaml.
        seeds: pretrainings of each method, from seed 0 on.
        manifest: the study table of your own studies, in the place of simulated ones.
        data_root: what its paths are relative to; its folder by default.
        base: the config, shipped or a file, whose encoders and transforms all methods have that build on small.yaml: it takes
            the place of that. By default small, and cohort with --manifest.
        studies: of the simulated cohort; 1000 by default.
        steps: of each pretraining.
        labels: shares of the labelled training subjects that the probes are fitted on; the same for all methods.
        tasks: only these label columns, without `label_`; all by default.
        missing: share of absent modalities of the simulated cohort; 0.3 by default.
        bootstrap: resamples of the subjects.
        device: auto, cpu or cuda; what the configs say by default.
        threads: of torch; 0 = all cores.
        cache: folder of prepared studies; by default what MEDSSML_CACHE says, or a folder `cache` beside OUT.
        workers: of Ray that measure cells, on this machine or on the cluster of RAY_ADDRESS (extra [ray]); 0 = this process.

    Returns:
        results.html.

    Raises:
        medssml.config.ConfigError: no such method, or a wrong config. KeyError: no such task. ValueError: a size of the
            simulated cohort beside --manifest, or no method can run. medssml.manifest.table_text.ManifestError: a wrong table.
            StudyStopped: a run was stopped. medssml.runs.run_folder.RunFolderError: the folder holds another study.
    """
    from medssml.bounds import bounded
    from medssml.runs import console
    from medssml.runs.cache_place import cache_place
    from medssml.studies.methods_cells import Design, asked_of, chosen_methods, one_cell, simulate
    from medssml.studies.methods_results import write_results
    from medssml.studies.resume import same_study
    from medssml.studies.start import ready
    from medssml.studies.workers import each_in_turn, on_gpu, on_workers

    for name, given in (("--studies", studies), ("--missing", missing)):
        if manifest is not None and given is not None:
            raise ValueError(f"{name} is of simulated studies, and --manifest gives others; fix: one of the two")
    if manifest is None:
        studies, missing = 1000 if studies is None else studies, 0.3 if missing is None else missing
    bounded("--studies", studies, least=1)
    bounded("--steps", steps, least=1)
    for share in labels:
        bounded("--labels", share, above=0, most=1)
    asked = asked_of(tasks, None if manifest is None else (manifest, data_root))
    out = ready(out, seeds=seeds, bootstrap=bootstrap, device=device, threads=threads, workers=workers)
    design = Design(
        cache_place(cache, out), studies, missing, steps, tuple(labels), tuple(tasks), bootstrap, device, manifest, data_root,
        base or ("small" if manifest is None else "cohort"),
    )  # fmt: skip
    chosen = chosen_methods(methods, design)
    same_study(out, design.settings())
    simulate(out, design)
    cells = []
    for seed in range(seeds):
        measure = partial(one_cell, out, seed=seed, design=design, tasks=asked)
        done = (
            on_workers(measure, chosen, workers, gpu=on_gpu(device)) if workers else each_in_turn(measure, chosen, seed)
        )
        lines = {method.name: line for method, line in done}
        for name, line in lines.items():
            if reason := line.get("failed"):
                console.warn(f"{name} cannot run on these studies and is left out: {reason}")
        # In the order in which they were asked for, whoever was ready first.
        cells += [lines[method.name] for method in chosen]
        write_results(out, cells, design)
        console.say(f"{out / 'results.html'}: {seed + 1} of {seeds} seeds")
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    if not results["cells"]:
        raise ValueError(f"no method can run on these studies; {next(iter(results['failed'].items()))[1]}")
    answered = {task for found in results["labels"].values() for task in found["tasks"]}
    for task in [task for task in asked if task not in answered]:
        console.warn(f"{task} is left out: too few labelled training studies of a class for a probe")
    console.tell({"page": str(out / "results.html"), "results": results}, anew=True)
    return out / "results.html"
