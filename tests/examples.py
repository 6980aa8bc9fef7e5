"""One example of every public class that a method is made of, and small studies to try it with.

The contracts (tests/contracts) run over these: a new encoder, fusion operator or objective is a line here and nothing else.
`tests/contracts/test_examples.py` tells who forgot it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from medssml.batch import Batch, Encoded, Fused, Inputs
from medssml.config import build
from medssml.encoders import (
    EEGTransformer,
    HallucinatingEncoder,
    NetworkEncoder,
    ResNet,
    TableEncoder,
    TextEncoder,
    ViT,
    WordDescriptor,
    XrayDescriptor,
)
from medssml.encoders.descriptor import Descriptors
from medssml.fusion import (
    AdditiveFusion,
    AttentionRNN,
    BottleneckFusion,
    ChannelExchange,
    CoAttention,
    ConcatFusion,
    CrossModalAttention,
    CrossModalityEncoder,
    FactorFusion,
    FactorisedBilinear,
    Fusion,
    GatedFusion,
    GraphAttention,
    LatentFusion,
    LowRankBilinear,
    LowRankTensorFusion,
    MaskedAttention,
    MixtureOfExperts,
    MMFormer,
    MultiplicativeFusion,
    PatternRouting,
    PriorImputation,
    ProductOfExperts,
    PromptedAttention,
    RegressionImputation,
    RetrievalImputation,
    SharedSpecificFusion,
    TensorFusion,
)
from medssml.model import MultimodalModel, Task
from medssml.objectives import (
    ALBEF,
    BIOT,
    BYOL,
    DCCA,
    DINO,
    MGCA,
    MILNCE,
    MMVAE,
    MVAE,
    SMIL,
    UNITER,
    XDC,
    AdaptiveGradientModulation,
    BagOfWords,
    BalancedSoftmax,
    BarlowTwins,
    Captioning,
    CausalLanguageModelling,
    CoTeaching,
    CrossModalContrast,
    CyclicTranslation,
    Data2Vec,
    DeepCluster,
    EarlyLearning,
    EmbeddingPrediction,
    FeatureReconstruction,
    FusedMaskedLanguage,
    FusionPenalty,
    GeneralisedCrossEntropy,
    GLoRIA,
    GradientBlending,
    JointClusters,
    LabelBridge,
    MaskedLanguageModelling,
    MaskedModality,
    MaskedMultimodal,
    MaskedReconstruction,
    Matching,
    MoCoV2,
    MoCoV3,
    ModalityDropoutConsistency,
    MomentMatching,
    MoPoE,
    MultiMAE,
    Objective,
    PrefixLanguage,
    PseudoLabels,
    PseudoPairs,
    RectifiedPairs,
    RobustContrast,
    SeLaVi,
    SharedSpecific,
    SigLIP,
    SimCLR,
    Step,
    SubsetDistillation,
    Supervised,
    SwAV,
    SymmetricCrossEntropy,
    TokenAlignment,
    UnimodalTeachers,
    VICReg,
)
from medssml.objectives.clock import Clock
from medssml.objectives.study_loss import CrossEntropy, StudyLoss
from medssml.trainers.moving_average import MovingAverage
from medssml.transfer import (
    AnchorTransfer,
    ContrastiveTransfer,
    CoTraining,
    CyclicTransfer,
    FeatureTransfer,
    HallucinationTransfer,
    LogitTransfer,
    MomentTransfer,
    PrivilegedTransfer,
    PrototypeTransfer,
    PseudoPairTransfer,
    RelationTransfer,
)
from medssml.transfer.prototypes import Prototypes
from medssml.transfer.unpaired import Others

MODALITIES = ("ct", "xray", "eeg", "report")
VOCABULARY = 40
Study = dict[str, Any]


#: A network of MONAI, with batch norms, as a config names it.
UNET = {
    "class_path": "monai.networks.nets.UNet",
    "init_args": {
        "spatial_dims": 2, "in_channels": 1, "out_channels": 6, "channels": [4, 8], "strides": [2], "norm": "batch"
    },
}  # fmt: skip


class EncoderExample(NamedTuple):
    """make: the encoder. modality: whose inputs it takes, of `inputs_of`."""

    make: Callable[[], nn.Module]
    modality: str


#: Label -> encoder; a class may have several.
ENCODERS: dict[str, EncoderExample] = {
    "ViT 3D": EncoderExample(lambda: ViT((8, 8, 8), 4, 24, 1, 2, skip_empty=True), "ct"),
    "ViT 2D cls": EncoderExample(lambda: ViT((16, 16), 4, 24, 1, 2, pool="cls", positions="learned"), "xray"),
    "ResNet 3D": EncoderExample(lambda: ResNet(3, 12, widths=(8, 8, 8, 8)), "ct"),
    "ResNet 2D gem": EncoderExample(
        lambda: ResNet(2, widths=(8, 8, 8, 8), coordinates=True, max_pool=False, pool="gem"), "xray"
    ),
    "EEGTransformer": EncoderExample(
        lambda: EEGTransformer(24, 1, 2, patch_samples=20, sfreq=100.0, channel_names=20), "eeg"
    ),
    "EEGTransformer attention": EncoderExample(
        lambda: EEGTransformer(24, 1, 2, patch_samples=20, sfreq=100.0, channel_names=20, pool="attention"), "eeg"
    ),
    "TextEncoder": EncoderExample(lambda: TextEncoder(VOCABULARY, 24, 1, 2, max_length=32), "report"),
    "NetworkEncoder": EncoderExample(lambda: NetworkEncoder(build(UNET), (16, 16)), "xray"),
    "HallucinatingEncoder": EncoderExample(
        lambda: HallucinatingEncoder(ViT((16, 16), 4, 24, 1, 2), ResNet(2, 12, widths=(8, 8, 8, 8)), 10), "xray"
    ),
    "TableEncoder": EncoderExample(lambda: TableEncoder(5, 16, 1, 2), "table"),
}

#: Label -> fusion of modalities, in a width.
FUSIONS: dict[str, Callable[[Sequence[str], int], Fusion]] = {
    "AdditiveFusion sum": lambda names, dim: AdditiveFusion(names, dim, 0, 2),
    "AdditiveFusion": lambda names, dim: AdditiveFusion(names, dim, 1, 2),
    "AttentionRNN": lambda names, dim: AttentionRNN(names, dim, 2),
    "BottleneckFusion": lambda names, dim: BottleneckFusion(names, dim, 2, 2, bottlenecks=2),
    "ChannelExchange": lambda names, dim: ChannelExchange(names, dim, 2),
    "CoAttention": lambda names, dim: CoAttention(names, dim, 1, 2),
    "ConcatFusion": lambda names, dim: ConcatFusion(names, dim),
    "CrossModalAttention": lambda names, dim: CrossModalAttention(names, dim, 1, 2),
    "CrossModalityEncoder": lambda names, dim: CrossModalityEncoder(names, dim, 1, 2),
    "FactorisedBilinear": lambda names, dim: FactorisedBilinear(names, dim, 2),
    "FactorFusion": lambda names, dim: FactorFusion(names, dim, factors=4, hidden=8),
    "GatedFusion": lambda names, dim: GatedFusion(names, dim),
    "GraphAttention": lambda names, dim: GraphAttention(names, dim, 2, 2),
    "LatentFusion": lambda names, dim: LatentFusion(names, dim, 2, 2, latents=3),
    "LowRankBilinear": lambda names, dim: LowRankBilinear(names, dim),
    "LowRankTensorFusion": lambda names, dim: LowRankTensorFusion(names, dim, 3),
    "MaskedAttention all tokens": lambda names, dim: MaskedAttention(names, dim, 1, 2, tokens="all"),
    "MaskedAttention": lambda names, dim: MaskedAttention(names, dim, 2, 2),
    "MMFormer": lambda names, dim: MMFormer(names, dim, 1, 2),
    "MixtureOfExperts": lambda names, dim: MixtureOfExperts(names, dim, 12),
    "MultiplicativeFusion": lambda names, dim: MultiplicativeFusion(names, dim),
    "ProductOfExperts": lambda names, dim: ProductOfExperts(names, dim),
    "PatternRouting": lambda names, dim: PatternRouting(names, dim, experts=3),
    "PromptedAttention": lambda names, dim: PromptedAttention(names, dim, 2, 2, length=2, prompted=1),
    "PromptedAttention all tokens": lambda names, dim: PromptedAttention(names, dim, 1, 2, tokens="all", length=2),
    "RegressionImputation": lambda names, dim: fitted(RegressionImputation(names, dim, ConcatFusion(names, dim))),
    "RetrievalImputation": lambda names, dim: fitted(
        RetrievalImputation(names, dim, MaskedAttention(names, dim, 1, 2), neighbours=3, memory=32)
    ),
    "PriorImputation": lambda names, dim: fitted(
        PriorImputation(names, dim, ConcatFusion(names, dim), centres=4, noise=0.0, believe=True)
    ),
    "SharedSpecificFusion": lambda names, dim: SharedSpecificFusion(names, dim),
    "TensorFusion": lambda names, dim: TensorFusion(names, dim, 3),
}

#: What a transfer shows to the teacher, and what to the student.
RICH_TO_POOR: dict[str, Any] = {"source": ("ct", "report"), "target": ("xray",)}


def classes_in(width: int) -> dict[str, Prototypes]:
    """Where a teacher has the classes of the tasks of a `tiny_model`."""
    g = torch.Generator().manual_seed(9)
    return {
        name: Prototypes(torch.randn(count, width, generator=g), torch.randn(width, generator=g))
        for name, count in (("finding", 2), ("grade", 3))
    }


def others_in(width: int, count: int = 12) -> Others:
    """What a teacher makes of studies that the student does not see, and how sure it is of the tasks of a `tiny_model`."""
    g = torch.Generator().manual_seed(11)
    said = [torch.randn(count, size, generator=g).mul(3).softmax(1) for size in (2, 3)]
    return Others(torch.randn(count, width, generator=g), torch.cat(said, dim=1))


#: Label -> objective of a `tiny_model`.
OBJECTIVES: dict[str, Callable[[MultimodalModel], Objective]] = {
    "contrast": lambda model: CrossModalContrast(model, dim=8),
    "contrast beside descriptors": lambda model: CrossModalContrast(with_descriptors(model), dim=8),
    "reconstruction": lambda model: MaskedReconstruction(model, decoder_dim=16, decoder_depth=1, decoder_heads=2),
    "words": lambda model: BagOfWords(model, modalities=["ct", "xray"], pairs=16),
    "language": lambda model: MaskedLanguageModelling(model),
    "GPT": lambda model: CausalLanguageModelling(model),
    "consistency": lambda model: ModalityDropoutConsistency(model, dim=8),
    "labels": lambda model: Supervised(model, unimodal_weight=0.5),
    "shared and specific": lambda model: SharedSpecific(with_shared(model), align=1.0, separate=1.0),
    "shared and specific jsd": lambda model: SharedSpecific(
        with_shared(model), alignment="jsd", separation="cosine", align=1.0, separate=1.0
    ),
    "pseudo-labels of a part": lambda model: PseudoLabels(model, threshold=0.5),
    "pseudo-labels of another look": lambda model: PseudoLabels(model, threshold=0.5, look="both"),
    "labels, SMIL": lambda model: SMIL(with_expected(model), distil=0.1, align=0.1),
    "unimodal teachers": lambda model: UnimodalTeachers(model),
    "distillation to a part": lambda model: SubsetDistillation(model, features=0.5),
    "labels, early learning": lambda model: Supervised(model, unimodal_weight=0.5, loss=EarlyLearning()),
    "labels, blended": lambda model: GradientBlending(model, every=1, share=0.3),
    "labels, modulated": lambda model: Supervised(model, modulation=AdaptiveGradientModulation()),
    "labels, co-teaching": lambda model: CoTeaching(model, until=0.5),
    "labels, truncated": lambda model: Supervised(model, loss=GeneralisedCrossEntropy(k=0.5, prune_after=0.0)),
    "SigLIP": lambda model: SigLIP(model, dim=8),
    "robust contrast": lambda model: RobustContrast(model, dim=8),
    "rectified pairs": lambda model: RectifiedPairs(model, dim=8, warm_up=0.0),
    "SimCLR": lambda model: SimCLR(model, dim=8),
    "MoCo v2": lambda model: MoCoV2(model, dim=8, queue=7, momentum=0.9),
    "MoCo v3": lambda model: MoCoV3(model, dim=8, momentum=0.9),
    "DINO": lambda model: DINO(model, prototypes=12, hidden=16, bottleneck=8, local_crops=1, momentum=0.9),
    "BYOL": lambda model: BYOL(model, dim=8, hidden=16, momentum=0.9),
    "VICReg": lambda model: VICReg(model, dim=8),
    "Barlow Twins": lambda model: BarlowTwins(model, across="both", dim=8),
    "BIOT": lambda model: BIOT(model),
    "embedding prediction": lambda model: EmbeddingPrediction(model, momentum=0.9),
    "embedding prediction mse": lambda model: EmbeddingPrediction(model, distance="mse", momentum=0.9),
    "cyclic translation": lambda model: CyclicTranslation(model),
    "DCCA": lambda model: DCCA(model, dim=2, regulariser=0.01),
    "data2vec": lambda model: Data2Vec(model, layers=1, decoder_dim=16, decoder_depth=1, decoder_heads=2),
    "GLoRIA": lambda model: GLoRIA(model, dim=8),
    "token alignment": lambda model: TokenAlignment(model, dim=8),
    "MGCA": lambda model: MGCA(model, dim=8, prototypes=5),
    "MIL-NCE": lambda model: MILNCE(model, dim=8, words=3),
    "ALBEF": lambda model: ALBEF(model, dim=8, queue=7, momentum=0.9),
    "UNITER": lambda model: UNITER(model),
    "matching": lambda model: Matching(model),
    "captioning": lambda model: Captioning(model, dim=16, depth=1, heads=2),
    "prefix language": lambda model: PrefixLanguage(model, dim=16, depth=1, heads=2),
    "DeepCluster": lambda model: DeepCluster(model, clusters=3),
    "penalty of the fusion": lambda model: FusionPenalty(with_penalty(model)),
    "SwAV": lambda model: SwAV(model, prototypes=5, dim=8, across="both", queue=6),
    "XDC": lambda model: XDC(model, clusters=3),
    "joint clusters": lambda model: JointClusters(model, clusters=3, dim=8, queue=4),
    "MVAE": lambda model: MVAE(model, latent=8),
    "MMVAE": lambda model: MMVAE(model, latent=8),
    "MoPoE": lambda model: MoPoE(model, latent=8),
    "moment matching": lambda model: MomentMatching(model, dim=8),
    "pseudo-pairs": lambda model: PseudoPairs(model, dim=8),
    "label bridge": lambda model: LabelBridge(model, tasks=["finding"], dim=8),
    "feature reconstruction": lambda model: FeatureReconstruction(model),
    "SeLaVi": lambda model: SeLaVi(model, clusters=3, heads=2),
    "language through the fusion": lambda model: FusedMaskedLanguage(model),
    "MultiMAE": lambda model: MultiMAE(model, decoder_dim=16, decoder_depth=1, decoder_heads=2),
    "masked modality": lambda model: MaskedModality(model, depth=1, heads=2),
    "masked multimodal": lambda model: MaskedMultimodal(model, decoder_dim=16, decoder_depth=1, decoder_heads=2),
    "transfer of logits": lambda model: LogitTransfer(model, **RICH_TO_POOR),
    "transfer of privileged information": lambda model: PrivilegedTransfer(model, **RICH_TO_POOR),
    "transfer of features": lambda model: FeatureTransfer(model, **RICH_TO_POOR),
    "transfer of relations": lambda model: RelationTransfer(model, **RICH_TO_POOR),
    "transfer by cyclic translation": lambda model: CyclicTransfer(model, **RICH_TO_POOR),
    "transfer by hallucination": lambda model: HallucinationTransfer(model, **RICH_TO_POOR),
    "transfer by co-training": lambda model: CoTraining(model, confidence=0.3, **RICH_TO_POOR),
    "transfer by prototypes": lambda model: PrototypeTransfer(model, prototypes=classes_in(16), **RICH_TO_POOR),
    "transfer by text anchors": lambda model: AnchorTransfer(model, prototypes=classes_in(16), **RICH_TO_POOR),
    "transfer by moments": lambda model: MomentTransfer(model, others=others_in(16), **RICH_TO_POOR),
    "transfer by moments, coral": lambda model: MomentTransfer(
        model, others=others_in(16), distance="coral", draw=7, **RICH_TO_POOR
    ),
    "transfer by pseudo-pairs": lambda model: PseudoPairTransfer(model, others=others_in(16), **RICH_TO_POOR),
    "transfer by contrast": lambda model: ContrastiveTransfer(model, dim=8, **RICH_TO_POOR),
}

#: Label -> loss of each study.
STUDY_LOSSES: dict[str, Callable[[], StudyLoss]] = {
    "cross-entropy": lambda: CrossEntropy(0.1),
    "generalised cross-entropy": lambda: GeneralisedCrossEntropy(k=0.5, prune_after=0.0),
    "symmetric cross-entropy": lambda: SymmetricCrossEntropy(),
    "early learning": lambda: EarlyLearning(),
    "balanced softmax": lambda: BalancedSoftmax(),
}

#: Which modalities each of ten studies has: every pattern that matters, and one study without anything.
PATTERNS = (
    ("ct", "xray", "eeg", "report"),
    ("ct", "report"),
    ("eeg",),
    ("ct", "eeg"),
    ("report",),
    ("xray", "report"),
    ("ct", "xray", "report"),
    ("ct", "xray"),
    (),
    ("xray", "eeg"),
)


def tiny_model(seed: int = 0, fusion: Callable[[Sequence[str], int], Fusion] | None = None) -> MultimodalModel:
    """A model of four modalities that fits in a test, with a task of two and one of three classes."""
    torch.manual_seed(seed)
    encoders = {
        "ct": ViT((8, 8, 8), 4, 24, 1, 2),
        "xray": ViT((16, 16), 4, 24, 1, 2, skip_empty=True),
        "eeg": EEGTransformer(24, 1, 2, patch_samples=20, sfreq=100.0, channel_names=20),
        "report": TextEncoder(VOCABULARY, 24, 1, 2, max_length=32),
    }
    made = MaskedAttention(MODALITIES, 16, 1, 2, tokens="all") if fusion is None else fusion(MODALITIES, 16)
    return MultimodalModel(encoders, made, {"finding": Task(), "grade": Task("multiclass", 3)})


def fused_from(model: MultimodalModel, batch: Batch, *modalities: str) -> Fused:
    """The fusion of some modalities alone, by the model itself."""
    left = batch.without(*(name for name in batch.modalities if name not in modalities))
    return model.fuse(model.encode(left), left.present)


def vectors_of(model: MultimodalModel, batch: Batch, *modalities: str) -> Tensor:
    """(B, D) what a model makes of some modalities alone, without gradient."""
    return fused_from(model, batch, *modalities).pooled.detach()


def with_descriptors(model: MultimodalModel) -> MultimodalModel:
    """The same model, with hand-made features beside its encoders of radiographs and reports, fitted to the ten studies."""
    words = WordDescriptor(VOCABULARY, 4, pairs=8, min_subjects=1)
    model.descriptors = Descriptors({"xray": XrayDescriptor(3), "report": words})
    model._arguments["descriptors"] = dict(model.descriptors.items())
    for name in model.descriptors:
        model.exchange_encoder(name, model.encoders[name])
    model.fit_descriptors([batch_of(ten_studies())])
    return model


def with_penalty(model: MultimodalModel) -> MultimodalModel:
    """The same model, whose fusion now gives a penalty along: the L1 norm of its embedding of modalities."""

    def give(fusion: nn.Module, _: Any, fused: Fused) -> Fused:
        return fused._replace(extra={**fused.extra, "penalty": fusion.modality.abs().sum()})

    model.fusion.keeps = (*model.fusion.keeps, "penalty")
    model.fusion.register_forward_hook(give)
    return model


def fitted(fusion: Fusion) -> Fusion:
    """The same fusion, fitted to 24 studies of vectors that say something of each other, of which a part is absent."""
    g = torch.Generator().manual_seed(4)
    cause = torch.randn(24, fusion.dim, generator=g)
    present = torch.rand(24, len(fusion.modalities), generator=g) < 0.7
    encoded = {}
    for column, name in enumerate(fusion.modalities):
        vectors = (cause + torch.randn(24, fusion.dim, generator=g))[present[:, column]]
        encoded[name] = Encoded(vectors[:, None], torch.ones(len(vectors), 1, dtype=torch.bool), vectors)
    with torch.no_grad():
        fusion.fit([(encoded, present)])
    return fusion


def with_shared(model: MultimodalModel) -> MultimodalModel:
    """The same model, whose fusion now gives shared and specific features along: of what it was given."""

    def give(fusion: nn.Module, given: Any, fused: Fused) -> Fused:
        table = fusion.table(*given)
        return fused._replace(extra={**fused.extra, "shared": table, "specific": table.roll(1, dims=-1) * 0.5})

    if "shared" not in model.fusion.keeps:
        model.fusion.keeps = (*model.fusion.keeps, "shared", "specific")
        model.fusion.register_forward_hook(give)
    return model


def with_expected(model: MultimodalModel) -> MultimodalModel:
    """The same model, whose fusion now says what it expects of each modality: the mean of what it was given, and a constant."""

    def give(fusion: nn.Module, given: Any, fused: Fused) -> Fused:
        mean = fusion.table(*given).mean(1, keepdim=True)
        return fused._replace(extra={**fused.extra, "expected": mean + fusion.modality})

    model.fusion.keeps = (*model.fusion.keeps, "expected")
    model.fusion.register_forward_hook(give)
    return model


def study(number: int, modalities: Sequence[str], *, subject: int | None = None, epoch: int = 0) -> Study:
    """One study; its content depends on `number` alone."""
    g = torch.Generator().manual_seed(number)
    xray = torch.rand(1, 16, 16, generator=g)
    xray[..., : 4 * (number % 3)] = 0  # beside the field of view
    channels, length, words = 2 + number % 3, 60 + 20 * (number % 4), 6 + number % 5
    everything = {
        "ct": torch.rand(1, 8, 8, 8, generator=g),
        "xray": xray,
        "eeg": (torch.randn(channels, length, generator=g) * 0.3, torch.randperm(19, generator=g)[:channels] + 1),
        "report": torch.cat(
            [torch.tensor([2]), torch.randint(6, VOCABULARY, (words,), generator=g), torch.tensor([3])]
        ),
        "table": torch.where(torch.rand(5, generator=g) < 0.3, torch.nan, torch.randn(5, generator=g)),
    }
    return {
        "name": f"study-{number}",
        "subject": 100 + (number if subject is None else subject),
        "key": 1000 * epoch + number,
        "index": number,
        "inputs": {m: everything[m] for m in modalities},
        "content": {m: 10 * number + MODALITIES.index(m) for m in modalities if m in MODALITIES},
        "targets": {
            "finding": float("nan") if number % 4 == 3 else float(number % 2),
            "grade": float("nan") if number % 5 == 1 else float(number % 3),
        },
    }


def ten_studies() -> list[Study]:
    return [study(number, pattern) for number, pattern in enumerate(PATTERNS)]


def batch_of(
    studies: Sequence[Study],
    dtype: torch.dtype = torch.float32,
    modalities: Sequence[str] = MODALITIES,
    views: int = 1,
) -> Batch:
    """The batch of `studies`; its further views are the same with noise, each drawn by itself."""
    inputs = {}
    for m in modalities:
        values = [s["inputs"][m] for s in studies if m in s["inputs"]]
        if values:
            inputs[m] = _stack(m, values, dtype)
    batch = Batch(
        inputs=inputs,
        present=torch.tensor([[m in s["inputs"] for m in modalities] for s in studies]).reshape(-1, len(modalities)),
        modalities=tuple(modalities),
        study_id=tuple(s["name"] for s in studies),
        subject=torch.tensor([s["subject"] for s in studies], dtype=torch.int64),
        key=torch.tensor([s["key"] for s in studies], dtype=torch.int64),
        targets={
            task: torch.tensor([s["targets"][task] for s in studies], dtype=dtype) for task in ("finding", "grade")
        },
        content={
            m: torch.tensor([s["content"][m] for s in studies if m in s["content"]], dtype=torch.int64)
            for m in inputs
            if m in MODALITIES
        },
        index=torch.tensor([s["index"] for s in studies], dtype=torch.int64),
    )
    return replace(batch, views=tuple(_looked_at_again(batch, studies, view) for view in range(1, views)))


def _looked_at_again(batch: Batch, studies: Sequence[Study], view: int) -> Batch:
    inputs: dict[str, Inputs] = {}
    for modality, value in batch.inputs.items():
        numbers = [s["index"] for s in studies if modality in s["inputs"]]
        if isinstance(value, Tensor):
            noise = [
                torch.randn(value.shape[1:], generator=torch.Generator().manual_seed(97 * view + n)) for n in numbers
            ]
            inputs[modality] = value + 0.1 * torch.stack(noise).to(value.dtype)
        else:
            inputs[modality] = dict(value)
    return replace(batch, inputs=inputs, key=batch.key * 31 + view)


def _stack(modality: str, values: list[Any], dtype: torch.dtype) -> Inputs:
    if modality == "table":
        rows = torch.stack(values).to(dtype)
        return {"values": rows, "known": torch.isfinite(rows)}
    if modality == "report":
        ids = pad_sequence(values, batch_first=True)
        mask = pad_sequence([torch.ones_like(v) for v in values], batch_first=True)
        return {"input_ids": ids, "attention_mask": mask}
    if modality != "eeg":
        return torch.stack(values).to(dtype)
    channels, samples = (max(v[0].shape[axis] for v in values) for axis in (0, 1))
    signal = torch.zeros(len(values), channels, samples, dtype=dtype)
    names = torch.zeros(len(values), channels, dtype=torch.int64)
    for row, (trace, name) in enumerate(values):
        signal[row, : trace.shape[0], : trace.shape[1]] = trace
        names[row, : len(name)] = name
    return {"signal": signal, "channels": names, "length": torch.tensor([v[0].shape[1] for v in values])}


def step_of(
    model: MultimodalModel,
    objective: Objective,
    studies: Sequence[Study],
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    change: Callable[[Batch], Batch] = lambda batch: batch,
    epoch_of: Sequence[Study] | None = None,
) -> Step:
    """What a learner would ask `objective` with: as many views as it wants, and a teacher if it wants one.

    Args:
        change: of the batch, before it is asked about.
        epoch_of: the training studies that the objective may look at before the epoch; those of the batch by default.
    """
    batch = change(batch_of(studies, dtype, views=objective.views))
    if type(objective).begin_epoch is not Objective.begin_epoch and studies:
        torch.manual_seed(3)
        everyone = batch if epoch_of is None else batch_of(epoch_of, dtype)
        with torch.no_grad():
            objective.begin_epoch(Clock(), model, [everyone])
    return Step(model, batch, seed=seed, clock=Clock(3, 10, 1), teacher=teacher_of(model, objective))


def teacher_of(model: MultimodalModel, objective: Objective) -> Any:
    """The teacher of an objective that wants one: a copy of the model that is not quite the model."""
    from medssml.objectives.step import Teacher

    if objective.teacher is None:
        return None
    copy = MovingAverage(model, [objective], begin_after_first=False)
    with torch.no_grad():
        for place, parameter in enumerate(copy.model.parameters()):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(place)).to(parameter.dtype)
            parameter += 0.02 * noise
    return Teacher(copy.model, copy.copies([objective]))


def encoded_of(encoder: nn.Module, inputs: Mapping[str, Tensor] | Tensor) -> Encoded:
    """What a model makes of an encoder's answer."""
    from medssml.encoders.base import as_encoded

    return as_encoded(encoder(inputs))
