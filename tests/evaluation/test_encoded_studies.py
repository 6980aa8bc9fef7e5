"""Studies behind their encoders, and some of them."""

import numpy as np
import torch

from medssml.batch import Encoded
from medssml.evaluation.encoded_studies import EncodedStudies


def test_some_of_the_studies_in_another_order_keep_their_own_rows() -> None:
    present = torch.tensor([[True, False], [True, True], [False, True], [True, True]])
    rows = {"ct": [0.0, 1, 3], "xray": [11.0, 12, 13]}

    def part(name: str) -> Encoded:
        pooled = torch.tensor(rows[name])[:, None]
        return Encoded(pooled[:, None] + 100, torch.ones(3, 1, dtype=torch.bool), pooled, (pooled[:, None] + 200,))

    studies = EncodedStudies(
        {name: part(name) for name in rows},
        present,
        ("ct", "xray"),
        tuple("abcd"),
        np.arange(4),
        {"sick": np.array([0.0, np.nan, 1, 0])},
        {"ct": np.array([5, 6, 7])},
        {name: torch.tensor(values)[:, None] for name, values in rows.items()},
    )
    some = studies.take(np.array([3, 0]))
    assert some.study_id == ("d", "a") and some.subject.tolist() == [3, 0] and some.targets["sick"].tolist() == [0, 0]
    assert some.present.tolist() == [[True, True], [True, False]]
    assert some.encoded["ct"].pooled[:, 0].tolist() == [3, 0] and some.encoded["xray"].pooled[:, 0].tolist() == [13]
    assert some.encoded["ct"].tokens[:, 0, 0].tolist() == [103, 100] and some.encoded["ct"].layers[0].shape == (2, 1, 1)
    assert some.content == {"ct": some.content["ct"]} and some.content["ct"].tolist() == [7, 5]
    assert some.raw["xray"].tolist() == [[13.0]]
    assert set(studies.take(np.array([0])).encoded) == {"ct"}
