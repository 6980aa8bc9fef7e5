"""What is learned without labels. Each objective asks a `Step` and answers with its loss."""

from medssml.objectives.adaptive_gradient_modulation import AdaptiveGradientModulation
from medssml.objectives.albef import ALBEF
from medssml.objectives.bag_of_words import BagOfWords
from medssml.objectives.balanced_softmax import BalancedSoftmax
from medssml.objectives.barlow_twins import BarlowTwins
from medssml.objectives.base import Objective
from medssml.objectives.biot import BIOT
from medssml.objectives.byol import BYOL
from medssml.objectives.captioning import Captioning
from medssml.objectives.causal_language import CausalLanguageModelling
from medssml.objectives.clock import Clock, Ramp
from medssml.objectives.co_teaching import CoTeaching
from medssml.objectives.contrast import CrossModalContrast
from medssml.objectives.cyclic_translation import CyclicTranslation
from medssml.objectives.data2vec import Data2Vec
from medssml.objectives.dcca import DCCA
from medssml.objectives.deep_cluster import DeepCluster
from medssml.objectives.dino import DINO
from medssml.objectives.dropout_consistency import ModalityDropoutConsistency
from medssml.objectives.elr import EarlyLearning
from medssml.objectives.embedding_prediction import EmbeddingPrediction
from medssml.objectives.feature_reconstruction import FeatureReconstruction
from medssml.objectives.fused_language import FusedMaskedLanguage
from medssml.objectives.fusion_penalty import FusionPenalty
from medssml.objectives.gce import GeneralisedCrossEntropy
from medssml.objectives.gloria import GLoRIA
from medssml.objectives.gradient_blending import GradientBlending
from medssml.objectives.gradient_modulation import GradientModulation
from medssml.objectives.joint_clusters import JointClusters
from medssml.objectives.label_bridge import LabelBridge
from medssml.objectives.masked_language import MaskedLanguageModelling
from medssml.objectives.masked_modality import MaskedModality
from medssml.objectives.masked_multimodal import MaskedMultimodal
from medssml.objectives.masked_reconstruction import MaskedReconstruction
from medssml.objectives.matching import Matching
from medssml.objectives.mgca import MGCA
from medssml.objectives.mil_nce import MILNCE
from medssml.objectives.mmvae import MMVAE
from medssml.objectives.moco_v2 import MoCoV2
from medssml.objectives.moco_v3 import MoCoV3
from medssml.objectives.modulation import Modulation
from medssml.objectives.moment_matching import MomentMatching
from medssml.objectives.mopoe import MoPoE
from medssml.objectives.multi_mae import MultiMAE
from medssml.objectives.mvae import MVAE
from medssml.objectives.prefix_language import PrefixLanguage
from medssml.objectives.pseudo_labels import PseudoLabels
from medssml.objectives.pseudo_pairs import PseudoPairs
from medssml.objectives.rectified_pairs import RectifiedPairs
from medssml.objectives.robust_contrast import RobustContrast
from medssml.objectives.selavi import SeLaVi
from medssml.objectives.shared_specific import SharedSpecific
from medssml.objectives.siglip import SigLIP
from medssml.objectives.simclr import SimCLR
from medssml.objectives.smil import SMIL
from medssml.objectives.step import Step, Studies, Teacher
from medssml.objectives.study_loss import CrossEntropy, StudyLoss
from medssml.objectives.subset_distillation import SubsetDistillation
from medssml.objectives.supervised import Supervised
from medssml.objectives.swav import SwAV
from medssml.objectives.symmetric_cross_entropy import SymmetricCrossEntropy
from medssml.objectives.token_alignment import TokenAlignment
from medssml.objectives.unimodal_teachers import UnimodalTeachers
from medssml.objectives.uniter import UNITER
from medssml.objectives.vicreg import VICReg
from medssml.objectives.xdc import XDC

__all__ = [
    "SharedSpecific",
    "MaskedModality",
    "ALBEF",
    "AdaptiveGradientModulation",
    "BIOT",
    "BYOL",
    "BagOfWords",
    "BalancedSoftmax",
    "BarlowTwins",
    "Captioning",
    "CausalLanguageModelling",
    "Clock",
    "CoTeaching",
    "CrossEntropy",
    "CrossModalContrast",
    "CyclicTranslation",
    "DCCA",
    "DINO",
    "Data2Vec",
    "DeepCluster",
    "EarlyLearning",
    "EmbeddingPrediction",
    "FeatureReconstruction",
    "FusedMaskedLanguage",
    "FusionPenalty",
    "GLoRIA",
    "GeneralisedCrossEntropy",
    "GradientBlending",
    "GradientModulation",
    "JointClusters",
    "LabelBridge",
    "MGCA",
    "MILNCE",
    "MMVAE",
    "MVAE",
    "MaskedLanguageModelling",
    "MaskedMultimodal",
    "MaskedReconstruction",
    "Matching",
    "MoCoV2",
    "MoCoV3",
    "MoPoE",
    "ModalityDropoutConsistency",
    "Modulation",
    "MomentMatching",
    "MultiMAE",
    "Objective",
    "PrefixLanguage",
    "PseudoLabels",
    "PseudoPairs",
    "Ramp",
    "RectifiedPairs",
    "RobustContrast",
    "SeLaVi",
    "SigLIP",
    "SimCLR",
    "SMIL",
    "Step",
    "Studies",
    "StudyLoss",
    "SubsetDistillation",
    "Supervised",
    "SwAV",
    "SymmetricCrossEntropy",
    "Teacher",
    "TokenAlignment",
    "UNITER",
    "UnimodalTeachers",
    "VICReg",
    "XDC",
]
