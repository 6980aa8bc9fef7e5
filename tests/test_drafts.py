"""A report from drafts: the vote on each finding, what nothing shown bears on, and the draft nearest to all others."""

from __future__ import annotations

import pytest

from medssml.drafts import Drafting, nearest_to_all
from medssml.phantom.report import findings_of

CLEAR = "findings: no pleural effusion. heart size is normal. no focal lung lesion."
FLUID = "findings: moderate pleural fluid is present. normal cardiac silhouette. no focal lung lesion."
MORE = "findings: large bilateral pleural effusions. no cardiomegaly. lungs without nodule or mass."


def test_many_wordings_of_a_finding_outvote_the_likeliest_text():
    drafts = [CLEAR, CLEAR, FLUID, MORE, "small effusions are present."]
    assert Drafting(5, findings_of).settle(drafts, []) == FLUID
    assert Drafting(5, findings_of, least=0.65).settle(drafts, []) == CLEAR
    assert nearest_to_all(drafts) == CLEAR


def test_each_finding_is_voted_on_by_itself_and_the_draft_that_agrees_most_is_taken():
    drafts = [
        "small effusions are present. mild cardiomegaly. no focal lung lesion.",
        "small effusions are present. no cardiomegaly. suspicious nodule.",
        "no pleural effusion. mild cardiomegaly. suspicious nodule.",
        "small effusions are present. mild cardiomegaly. suspicious nodule.",
    ]
    assert Drafting(4, findings_of).settle(drafts, []) == drafts[3]
    # Three agree on two findings of three: the first of them.
    assert Drafting(3, findings_of).settle(drafts[:3], []) == drafts[0]


def test_a_finding_is_left_out_where_what_is_shown_changes_nothing():
    blind = [CLEAR, FLUID]
    drafting = Drafting(2, findings_of, least=0.4, margin=0.1)
    assert drafting.settle([CLEAR, FLUID], blind) == ""
    # The effusion is told, surely there; heart and nodule are as if nothing were shown.
    assert drafting.settle([FLUID, MORE], blind) == "findings: moderate pleural fluid is present."
    assert Drafting(2, findings_of, least=0.4).settle([CLEAR, FLUID], blind) == FLUID


def test_sentences_that_speak_of_no_finding_stay():
    drafts = ["bones are unremarkable. no pleural effusion. hila are unremarkable."]
    told = Drafting(1, findings_of, margin=0.5).settle(drafts, drafts)
    assert told == "bones are unremarkable. hila are unremarkable."


def test_without_a_rule_the_draft_that_shares_most_words_with_the_others_is_taken():
    drafts = ["a b c", "a b d", "x y z", "a b e"]
    assert Drafting(4).settle(drafts, []) == "a b c"
    assert nearest_to_all(["x", "a b", "a b c d", "a b c"]) == "a b c"
    assert nearest_to_all(["", "", "word"]) == ""


def test_shares_that_are_none_are_refused():
    with pytest.raises(ValueError, match="drafts is 0"):
        Drafting(0)
    for wrong in ({"least": 0.0}, {"least": 1.0}, {"margin": -0.1}, {"margin": 1.0}):
        with pytest.raises(ValueError, match="expected shares"):
            Drafting(4, **wrong)
