"""Sections on the run: its studies, how it learned, its embeddings, what was wrong with the data, how it was set up."""

from __future__ import annotations

from collections import Counter
from typing import Any

from medssml.privacy import short_code
from medssml.reports import figures, simulated_examples, words
from medssml.reports.blocks import Block, Facts, Fold, Gallery, Heading, Panels, Plot, Section, Table, Text, fitting
from medssml.reports.figures import Colouring, Curve, Panel
from medssml.reports.results import Results, estimate, number, series
from medssml.reports.results import Row as CsvRow

SPLITS = ("train", "val", "test")
#: A column of the embedding map with more groups than this is coloured as the commonest ones and the rest.
GROUPS = 8
MAPS = 6
EXAMPLES = 5


def modalities_of(results: Results) -> list[str]:
    """The names of the modalities, in the order of the manifest's columns where it is known."""
    for presence in results.of("presence.json").values():
        if presence.get("modalities"):
            return [str(name) for name in presence["modalities"]]
    found: dict[str, None] = {}
    for impact in results.of("impact.json").values():
        found.update(dict.fromkeys(impact.get("modalities", {})))
    for metrics in results.of("metrics.json").values():
        for task in metrics.get("tasks", {}).values():
            longest = max(task.get("subsets", {}), key=lambda name: name.count("+"), default="")
            found.update(dict.fromkeys(words.members(longest)))
    return list(found)


def studies(results: Results) -> Section | None:
    """Which modalities the studies have: the coverage matrix."""
    presence = next(iter(results.of("presence.json").values()), None)
    if not presence or not presence.get("patterns"):
        return None
    patterns = [
        (str(row["pattern"]), {split: int(row.get(split) or 0) for split in SPLITS if split in row})
        for row in presence["patterns"]
    ]
    patterns.sort(key=lambda item: -sum(item[1].values()))
    names = [str(name) for name in presence["modalities"]]
    total = sum(sum(counts.values()) for _, counts in patterns)
    having = {
        name: sum(sum(counts.values()) for pattern, counts in patterns if name in words.members(pattern))
        for name in names
    }
    splits = [split for split in SPLITS if any(split in counts for _, counts in patterns)]
    there = [(name, words.modality(name)) for name in names if having[name]]
    facts = [("studies", f"{total:,}", "")]
    facts += [
        (words.modality(n), f"{having[n]:,}", f"{100 * having[n] / max(total, 1):.0f} % of studies") for n in names
    ]
    table = Table(
        ["modalities", *splits, "all"],
        [
            [words.subset(pattern), *[f"{counts.get(split, 0):,}" for split in splits], f"{sum(counts.values()):,}"]
            for pattern, counts in patterns
        ],
    )
    return Section(
        "studies",
        "Studies",
        "Which modalities the studies have together. A modality that is absent is left out of every computation, not filled in.",
        [
            Facts(facts),
            fitting(lambda width: figures.coverage(patterns, there, width), _nowhere(names, having)),
            Fold("The numbers", [table]),
        ],
    )


def _nowhere(names: list[str], having: dict[str, int]) -> str:
    """Which modalities no study has, and so no figure shows."""
    lacking = [words.modality(name) for name in names if not having[name]]
    return f"No study has {', '.join(lacking)}." if lacking else ""


def learning(results: Results) -> Section | None:
    """Learning curves of every run."""
    blocks: list[Block] = []
    histories = results.of("history.csv")
    # A run's own curves come last: what lies below it, such as its pretraining, came before.
    for folder, history in sorted(histories.items(), key=lambda item: item[0] == ""):
        panels = panels_of(history)
        if panels:
            if len(histories) > 1:
                blocks.append(Heading(folder or "this run"))
            blocks.append(Panels([Plot(figures.curves(panel, folder)) for panel in panels]))
            said = _trained_on(results, folder)
            blocks += [Text(said)] if said else []
    if not blocks:
        return None
    lead = (
        "Grey: training; coloured: validation; dashed: chance, or the value of an even embedding. The horizontal axis counts "
        "optimiser steps. A falling effective rank or a feature spread near 0 would be a sign of collapse."
    )
    return Section("learning", "Learning", lead, blocks)


