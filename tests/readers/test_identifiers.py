"""What in a report looks as if it could identify somebody, and what does not."""

from __future__ import annotations

import pytest

from medssml.readers.identifiers import suspicious_spans


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Compared with 12/05/2019.", "date"),
        ("CT vom 3.11.2020", "date"),
        ("on 2020-01-31 at night", "date"),
        ("of March 4, 2018,", "date"),
        ("4 de marzo de 2018", "date"),
        ("exam of 3/4/19.", "date"),
        ("call 555-123-4567", "phone number"),
        ("(030) 450-1234", "phone number"),
        ("Tel.: 030 1234 56", "phone number"),
        ("+49 (0)30 4507 1234", "phone number"),
        ("MRN: 00123-A", "id"),
        ("Accession number 12A345", "id"),
        ("Fallnummer 2020-4711", "id"),
        ("seen in 4711081500", "id"),
        ("Mrs. Miller", "name"),
        ("Frau Dr. Öztürk", "name"),
        ("Sra. Núñez", "name"),
        ("Dictated by: Smith", "name"),
        ("Patient name: Anna Miller", "name"),
        ("mail a.miller@clinic.example.org", "e-mail"),
    ],
)
def test_what_may_identify(text: str, kind: str) -> None:
    assert suspicious_spans(text) == {kind: 1}


@pytest.mark.parametrize(
    "text",
    [
        "No pleural effusion. The heart is enlarged, 14 mm nodule in the right upper lobe.",
        "The nodule measures 12 x 10 x 8 mm, was 10/8 mm; SUV 3.5-4.2, slice 120/512.",
        "T8-T9, L4/L5, C3-C4. BI-RADS 4A, PI-RADS v2.1, Fleischner 2017.",
        "Mr. [DEID] was seen by Dr. [DEID] on [DEID]; MRN [DEID].",
        "The patient is a 45-year-old man in May 2019. Drs and the name of the fissure. Dr may decide.",
        "Dose 1,234,567 counts; 1234.5678 mGy; window -1000 to 400 HU; signed by the resident.",
        "Case number [DEID]; no accession number; pager of the ward.",
    ],
)
def test_what_does_not(text: str) -> None:
    assert suspicious_spans(text) == {}


def test_spans_are_counted_each() -> None:
    text = "Mrs. Miller, born 01/02/1950, seen by Dr. Jones on 03/04/2020 and 05/04/2020."
    assert suspicious_spans(text) == {"date": 3, "name": 2}
