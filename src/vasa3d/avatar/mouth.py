"""Colours of the inner mouth, which hardly any photo shows: usual ones, lit through the open lips.

Light comes from before the face and a little above. How much of it reaches a point of teeth, gums, tongue or cavity is
seen from where it comes from: the head with its mouth open is drawn from many sides, and what a side shows, it lights.
So teeth get their curves and gaps, the tongue its shape, and the throat is dark.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import KDTree

from vasa3d.geometry.lighting import half_sky, received_light
from vasa3d.geometry.meshes import vertex_normals
from vasa3d.head import ArkitHead
from vasa3d.types import ARKIT_INDEX, F32, NUM_CHANNELS

_COLORS = {
    "teethUpper": (0.81, 0.77, 0.71), "teethLower": (0.77, 0.72, 0.66), "gumsUpper": (0.72, 0.42, 0.40),
    "gumsLower": (0.68, 0.39, 0.37), "tongue": (0.74, 0.41, 0.40), "mouthCavity": (0.46, 0.20, 0.18),
}  # fmt: skip
"""Usual sRGB colours in full light."""
_TEETH = {"teethUpper": 1.0, "teethLower": 0.9}
"""Brightness of each row of teeth beside those that a photo shows."""
_OPEN_MOUTH = {
    "jawOpen": 0.45, "mouthUpperUpLeft": 0.8, "mouthUpperUpRight": 0.8,
    "mouthLowerDownLeft": 0.6, "mouthLowerDownRight": 0.6,
}  # fmt: skip
"""The expression in which the inner mouth is lit."""
_SKY = half_sky((0.0, 0.3, 1.0), 40)
_WIDTH_METRES = 0.14
_SCATTERED, _FLESH_METRES = 0.05, 0.025
"""Part of the light that flesh scatters into every corner at the lips, and how deep it goes."""
_GLOW, _LIT_METRES = 0.04, 0.035
"""The same of enamel, which light goes through, and how far behind the incisors teeth still are in the light."""
_DISPLAY_GAMMA = 2.2
_REDDENING = (1.0, 1.15, 1.25)
"""Powers of the shade of each channel: what light has crossed the mouth is red."""
_PHOTO_TEETH_METRES = 0.004
"""Around teeth that the photo shows, whose gaps are its own, the model's are smoothed over so far."""


def open_vertices(head: ArkitHead, identity: F32, offsets: F32) -> F32:
    """(V, 3) a person's head with the mouth open, as ``mouth_colors`` wants it.

    Args:
        head: Head model.
        identity: (I,) of the person.
        offsets: (V, 3) displacements of the person's head, metres.
    """
    expression = np.zeros(NUM_CHANNELS, np.float32)
    for name, value in _OPEN_MOUTH.items():
        expression[ARKIT_INDEX[name]] = value
    joints = np.zeros((len(head.joint_names), 3), np.float32)
    person = head.personalised(identity, offsets)
    return person.vertices(expression, joints, np.zeros(3, np.float32)).copy()


def mouth_colors(
    head: ArkitHead, vertices: F32, photo_light: float, teeth: F32 | None = None
) -> tuple[F32, np.ndarray]:
    """Colours of the inner mouth, darker towards the throat.

    Args:
        head: Head model.
        vertices: (V, 3) a head with its mouth open; of ``open_vertices``.
        photo_light: Brightness of the photo, 1 = good light.
        teeth: (3,) colour of the teeth that the photo shows, None if it shows none.

    Returns:
        (V, 3) sRGB colours and (V,) bool which vertices have one.
    """
    known = np.any([head.regions[name] for name in _COLORS], axis=0)
    light = np.zeros(head.num_vertices, np.float32)
    normals = vertex_normals(vertices, head.weld[head.faces])[head.weld]
    light[known] = received_light(vertices, head.faces, normals, known, _SKY, _WIDTH_METRES)
    light /= max(float(light[head.regions["teethUpper"]].max()), 1e-6)
    lips = head.regions["lipUpper"] | head.regions["lipLower"]
    deep = np.maximum(vertices[lips, 2].max() - vertices[:, 2], 0.0)
    light += _SCATTERED * np.exp(-deep / _FLESH_METRES)
    colors = np.zeros((head.num_vertices, 3), np.float32)
    for name, color in _COLORS.items():
        region = head.regions[name]
        lit = np.array(color, np.float32) * np.float32(photo_light)
        reaching = light[region]
        if name in _TEETH:
            behind = vertices[region, 2].max() - vertices[region, 2]
            reaching = reaching * np.clip(1.0 - behind / _LIT_METRES, 0.0, 1.0) + _GLOW
        if teeth is not None and name in _TEETH:
            lit = teeth * np.float32(_TEETH[name])
            reaching = _smoothed(vertices[region], reaching)
            reaching /= reaching.max()
        powers = np.array(_REDDENING, np.float32) / _DISPLAY_GAMMA
        colors[region] = lit * reaching.clip(0.0, 1.0)[:, None] ** powers
    return colors, known


def _smoothed(points: F32, values: F32) -> F32:
    """Means of values (N,) over the points (N, 3) around each."""
    around = KDTree(points).query_ball_point(points, _PHOTO_TEETH_METRES)
    return np.array([values[members].mean() for members in around], np.float32)
