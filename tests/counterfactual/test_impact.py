"""Impact as a whole: the contract of the result, models whose impact is known, several seeds, truth, oracles."""

from __future__ import annotations

import json
import time

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from medssml.counterfactual.answers import Intervention
from medssml.counterfactual.decompose import emap
from medssml.counterfactual.impact import Impact, _sign_flips, measure_impact
from medssml.counterfactual.interventions import BASELINES, EMPTIES
from medssml.counterfactual.oracles import GATES, TASK, check_gate, formula_model, noise_coverage, number_batch
from medssml.counterfactual.summary import Resampling, holm, mean_interval
from medssml.evaluation.encoded_studies import encode_studies, subset_name, subsets
from medssml.files import plain

MODALITIES = ("ct", "xray", "eeg")
WEIGHTS = torch.tensor([1.5, 0.8, 0.0])


def simulated(n: int = 300, missing: float = 0.3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    x = torch.randn(n, 3)
    y = (torch.rand(n) < (x @ WEIGHTS).sigmoid()).float()
    x[torch.rand(n, 3) < missing] = float("nan")
    x[x.isnan().all(dim=1), 0] = 0.0
    return x, y


def run(x: torch.Tensor, y: torch.Tensor, *weights: torch.Tensor, **options: object) -> Impact:
    models = [formula_model(MODALITIES, lambda z, w=w: z @ w) for w in weights]  # type: ignore[misc]
    encoded = [encode_studies(m, [number_batch(x, MODALITIES, y=y)]) for m in models]
    return measure_impact(models, encoded, TASK, bootstrap=200, **options)  # type: ignore[arg-type]


@pytest.fixture
def page() -> Impact:
    x, y = simulated()
    groups = {"group_sex": np.array((["F", "M", ""] * 100), dtype=object)}
    return run(x, y, WEIGHTS, groups=groups, intervention=Intervention(empty="model"))


def test_the_result_has_what_the_contract_says_and_is_json(page: Impact) -> None:
    result = json.loads(json.dumps(plain(page.result), allow_nan=False))
    assert result["task"] == TASK and result["value"] == "probability of the positive class"
    assert result["baseline"] == "absent" and result["n_studies"] == 300
    assert set(result["coalitions"]) == {subset_name(s, MODALITIES) for s in subsets(MODALITIES)}
    for entry in result["modalities"].values():
        for quantity in ("shapley", "necessity", "sufficiency", "swap", "performance_drop"):
            assert {"estimate", "ci_low", "ci_high"} <= set(entry[quantity])
    assert set(result["interactions"]) == {"ct,xray", "ct,eeg", "xray,eeg"}
    assert set(result["interaction_share"]) == {"mean_of_abs", "abs_of_mean"}
    assert "not on patients" in result["note"] and result["efficiency_gap"] < 1e-6
    assert set(result["baselines"]["shapley"]) == {"absent", "marginal", "joint"}
    columns = ["study_id", "modality", "shapley", "necessity", "sufficiency", "prediction"]
    assert list(page.rows.columns[:6]) == columns
    assert (page.rows.groupby("study_id").prediction.nunique() == 1).all()


def test_the_modality_that_is_not_read_has_no_impact_and_the_others_rank(page: Impact) -> None:
    found = page.result["modalities"]
    assert found["eeg"]["shapley_abs"]["estimate"] < 1e-9 and found["eeg"]["performance_drop"]["estimate"] == 0
    sizes = [found[m]["shapley_abs"]["ci_low"] for m in MODALITIES]
    assert sizes[0] > sizes[1] > sizes[2]
    assert page.result["performance"]["shapley_observed"]["ct"]["ci_low"] > 0
    split = page.result["performance"]["shapley"]
    assert split["ct"]["estimate"] > split["xray"]["estimate"] > 0 == split["eeg"]["estimate"]


def test_performance_by_scikit_learn(page: Impact) -> None:
    x, y = simulated()
    has = ~x[:, 0].isnan()
    score = torch.nan_to_num(x) @ WEIGHTS
    without = torch.nan_to_num(x[:, 1:]) @ WEIGHTS[1:]
    drop = roc_auc_score(y[has], score[has]) - roc_auc_score(y[has], without[has])
    assert page.result["modalities"]["ct"]["performance_drop"]["estimate"] == pytest.approx(drop, abs=1e-6)
    complete = ~x.isnan().any(dim=1)
    total = roc_auc_score(y[complete], score[complete]) - 0.5
    shares = page.result["performance"]["shapley"]
    assert sum(entry["estimate"] for entry in shares.values()) == pytest.approx(total)
    assert page.result["performance"]["n_complete"] == int(complete.sum())


def test_the_waterfall_goes_from_nothing_to_the_mean_prediction(page: Impact) -> None:
    fall = page.result["waterfall"]
    assert fall["base"] + sum(fall["contributions"].values()) == pytest.approx(fall["prediction"])
    assert page.result["coalitions"][""] == pytest.approx(fall["base"])
    assert page.result["coalitions"]["ct+xray+eeg"] == pytest.approx(fall["prediction"])


def test_subgroups_are_corrected_for_their_number(page: Impact) -> None:
    groups = page.result["subgroups"]
    assert set(groups) == {"group_sex", "label", "present"} and set(groups["group_sex"]) == {"F", "M"}
    label = groups["label"]["1"]["modalities"]["ct"]
    assert label["difference"]["ci_low"] > 0 and label["p"] <= label["p_holm"] < 0.05
    assert groups["group_sex"]["F"]["modalities"]["ct"]["p_holm"] > 0.05
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_studies_that_lack_a_modality_do_not_count_for_it(page: Impact) -> None:
    x, _ = simulated()
    for column, name in enumerate(MODALITIES):
        assert page.result["modalities"][name]["shapley"]["n"] == int((~x[:, column].isnan()).sum())
    assert len(page.rows) == int((~x.isnan()).sum())
    complete = int((~x.isnan()).all(dim=1).sum())
    assert page.result["complete"]["n"] == complete
    assert page.result["complete"]["modalities"]["ct"]["shapley"]["n"] == complete


def test_what_nothing_is_worth_is_uncertain_by_its_reference() -> None:
    x, y = simulated()
    few, many = (run(x, y, WEIGHTS, sweep=(), references=[np.tile([-1.0, 1.0], n)]) for n in (10, 2000))
    noise = [page.result["modalities"]["eeg"]["shapley"] for page in (few, many)]
    assert noise[0]["ci_high"] - noise[0]["ci_low"] > 5 * (noise[1]["ci_high"] - noise[1]["ci_low"])
    assert noise[0]["ci_low"] < 0 < noise[0]["ci_high"]
    assert few.result["n_reference"] == 20


def test_several_seeds_widen_the_interval_and_give_a_range_per_study() -> None:
    x, y = simulated()
    one = run(x, y, WEIGHTS, sweep=())
    three = run(x, y, WEIGHTS, WEIGHTS * 0.5, WEIGHTS * 2, sweep=())
    width = [r.result["modalities"]["ct"]["shapley_abs"] for r in (one, three)]
    assert width[1]["ci_high"] - width[1]["ci_low"] > 1.5 * (width[0]["ci_high"] - width[0]["ci_low"])
    assert one.rows.shapley_low.isna().all() and (three.rows.shapley_low <= three.rows.shapley_high).all()
    assert three.result["n_models"] == 3 and three.result["bootstrap"]["unit"] == "subjects and models"


def test_the_order_and_the_batches_of_the_studies_do_not_matter() -> None:
    x, y = simulated(60)
    model = formula_model(MODALITIES, lambda z: z @ WEIGHTS)
    whole = encode_studies(model, [number_batch(x, MODALITIES, y=y)])
    split = encode_studies(
        model, [number_batch(x[:25], MODALITIES, y=y[:25]), number_batch(x[25:], MODALITIES, y=y[25:])]
    )
    quantities = ["shapley", "necessity", "sufficiency", "prediction"]
    a, b = (measure_impact([model], [s], TASK, bootstrap=20, sweep=()).rows for s in (whole, split))
    np.testing.assert_allclose(a[quantities], b[quantities], atol=1e-12)


def test_wrong_input_is_refused() -> None:
    x, y = simulated(20)
    model = formula_model(MODALITIES, lambda z: z @ WEIGHTS)
    whole = encode_studies(model, [number_batch(x, MODALITIES, y=y)])
    part = encode_studies(model, [number_batch(x[:9], MODALITIES, y=y[:9])])
    with pytest.raises(ValueError, match="do not share studies"):
        measure_impact([model, model], [whole, part], TASK)
    with pytest.raises(ValueError, match="at least 1"):
        measure_impact([], [], TASK)
    x[3] = float("nan")
    with pytest.raises(ValueError, match="no modality at all"):
        measure_impact([model], [encode_studies(model, [number_batch(x, MODALITIES, y=y)])], TASK)


NODES, MASS = (torch.tensor(a, dtype=torch.float64) for a in np.polynomial.hermite_e.hermegauss(60))


def best(known: torch.Tensor, hidden_variance: torch.Tensor) -> torch.Tensor:
    """The mean of sigmoid(known + hidden) over a normal hidden part: known (n,), its variance (n,)."""
    return (torch.sigmoid(known[:, None] + hidden_variance.sqrt()[:, None] * NODES) * MASS).sum(dim=1) / MASS.sum()


def bayes(x: torch.Tensor) -> pd.DataFrame:
    """The best possible prediction of every study from every subset, as truth.csv has it."""
    table = {"study_id": [f"s{i}" for i in range(len(x))]}
    for mask in subsets(MODALITIES):
        seen = torch.tensor([float(mask >> j & 1) for j in range(3)])
        variance = (WEIGHTS**2 * (1 - seen)).sum().double().expand(len(x))
        column = best((x @ (WEIGHTS * seen)).double(), variance)
        table[f"bayes_{TASK}__{subset_name(mask, MODALITIES)}"] = column.tolist()
    return pd.DataFrame(table).set_index("study_id")


def best_reader(z: torch.Tensor) -> torch.Tensor:
    """The same as a model: what is absent is 0."""
    p = best((z @ WEIGHTS).double(), ((z == 0) * WEIGHTS**2).sum(dim=1).double())
    return torch.logit(p).float()


def test_the_best_reader_has_the_true_impact_and_a_wrong_one_does_not() -> None:
    x, y = simulated()
    # What is absent is hidden from the best reader, too: the truth needs the number only where a subset shows it.
    truth = bayes(torch.nan_to_num(x))

    def compared(formula) -> dict:  # type: ignore[no-untyped-def, type-arg]
        model = formula_model(MODALITIES, formula)
        batch = number_batch(x, MODALITIES, y=y)
        how = Intervention(empty="model")
        studies = encode_studies(model, [batch])
        return measure_impact([model], [studies], TASK, bootstrap=200, sweep=(), intervention=how, truth=truth).result[
            "truth"
        ]

    right, wrong = compared(best_reader), compared(lambda z: z @ torch.tensor([0.0, 0.0, 3.0]))
    means = {f"{name}{end}" for name in ("shapley", "necessity", "sufficiency", "interactions") for end in ("", "_abs")}
    others = {"performance_drop", "performance_shapley", "performance_shapley_observed", "interaction_share", "quality"}
    assert right["inside"] == dict.fromkeys(means | others, 1.0) and right["n"] == 300
    assert wrong["inside"]["shapley_abs"] == 0 and wrong["inside"]["performance_shapley"] < 1
    for pair in right["pairs"]:
        assert pair["estimate"] == pytest.approx(pair["truth"], abs=0.003)


def test_without_a_known_truth_nothing_is_compared(page: Impact) -> None:
    assert "truth" not in page.result
    x, y = simulated(30)
    other_task = pd.DataFrame({"x": [1]}, index=["s0"])
    assert "truth" not in run(x, y, WEIGHTS, truth=other_task, sweep=()).result
    # The best reader predicts another class: what the model's own class is worth to it says nothing.
    truth = bayes(torch.nan_to_num(x))
    assert "truth" not in run(x, y, WEIGHTS, truth=truth, value="predicted", sweep=()).result
    assert run(x, y, WEIGHTS, truth=truth, value="label", sweep=()).result["truth"]["n"] == 30
    assert run(x, y, WEIGHTS, truth=truth.iloc[:20], sweep=()).result["truth"]["n"] == 20


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.name)
def test_gates(gate) -> None:  # type: ignore[no-untyped-def]
    assert [check for check in check_gate(gate) if not check.agrees] == []


