"""Which classes of MONAI a config may name: those that map arrays to arrays, and networks. Nothing that reads or writes a
file, calls a function that is given by name, or fetches weights.

A list of names, not of modules: a class that a later MONAI adds is looked at before it is let in.
"""

from __future__ import annotations

_CROP = """
    BorderPadd CenterScaleCropd CenterSpatialCropd DivisiblePadd RandScaleCropd RandSpatialCropd
    ResizeWithPadOrCropd SpatialCropd SpatialPadd
"""
_INTENSITY = """
    AdjustContrastd ClipIntensityPercentilesd GaussianSharpend GaussianSmoothd GibbsNoised HistogramNormalized
    KSpaceSpikeNoised MedianSmoothd NormalizeIntensityd RandAdjustContrastd RandBiasFieldd RandCoarseDropoutd
    RandCoarseShuffled RandGaussianNoised RandGaussianSharpend RandGaussianSmoothd RandGibbsNoised RandHistogramShiftd
    RandKSpaceSpikeNoised RandRicianNoised RandScaleIntensityFixedMeand RandScaleIntensityd RandShiftIntensityd
    RandStdShiftIntensityd SavitzkyGolaySmoothd ScaleIntensityRangePercentilesd ScaleIntensityRanged ScaleIntensityd
    ShiftIntensityd StdShiftIntensityd ThresholdIntensityd
"""
_SPATIAL = """
    Affined Flipd GridDistortiond Orientationd Rand2DElasticd Rand3DElasticd RandAffined RandAxisFlipd RandFlipd
    RandGridDistortiond RandRotate90d RandRotated RandSimulateLowResolutiond RandZoomd Resized Rotate90d Rotated
    RandSmoothDeformd RandSmoothFieldAdjustContrastd RandSmoothFieldAdjustIntensityd Spacingd Zoomd
"""
_SHAPE = "AsChannelLastd CastToTyped EnsureTyped Identityd RepeatChanneld SqueezeDimd Transposed AddCoordinateChannelsd"
_CONTAINERS = "Compose OneOf RandomOrder SomeOf"

TRANSFORMS = frozenset(" ".join((_CROP, _INTENSITY, _SPATIAL, _SHAPE, _CONTAINERS)).split())

#: Transforms that ask a MetaTensor where its voxels lie.
NEED_GEOMETRY = frozenset({"Orientationd", "Spacingd"})

NETWORKS = frozenset(
    """
    AttentionUnet AutoEncoder BasicUNet BasicUNetPlusPlus Classifier DenseNet DenseNet121 DenseNet169 DenseNet201 DenseNet264
    DynUNet EfficientNetBN EfficientNetBNFeatures FlexibleUNet FullyConnectedNet HighResNet MedNeXt Regressor ResNet
    ResNetFeatures SEResNet50 SEResNet101 SEResNet152 SEResNext50 SEResNext101 SENet154 SegResNet SegResNetDS SwinUNETR UNETR
    UNet VNet VarAutoEncoder ViT ViTAutoEnc
    """.split()
)

#: Package -> the names in it.
ALLOWED = {"monai.transforms": TRANSFORMS, "monai.networks.nets": NETWORKS}
