"""Knowledge moved from a teacher of rich modalities to a student of a poor one. Each transfer is an objective beside labels."""

from medssml.transfer.anchors import AnchorTransfer
from medssml.transfer.co_training import CoTraining
from medssml.transfer.contrast import ContrastiveTransfer
from medssml.transfer.cyclic import CyclicTransfer
from medssml.transfer.features import FeatureTransfer
from medssml.transfer.hallucination import HallucinationTransfer
from medssml.transfer.logits import LogitTransfer
from medssml.transfer.moments import MomentTransfer
from medssml.transfer.privileged import PrivilegedTransfer
from medssml.transfer.prototypes import PrototypeTransfer
from medssml.transfer.pseudo_pairs import PseudoPairTransfer
from medssml.transfer.relations import RelationTransfer

__all__ = [
    "AnchorTransfer",
    "CoTraining",
    "ContrastiveTransfer",
    "CyclicTransfer",
    "FeatureTransfer",
    "HallucinationTransfer",
    "LogitTransfer",
    "MomentTransfer",
    "PrivilegedTransfer",
    "PrototypeTransfer",
    "PseudoPairTransfer",
    "RelationTransfer",
]