def test_the_self_test_names_what_it_compares_and_tells_a_difference() -> None:
    checks = check_gate(GATES[1])
    assert [check.quantity for check in checks] == [
        "phi x1", "phi x2", "interaction", "share, abs of mean", "share, mean of abs", "EMAP accuracy",
    ]  # fmt: skip
    assert {check.oracle for check in checks} == {"XOR"}
    assert [check.expected for check in checks] == [0.25, 0.25, 0.5, 1.0, 1.0, 0.5]
    assert [check.found for check in checks] == pytest.approx([0.25, 0.25, 0.5, 1.0, 1.0, 0.5], abs=1e-6)
    wrong = GATES[1]._replace(phi=(0.25 + 2e-6, 0.25), emap_accuracy=1.0)
    assert [check.agrees for check in check_gate(wrong)] == [False, True, True, True, True, False]


def test_pure_noise_has_an_interval_that_holds_zero() -> None:
    assert noise_coverage(200) >= 0.93


def test_the_interval_of_a_mean_over_models_is_that_of_the_mean() -> None:
    values = np.random.default_rng(0).normal(size=(1, 200)) + 1
    found = mean_interval(values, Resampling(np.arange(200), 500))
    assert found.estimate == pytest.approx(values.mean()) and found.holds(1.0)


