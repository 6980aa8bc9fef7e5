"""One patient's chest as a volume of Hounsfield units: body, lungs, heart, vessels, airways, ribs, spine, findings.

The anatomy (`Patient`) is drawn once per subject. What a modality shows of the findings (`Shown`) comes from that
modality's own evidence, so the CT and the radiograph of one study have the same bones and vessels, and fluid, heart
and nodule of slightly different size. Coordinates are mm in RAS with the origin in the middle of the chest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.special import ndtr

from medssml.phantom.shapes import Field, Grid, Point, cover, ellipsoid, paint, paint_ellipsoid, paint_tube, splat
from medssml.phantom.skeleton import Cage, paint_skeleton
from medssml.phantom.vessels import vessel_tree

AIR, FAT, MUSCLE, BLOOD, LIVER, FLUID, NODULE = -1000.0, -100.0, 50.0, 42.0, 60.0, 10.0, 40.0

NODULE_SITES: dict[str, Point] = {
    "right upper lobe": (0.60, 14.0, 54.0),
    "left upper lobe": (-0.60, 14.0, 54.0),
    "right middle lobe": (0.62, 26.0, 4.0),
}
"""Site -> x as a share of the chest's half width there, y and z in mm; all above and in front of free fluid."""

# Outlines along z (mm): half width and half depth of the skin and of the chest cavity.
_Z_BODY = [-170, -60, 20, 70, 100, 114, 124, 136, 148, 170]
_BODY_WIDTH = [160, 164, 168, 182, 186, 172, 140, 96, 72, 62]
_BODY_DEPTH = [112, 112, 110, 104, 96, 88, 80, 70, 64, 62]
_Z_CAVITY = [-170, -100, -40, 0, 40, 75, 98, 112, 122, 128]
_CAVITY_WIDTH = [140, 138, 134, 128, 118, 100, 78, 56, 29, 3]
_CAVITY_DEPTH = [88, 87, 84, 80, 73, 62, 50, 37, 20, 3]


def nodule_radius(evidence: float) -> float:
    """Radius in mm (4 to 32) of the nodule or mass that shows this evidence; strictly increasing, in equal ratios."""
    return float(4 * 8 ** ndtr(0.75 * evidence))


def fluid_level(evidence: float) -> float:
    """Height in mm (0 to 84) of free fluid above the costophrenic angle when upright; strictly increasing."""
    return float(84 * ndtr(0.8 * evidence - 0.25))


def heart_scale(evidence: float) -> float:
    """Size of the heart relative to an average one (0.74 to 1.34); strictly increasing."""
    return float(0.74 + 0.6 * ndtr(0.75 * evidence - 0.1))


@dataclass(frozen=True)
class Shown:
    """What a volume shows of each finding, in standard units of evidence."""

    nodule: float
    effusion: float
    cardiomegaly: float


@dataclass(frozen=True)
class Patient:
    """The anatomy that a subject keeps over all of his studies; nothing of it depends on the findings.

    Args:
        width, depth, height: size of the chest relative to an average man's.
        fat: mm of subcutaneous fat.
        breast: mm of breast, 0 for men.
        calcium: share (0 to 1) of the aortic wall that is calcified; grows with age.
        rib_phase: mm, where the first rib starts.
        dome: mm, height of the diaphragm.
        tilt: share by which fluid is more on the right (-0.2 to 0.2).
        site: name of the nodule's site.
        jitter: mm, the nodule's offset from its site.
        seed: of vessels and texture.
    """

    width: float
    depth: float
    height: float
    fat: float
    breast: float
    calcium: float
    rib_phase: float
    dome: float
    tilt: float
    site: str
    jitter: Point
    seed: tuple[int, ...]


def draw_patient(rng: np.random.Generator, age: float, female: bool, seed: tuple[int, ...]) -> Patient:
    """A patient of this age (years) and sex."""
    size = 0.93 if female else 1.0
    jitter = rng.uniform(-3, 3, 3)
    return Patient(
        width=size * float(np.clip(rng.normal(1, 0.03), 0.93, 1.05)),
        depth=size * float(np.clip(rng.normal(1, 0.04), 0.9, 1.08)) + (age - 60) * 0.0008,
        height=(0.96 if female else 1.0) * float(np.clip(rng.normal(1, 0.02), 0.95, 1.04)),
        fat=float(rng.uniform(9, 20)) + (4 if female else 0),
        breast=float(rng.uniform(18, 34)) if female else 0.0,
        calcium=float(np.clip((age - 50) / 40, 0, 1) * rng.uniform(0.4, 1)),
        rib_phase=float(rng.uniform(-5, 5)),
        dome=float(rng.uniform(-6, 6)),
        tilt=float(rng.uniform(-0.2, 0.2)),
        site=str(rng.choice(list(NODULE_SITES))),
        jitter=(float(jitter[0]), float(jitter[1]), float(jitter[2])),
        seed=seed,
    )


