"""What a run learned and what not, in sentences: the first thing that a reader of its page needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from medssml.reports import transfer_verdict, words
from medssml.reports.results import Estimate, Results, estimate, number

#: What guessing gives, by the metric that a task is judged by, in the order of preference.
GUESSING = {"auroc": 0.5, "r2": 0.0, "balanced_accuracy": 0.5}
REPORTS = ("ct->report", "xray->report")  # what a report describes, and so can be found by
CHANCE = GUESSING["auroc"]
#: Fewer studies than this of one class, and an interval by resampling is rough.
FEW = 10
LEARNED, FEW_STUDIES, NOT_LEARNED = "learned", "few studies", "not shown"


@dataclass(frozen=True)
class Verdict:
    """On one task, or one direction of retrieval. mark: LEARNED, FEW_STUDIES or NOT_LEARNED. text: the sentence."""

    name: str
    mark: str
    text: str


def verdicts(results: Results) -> list[Verdict]:
    """On every task, on the retrieval of reports and on transfers: gain.json, metrics.json, impact.json, transfer_gain.json."""
    tasks = [_task(task, result) for task, result in _judged(results).items()]
    return [*tasks, *_retrieved(results), *_taught(results)]


def sentences(results: Results) -> list[str]:
    """The verdicts as lines."""
    return [f"{verdict.name}: {verdict.text}" for verdict in verdicts(results)]


def verdict_on(results: Results, task: str) -> Verdict | None:
    """The verdict on one task; None where nothing says how good its answers are."""
    found = _judged(results).get(task)
    return None if found is None else _task(task, found)


@dataclass(frozen=True)
class _Result:
    """What the files say of one task. classes: how many studies each class has, the positive one last."""

    metric: str
    found: Estimate | None
    n: int | None = None
    classes: tuple[int, ...] = ()
    method: str = ""
    best: float | None = None
    gain: dict[str, Any] | None = None
    impact: dict[str, Any] | None = None
    reason: str = ""
    subset: str = ""


def _judged(results: Results) -> dict[str, _Result]:
    """Name of a task -> its result; a task of several folders goes by the folder too, the run's own by its name alone."""
    gains = (next(iter(results.of("gain.json").values()), None) or {}).get("tasks") or {}
    impacts = {str(impact.get("task")): impact for impact in results.of("impact.json").values()}
    found: dict[str, _Result] = {}
    for folder, metrics in sorted(results.of("metrics.json").items()):
        for task, entry in (metrics.get("tasks") or {}).items():
            answered = bool(entry.get("subsets"))
            if answered or (task not in found and entry.get("reason") and not folder):
                name = f"{task} ({folder})" if task in found and found[task].found else task
                found[name] = _of_metrics(entry, metrics.get("protocol") or {}, gains.get(task), impacts.get(task))
    for task, gain in gains.items():
        if task not in found:
            found[task] = _of_gain(gain, impacts.get(task))
    for task, impact in impacts.items():
        if task not in found and estimate((impact.get("performance") or {}).get("observed")):
            found[task] = _of_impact(impact)
    return found


def _of_metrics(
    entry: dict[str, Any], protocol: dict[str, Any], gain: dict[str, Any] | None, impact: dict[str, Any] | None
) -> _Result:
    row, subset = headline(entry)
    metric = next((name for name in GUESSING if name in row), "")
    best = number((gain or {}).get("bayes"))
    best = number((row.get("bayes") or {}).get("auroc")) if best is None and metric == "auroc" else best
    measured = (gain or {}).get("pretrained") or row.get(metric)
    n = number((measured or {}).get("n") if isinstance(measured, dict) else None) or number(row.get("n"))
    whole = _counts(entry.get("labels") or {}, str(protocol.get("split") or "test")) if subset is None else ()
    counts = whole or _positives(row)
    return _Result(
        metric, estimate(measured), None if n is None else int(n), counts, str(entry.get("method") or ""), best, gain,
        impact, str(entry.get("reason") or ""), subset or "",
    )  # fmt: skip