def _trained_on(results: Results, folder: str) -> str:
    """How many studies are behind the curves."""
    patterns = (results.of("presence.json").get(folder) or {}).get("patterns") or []
    counts = {split: sum(int(row.get(split) or 0) for row in patterns) for split in ("train", "val")}
    if not counts["train"]:
        return ""
    validated = f", n = {counts['val']:,} for validation" if counts["val"] else ""
    return f"n = {counts['train']:,} studies for training{validated}."


_PER_TASK = (
    ("supervised/loss/", "Loss of each task", None),
    ("probe_auroc/", "Linear probe, AUROC", 0.5),
    ("auroc/", "Validation AUROC", 0.5),
)


def panels_of(history: list[CsvRow]) -> list[Panel]:
    """The panels that the columns of a history.csv give."""
    columns = list(dict.fromkeys(name for row in history for name in row if name))
    tails = list(dict.fromkeys(name.split("/", 1)[1] for name in columns if name.startswith(("train/", "val/"))))
    panels = [_both(history, "loss", "Loss")]
    objectives = [tail.removesuffix("/loss") for tail in tails if tail.endswith("/loss")]
    if len(objectives) > 1:  # a single one is the loss
        panels += [_both(history, f"{name}/loss", _title(name)) for name in objectives]
    for name in objectives:
        found = {t: t.removeprefix(f"{name}/accuracy").lstrip("_") for t in tails if t.startswith(f"{name}/accuracy")}
        panels.append(_several(history, found, f"{_title(name)}: share found", None, share=True))
    for prefix, title, chance in _PER_TASK:
        found = {tail: tail.removeprefix(prefix) for tail in tails if tail.startswith(prefix)}
        panels.append(_several(history, found, title, chance, share=chance is not None))
    panels.append(_several(history, {"rankme": ""}, "Effective rank (RankMe)", None))
    panels.append(_several(history, {"feature_spread": ""}, "Feature spread", 1.0))
    panels.append(Panel("Learning rate", [Curve(*series(history, "lr"))]))
    return [panel for panel in panels if any(curve.x for curve in panel.curves)]


def _title(objective: str) -> str:
    return objective.replace("_", " ").replace("cross modal", "cross-modal").capitalize()


def _both(history: list[CsvRow], tail: str, title: str) -> Panel:
    train, val = (
        Curve(*series(history, f"train/{tail}"), "training", True),
        Curve(*series(history, f"val/{tail}"), "validation"),
    )
    if not val.x:
        return Panel(title, [Curve(train.x, train.y, "training")] if train.x else [])
    return Panel(title, [curve for curve in (train, val) if curve.x])


def _several(
    history: list[CsvRow], tails: dict[str, str], title: str, level: float | None, *, share: bool = False
) -> Panel:
    """Lines of the validation, or of the training where there is none."""
    lines = []
    for tail, name in tails.items():
        x, y = series(history, f"val/{tail}")
        if not x:
            x, y = series(history, f"train/{tail}")
        if x:
            lines.append(Curve(x, y, words.subset(name) if "+" in name else name.replace("_", " ")))
    return Panel(title, lines, level, share)


def embedding(results: Results) -> Section | None:
    """The map of embeddings, coloured by what studies have and what is known of them."""
    blocks: list[Block] = []
    maps = results.of("embedding_map.csv")
    for folder, rows in maps.items():
        points = [row for row in rows if number(row.get("x")) is not None and number(row.get("y")) is not None]
        colourings = colourings_of(points)
        if points and colourings:
            x, y = ([float(row[axis]) for row in points] for axis in ("x", "y"))
            title = f"{folder or 'this run'}, n = {len(points):,} studies"
            blocks.append(Heading(title))
            blocks.append(Panels([Plot(figures.embedding_map(x, y, c, folder)) for c in colourings]))
    if not blocks:
        return None
    lead = (
        "Each dot is a study, placed by its embedding in two dimensions; distances between far groups mean little. Groups "
        "that follow a label were found without that label. Groups that follow the set of modalities would mean that the "
        "embedding says how a study was examined rather than what it shows."
    )
    return Section("embedding", "Embedding map", lead, blocks)


