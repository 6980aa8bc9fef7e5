"""The transfers by the names that the command line has for them."""

from __future__ import annotations

from medssml.transfer.anchors import AnchorTransfer
from medssml.transfer.base import Transfer
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

METHODS: dict[str, type[Transfer]] = {
    "logits": LogitTransfer,
    "privileged": PrivilegedTransfer,
    "features": FeatureTransfer,
    "relations": RelationTransfer,
    "contrast": ContrastiveTransfer,
    "cyclic": CyclicTransfer,
    "hallucination": HallucinationTransfer,
    "co-training": CoTraining,
    "prototypes": PrototypeTransfer,
    "anchors": AnchorTransfer,
    "moments": MomentTransfer,
    "pseudo-pairs": PseudoPairTransfer,
}


def transfer_called(method: str) -> type[Transfer]:
    """The class of a method.

    Raises:
        ValueError: no such method.
    """
    if method not in METHODS:
        raise ValueError(f"--method {method!r} is unknown; accepted: {', '.join(METHODS)}")
    return METHODS[method]
