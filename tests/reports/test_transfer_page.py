"""The page of a transfer says what was decided and why, draws both students, and needs nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medssml.reports.transfer_page import judged, write_transfer_page
from medssml.transfer.gain import Answers, gains, gate


def result(better: float) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    y = (rng.random(200) < 0.4).astype(float)
    common, noise = rng.normal(size=200), rng.normal(size=(2, 3, 200))
    without = y + common + 0.3 * noise[0]
    transfer = (1 + better) * y + common + 0.3 * noise[1]
    answers = {"effusion": Answers("binary", y, np.arange(200), without, transfer)}
    nothing = Answers("binary", np.ones(200), np.arange(200), without, transfer)
    tasks = gains({**answers, "rare": nothing}, n=100)
    tasks["effusion"]["bayes"] = 0.93
    return {
        "student": "xray", "source": ["ct"], "method": "logits", "weight": 1.0, "tasks": tasks,
        "gate": gate(answers, n=100).to_dict(), "kept": {"student": "taught", "seed": 1},
        "protocol": {"seeds": [0, 1, 2], "studies": {"labelled": 100}, "steps": 200},
    }  # fmt: skip


def test_the_page_shows_both_students_of_every_seed(tmp_path: Path) -> None:
    page = write_transfer_page(tmp_path / "transfer.html", result(1.0)).read_text("utf-8")
    for said in ("CT to X-ray", "effusion", "alone, seed 2", "taught, all seeds", "0.93"):
        assert said in page, said
    assert "labelled 100" in page and "http://" not in page.replace("http://www.w3.org", "")


@pytest.mark.parametrize(("better", "kept", "mark"), [(1.0, True, "better"), (-0.9, False, "worse")])
def test_the_verdict_is_that_of_the_gate_and_of_test_studies(better: float, kept: bool, mark: str) -> None:
    lines = {name: (which, said) for name, which, said in judged(result(better))}
    assert ("kept" if kept else "not kept") in lines
    assert ("student alone is kept" in lines.get("not kept", ("", ""))[1]) != kept
    assert lines["effusion"][0] == mark
    assert "no gain can be told: all 200 labelled studies are of one class" in lines["rare"][1]
