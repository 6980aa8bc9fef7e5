"""The law of absence and its companions, for every example of every public class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests import examples
from tests.contracts import laws


def _name(value: Any) -> str:
    return value.__name__.removeprefix("an_").removeprefix("a_") if callable(value) else str(value)


@pytest.mark.parametrize("label", examples.ENCODERS)
@pytest.mark.parametrize("law", laws.ENCODER_LAWS, ids=_name)
def test_encoders(law: Callable[[Any], None], label: str) -> None:
    law(examples.ENCODERS[label])


@pytest.mark.parametrize("label", examples.FUSIONS)
@pytest.mark.parametrize("law", laws.FUSION_LAWS, ids=_name)
def test_fusion_operators(law: Callable[[Any], None], label: str) -> None:
    law(examples.FUSIONS[label])


@pytest.mark.parametrize("label", examples.OBJECTIVES)
@pytest.mark.parametrize("law", laws.OBJECTIVE_LAWS, ids=_name)
def test_objectives(law: Callable[[Any], None], label: str) -> None:
    law(examples.OBJECTIVES[label])