def colourings_of(points: list[CsvRow]) -> list[Colouring]:
    """One colouring per column that groups the studies."""
    skipped = {"study_id", "subject_id", "x", "y", "split"}
    found = []
    for name in points[0] if points else []:
        if name is None or name in skipped:
            continue
        values = [str(row.get(name) or "") for row in points]
        if name in ("pattern", "present", "modality", "modalities"):
            values = [words.subset(value) if value else "" for value in values]
        else:
            values = [value.removesuffix(".0") for value in values]
        commonest = Counter(value for value in values if value).most_common()
        if len(commonest) > 20 and name.startswith("label_"):
            continue  # a number, not a class
        kept = {value for value, _ in commonest[: GROUPS if len(commonest) <= GROUPS else GROUPS - 1]}
        groups = [value if value in kept or not value else "other" for value in values]
        if len(set(groups)) > 1:
            found.append(Colouring(name.removeprefix("label_").removeprefix("group_").replace("_", " "), groups))
    return found[:MAPS]


def retrieval(results: Results) -> Section | None:
    """Retrieval between modalities, and examples that were drawn at random."""
    blocks: list[Block] = []
    evaluations = {folder: m for folder, m in results.of("metrics.json").items() if m.get("retrieval")}
    for folder, metrics in evaluations.items():
        if len(evaluations) > 1:
            blocks.append(Heading(folder or "this run"))
        blocks.append(_retrieval_table(metrics["retrieval"]))
    for examples in results.of("retrieval.json").values():
        blocks += _pictures(examples)
        examples = examples.get("pairs", examples)
        parts = [_example_table(name, cases) for name, cases in examples.items() if cases and isinstance(cases, list)]
        if parts:
            blocks.append(Fold("Examples, drawn at random", [Text(_EXAMPLE_WORDS), *parts]))
    if not blocks:
        return None
    lead = (
        "From one modality of a study to another of the same study, among all test studies that have both. Studies of the "
        "same subject and identical inputs count as right."
    )
    return Section("retrieval", "Retrieval", lead, blocks)


def _pictures(examples: dict[str, Any]) -> list[Block]:
    """What the studies of examples show, where they are simulated: the query, then what was found for it."""
    seen, pairs = examples.get("seen") or {}, examples.get("pairs") or {}
    blocks: list[Block] = []
    for name in simulated_examples.shown_pairs(pairs) if seen else []:
        query, target = name.split("->")
        cases = [
            case for case in pairs[name][: simulated_examples.QUERIES] if str(case["query"]) in seen.get(query, {})
        ]
        blocks += [Heading(f"{words.direction(name)}, drawn at random")] if cases else []
        for case in cases:
            items = [
                (seen[query][str(case["query"])], f"query; the right one has rank {number(case.get('rank')) or 0:g}")
            ]
            for place, hit in enumerate(case.get("top", []), start=1):
                found = seen.get(target, {}).get(str(hit["study_id"]))
                mark = "✓ right" if hit.get("hit") else "✗"
                items += (
                    []
                    if found is None
                    else [(found, f"{place}. {mark}, {words.figure(number(hit.get('similarity')), 2)}")]
                )
            blocks.append(Gallery(items))
    return blocks


_EXAMPLE_WORDS = (
    "Studies go by the beginning of their code. Rank 1 means that the right study came first; ✓ marks a right one "
    "among the nearest."
)


def _retrieval_table(found: dict[str, Any]) -> Table:
    measures = [m for m in ("r@1", "r@5", "median_rank") if any(m in row for row in found.values())]
    rows = []
    for name, row in found.items():
        cells = [words.direction(name)]
        for measure in measures:
            value = row.get(measure)
            digits = 1 if measure == "median_rank" else 3
            chance = number(value.get("chance")) if isinstance(value, dict) else None
            cells += [words.interval(estimate(value), digits), words.figure(chance, digits)]
        rows.append([*cells, words.count(number(row.get("n")))])
    columns = ["from → to"]
    for measure in measures:
        columns += [words.metric(measure), "chance"]
    return Table([*columns, "studies"], rows)