def headline(entry: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """What stands for a task: every study from all that it has, and None; where there is no such answer, as of probes, each
    of which reads one set of modalities, the set that most studies have, and its name."""
    if entry.get("as_observed"):
        return dict(entry["as_observed"]), None
    subsets: dict[str, dict[str, Any]] = {name: row for name, row in (entry.get("subsets") or {}).items() if name}
    if not subsets:
        return {}, None
    most = max(subsets, key=lambda name: number(subsets[name].get("n")) or 0.0)
    return subsets[most], most


def _of_gain(gain: dict[str, Any], impact: dict[str, Any] | None) -> _Result:
    n = number(gain.get("n"))
    count = None if n is None else int(n)
    return _Result(
        "auroc", estimate(gain["pretrained"]), count, best=number(gain.get("bayes")), gain=gain, impact=impact
    )


def _of_impact(impact: dict[str, Any]) -> _Result:
    quality = impact["performance"]
    n, positives = number(quality["observed"].get("n")), number(quality.get("positives"))
    count = None if n is None else int(n)
    classes = () if n is None or positives is None else (int(n - positives), int(positives))
    metric = str(quality.get("metric", "auroc"))
    return _Result(metric, estimate(quality["observed"]), count, classes, "head", impact=impact)


def _counts(labels: dict[str, Any], split: str) -> tuple[int, ...]:
    """Studies of each class in the reported split, the positive one last; none for numbers."""
    chosen = labels.values() if split == "all" else [labels.get(split) or {}]
    total: dict[str, int] = {}
    for part in chosen:
        for name, count in (part.get("per_class") or {}).items():
            total[name] = total.get(name, 0) + int(count)
    return tuple(total.values())


def _positives(row: dict[str, Any]) -> tuple[int, ...]:
    n, positives = number(row.get("n")), number(row.get("positives"))
    return () if n is None or positives is None else (int(n - positives), int(positives))


def _task(task: str, result: _Result) -> Verdict:
    """How good, on how many studies, beside guessing, the best possible and training from scratch."""
    found = result.found
    if found is None:
        return Verdict(task, NOT_LEARNED, f"no answer: {result.reason or 'too few labelled studies'}.")
    said = f"{words.metric(result.metric)} {words.interval(found)}"
    said += f" where {words.figure(result.best)} is the best possible" if result.best is not None else ""
    said += _by_whom(result)
    guessing = GUESSING.get(result.metric)
    # without an interval, as of a few subjects, nothing is shown
    learned = guessing is None or (found.low is not None and found.low > guessing)
    mark, caution = LEARNED, ""
    if result.metric == "auroc" and len(result.classes) == 2:
        mark, caution, bound = _caution(found, result.classes)
        learned = learned and (bound is None or bound > CHANCE)
    if not learned:
        than = "the mean of the labels" if result.metric == "r2" else "chance"
        shown = "not shown to be better" if found.low is None else "not better"
        return Verdict(task, NOT_LEARNED, f"{shown} than {than}, {said}{caution}{_gain(result)}.")
    return Verdict(task, mark, f"{said}{caution}{_gain(result)}{_counts_most(result)}.")


def _by_whom(result: _Result) -> str:
    """Who answered, and on how many studies."""
    parts = []
    if result.method:
        parts.append(
            "by its head" if result.method == "head" else f"by a {result.method}, as the model has no head for it"
        )
    if result.subset:
        parts.append(f"from {words.subset(result.subset)} alone,")
    if result.n is not None:
        kinds = f", {result.classes[-1]:,} positive" if len(result.classes) == 2 else ""
        parts.append(f"on {result.n:,} studies{kinds}")
    return f", {' '.join(parts)}" if parts else ""


def _caution(found: Estimate, classes: tuple[int, ...]) -> tuple[str, str, float | None]:
    """Mark, words and the least AUROC that a perfect one leaves possible.

    As many pairs of a positive and a negative study as the rarer class has studies are independent. All of them are in order
    with probability AUROC ** pairs, which is below 5 % for an AUROC below 0.05 ** (1 / pairs).
    """
    rarer = min(classes)
    if found.value >= 1 and rarer:
        bound = 0.05 ** (1 / rarer)
        said = (
            f"; perfect, but the rarer class has {rarer} {_studies(rarer)}, which leaves anything above "
            f"{words.figure(bound, 2)} possible"
        )
        return (FEW_STUDIES if rarer < FEW else LEARNED), said, bound
    if rarer < FEW:
        return FEW_STUDIES, f"; only {rarer} {_studies(rarer)} of the rarer class, so the interval is rough", None
    return LEARNED, "", None


def _studies(count: int) -> str:
    return "study" if count == 1 else "studies"


def _gain(result: _Result) -> str:
    """What pretraining adds to training from scratch, where both were trained."""
    gain = None if result.gain is None else estimate(result.gain["gain"])
    if result.gain is None or gain is None or gain.low is None or gain.high is None:
        return ""
    scratch = words.figure(number(result.gain["scratch"]))
    if gain.low > 0:
        return f"; pretraining adds {words.interval(gain)} to the {scratch} of training from scratch"
    if gain.high < 0:
        loss = Estimate(-gain.value, -gain.high, -gain.low)
        return f"; pretraining costs {words.interval(loss)} of the {scratch} of training from scratch"
    return f"; from scratch {scratch}, no difference shown"


def _counts_most(result: _Result) -> str:
    """Which modality counts most for the quality, and whether in truth it is the same."""
    impact = result.impact or {}
    shares = (impact.get("performance") or {}).get("shapley") or {}
    pairs = [p for p in (impact.get("truth") or {}).get("pairs") or [] if p.get("quantity") == "performance_shapley"]
    measured = {str(name): share for name, share in shares.items() if estimate(share)}
    measured = measured or {str(pair["modality"]): pair for pair in pairs if estimate(pair)}
    if not measured:
        return ""
    most = max(measured, key=lambda name: number(measured[name]) or 0.0)
    share, word = estimate(measured[most]), words.modality(most)
    said = f". {word[:1].upper()}{word[1:]} counts most"
    if share is not None and most in shares:
        said += f", {words.interval(share)} of the {words.metric(result.metric)}"
        if share.low is not None and share.low <= 0:
            said += ", which may be nothing"
    true = {str(pair["modality"]): number(pair.get("truth")) or 0.0 for pair in pairs}
    if true:
        first = max(true, key=lambda name: true[name])
        said += ", as in truth" if first == most else f", in truth {words.modality(first)}"
    return said


def _retrieved(results: Results) -> Iterator[Verdict]:
    """Of reports by their images where there are any, of every pair otherwise."""
    evaluations = results.of("metrics.json")
    # Reports are found in the space that pretraining made; where it was not evaluated, in that of the run.
    own = evaluations.get("", next(iter(evaluations.values()), {}))
    retrieval = evaluations.get("pretrain", own).get("retrieval") or {}
    shown = [name for name in retrieval if name in REPORTS] or list(retrieval)
    for name in shown:
        yield _found(name, retrieval[name])


def _taught(results: Results) -> Iterator[Verdict]:
    """Of every transfer: what a teacher of other modalities adds to a student of one, and whether it was kept."""
    marks = {words.BETTER: LEARNED, words.WORSE: NOT_LEARNED, words.EVEN: NOT_LEARNED}
    for result in results.of("transfer_gain.json").values():
        source, student = transfer_verdict.who(result)
        for task, entry in result["tasks"].items():
            mark, said = transfer_verdict.on_task(task, entry)
            gate = (
                "The transfer is kept." if result["gate"]["kept"] else "On validation studies it is not sure: not kept."
            )
            yield Verdict(f"{task} from {student}, taught by {source}", marks[mark], f"{said} {gate}")


def _found(name: str, row: dict[str, Any]) -> Verdict:
    """How often the right one is among the five nearest."""
    where = words.direction(name)
    recall, chance = estimate(row["r@5"]), number(row["r@5"].get("chance"))
    said = f"the right one is among the first five for {words.interval(recall)}"
    n = number(row.get("n"))
    said += f" of {int(n):,} studies" if n is not None else ""
    if recall is None or not chance:
        return Verdict(where, NOT_LEARNED if recall is None else FEW_STUDIES, f"{said}.")
    if recall.low is not None and recall.low <= chance:
        return Verdict(where, NOT_LEARNED, f"{said}, not better than chance ({words.figure(chance)}).")
    return Verdict(where, LEARNED, f"{said}, {recall.value / chance:.1f} times chance.")