def test_emap_removes_a_product_and_keeps_a_sum() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 6))
    np.testing.assert_allclose(emap(a[:, None] + b[None, :]), a + b)
    centred_a, centred_b = a - a.mean(), b - b.mean()
    np.testing.assert_allclose(emap(centred_a[:, None] * centred_b[None, :]), 0, atol=1e-12)


def test_all_coalitions_of_300_studies_are_quick() -> None:
    x, y = simulated()
    model = formula_model(MODALITIES, lambda z: z @ WEIGHTS)
    studies = encode_studies(model, [number_batch(x, MODALITIES, y=y)])
    start = time.process_time()
    measure_impact([model], [studies], TASK, bootstrap=200, sweep=(), intervention=Intervention(draws=5))
    assert time.process_time() - start < 5


def test_the_head_says_how_it_was_measured() -> None:
    x, y = simulated(40)
    how = Intervention(draws=3, seed=5)
    result = run(x, y, WEIGHTS, WEIGHTS, intervention=how, sweep=(), seed=7).result
    head = {key: result[key] for key in ("task", "kind", "baseline", "empty", "n_studies", "n_subjects", "n_models")}
    assert head == {
        "task": TASK, "kind": "binary", "baseline": "absent", "empty": "mean", "n_studies": 40, "n_subjects": 40, "n_models": 2,
    }  # fmt: skip
    assert result["baseline_words"] == BASELINES["absent"] and result["empty_words"] == EMPTIES["mean"]
    assert result["bootstrap"] == {
        "resamples": 200, "seed": 7, "level": 0.95, "unit": "subjects and models", "donors": 3,
    }  # fmt: skip
    assert result["n_reference"] == 40 and list(result["baselines"]["shapley"]) == ["absent"]
    other = run(x, y, WEIGHTS, intervention=Intervention("joint", draws=2), sweep=(), references=[np.zeros(9)]).result
    assert (other["baseline"], other["empty"], other["n_reference"]) == ("joint", "joint", 9)
    assert other["empty_words"] == BASELINES["joint"] == other["baseline_words"]
    assert other["bootstrap"]["unit"] == "subjects"
    quality = {key: value for key, value in result["performance"].items() if not key.startswith("shapley")}
    n_complete = int((~x.isnan()).all(dim=1).sum())
    assert 0.5 < quality.pop("observed")["estimate"] < 1
    head = {"metric": "auroc", "baseline": "absent", "nothing": 0.5, "positives": int(y.sum())}
    assert quality == {**head, "n_complete": n_complete}
    nobody = run(x, torch.full_like(y, torch.nan), WEIGHTS, sweep=()).result["performance"]
    assert nobody["shapley"] == {} == nobody["shapley_observed"] and nobody["n_complete"] == 0
    model = run(x, y, WEIGHTS, intervention=Intervention(empty="model"), sweep=()).result
    assert (model["empty"], model["empty_words"]) == ("model", EMPTIES["model"])