def _example_table(name: str, cases: list[dict[str, Any]]) -> Table:
    rows = []
    for case in cases[:EXAMPLES]:
        nearest = [_hit(hit) for hit in case.get("top", [])]
        rows.append([short_code(str(case["query"])), f"{number(case.get('rank')) or 0:g}", ", ".join(nearest)])
    return Table(
        ["query", "rank", f"nearest: {words.direction(name)} (similarity)"], rows, words.direction(name), left=3
    )


def _hit(hit: dict[str, Any]) -> str:
    similarity = words.figure(number(hit.get("similarity")), 2)
    return f"{'✓ ' if hit.get('hit') else ''}{short_code(str(hit['study_id']))} ({similarity})"


def problems(results: Results) -> Section | None:
    """What was wrong with the data, and what became of it."""
    rows: dict[tuple[str, ...], CsvRow] = {}
    for found in results.of("problems.csv").values():
        for row in found:
            rows.setdefault(tuple(str(row.get(k)) for k in ("row", "study_id", "column", "code")), row)
    if not rows:
        clean = bool(results.of("problems.csv"))
        return Section("problems", "Data problems", "None was found.") if clean else None
    counts = Counter(str(row.get("action")) for row in rows.values())
    facts = [(action, f"{count:,}", "") for action, count in sorted(counts.items())]
    groups = Counter((row.get("action", ""), row.get("column", ""), row.get("code", "")) for row in rows.values())
    overview = Table(
        ["action", "modality", "problem", "cases"],
        [
            [a, words.modality(c) if c else "–", code.replace("_", " "), f"{n:,}"]
            for (a, c, code), n in groups.most_common()
        ],
        left=3,
    )
    details = Table(
        ["row", "study", "modality", "problem", "action", "fix"],
        [_problem(row) for row in list(rows.values())[:200]],
        left=6,
    )
    more = f" The first 200 of {len(rows):,}." if len(rows) > 200 else ""
    lead = (
        "What was found wrong, and what became of it: quarantined studies were left out, fixed ones were put right while "
        "reading, flagged ones were used. Files and ids are in problems.csv and not here." + more
    )
    return Section("problems", "Data problems", lead, [Facts(facts), overview, Fold("Every case", [details])])


def _problem(row: CsvRow) -> list[str]:
    hidden = [row.get("file") or "", (row.get("file") or "").rsplit("/", 1)[-1], row.get("study_id") or ""]
    study = short_code(row["study_id"]) if row.get("study_id") else "–"
    said = [words.without_names(row.get(key) or "", hidden) for key in ("problem", "fix")]
    return [
        row.get("row") or "–",
        study,
        words.modality(row.get("column") or "–"),
        said[0],
        row.get("action") or "",
        said[1],
    ]


_IMPACT_SETTINGS = ("value", "baseline_words", "empty_words", "n_studies", "n_models", "bootstrap")


def protocol(results: Results) -> Section | None:
    """How the numbers were made: seeds, splits, hashes, and the resolved config."""
    blocks: list[Block] = []
    for folder, metrics in results.of("metrics.json").items():
        if metrics.get("protocol"):
            blocks += [Heading(f"Evaluation {folder}".strip()), _lines(metrics["protocol"])]
    for folder, impact in results.of("impact.json").items():
        kept = {
            k: impact[k]
            for k in ("value", "baseline_words", "empty_words", "n_studies", "n_models", "bootstrap")
            if k in impact
        }
        if kept:
            blocks += [Heading(f"Impact {folder}".strip()), _lines(kept)]
    for folder, config in results.of("config.yaml").items():
        blocks.append(Fold(f"Configuration {folder}".strip(), [_lines(config)]))
    if not blocks:
        return None
    return Section("protocol", "Protocol and configuration", "What looks like a path is left out.", blocks)


def _lines(values: Any) -> Table:
    return Table(["setting", "value"], [[key, value] for key, value in words.flattened(values)], left=2)
