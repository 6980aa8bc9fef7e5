"""The section on what a model uses: the impact of each modality on its predictions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from medssml.reports import result_figures, words
from medssml.reports.blocks import Block, Fold, Heading, Judged, Pale, Plot, Section, Table, Text, fitting
from medssml.reports.result_figures import Step
from medssml.reports.results import Estimate, Results, estimate, number, numbers
from medssml.reports.verdict import NOT_LEARNED, Verdict, verdict_on

SIGNED = "Signed means of the predictions"
WHY_SIGNED = (
    "A modality that raises the answers for the ill as much as it lowers those for the healthy has a signed mean near 0, "
    "although it may decide both. A signed mean tells which way a modality moves the average answer; whether the modality "
    "matters is told by its share of the quality and by the mean size above."
)


def impact(results: Results) -> Section | None:
    """What each modality contributes to the quality and to the predictions of every task."""
    found = {folder: content for folder, content in results.of("impact.json").items() if content.get("modalities")}
    if not found:
        return None
    limits = _limits(found.values())
    blocks = [block for folder, content in found.items() for block in _impact_of(results, folder, content, limits)]
    note = next((str(content["note"]) for content in found.values() if content.get("note")), "")
    lead = (
        "Each modality is taken away from each study, alone and together with others, and the model is asked again. "
        + note
    )
    return Section("impact", "Impact of each modality", lead, blocks)


def _limits(found: Iterable[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Metric -> the ends of the axis that the waterfalls of all tasks share; an AUROC stays within 0 and 1."""
    ends: dict[str, list[float]] = {}
    for content in found:
        quality = content.get("performance") or {}
        metric, level = _metric(quality)
        reach = ends.setdefault(metric, [level])
        truth = true_values(content).get("performance_shapley", {})
        for name, value in (quality.get("shapley") or {}).items():
            share = estimate(value)
            if share is not None:
                spread = [v for v in (share.low, share.value, share.high, truth.get(name)) if v is not None]
                reach += [level + v for v in spread]
                level += share.value
    limits = {}
    for metric, reach in ends.items():
        room = 0.03 * (max(reach) - min(reach) or 1.0)
        low, high = min(reach) - room, max(reach) + room
        limits[metric] = (max(0.0, low), min(1.0, high)) if metric == "auroc" else (low, high)
    return limits


def _metric(quality: dict[str, Any]) -> tuple[str, float]:
    """What the quality is measured by, and its value for a prediction that knows nothing."""
    metric = str(quality.get("metric", "auroc"))
    return metric, 0.5 if metric == "auroc" else 0.0


def _impact_of(
    results: Results, folder: str, found: dict[str, Any], limits: dict[str, tuple[float, float]]
) -> list[Block]:
    task = str(found.get("task", ""))
    blocks: list[Block] = [Heading(task), Text(_setting(found))]
    verdict = verdict_on(results, task)
    blocks += [] if verdict is None else [Judged([(task, verdict.mark, verdict.text)])]
    remarks = (found.get("protocol") or {}).get("remarks") or []
    blocks += [Text(f"{remark[0].upper()}{remark[1:]}.") for remark in map(str, remarks) if remark]
    measured = _measured(results, folder, task, found, limits)
    return [*blocks, *_paled(verdict, measured)]


def _paled(verdict: Verdict | None, blocks: list[Block]) -> list[Block]:
    """Without colour where the task was not learned."""
    if verdict is None or verdict.mark != NOT_LEARNED:
        return blocks
    reason = (
        "Not to be relied on: the answers to this task are not shown to be better than guessing, so what moves them tells "
        "nothing of what the modalities hold."
    )
    return [Pale(reason, blocks)]


def _measured(
    results: Results, folder: str, task: str, found: dict[str, Any], limits: dict[str, tuple[float, float]]
) -> list[Block]:
    """The quality first, then the mean size, then what belongs to single studies and to pairs; signed means are folded."""
    unit, truth = str(found.get("value", "value")), true_values(found)
    blocks = [*_quality(task, found, truth, limits), *_sizes(task, unit, found, truth)]
    blocks.append(_effects_table(found, truth, signed=False))
    folded = [Text(WHY_SIGNED), *_prediction(task, unit, found), _effects_table(found, truth, signed=True)]
    blocks += [Fold(SIGNED, folded)] if _quantities(found, signed=True) else []
    effects: dict[str, list[tuple[float, str]]] = {words.modality(name): [] for name in found["modalities"]}
    for row in results.of("impact.csv").get(folder) or []:
        value = number(row.get("shapley"))
        if value is not None:
            label = str(row.get("label") or "").removesuffix(".0")
            effects.setdefault(words.modality(row["modality"]), []).append((value, label))
    there = {name: pairs for name, pairs in effects.items() if pairs}
    if there:
        axis = f"Shapley value: change of the {unit}"
        blocks.append(
            fitting(
                lambda width: result_figures.strips(task, there, axis, width=width),
                "Every study, one dot for each of its modalities: to the right of 0 it raises the prediction.",
            )
        )
    return [*blocks, *_interactions(task, found), *_further(found)]


