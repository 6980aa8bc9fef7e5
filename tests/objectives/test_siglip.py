import math

import pytest
import torch

from medssml.objectives import SigLIP, Step
from tests.examples import batch_of, study, ten_studies, tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


def test_agrees_with_every_pair_of_studies_asked_one_by_one(model):
    torch.manual_seed(0)
    objective = SigLIP(model, dim=8, pairs=["ct+report", "xray+report"]).eval()
    studies = ten_studies()
    studies[5]["subject"] = studies[0]["subject"]
    studies[6]["content"]["report"] = studies[1]["content"]["report"]
    vector = {}  # (study, modality) -> its place in the space, each study encoded alone
    for n, one in enumerate(studies):
        for m, part in Step(model, batch_of([one])).encoded.items():
            if m in objective.space.modalities:
                vector[n, m] = objective.space(m, part.pooled)[0].tolist()

    total, matches = 0.0, 0
    for m in ("ct", "xray"):
        for i in (n for n, kind in vector if kind == m):
            for j in (n for n, kind in vector if kind == "report"):
                if i != j and {i, j} in ({0, 5}, {1, 6}):
                    continue
                logit = 10 * sum(x * y for x, y in zip(vector[i, m], vector[j, "report"], strict=True)) - 10
                total += math.log1p(math.exp(-logit if i == j else logit))
                matches += i == j
    answer = objective(Step(model, batch_of(studies)))
    assert answer["loss"].item() == pytest.approx(total / matches, rel=1e-5)
    assert (answer["scale"].item(), answer["bias"].item()) == (pytest.approx(10), -10)


def test_studies_without_a_pair_are_negatives_and_alone_no_term(model):
    objective = SigLIP(model, dim=8, pairs=["ct+report"], batch_norm=False)
    both, single = study(0, ("ct", "report")), study(1, ("report",))
    alone, among = (objective(Step(model, batch_of(s)))["loss"] for s in ([both], [both, single]))
    assert among > alone
    assert objective(Step(model, batch_of([study(2, ("ct",)), single]))) is None


def test_wrong_arguments_are_named(model):
    with pytest.raises(ValueError, match=r"SigLIP: pairs \['ct\+mri'\]; known: ct\+xray"):
        SigLIP(model, pairs=["ct+mri"])
    with pytest.raises(ValueError, match="scale is -1.0; expected a positive number"):
        SigLIP(model, scale=-1.0)
