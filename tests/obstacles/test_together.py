"""Several obstacles at once, and obstacles of some sites alone: the same draws as by themselves, nothing else touched."""

from __future__ import annotations

import numpy as np
import pytest

from medssml.config import build
from medssml.obstacles import (
    Absent,
    CTDose,
    DamageAtSites,
    LabelsSymmetric,
    Mispaired,
    Obstacle,
    TableAtSites,
    TableObstacle,
    Together,
)
from medssml.obstacles.together import named, parts_of, together
from medssml.transforms.ct import CTField
from tests.obstacles.cohorts import MODALITIES, cohort

STUDIES = cohort()
SITES = STUDIES.table["source"].to_numpy()


def fitted(obstacle: Obstacle) -> Obstacle:
    obstacle.fit(STUDIES)
    return obstacle


def at_sites(obstacle: TableObstacle, share: float) -> TableAtSites:
    found = TableAtSites(obstacle, share)
    found.fit(STUDIES)
    return found


def hit_by(obstacle: TableAtSites) -> np.ndarray:
    return obstacle.sites.hit(STUDIES)


@pytest.mark.parametrize("kind", [Absent, Mispaired, LabelsSymmetric])
def test_the_studies_of_other_sites_stay_as_they_are(kind: type[TableObstacle]) -> None:
    """Six sites, a third of which suffers."""
    obstacle = at_sites(kind(0.5), 1 / 3)
    hit, left = hit_by(obstacle), obstacle.applied(STUDIES)
    assert len(set(SITES[hit])) == 2 and not set(SITES[hit]) & set(SITES[~hit])
    changed = (left.table != STUDIES.table).to_numpy().any(1)
    assert not changed[~hit].any() and 0.2 < changed[hit].mean()
    moved = obstacle.partners(STUDIES) != np.arange(len(STUDIES))[:, None]
    assert not moved[~hit & STUDIES.present.all(1)].any()
    if kind is Mispaired:
        rows, columns = np.nonzero(moved & STUDIES.present)
        source = obstacle.partners(STUDIES)[rows, columns]
        assert len(rows) and hit[source].all() and (STUDIES.subject_ids[source] != STUDIES.subject_ids[rows]).all()
        assert [left.table[MODALITIES[c]].iloc[r] for r, c in zip(rows, columns, strict=True)] == [
            STUDIES.table[MODALITIES[c]].iloc[s] for s, c in zip(source, columns, strict=True)
        ]


def test_at_a_site_the_severity_is_the_mean() -> None:
    obstacle = at_sites(Absent(0.5), 0.5)
    hit, had = hit_by(obstacle), STUDIES.present
    gone = (had & (obstacle.partners(STUDIES) < 0))[hit].sum()
    spare = (had[hit].sum(1) - 1).clip(min=0).sum()
    assert gone / spare == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(spare))


def test_a_smaller_severity_and_a_smaller_share_are_a_part_of_a_larger() -> None:
    tables = [at_sites(LabelsSymmetric(0.5), share).applied(STUDIES).table for share in (0.2, 0.5, 1.0)]
    obstacle = at_sites(LabelsSymmetric(0.0), 0.5)
    tables += [obstacle.at(severity).applied(STUDIES).table for severity in (0.2, 0.5, 1.0)]
    changed = [(table != STUDIES.table).to_numpy() for table in tables]
    for less, more in ((0, 1), (1, 2), (3, 4), (4, 5)):
        assert not (changed[less] & ~changed[more]).any() and changed[less].sum() < changed[more].sum()
    assert (changed[1] == changed[4]).all(), "the severity of the sweep is that of the obstacle inside"
    assert obstacle.applied(STUDIES) is STUDIES
    alone = LabelsSymmetric(0.5).applied(STUDIES).table
    assert (tables[2] == alone).all(axis=None), "at all sites it is the obstacle itself"