def _setting(found: dict[str, Any]) -> str:
    models = number(found.get("n_models")) or 1
    said = f"{words.count(number(found.get('n_studies')))} studies" + (
        f", {models:.0f} trained models" if models > 1 else ""
    )
    said += f". Value: {found.get('value', '')}."
    for key, word in (("baseline_words", "A modality is taken away"), ("empty_words", "Nothing at all")):
        if found.get(key):
            said += f" {word}: {found[key]}."
    return said


def true_values(found: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Quantity -> modality -> the value of the best possible predictions of simulated studies."""
    known: dict[str, dict[str, float]] = {}
    for pair in (found.get("truth") or {}).get("pairs") or []:
        value = number(pair.get("truth"))
        if value is not None:
            known.setdefault(str(pair["quantity"]), {})[str(pair["modality"])] = value
    return known


def _quality(
    task: str, found: dict[str, Any], truth: dict[str, dict[str, float]], limits: dict[str, tuple[float, float]]
) -> list[Block]:
    """How much of the quality is owed to each modality."""
    quality = found.get("performance") or {}
    shares = [(m, estimate(value)) for m, value in (quality.get("shapley") or {}).items()]
    true = truth.get("performance_shapley", {})
    steps = [Step(words.modality(m), share, true.get(m)) for m, share in shares if share is not None]
    if not steps:
        return []
    metric, nothing = _metric(quality)
    count, word = words.count(number(quality.get("n_complete"))), words.metric(metric)

    def draw(width: float) -> str:
        return result_figures.waterfall(
            f"{task}, quality", ("guessing", nothing), steps, "all modalities", f"{word}, n = {count}",
            limits=limits[metric], width=width,
        )  # fmt: skip

    caption = (
        f"How much of the {word} is owed to each modality: its Shapley value with the 95 % interval, on the {count} studies "
        "that have all."
    )
    return [fitting(draw, caption)]


def _sizes(task: str, unit: str, found: dict[str, Any], truth: dict[str, dict[str, float]]) -> list[Block]:
    """How far each modality moves the predictions, whichever way."""
    true = truth.get("shapley_abs", {})
    rows = []
    for name, effects in found["modalities"].items():
        size = estimate(effects.get("shapley_abs"))
        if size is not None:
            n = number((effects.get("shapley_abs") or {}).get("n"))
            rows.append(Step(f"{words.modality(name)}, n = {words.count(n)}", size, true.get(name)))
    if not rows:
        return []
    axis = f"mean |Shapley value| of the {unit}"
    caption = "How far each modality moves the prediction of a study that has it, whichever way."
    return [fitting(lambda width: result_figures.intervals(f"{task}, size", rows, axis, width=width), caption)]


def _prediction(task: str, unit: str, found: dict[str, Any]) -> list[Block]:
    """How the mean prediction comes about."""
    prediction = found.get("waterfall") or {}
    contributions, base = numbers(prediction.get("contributions") or {}), number(prediction.get("base"))
    if not contributions or base is None:
        return []
    steps = [Step(words.modality(m), Estimate(value)) for m, value in contributions.items() if m in found["modalities"]]
    count = words.count(number(found.get("n_studies")))

    def draw(width: float) -> str:
        return result_figures.waterfall(
            f"{task}, prediction", ("no modality", base), steps, "all that is there", f"mean {unit}, n = {count}",
            width=width,
        )  # fmt: skip

    return [fitting(draw, "How the mean prediction comes about. Effects of opposite sign cancel here.")]


def _quantities(found: dict[str, Any], *, signed: bool) -> list[tuple[str, str, str]]:
    """(quantity, heading, sentence of its measure) that some modality has; signed: of means that can cancel."""
    entries = list(found["modalities"].values())
    kept = []
    for measure in (found.get("measures") or {}).values():
        for key, title in measure["headings"].items():
            cancels = any(f"{key}_abs" in entry for entry in entries)
            if cancels == signed and any(key in entry for entry in entries):
                kept.append((key, title, str(measure["words"])))
    return kept


def _effects_table(found: dict[str, Any], truth: dict[str, dict[str, float]], *, signed: bool) -> Table:
    """One row per modality, one column for every quantity that a measure has a heading for; the share of the quality first."""
    kept = _quantities(found, signed=signed)
    quality = found.get("performance") or {}
    shares = {} if signed else quality.get("shapley") or {}
    metric = words.metric(_metric(quality)[0])
    columns = ["modality", *([f"share of the {metric}"] if shares else [])]
    columns += ["true value"] if shares and "performance_shapley" in truth else []
    for key, title, _ in kept:
        columns += [title, "true value"] if key in truth else [title]
    rows = []
    for name, effects in found["modalities"].items():
        cells = [words.modality(name), *([words.interval(estimate(shares.get(name)))] if shares else [])]
        if shares and "performance_shapley" in truth:
            cells.append(words.figure(truth["performance_shapley"].get(name)))
        for key, *_ in kept:
            cells.append(words.interval(estimate(effects.get(key))))
            if key in truth:
                cells.append(words.figure(truth[key].get(name)))
        rows.append(cells)
    said = list(dict.fromkeys(sentence for *_, sentence in kept))
    caption = " ".join([*said, "Means over the studies that have it; 95 % intervals."])
    if truth:
        caption += " True value: the same of the Bayes predictor on the same simulated studies."
    return Table(columns, rows, caption)


def _interactions(task: str, found: dict[str, Any]) -> list[Block]:
    values: dict[tuple[str, str], float] = {}
    counts: dict[tuple[str, str], int] = {}
    for name, value in (found.get("interactions") or {}).items():
        pair, mean = tuple(name.split(",")), number(value)
        if len(pair) == 2 and mean is not None:
            values[(pair[0], pair[1])] = mean
            n = number(value.get("n")) if isinstance(value, dict) else None
            counts |= {} if n is None else {(pair[0], pair[1]): int(n)}
    if not values:
        return []
    names = [m for m in found["modalities"] if any(m in pair for pair in values)]
    share = found.get("interaction_share") or {}
    said = " " + str(((found.get("measures") or {}).get("interactions") or {}).get("words", ""))
    for key, word in (("mean_of_abs", "mean of sizes"), ("abs_of_mean", "size of means")):
        value = estimate(share.get(key))
        if value is not None:
            said += f" Share of interaction ({word}): {words.interval(value)}."
    return [Plot(result_figures.interactions(task, names, values, counts), "Mean interaction of each pair." + said)]


def _further(found: dict[str, Any]) -> list[Block]:
    """Subgroups and other baselines, folded."""
    blocks: list[Block] = []
    rows = []
    for grouping, groups in (found.get("subgroups") or {}).items():
        for group, content in groups.items():
            for name, e in content.get("modalities", {}).items():
                cells = [
                    f"{grouping}: {_group(grouping, group)}",
                    words.modality(name),
                    words.interval(estimate(e.get("shapley"))),
                ]
                cells += [words.interval(estimate(e.get("difference"))), words.figure(number(e.get("p_holm")))]
                rows.append([*cells, words.count(number(content.get("n")))])
    if rows:
        columns = ["group", "modality", "Shapley", "difference from the others", "p (Holm)", "n"]
        blocks.append(Fold("Subgroups", [Table(columns, rows, left=2)]))
    sweep = (found.get("baselines") or {}).get("shapley") or {}
    if len(sweep) > 1:
        table = [
            [words.modality(m), *[words.interval(estimate(by.get(m))) for by in sweep.values()]]
            for m in found["modalities"]
        ]
        blocks.append(Fold("Other ways to take a modality away", [Table(["modality", *sweep], table)]))
    coalitions = numbers(found.get("coalitions") or {})
    if coalitions:
        table = [[words.subset(s), words.figure(v)] for s, v in coalitions.items()]
        blocks.append(Fold("Mean value of every set of modalities", [Table(["modalities", "mean value"], table)]))
    return blocks


def _group(grouping: str, group: str) -> str:
    return words.subset(group) if grouping == "present" else group
