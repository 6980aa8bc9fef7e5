"""What is learned without labels. Each objective asks a `Step` and answers with its loss."""

from medssml.objectives.bag_of_words import BagOfWords
from medssml.objectives.base import Objective
from medssml.objectives.clock import Clock, Ramp
from medssml.objectives.contrast import CrossModalContrast
from medssml.objectives.dropout_consistency import ModalityDropoutConsistency
from medssml.objectives.masked_language import MaskedLanguageModelling
from medssml.objectives.masked_reconstruction import MaskedReconstruction
from medssml.objectives.step import Step, Studies, Teacher
from medssml.objectives.supervised import Supervised

__all__ = [
    "BagOfWords",
    "Clock",
    "CrossModalContrast",
    "MaskedLanguageModelling",
    "MaskedReconstruction",
    "ModalityDropoutConsistency",
    "Objective",
    "Ramp",
    "Step",
    "Studies",
    "Supervised",
    "Teacher",
]
