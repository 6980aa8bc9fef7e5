"""Reports that a model writes of studies, and how near they are to those that were written by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from medssml.batch import Batch
from medssml.drafts import Drafting
from medssml.evaluation.encoded_studies import EncodedStudies, bits, encode_studies, fuse_studies, subset_name
from medssml.evaluation.subsets import within_subset
from medssml.phantom.causes import GRADE_EDGES, STRENGTH
from medssml.phantom.report import findings_of
from medssml.phantom.truth import members, stated
from medssml.predictor import Predictor
from medssml.statistics.text_metrics import bleu, cider, finding_f1, rouge_l

#: The modality that is written, and never shown.
REPORT = "report"


def write_reports(
    predictor: Predictor,
    batches: Iterable[Batch],
    mask: int | None = None,
    *,
    beams: int = 1,
    drafting: Drafting | None = None,
    device: str = "cpu",
) -> pd.DataFrame:
    """study_id, subset (what was shown), report (what was written) and reference, the report's own words or None.

    Args:
        predictor: whose model kept a decoder.
        batches: of the studies; those that have nothing but a report, or nothing of the subset, are left out.
        mask: bits of the modalities that are shown; None for all that each study has. The report never is.
        beams, drafting: see `Predictor.generate`.
        device: where fusion and decoder run.

    Raises:
        medssml.checkpoint.CheckpointError: the model kept no decoder. ValueError: no study at all.
    """
    references: dict[str, str] = {}

    def watched() -> Iterator[Batch]:
        for batch in batches:
            references.update(_references(predictor, batch))
            yield batch

    studies = encode_studies(predictor.model, watched(), device)
    within = studies.present.clone() if mask is None else within_subset(studies.present, mask)
    within[:, studies.column(REPORT)] = False
    rows = within.any(dim=1).nonzero().squeeze(1)
    written = [
        text
        for fused in fuse_studies(predictor.model, studies, within[rows], rows=rows, device=device)
        for text in predictor.written(fused, beams=beams, drafting=drafting)
    ]
    ids = np.array(studies.study_id, dtype=object)[rows.numpy()]
    return pd.DataFrame(
        {
            "study_id": ids,
            "subset": _subsets(studies, within[rows].numpy()),
            "report": written,
            "reference": [references.get(name) for name in ids],
        }
    )


def generation_scores(
    written: Sequence[str],
    references: Sequence[str],
    findings: Callable[[str], Mapping[str, bool]] | None = None,
) -> dict[str, float]:
    """ "bleu", "rouge_l" and "cider", and with a labeller of texts "f1_micro", "f1_macro" and "f1_FINDING" of what they state."""
    out = {
        "bleu": bleu(written, references),
        "rouge_l": rouge_l(written, references),
        "cider": cider(written, references),
    }
    if findings is None:
        return out
    found = finding_f1([findings(text) for text in written], [findings(text) for text in references])
    return out | {f"f1_{name}": value for name, value in found.items()}


def best_possible_f1(truth: pd.DataFrame, written: pd.DataFrame) -> float:
    """F1, over all findings, of who knows what the shown modalities say of simulated studies and decides for the highest F1.

    Args:
        truth: of `read_truth`, by study id.
        written: columns study_id, subset and reference, the reports that are to be met.
    """
    known = truth.loc[[str(name) for name in written["study_id"]]]
    subsets = written["subset"].to_numpy()
    p = np.stack(
        [
            np.select([subsets == s for s in set(subsets)], [stated(known, f, s) for s in set(subsets)])
            for f in GRADE_EDGES
        ]
    )
    decided = best_decisions(p.reshape(-1)).reshape(p.shape)
    guesses = [dict(zip(GRADE_EDGES, column, strict=True)) for column in decided.T.tolist()]
    return finding_f1(guesses, [findings_of(text) for text in written["reference"]])["micro"]


def simulated_scores(truth: pd.DataFrame, written: pd.DataFrame) -> dict[str, float]:
    """What the F1 over all findings of simulated studies lies between, and how much is made up.

    Args:
        truth: of `read_truth`. written: of `write_reports`.

    Returns:
        "best_possible_f1_micro"; "f1_micro_of_stating_all", of reports that state every finding whatever is shown; and
        `unfounded_rates`, where there are any.
    """
    known = written[written["reference"].notna()]
    references = [findings_of(text) for text in known["reference"]]
    blind = finding_f1([dict.fromkeys(GRADE_EDGES, True)] * len(known), references)["micro"]
    rates = {name: rate for name, rate in unfounded_rates(written).items() if not math.isnan(rate)}
    best = best_possible_f1(truth, known)
    return {"best_possible_f1_micro": best, "f1_micro_of_stating_all": blind, **rates}


def unfounded_rates(written: pd.DataFrame) -> dict[str, float]:
    """How often reports of simulated studies speak of a finding that nothing that was shown bears on: what must be made up.

    Args:
        written: columns subset and report.

    Returns:
        "hallucinated", the share of all pairs of a report and such a finding in which the report states it to be there, and
        "unfounded", in which it says anything of it, its absence too. NaN where what was shown bears on every finding.
    """
    said = [
        read.get(finding)
        for subset, read in zip(written["subset"], map(findings_of, written["report"]), strict=True)
        for finding in GRADE_EDGES
        if not any(finding in STRENGTH[modality] for modality in members(subset))
    ]
    if not said:
        return {"hallucinated": math.nan, "unfounded": math.nan}
    return {
        "hallucinated": sum(one is True for one in said) / len(said),
        "unfounded": sum(one is not None for one in said) / len(said),
    }


def best_decisions(p: np.ndarray) -> np.ndarray:
    """(n,) bool: what to take for true, of probabilities p (n,), for the highest expected true over decided and true."""
    order = np.argsort(-p, kind="stable")
    score = 2 * np.cumsum(p[order]) / (np.arange(1, len(p) + 1) + p.sum())
    out = np.zeros(len(p), dtype=bool)
    out[order[: int(score.argmax()) + 1]] = True
    return out


def _references(predictor: Predictor, batch: Batch) -> dict[str, str]:
    inputs = batch.inputs.get(REPORT)
    if not isinstance(inputs, dict):
        return {}
    names = [batch.study_id[row] for row in batch.rows(REPORT).tolist()]
    return {name: predictor.words(ids) for name, ids in zip(names, inputs["input_ids"].tolist(), strict=True)}


def _subsets(studies: EncodedStudies, within: np.ndarray) -> list[str]:
    return [subset_name(int(b), studies.modalities) for b in bits(within)]
