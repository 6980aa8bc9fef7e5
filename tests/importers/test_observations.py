"""Observations of a FHIR export: which value of which patient is a study's, under which name, and what becomes of the rest."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from medssml.importers import LayoutError
from medssml.importers.moments import moment, order, within
from medssml.readers.table import parse_table
from tests.importers.test_dicom_tree import series
from tests.importers.test_fhir import IMAGING, PATIENT, accession, lines, report
from tests.importers.trees import Made, put, run

CRP, GLUCOSE = "1988-5", "2339-0"


def observation(
    value: Any = 5.0, unit: str = "mg/L", when: str = "2019-12-31T08:00:00Z", **more: Any
) -> dict[str, Any]:
    coding = {"system": "http://loinc.org", "code": more.pop("code", CRP), "display": "C reactive protein"}
    return {
        "resourceType": "Observation",
        "status": "final",
        "category": [{"coding": [{"code": "laboratory"}]}],
        "code": {"coding": [coding]},
        "subject": {"reference": "Patient/p1"},
        "effectiveDateTime": when,
        "valueQuantity": {"value": value, "unit": unit, "system": "http://unitsofmeasure.org", "code": unit},
        **more,
    }


def imported(folder: Path, *observations: dict[str, Any], **options: Any) -> Made:
    """One report of patient p1, issued 2020-01-01T00:00:00Z, beside the observations."""
    files = {"DiagnosticReport.ndjson": lines(report("r")), "Observation.ndjson": lines(*observations)}
    return run("fhir", put(folder / "export", files), **options)


def values(made: Made, study: str = "r") -> dict[str, str]:
    return {name: cell for name, cell in made.rows[study].items() if name.startswith("table_") and cell}


def why(made: Made, row: int) -> str:
    return made.why(source="Observation.ndjson", row=row)


def test_the_last_value_before_the_report(tmp_path: Path) -> None:
    made = imported(
        tmp_path,
        observation(1.0, when="2019-12-28"),
        observation(3.5, when="2019-12-31T23:59:59-01:00"),  # an hour into the new year
        observation(2.5, when="2019-12-31T23:30:00Z"),
        observation(4.5, when="2020-01-01T09:00:00Z"),
        observation(0.5, when="2019-12-20"),
        observation(90, "mg/dL", code=GLUCOSE),
    )
    assert values(made) == {"table_1988-5_mg/L": "2.5", "table_2339-0_mg/dL": "90"}
    assert [why(made, row) for row in (3, 6)] == ["", ""]
    assert why(made, 1) == "a later value before the report was taken"
    assert {why(made, row) for row in (2, 4, 5)} == {"not within 7 days before a report"}
    (line,) = [line for line in made.lines if line["source"] == "Observation.ndjson" and line["row"] == "3"]
    assert (line["study_id"], line["column"]) == ("r", "table_1988-5_mg/L")
    assert any("table_1988-5_mg/L (C reactive protein): 1" in note for note in made.done.notes)
    assert made.manifest.present[0].tolist() == [True, True] and made.manifest.modalities == ("report", "table")


def test_units_are_columns_and_nothing_is_converted(tmp_path: Path) -> None:
    units = ("mg/dL", "mmol/L", "MG/DL")
    made = imported(tmp_path, *[observation(n + 1, unit, code=GLUCOSE) for n, unit in enumerate(units)])
    assert values(made) == {"table_2339-0_mg/dL": "3", "table_2339-0_mmol/L": "2"}
    source = made.manifest.source_of(0, "table")
    assert isinstance(source, str) and parse_table(source).values == {"2339-0_mg/dL": 3.0, "2339-0_mmol/L": 2.0}


def test_names_bounds_components_and_whole_numbers(tmp_path: Path) -> None:
    def component(code: str, value: float) -> dict[str, Any]:
        return {
            "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
            "valueQuantity": {"value": value, "code": "mm[Hg]"},
        }

    pressure = {
        **observation(),
        "component": [component("8480-6", 120), component("8462-4", 80)],
        "category": [{"coding": [{"code": "vital-signs"}]}],
    }
    del pressure["valueQuantity"]
    bound = observation(code=CRP)
    bound["valueQuantity"]["comparator"] = "<"
    count = {**observation(), "code": {"text": "White Cells"}, "valueInteger": 7}
    del count["valueQuantity"]
    local = {**observation(2), "code": {"coding": [{"system": "urn:lab", "code": "K+"}]}}
    made = imported(tmp_path, pressure, bound, count, local)
    assert values(made) == {
        "table_8480-6_mm[Hg]": "120", "table_8462-4_mm[Hg]": "80", "table_1988-5_mg/L": "<5.0", "table_white_cells": "7",
        "table_k_mg/L": "2",
    }  # fmt: skip
    assert [why(made, row) for row in (1, 2, 3, 4)] == [""] * 4


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (observation(status="entered-in-error"), "status entered-in-error"),
        (observation(category=[{"coding": [{"code": "imaging"}]}]), "category imaging: no laboratory value"),
        (observation(when="2019"), "states no day"),
        (observation("5"), "no number with a code"),
        (observation(float("nan")), "no number with a code"),
        (observation(True), "no number with a code"),
        (observation(10**400), "no number with a code"),
        ({**observation(), "valueQuantity": None, "valueString": "negative"}, "no number with a code"),
        (observation(subject={"reference": "Patient/p2"}), "its patient has no report"),
        (observation(subject=None), "its patient has no report"),
    ],
)
def test_every_observation_without_a_value_says_why(tmp_path: Path, wrong: dict[str, Any], reason: str) -> None:
    made = imported(tmp_path, observation(), wrong)
    assert why(made, 1) == "" and why(made, 2) == reason and values(made) == {"table_1988-5_mg/L": "5.0"}


def test_the_window_is_an_option(tmp_path: Path) -> None:
    old = observation(when="2019-12-01T00:00:00Z")
    assert values(imported(tmp_path / "a", old)) == {}
    assert values(imported(tmp_path / "b", old, lab_days=31)) == {"table_1988-5_mg/L": "5.0"}


def test_against_a_search_over_all_pairs(tmp_path: Path) -> None:
    """Three patients with several reports and sixty values: the last within the window, by another way of looking."""
    dice = random.Random(0)
    days = [f"2020-01-{day:02d}T12:00:00Z" for day in range(1, 29)]
    reports = [(f"r{n}", f"p{n % 3}", dice.choice(days)) for n in range(9)]
    seen = [
        (f"p{n % 3}", dice.choice((CRP, GLUCOSE)), when, float(n)) for n, when in enumerate(dice.sample(days * 3, 60))
    ]
    seen = [entry for place, entry in enumerate(seen) if entry[:3] not in [other[:3] for other in seen[:place]]]
    files = {
        "a.ndjson": lines(
            *[observation(v, code=code, when=when, subject={"reference": f"Patient/{p}"}) for p, code, when, v in seen]
        ),
        "b.ndjson": lines(*[report(id, subject={"reference": f"Patient/{p}"}, issued=when) for id, p, when in reports]),
    }
    made = run("fhir", put(tmp_path / "many", files))
    for id, patient, issued in reports:
        until = days.index(issued)
        for code in (CRP, GLUCOSE):
            mine = [
                (days.index(when), v)
                for p, c, when, v in seen
                if (p, c) == (patient, code) and 0 <= until - days.index(when) <= 7
            ]
            assert made.rows[id].get(f"table_{code}_mg/L", "") == (str(max(mine)[1]) if mine else "")


def test_values_join_the_images_of_a_dicom_tree(tmp_path: Path) -> None:
    series(tmp_path / "pacs" / "a", 1)
    of_images = report("r", imagingStudy=[{"reference": "ImagingStudy/i1"}])
    text = lines(
        observation(7),
        of_images,
        IMAGING,
        report("x", identifier=accession("A404"), subject={"reference": "Patient/p4"}),
    )
    made = run("dicom", tmp_path / "pacs", reports=put(tmp_path / "fhir", {"all.ndjson": text}))
    assert made.rows["1.2.40"]["table_1988-5_mg/L"] == "7" and made.why(source="all.ndjson", row=1) == ""


def test_units_of_one_meaning_are_one_column_and_a_prefix_makes_another(tmp_path: Path) -> None:
    units = ("\u00b5g/L", "\u03bcg / L", "ug/L", "ng/mL")
    made = imported(
        tmp_path / "a", *[observation(n + 1, unit, when=f"2019-12-3{n % 2}") for n, unit in enumerate(units)]
    )
    assert values(made) == {"table_1988-5_\u00b5g/L": "4"}
    assert any("is written in 4 ways: '\\xb5g/L', '\\u03bcg/L'" in note for note in made.done.notes)
    made = imported(tmp_path / "b", observation(30, "mU/L"), observation(0.00003, "MU/L"))
    assert values(made) == {"table_1988-5_mU/L": "30", "table_1988-5_MU/L": "3e-05"}
    other = observation(7)
    other["valueQuantity"] = {"value": 7, "unit": "mmol/L", "system": "http://snomed.info/sct", "code": "258813002"}
    assert values(imported(tmp_path / "c", other)) == {"table_1988-5_mmol/L": "7"}


@pytest.mark.parametrize(
    ("seen", "until", "days", "near"),
    [
        ("2020-01-01T23:30:00-05:00", "2020-01-01", 7, True),  # the evening of that day where it was measured
        ("2020-01-02T01:00:00+05:00", "2020-01-01", 7, False),
        ("2020-01-02", "2020-01-02T00:30:00+02:00", 7, True),  # the same day of the calendar there
        ("2020-01-01", "2020-01-01", 7, True),
        ("2020-01-02", "2020-01-01T23:00:00Z", 7, False),
        ("2019-12-25", "2020-01-01T12:00:00Z", 7, True),
        ("2019-12-24", "2020-01-01T12:00:00Z", 7, False),
        ("2019-12-31T12:00:00.123456789Z", "2019-12-31T12:00:00.2Z", 1, True),
        ("2019-12-31T12:00:00Z", "2020-01-01T12:00:01Z", 1, False),
    ],
)
def test_a_day_is_over_when_it_ends_where_it_was(seen: str, until: str, days: float, near: bool) -> None:
    one, other = moment(seen), moment(until)
    assert one is not None and within(one, other, days) is near


def test_what_is_a_moment() -> None:
    ended = moment({"start": "2020-02-29", "end": "2020-03-01"})
    assert ended is not None and ended.day.day == 1 and not ended.exact
    leap = moment("2016-12-31T23:59:60Z")
    assert leap is not None and leap.exact
    assert [moment(bad) for bad in ("2020", "2020-02", "2020-13-01", "", None, "yesterday", 5, [], {})] == [None] * 9
    day, hour = moment("2020-01-01"), moment("2020-01-01T08:00:00Z")
    assert order(day, hour) == order(hour, None) == 0 and order(moment("2019-12-31"), hour) == -1


_TIMES = ("9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00")
_ODD = (None, [], {}, "", -1, 10**400, float("nan"), [{}], [None], True, *_TIMES, "\ud800", [[[]]], {"a": 1})


def mutated(value: Any, dice: random.Random) -> Any:
    """The same with one part of it gone, or something odd in its place."""
    if isinstance(value, dict) and value and dice.random() < 0.8:
        name = dice.choice(list(value))
        rest = {key: item for key, item in value.items() if key != name}
        return rest if dice.random() < 0.2 else {**rest, name: mutated(value[name], dice)}
    if isinstance(value, list) and value and dice.random() < 0.8:
        return [mutated(value[0], dice), *value[1:]]
    return dice.choice(_ODD)


def test_mutated_resources_are_imported_or_left_out(tmp_path: Path) -> None:
    dice = random.Random(1)
    made = 0
    for number in range(80):
        resources = [observation(), observation(7, "mmol/L", code=GLUCOSE), report("r"), PATIENT]
        place = dice.randrange(len(resources))
        resources[place] = mutated(resources[place], dice)
        try:
            made += len(run("fhir", put(tmp_path / str(number), {"a.ndjson": lines(*resources)})).rows)
        except LayoutError:
            pass  # nothing is left of the report
    assert 40 < made < 80
