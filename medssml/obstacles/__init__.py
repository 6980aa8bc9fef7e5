"""Obstacles, a kind a file: absent, noisy, mispaired, mislabelled, unbalanced. A new one: its class and a line here."""

from medssml.obstacles.absence import Absence
from medssml.obstacles.absent import (
    Absent,
    AbsentAgainstTraining,
    AbsentButOne,
    AbsentByCovariate,
    AbsentByLabel,
    AbsentBySite,
)
from medssml.obstacles.at_sites import DamageAtSites, TableAtSites
from medssml.obstacles.base import Damage, Obstacle, TableObstacle
from medssml.obstacles.class_scarce import ClassScarce
from medssml.obstacles.ct_quality import CTDose, CTMotion
from medssml.obstacles.eeg_artefacts import EEGBlinks, EEGMains, EEGMuscle
from medssml.obstacles.label_faults import LabelFault, LabelsHidden, LabelsOfOneClass, LabelsSymmetric
from medssml.obstacles.label_readers import LabelsByAnnotator, LabelsFromReports
from medssml.obstacles.lost_parts import (
    CTSlabLost,
    EEGChannelsLost,
    EEGSegmentLost,
    ReportSentencesLost,
    TableValuesLost,
    XrayOccluded,
)
from medssml.obstacles.mispaired import Mispaired
from medssml.obstacles.report_errors import ReportMisread, ReportNegations, ReportTruncated, ReportTypos
from medssml.obstacles.together import Together
from medssml.obstacles.xray_quality import XrayExposure, XrayScatter

#: In the order of the page.
OBSTACLES: tuple[type[Obstacle], ...] = (
    Absent,
    AbsentByCovariate,
    AbsentByLabel,
    AbsentButOne,
    AbsentBySite,
    AbsentAgainstTraining,
    CTSlabLost,
    XrayOccluded,
    EEGChannelsLost,
    EEGSegmentLost,
    ReportSentencesLost,
    TableValuesLost,
    CTDose,
    CTMotion,
    XrayExposure,
    XrayScatter,
    EEGBlinks,
    EEGMains,
    EEGMuscle,
    ReportTypos,
    ReportMisread,
    ReportTruncated,
    ReportNegations,
    Mispaired,
    LabelsHidden,
    LabelsSymmetric,
    LabelsOfOneClass,
    LabelsByAnnotator,
    LabelsFromReports,
    ClassScarce,
)

__all__ = [
    "Absence",
    "Absent",
    "AbsentAgainstTraining",
    "AbsentButOne",
    "AbsentByCovariate",
    "AbsentByLabel",
    "AbsentBySite",
    "CTDose",
    "CTMotion",
    "CTSlabLost",
    "ClassScarce",
    "Damage",
    "DamageAtSites",
    "EEGBlinks",
    "EEGChannelsLost",
    "EEGMains",
    "EEGMuscle",
    "EEGSegmentLost",
    "LabelFault",
    "LabelsByAnnotator",
    "LabelsFromReports",
    "LabelsHidden",
    "LabelsOfOneClass",
    "LabelsSymmetric",
    "Mispaired",
    "Obstacle",
    "ReportMisread",
    "ReportNegations",
    "ReportSentencesLost",
    "ReportTruncated",
    "ReportTypos",
    "TableAtSites",
    "TableObstacle",
    "TableValuesLost",
    "Together",
    "XrayExposure",
    "XrayOccluded",
    "XrayScatter",
]
