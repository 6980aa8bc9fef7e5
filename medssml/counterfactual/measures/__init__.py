"""Measures of impact, one a file. A further one is its file and a line here."""

from medssml.counterfactual.measure import CohortMeasure, Measure
from medssml.counterfactual.measures.interaction import Interaction
from medssml.counterfactual.measures.interaction_share import InteractionShare
from medssml.counterfactual.measures.necessity import Necessity
from medssml.counterfactual.measures.performance_drop import PerformanceDrop
from medssml.counterfactual.measures.performance_shapley import PerformanceShapley
from medssml.counterfactual.measures.quality import Quality
from medssml.counterfactual.measures.shapley_value import ShapleyValue
from medssml.counterfactual.measures.sufficiency import Sufficiency
from medssml.counterfactual.measures.swap import Swap

#: In the order of the page.
MEASURES: tuple[Measure | CohortMeasure, ...] = (
    ShapleyValue(),
    Necessity(),
    Sufficiency(),
    Swap(),
    PerformanceDrop(),
    Interaction(),
    InteractionShare(),
    PerformanceShapley(),
    Quality(),
)

__all__ = [
    "MEASURES",
    "Interaction",
    "InteractionShare",
    "Necessity",
    "PerformanceDrop",
    "PerformanceShapley",
    "Quality",
    "ShapleyValue",
    "Sufficiency",
    "Swap",
]