def test_of_studies_none_of_which_is_complete_there_is_no_mean_over_the_complete_ones() -> None:
    x, y = simulated()
    x[::2, 2] = x[1::2, 0] = torch.nan
    x[x.isnan().all(dim=1), 1] = 0.0
    found = run(x, y, WEIGHTS, sweep=()).result
    assert found["coalitions_complete"] == {} and found["complete"] == {"n": 0, "modalities": {}}
    assert set(found) == {
        "baseline", "baseline_words", "baselines", "bootstrap", "coalitions", "coalitions_complete", "complete",
        "efficiency_gap", "empty", "empty_words", "interaction_share", "interactions", "kind", "measures",
        "modalities", "n_models", "n_reference", "n_studies", "n_subjects", "note", "performance", "subgroups", "task",
        "value", "waterfall",
    }  # fmt: skip


def test_means_over_all_studies_and_over_the_complete_ones(page: Impact) -> None:
    x, _ = simulated()
    p = torch.sigmoid(torch.nan_to_num(x) @ WEIGHTS).numpy()
    complete = (~x.isnan()).all(dim=1).numpy()
    whole = "ct+xray+eeg"
    assert page.result["coalitions"][whole] == pytest.approx(p.mean(), rel=1e-5)
    assert page.result["coalitions_complete"][whole] == pytest.approx(p[complete].mean(), rel=1e-5)
    assert page.result["complete"]["n"] == complete.sum()
    for name, entry in page.result["complete"]["modalities"].items():
        assert entry["shapley"]["n"] == complete.sum() and set(entry) == {
            f"{q}{end}" for q in ("shapley", "necessity", "sufficiency", "swap") for end in ("", "_abs")
        }
        own = page.rows[
            (page.rows.modality == name) & page.rows.study_id.isin({f"s{i}" for i in np.flatnonzero(complete)})
        ]
        assert entry["necessity"]["estimate"] == pytest.approx(own.necessity.mean())
    for column, name in enumerate(MODALITIES):
        share = float((~x[:, column].isnan()).float().mean())
        assert page.result["modalities"][name]["coverage"] == pytest.approx(share)


