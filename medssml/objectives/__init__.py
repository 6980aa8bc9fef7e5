"""What is learned without labels. Each objective asks a `Step` and answers with its loss."""

from medssml.objectives.bag_of_words import BagOfWords
from medssml.objectives.base import Objective
from medssml.objectives.captioning import Captioning
from medssml.objectives.clock import Clock, Ramp
from medssml.objectives.contrast import CrossModalContrast
from medssml.objectives.data2vec import Data2Vec
from medssml.objectives.deep_cluster import DeepCluster
from medssml.objectives.dropout_consistency import ModalityDropoutConsistency
from medssml.objectives.fused_language import FusedMaskedLanguage
from medssml.objectives.masked_language import MaskedLanguageModelling
from medssml.objectives.masked_reconstruction import MaskedReconstruction
from medssml.objectives.matching import Matching
from medssml.objectives.moco_v3 import MoCoV3
from medssml.objectives.simclr import SimCLR
from medssml.objectives.step import Step, Studies, Teacher
from medssml.objectives.study_loss import CrossEntropy, StudyLoss
from medssml.objectives.supervised import Supervised

__all__ = [
    "BagOfWords",
    "Captioning",
    "Clock",
    "CrossEntropy",
    "CrossModalContrast",
    "Data2Vec",
    "DeepCluster",
    "FusedMaskedLanguage",
    "MaskedLanguageModelling",
    "MaskedReconstruction",
    "Matching",
    "MoCoV3",
    "ModalityDropoutConsistency",
    "Objective",
    "Ramp",
    "SimCLR",
    "Step",
    "Studies",
    "StudyLoss",
    "Supervised",
    "Teacher",
]