def chest(patient: Patient, shown: Shown, grid: Grid, posture: Literal["supine", "upright"] = "supine") -> Field:
    """The chest in HU.

    Args:
        patient: whose anatomy.
        shown: the findings; fluid collects at the back when supine, above the diaphragm when upright.
        grid: voxels.
        posture: how the patient lies or sits.

    Returns:
        (X, Y, Z) float32 in RAS, without noise.
    """
    scene = _Scene(patient, grid)
    volume = scene.trunk()
    scene.lungs(volume, shown, posture)
    scene.mediastinum(volume, shown)
    scene.nodule(volume, nodule_radius(shown.nodule))
    paint_skeleton(
        volume,
        Cage(grid, patient.width, patient.depth, patient.height, scene.half_width, scene.half_depth, scene.wall),
        patient.rib_phase,
    )
    return volume


def nodule_centre(patient: Patient) -> Point:
    """Where the patient's nodule is, in mm."""
    x, y, z = NODULE_SITES[patient.site]
    half = float(np.interp(z, _Z_CAVITY, _CAVITY_WIDTH)) * patient.width
    dx, dy, dz = patient.jitter
    return (x * half + dx, y + dy, z * patient.height + dz)


class _Scene:
    """The fields that several organs share, computed once per volume."""

    def __init__(self, patient: Patient, grid: Grid) -> None:
        self.patient, self.grid = patient, grid
        self.x, self.y, self.z = grid.axes
        z = self.z.ravel() / patient.height
        self.half_width = self._outline(z, _Z_CAVITY, _CAVITY_WIDTH) * patient.width
        self.half_depth = self._outline(z, _Z_CAVITY, _CAVITY_DEPTH) * patient.depth
        self.ray = np.sqrt(self.x**2 + self.y**2)
        self.skin = self._ring(
            self._outline(z, _Z_BODY, _BODY_WIDTH) * patient.width,
            self._outline(z, _Z_BODY, _BODY_DEPTH) * patient.depth + (patient.fat - 14),
            (0.25, 0.125),
        )
        self.wall = self._ring(self.half_width, self.half_depth, (0.25, 0.125, 0.0625))
        self.lung = np.zeros(grid.shape, np.float32)

    def _outline(self, z: Field, heights: list[int], sizes: list[int]) -> Field:
        """Smooth curve through (heights, sizes) at z, (1, 1, Z)."""
        curve = np.interp(z, heights, sizes)
        smooth = gaussian_filter1d(curve, 7 / self.grid.spacing[2], mode="nearest")
        return smooth.astype(np.float32).reshape(1, 1, -1)

    def _ring(self, width: Field, depth: Field, roots: tuple[float, ...]) -> Field:
        """Signed distance (mm) along the ray to a superellipse of exponent 1 / sum(roots), half axes changing with z.

        The exponent is given as powers of one half, because repeated square roots are ten times faster than `power`.
        """
        power = np.float32(1 / sum(roots))
        sides = (np.abs(self.x) / width) ** power + (np.abs(self.y) / depth) ** power + np.float32(1e-6)
        radius = np.ones_like(sides)
        exponent = 1.0
        while exponent > min(roots):
            np.sqrt(sides, out=sides)
            exponent /= 2
            if exponent in roots:
                radius *= sides
        return (self.ray * (1 - 1 / radius)).astype(np.float32)

    def trunk(self) -> Field:
        """Air, skin, fat, muscle and, below the diaphragm, the upper abdomen."""
        patient = self.patient
        volume = np.full(self.grid.shape, AIR, np.float32)
        paint(volume, cover(self.skin), FAT)
        if patient.breast:
            for side in (1, -1):
                centre = (side * 78 * patient.width, 98 * patient.depth, -12.0)
                paint_ellipsoid(volume, self.grid, centre, (56, patient.breast + 14, 52), -70)
        paint(volume, cover(self.skin + patient.fat), MUSCLE)
        paint(volume, cover(np.abs(self.skin + patient.fat + 16) - 2.0), -40)  # fat between the muscle layers
        return volume

    def lungs(self, volume: Field, shown: Shown, posture: str) -> None:
        """Both lungs with vessels and pleural fluid, over diaphragm, liver, spleen and stomach."""
        x, y, z = self.x, self.y, self.z
        floor = self._diaphragm()
        inside = cover(self.wall)
        abdomen = inside * cover(z - floor)
        self._abdomen(volume, abdomen, posture)

        self.lung = inside * cover(floor - z) * cover(self._band() - np.abs(x + 2))
        down = -y if posture == "supine" else -z
        content = np.broadcast_to((-865 + 0.42 * (down + 80)).astype(np.float32), self.grid.shape).copy()
        paint(content, self._vessels(), BLOOD)
        paint(content, self._fluid(shown, posture), FLUID)
        paint(volume, self.lung, content)

    def _abdomen(self, volume: Field, share: Field, posture: str) -> None:
        """Liver on the right, stomach with its gas and spleen on the left, fat between them."""
        dome = self.patient.dome
        part, axes = self.grid.box((-170, -120, -165), (170, 120, -40))
        content = np.full(volume[part].shape, -85, np.float32)
        liver = cover(ellipsoid(axes, (52, 4, -128 + dome), (98, 96, 78)))
        spleen = cover(ellipsoid(axes, (-98, -38, -118 + dome), (36, 46, 48)))
        stomach = ellipsoid(axes, (-58, 22, -122 + dome), (50, 50, 46))
        rise = axes[1] - 44 if posture == "supine" else axes[2] + 98 - dome
        gas = cover(stomach + 4) * cover((-rise).astype(np.float32))
        for organ, value in ((cover(stomach), 28.0), (spleen, 52.0), (liver, LIVER)):
            paint(content, organ, value)
        paint(content, gas * (1 - liver) * (1 - spleen), -940)
        paint(volume[part], share[part], content)

    def _diaphragm(self) -> Field:
        """Height (mm) of the two domes, (X, Y, 1): the right one is higher; both fall to deep sulci at the wall."""
        x, y = self.x / self.patient.width, self.y / self.patient.depth
        spread = 1 / (1 + np.exp(-np.clip(x, -60, 60) / 6))
        top = self.patient.dome - 72 + 13 * spread
        return top - 58 * ((np.abs(x) - 60) ** 2 / 74**2 + (y - 10) ** 2 / 92**2)

    def _band(self) -> Field:
        """Half width (mm) of the mediastinum between the lungs, (1, Y, Z): narrow in front, wide before the spine."""
        across = np.interp(self.y.ravel(), [-120, -80, -50, -15, 20, 45, 80], [20, 22, 21, 19, 17, 8, 3])
        along = np.interp(self.z.ravel(), [-160, -60, 30, 80, 115], [1.0, 0.95, 1.0, 1.15, 1.0])
        return (across[None, :, None] * along[None, None, :]).astype(np.float32)

    def _vessels(self) -> Field:
        """Share of each voxel that is vessel."""
        points, volumes = [], []
        for side in (1, -1):
            rng = np.random.default_rng([*self.patient.seed, 2 + side])
            width = self.patient.width
            hilum = np.array([side * 34.0, -12.0, 18.0 if side > 0 else 22.0])
            centre = np.array([side * 76.0 * width, -6.0, 0.0])
            bits, mass = vessel_tree(rng, hilum, centre, np.array([54.0 * width, 78.0, 112.0]))
            points.append(bits)
            volumes.append(mass)
        return splat(self.grid, np.concatenate(points), np.concatenate(volumes))

    def mediastinum(self, volume: Field, shown: Shown) -> None:
        """Fat, heart, great vessels and airways."""
        patient, grid = self.patient, self.grid
        core = cover(self.wall + 3) * cover(np.abs(self.x + 2) - self._band() + 3) * cover(-62 - self.y)
        paint(volume, core * cover(-90 - self.z), -55)
        self._heart(volume, heart_scale(shown.cardiomegaly))

        aorta: list[Point] = [(8, 16, -18), (14, 14, 30), (6, 0, 58), (-20, -28, 62), (-30, -48, 40), (-27, -52, -40)]
        aorta.append((-16, -50, -165))
        paint_tube(volume, grid, aorta, [15, 15, 14, 13, 12.5, 12, 11], BLOOD)
        if patient.calcium > 0.1:
            arch: list[Point] = [(-8, -16, 74), (-24, -34, 72), (-36, -44, 60), (-40, -52, 42)]
            paint_tube(volume, grid, arch, [3.0 * patient.calcium**0.5] * 4, 420)
        paint_tube(volume, grid, [(24, 14, 112), (22, 12, 60), (20, 8, 0)], [7, 9, 10], BLOOD)
        paint_tube(volume, grid, [(-14, 34, -15), (-20, 14, 26), (-26, 4, 33)], [15, 13, 12], BLOOD)
        paint_tube(volume, grid, [(-20, 12, 28), (10, 2, 24), (44, -8, 16)], [12, 11, 8], BLOOD)
        paint_tube(volume, grid, [(-26, 4, 33), (-46, -20, 26), (-52, -26, 8)], [12, 11, 8], BLOOD)
        paint_tube(volume, grid, [(-12, 6, 116), (-20, -8, 70)], [5, 6], BLOOD)
        self._airways(volume)

    def _heart(self, volume: Field, scale: float) -> None:
        """Left ventricle towards the left, right atrium, left atrium behind; a rim of fat around them."""
        width, deep, tall = scale * self.patient.width, scale**0.8, scale**0.8
        part, axes = self.grid.box((-150, -70, -130), (110, 100, 50))
        base = -54 + self.patient.dome - 16 * (scale - 1)

        def at(x: float, y: float, z: float) -> Point:
            return (-6 + x * width, 16 + y * deep, base + z * tall)

        left = ellipsoid(axes, at(-28, 6, -2), (60 * width, 46 * deep, 43 * tall), tilt=0.5)
        right = ellipsoid(axes, at(22, 0, 8), (35 * width, 36 * deep, 44 * tall))
        behind = ellipsoid(axes, at(0, -28, 26), (36 * width, 24 * deep, 30 * tall))
        sharp = np.float32(0.12)
        union = -np.log(np.exp(-sharp * left) + np.exp(-sharp * right) + np.exp(-sharp * behind)) / sharp
        above = cover(self._diaphragm()[part[0], part[1]] - 6 - axes[2])
        within = cover(self.wall[part] + 5) * above
        paint(volume[part], cover(union - 4) * within, -85)
        paint(volume[part], cover(union) * within, BLOOD)

    def _airways(self, volume: Field) -> None:
        """Trachea to the carina, main and lobar bronchi."""
        grid = self.grid
        trachea: list[Point] = [(2, 10, 170), (2, 2, 100), (4, -10, 46)]
        right: list[Point] = [(4, -10, 46), (26, -14, 30), (42, -18, 10)]
        left: list[Point] = [(4, -10, 46), (-28, -18, 28), (-46, -22, 8)]
        for path, radii in ((trachea, [9.0, 9.0, 9.5]), (right, [8.0, 6.5, 4.0]), (left, [7.0, 6.0, 4.0])):
            paint_tube(volume, grid, path, radii, 30, grow=2.5)
        for path, radii in ((trachea, [9.0, 9.0, 9.5]), (right, [8.0, 6.5, 4.0]), (left, [7.0, 6.0, 4.0])):
            paint_tube(volume, grid, path, radii, -990)
        paint_tube(volume, grid, [(26, -14, 30), (50, -4, 44)], [4.5, 2.5], -960)
        paint_tube(volume, grid, [(-28, -18, 28), (-50, -6, 42)], [4.5, 2.5], -960)

    def _fluid(self, shown: Shown, posture: str) -> Field:
        """Share of each voxel of the pleural cavity that is fluid: a meniscus when upright, a crescent when supine."""
        level = fluid_level(shown.effusion)
        share = np.where(self.x > 0, np.float32(1 + self.patient.tilt), np.float32(1 - self.patient.tilt))
        if posture == "upright":
            base = -122 + self.patient.dome
            rise = min(level, 34.0) * np.exp(np.minimum(self.wall, 0) / np.float32(16))
            surface = base + level * share + rise
            return cover((self.z - surface).astype(np.float32), 6.0)
        back = np.clip((0.25 * self.half_depth - self.y) / (0.8 * self.half_depth), 0, 1)
        low = 1 - 0.75 * np.clip((self.z + 50) / 130, 0, 1)
        depth = 0.75 * level * share * (back * back * (3 - 2 * back) * low)
        return (cover((-self.wall - depth).astype(np.float32), 5.0) * np.clip(depth / 2, 0, 1)).astype(np.float32)

    def nodule(self, volume: Field, radius: float) -> None:
        """A lobulated solid nodule."""
        centre = nodule_centre(self.patient)
        reach = 1.2 * radius + 5
        part, axes = self.grid.box(
            (centre[0] - reach, centre[1] - reach, centre[2] - reach),
            (centre[0] + reach, centre[1] + reach, centre[2] + reach),
        )
        x, y, z = (axis - c for axis, c in zip(axes, centre, strict=True))
        gap = np.sqrt(x**2 + y**2 + z**2) + np.float32(1e-3)
        phase = np.random.default_rng([*self.patient.seed, 9]).uniform(0, 6.28, 3)
        lobes = np.sin(3 * np.arctan2(y, x) + phase[0]) * (1 - (z / gap) ** 2) + np.sin(5 * z / gap + phase[1])
        paint(volume[part], cover(gap - radius * (1 + 0.05 * lobes)), NODULE)
