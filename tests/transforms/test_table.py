"""Table: standardised by the training studies and no others, unknown stays unknown, and a saved model brings its figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medssml.config import describe
from medssml.readers.errors import ReadError
from medssml.transforms import TableTransform
from medssml.transforms.road import built_road

FEATURES = {"crp": "mg/l", "ldh": "", "po2": "mmHg"}
TRAIN = ['{"crp": 2, "ldh": 100}', '{"crp": 4, "ldh": 100, "other": 7}', '{"crp": 9, "ldh": null}']


@pytest.fixture
def fitted() -> TableTransform:
    transform = TableTransform(FEATURES)
    transform.fit_training([transform.prepare(text) for text in TRAIN])
    return transform


def test_values_are_standardised_by_the_known_ones_of_the_training_studies(fitted: TableTransform) -> None:
    out = fitted(fitted.prepare('{"crp": 9, "ldh": 101, "po2": 80}'))
    crp = np.array([2.0, 4.0, 9.0])
    expected = [(9 - crp.mean()) / crp.std(), 1.0, 5.0]  # ldh never varied: its own unit; po2 was never seen, and cut
    np.testing.assert_allclose(out["values"], expected, rtol=1e-6)
    assert out["known"].tolist() == [True, True, True] and out["values"].dtype == torch.float32
    out = fitted(fitted.prepare('{"ldh": 100}'))
    assert out["values"].tolist() == [0, 0, 0] and out["known"].tolist() == [False, True, False]


def test_training_hides_values_and_never_all_of_them(fitted: TableTransform) -> None:
    busy = TableTransform(FEATURES, hide=0.5, fitted=describe(fitted)[-1]["init_args"]["fitted"])
    prepared = busy.prepare('{"crp": 3, "ldh": 90}')
    draws = [tuple(busy(prepared, seed)["known"].tolist()) for seed in range(60)]
    assert set(draws) == {(True, True, False), (True, False, False), (False, True, False)}
    assert draws[7] == tuple(busy(prepared, 7)["known"].tolist())
    assert busy(prepared)["known"].tolist() == [True, True, False]


def test_a_saved_transform_brings_its_figures(fitted: TableTransform) -> None:
    again = built_road("table", describe(fitted))
    prepared = fitted.prepare(TRAIN[0])
    assert torch.equal(again(prepared)["values"], fitted(prepared)["values"])
    again.fit_training([again.prepare('{"crp": 1000}')])
    assert torch.equal(again(prepared)["values"], fitted(prepared)["values"])
    assert (
        again.spec() == fitted.spec() == TableTransform(FEATURES, clip=3.0).spec() != TableTransform({"crp": ""}).spec()
    )


def test_units_are_compared(tmp_path: Path) -> None:
    transform = TableTransform(FEATURES)
    (tmp_path / "a.csv").write_text("name,value,unit\ncrp,5,MG/L\nldh,1,U/l\n")
    np.testing.assert_array_equal(transform.prepare(tmp_path / "a.csv")["values"], [5, 1, np.nan])
    (tmp_path / "a.csv").write_text("name,value,unit\ncrp,0.5,mg/dl\n")
    with pytest.raises(ReadError, match="a.csv: crp is in 'mg/dl', expected 'mg/l'; fix: convert"):
        transform.prepare(tmp_path / "a.csv")
    micro = TableTransform({"crp": "\u00b5g/L"})
    for spelling in ("\u03bcg/L", "ug / l", "ng/mL"):
        assert micro.prepare(_table(tmp_path, spelling))["values"].tolist() == [5]
    with pytest.raises(ReadError, match="crp is in 'MU/L', expected 'mU/L'"):
        TableTransform({"crp": "mU/L"}).prepare(_table(tmp_path, "MU/L"))
    with pytest.raises(ReadError, match="none of the 3 features"):
        transform.prepare('{"lymphocytes": 1}')


def _table(folder: Path, unit: str) -> Path:
    (folder / "b.csv").write_text(f"name,value,unit\ncrp,5,{unit}\n", encoding="utf-8")
    return folder / "b.csv"


def test_settings_and_order_of_calls() -> None:
    transform = TableTransform(FEATURES)
    with pytest.raises(ValueError, match="not known yet"):
        transform(transform.prepare(TRAIN[0]))
    with pytest.raises(ValueError, match=r"differ in \['ldh', 'po2'\]"):
        other = TableTransform(FEATURES, fitted={"crp": [0, 1]})
        other(other.prepare(TRAIN[0]))
    with pytest.raises(ValueError, match="positive std"):
        TableTransform({"crp": ""}, fitted={"crp": [0, 0]})
    with pytest.raises(ValueError, match="share is 1"):
        TableTransform(FEATURES, hide=1)
    with pytest.raises(ValueError, match="number of features"):
        TableTransform({})
