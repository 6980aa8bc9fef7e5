"""Every missing pattern from one encoding: the same answers as asking the model again, and the metrics of each."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from medssml.batch import Batch, Encoded
from medssml.counterfactual.oracles import TASK, Number, formula_model, number_batch
from medssml.evaluation.bayes import bayes_by_subset, find_truth, read_truth
from medssml.evaluation.encoded_studies import encode_studies, subset_mask, subset_name, subsets
from medssml.evaluation.subsets import answers_table, embed_subset, predict_subsets, subset_metrics
from medssml.fusion import ConcatFusion, MaskedAttention
from medssml.model import MultimodalModel, Task

MODALITIES = ("ct", "xray", "eeg")


def numbers(n: int = 40) -> torch.Tensor:
    x = torch.randn(n, 3)
    x[torch.rand(n, 3) < 0.3] = float("nan")
    x[x.isnan().all(dim=1)] = 1.0
    return x


class Tokens(torch.nn.Module):
    """An encoder of `length` tokens, so that batches differ in length."""

    dim = 4

    def forward(self, inputs: torch.Tensor) -> Encoded:
        tokens = torch.stack([inputs * k for k in range(1, 5)], dim=-1)
        return Encoded(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool), tokens.mean(dim=1))


@pytest.mark.parametrize("fusion", ["concat", "pooled", "all"])
def test_one_encoding_answers_like_a_new_forward_for_every_subset(fusion: str) -> None:
    made = ConcatFusion(MODALITIES, 8) if fusion == "concat" else MaskedAttention(MODALITIES, 8, 1, 2, tokens=fusion)
    model = MultimodalModel({m: Tokens() for m in MODALITIES}, made, {"y": Task(), "k": Task("multiclass", 3)}).eval()
    x = numbers()
    batches = [number_batch(part, MODALITIES) for part in (x[:10], x[10:])]
    # The second batch has longer inputs of the second modality.
    longer = batches[1].inputs["xray"].expand(-1, 3)  # type: ignore[union-attr]
    batches[1] = Batch(**{**batches[1].__dict__, "inputs": {**batches[1].inputs, "xray": longer}})
    found = predict_subsets(model, batches)
    for mask in subsets(MODALITIES):
        hidden = [m for j, m in enumerate(MODALITIES) if not mask >> j & 1]
        with torch.no_grad():
            expected = [model(batch.without(*hidden)) for batch in batches]
        for task in ("y", "k"):
            want = torch.cat([e[task] for e in expected]).numpy()
            np.testing.assert_allclose(found.outputs[task][:, mask], want, atol=1e-5)
    studies = encode_studies(model, batches)
    assert (model.fusion.reads == "tokens") == (fusion == "all")
    assert (studies.encoded["xray"].tokens.shape[1] > 0) == (fusion == "all")
    assert embed_subset(model, studies).shape == (40, 8)


def test_an_absent_modality_changes_nothing() -> None:
    model = formula_model(MODALITIES, lambda x: x[:, 0] + 2 * x[:, 1] - x[:, 2])
    found = predict_subsets(model, [number_batch(numbers(), MODALITIES)])
    for mask in subsets(MODALITIES):
        np.testing.assert_array_equal(
            found.outputs[TASK][:, mask], found.outputs[TASK][np.arange(40), found.full & mask]
        )
    np.testing.assert_array_equal(found.observed(found.outputs[TASK]), found.outputs[TASK][:, 7])


def test_names_of_subsets() -> None:
    assert [subset_name(s, MODALITIES) for s in subsets(MODALITIES)] == [
        "", "ct", "xray", "eeg", "ct+xray", "ct+eeg", "xray+eeg", "ct+xray+eeg",
    ]  # fmt: skip
    assert subset_mask("eeg+ct", MODALITIES) == 5 and subset_mask("", MODALITIES) == 0
    with pytest.raises(KeyError, match="mri"):
        subset_mask("mri", MODALITIES)
    with pytest.raises(ValueError, match="at most 10"):
        subsets(tuple("abcdefghijk"))


def test_metrics_are_of_the_studies_that_have_all_of_the_subset() -> None:
    torch.manual_seed(1)
    x = numbers(200)
    y = (torch.nan_to_num(x[:, 0]) + torch.randn(200) > 0).float()
    y[:20] = float("nan")
    model = formula_model(MODALITIES, lambda z: z[:, 0] + 0.1 * z[:, 1])
    found = predict_subsets(model, [number_batch(x, MODALITIES, y=y)])
    best = {name: np.full(200, 0.5) for name in ("ct", "xray")} | {"ct": torch.nan_to_num(x[:, 0]).numpy()}
    metrics = subset_metrics(found, TASK, n=50, bayes=best)
    has = ~x[:, 0].isnan() & ~y.isnan()
    assert metrics["ct"]["n"] == int(has.sum()) and metrics["ct"]["positives"] == int(y[has].sum())
    assert metrics["ct"]["auroc"]["estimate"] == pytest.approx(roc_auc_score(y[has], x[has, 0]))
    assert metrics["ct"]["bayes"]["gap"]["estimate"] == pytest.approx(0)
    assert metrics[""]["auroc"]["estimate"] == 0.5 and metrics["xray"]["bayes"]["auroc"]["estimate"] == 0.5
    only = subset_metrics(found, TASK, n=20, only=found.complete)
    assert len({m["n"] for m in only.values()}) == 1


def test_the_table_of_predictions_has_a_row_per_study_and_subset_it_has() -> None:
    model = formula_model(MODALITIES, lambda z: z.sum(dim=1))
    found = predict_subsets(model, [number_batch(numbers(), MODALITIES, y=torch.zeros(40))])
    table = found.table({"s0": "test"})
    assert len(table) == (2 ** found.present.sum(axis=1)).sum()
    assert set(table.columns) == {"study_id", "subject", "split", "task", "subset", "logit", "probability", "y"}
    assert set(table["split"]) == {"test", ""}
    row = table[(table.study_id == "s3") & (table.subset == "ct")]
    if len(row):
        assert row.probability.item() == pytest.approx(1 / (1 + np.exp(-row.logit.item())))


def test_answers_of_a_subset_leave_out_studies_without_it() -> None:
    model = formula_model(MODALITIES, lambda z: z.sum(dim=1))
    studies = encode_studies(model, [number_batch(numbers(), MODALITIES)])
    table = answers_table(model, studies, [TASK], mask=0b011)
    assert set(table.subset) <= {"ct", "xray", "ct+xray"}
    assert len(table) == int(studies.has[:, :2].any(axis=1).sum())


def test_a_modality_cannot_be_taken_from_a_study_that_lacks_it() -> None:
    model = formula_model(MODALITIES, lambda z: z.sum(dim=1))
    studies = encode_studies(
        model, [number_batch(torch.tensor([[1.0, float("nan"), 2.0], [3.0, 4.0, 5.0]]), MODALITIES)]
    )
    rows = torch.tensor([1])
    with pytest.raises(ValueError, match="does not have it"):
        studies.gather(rows, torch.tensor([[True, True, True]]), torch.tensor([[1, 0, 1]]))
    with pytest.raises(ValueError, match="no study to evaluate"):
        encode_studies(model, [])
    with pytest.raises(KeyError, match="other"):
        predict_subsets(model, studies, ["other"])


def test_truth_is_found_by_study_and_subset(tmp_path) -> None:  # type: ignore[no-untyped-def]
    table = pd.DataFrame({"study_id": ["007", "a"], "bayes_y__": [0.5, 0.4], "bayes_y__ct": [0.1, 0.9]})
    table.to_csv(tmp_path / "truth.csv", index=False)
    path = find_truth(tmp_path / "manifest.csv")
    assert path is not None
    truth = read_truth(path)
    found = bayes_by_subset(truth, ["a", "new", "007"], "y", ("ct",))
    assert found is not None
    np.testing.assert_array_equal(found["ct"], [0.9, np.nan, 0.1])
    assert bayes_by_subset(truth, ["a"], "z", ("ct",)) is None
    path.write_text("study_id,finding\n007,1\n")  # what somebody else calls the truth
    assert find_truth(tmp_path / "manifest.csv") is None


def test_number_encoder_is_the_identity() -> None:
    assert Number()(torch.ones(2, 1)).equal(torch.ones(2, 1))