def test_a_sign_that_depends_on_the_baseline_is_counted() -> None:
    phis = {
        "absent": np.array([[[0.5, 0.2], [0.3, np.nan], [0.005, 0.1], [-0.2, 0.1]]]),
        "joint": np.array([[[-0.4, 0.1], [0.2, np.nan], [-0.5, 0.3], [-0.3, 0.2]]]),
    }
    assert _sign_flips(phis, ("a", "b", "c")[:2]) == {
        "a": {"studies": 0.25, "mean": True}, "b": {"studies": 0.0, "mean": False},
    }  # fmt: skip
    assert _sign_flips({"absent": np.full((1, 2, 1), np.nan)}, ("a",)) == {}
    # Models are averaged before signs are compared.
    two = {"absent": np.array([[[0.5]], [[-0.9]]]), "joint": np.array([[[-0.2]], [[-0.2]]])}
    assert _sign_flips(two, ("a",)) == {"a": {"studies": 0.0, "mean": False}}


def test_a_further_baseline_has_its_own_donors_and_few_of_them() -> None:
    x, y = simulated(60)
    found = run(x, y, WEIGHTS, sweep=("absent", "marginal"), intervention=Intervention(draws=2, seed=3)).result[
        "baselines"
    ]
    assert list(found["shapley"]) == ["absent", "marginal"]
    alone = run(x, y, WEIGHTS, sweep=(), intervention=Intervention("marginal", draws=2, seed=3)).result["modalities"]
    for name in MODALITIES:
        assert found["shapley"]["marginal"][name] == alone[name]["shapley"]
    logits = run(x, y, WEIGHTS, value="logit", sweep=("joint",), intervention=Intervention(draws=2)).result["baselines"]
    joint = run(x, y, WEIGHTS, value="logit", sweep=(), intervention=Intervention("joint", draws=2)).result[
        "modalities"
    ]
    assert logits["shapley"]["joint"]["ct"] == joint["ct"]["shapley"]
    many = run(x, y, WEIGHTS, sweep=("marginal",), intervention=Intervention(draws=30, seed=3)).result["baselines"]
    five = run(x, y, WEIGHTS, sweep=(), intervention=Intervention("marginal", draws=5, seed=3)).result["modalities"]
    assert many["shapley"]["marginal"]["ct"] == five["ct"]["shapley"]


def test_groups_are_those_given_the_label_and_the_pattern() -> None:
    x, y = simulated(80)
    y[:10] = float("nan")
    found = run(x, y, WEIGHTS, sweep=()).result["subgroups"]
    assert set(found) == {"label", "present"} and set(found["label"]) == {"0", "1"}
    assert sum(group["n"] for group in found["label"].values()) == 70
    pattern = "+".join(m for m, there in zip(MODALITIES, ~x[0].isnan(), strict=True) if there)
    assert pattern in found["present"]


def test_the_quality_of_the_answers_is_that_of_all_labelled_studies_and_classes_go_by_their_names() -> None:
    x, y = simulated(120)
    y[:10] = float("nan")
    page = run(x, y, WEIGHTS, sweep=(), classes=("healthy", "ill"), intervention=Intervention(empty="model"))
    found = page.result["performance"]
    known = page.rows.drop_duplicates("study_id").dropna(subset="label")
    expected = roc_auc_score(known.label == "ill", known.prediction)
    assert found["observed"]["estimate"] == pytest.approx(expected) and found["observed"]["n"] == 110
    assert found["positives"] == int((known.label == "ill").sum()) and found["nothing"] == 0.5
    assert set(page.result["subgroups"]["label"]) == {"healthy", "ill"}
