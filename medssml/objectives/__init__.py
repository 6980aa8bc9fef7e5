"""What is learned without labels. Each objective asks a `Step` and answers with its loss."""

from medssml.objectives.bag_of_words import BagOfWords
from medssml.objectives.base import Objective
from medssml.objectives.contrast import CrossModalContrast
from medssml.objectives.dropout_consistency import ModalityDropoutConsistency
from medssml.objectives.masked_language import MaskedLanguageModelling
from medssml.objectives.masked_reconstruction import MaskedReconstruction
from medssml.objectives.step import Step, Studies

__all__ = [
    "BagOfWords",
    "CrossModalContrast",
    "MaskedLanguageModelling",
    "MaskedReconstruction",
    "ModalityDropoutConsistency",
    "Objective",
    "Step",
    "Studies",
]