def test_a_damage_befalls_the_studies_of_its_sites() -> None:
    obstacle = DamageAtSites(CTDose(0.5), 0.5)
    prepared, field = {"hu": np.zeros((4, 4, 4), np.int16)}, CTField((2, 2, 2), (4, 4, 4))
    with pytest.raises(ValueError, match="fit\\(studies\\) first"):
        obstacle.damaged(prepared, "study1", field)
    obstacle.fit(STUDIES)
    hit = obstacle.sites.hit(STUDIES)
    for row in (0, 1, 2, 3, 4, 5, 6, 7):
        study = str(STUDIES.study_ids[row])
        found = obstacle.damaged(prepared, study, field)["hu"]
        assert (found == (CTDose(0.5).damaged(prepared, study, field) if hit[row] else prepared)["hu"]).all()
    assert hit[:8].any() and not hit[:8].all()
    assert (obstacle.at(0.0).damaged(prepared, "study1", field)["hu"] == 0).all()


def test_a_config_can_name_them() -> None:
    node = TableAtSites(Absent(0.4, modalities=["ct"]), 0.5, "source").described()
    again = build(node, Obstacle)
    again.fit(STUDIES)
    assert (
        again.partners(STUDIES) == fitted(TableAtSites(Absent(0.4, modalities=["ct"]), 0.5, "source")).partners(STUDIES)
    ).all()  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="no site in the columns \\['group_clinic'\\]; fix"):
        fitted(TableAtSites(Absent(0.4), 0.5, "group_clinic"))
    with pytest.raises(ValueError, match="share of absent@1.5 is 1.5; fix"):
        TableAtSites(Absent(0.4), 1.5)


def test_names_say_which_at_what_level_and_where() -> None:
    asked = named("absent:ct,eeg=0.5@0.4+labels_symmetric+ct_dose=0.2")
    obstacle = together(asked, 0.5, seed=3)
    first, second, third = parts_of(obstacle)
    assert obstacle.name == "absent:ct,eeg=0.5@0.4+labels_symmetric+ct_dose=0.2" and obstacle.severity == 0.5
    assert [part.severity for part in (first, second, third)] == [0.25, 0.5, 0.1] and first.seed == 3
    assert isinstance(first, TableAtSites) and isinstance(first.obstacle, Absent)
    assert first.obstacle.modalities == ("ct", "eeg") and first.sites.share == 0.4
    assert (
        obstacle.removes
        and not obstacle.of_training
        and [one.severity for one in parts_of(obstacle.at(1.0))] == [0.5, 1, 0.2]
    )
    assert type(together(named("absent"), 0.5, seed=0)) is Absent
    assert "at 40% of the sites" in obstacle.says


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("absent+absnt", "no obstacle 'absnt'.*did you mean 'absent'"), ("absent=much", "the level is no number; fix"),
        ("absent@some", "the share of sites is no number"), ("absent=0", "severity of absent is 0"),
        ("absent@1.2", "share of the sites of absent is 1.2"),
        ("ct_dose:ct", "cannot be told 'ct'; fix: ct_dose, or ct_dose:taught"),
        ("mispaired:ct", "cannot be told"),
    ],
)  # fmt: skip
def test_a_name_that_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises((KeyError, ValueError), match=message):
        named(text)


def test_together_each_draws_as_it_does_alone() -> None:
    both = fitted(Together([Absent(0.5), LabelsSymmetric(0.3)]))
    left = STUDIES
    for part in parts_of(both):
        assert isinstance(part, TableObstacle)
        left = part.applied(left)
    assert (left.present == fitted(Absent(0.5)).applied(STUDIES).present).all()  # type: ignore[attr-defined]
    assert left.table["label_grade"].equals(LabelsSymmetric(0.3).applied(STUDIES).table["label_grade"])
    with pytest.raises(ValueError, match="no study has mri; fix"):
        fitted(Absent(0.5, modalities=["mri"]))
