"""What the lips do, frame by frame: how far they are apart, how wide and round, and whether the lower lip is at the
upper teeth.

On the head's mesh, in metres, head pose left out:

    gap      mean height of the upper lip's inner edge over the lower one's in the middle half of the mouth, >= 0
    width    distance of the mouth's corners over that of the face at rest
    teeth    distance of the middle of the lower lip's inner edge from the edge of the upper incisors, in the plane that
             parts left from right: 5 mm at rest, where the lip lies before the teeth, about 1 mm in an f
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vasa3d.avatar.avatar import Avatar
from vasa3d.avatar.deformation import mix_mood
from vasa3d.avatar.teeth import lip_and_incisors
from vasa3d.evaluation.readback import bridge
from vasa3d.head import load_head
from vasa3d.types import F32, MotionLatents


@dataclass(frozen=True)
class LipShape:
    """Lips over T frames.

    Attributes:
        gap: (T,) float32 distance between the inner lips, metres.
        width: (T,) float32 width of the mouth over its width at rest.
        teeth: (T,) float32 distance of the lower lip from the upper incisors, metres; NaN where it cannot be seen.
    """

    gap: F32
    width: F32
    teeth: F32

    def __len__(self) -> int:
        return len(self.gap)


def shape_of_mesh(latents: MotionLatents, avatar: Avatar | None = None) -> LipShape:
    """Lips of the head's mesh in motion.

    Args:
        latents: Motion; head pose plays no part.
        avatar: Whose lips, with the mood of the portrait; default: the shipped head's mean face.

    Raises:
        MissingError: The head asset is missing.
    """
    shown = latents.dyn if avatar is None else mix_mood(latents.dyn, avatar.mood)
    head = load_head()
    upper, lower = head.lip_rings["upper"], head.lip_rings["lower"]
    rest = next(_meshes(np.zeros((1, shown.shape[1]), np.float32), avatar))
    rest_width = float(np.linalg.norm(rest[upper[0]] - rest[upper[-1]]))
    corners = rest[upper[[0, -1]], 0]
    at = corners.mean() + 0.25 * np.ptp(corners) * np.linspace(-1.0, 1.0, 9)
    middle, edge = lip_and_incisors(rest, head)
    rows = np.empty((len(shown), 3), np.float32)
    for t, vertices in enumerate(_meshes(shown, avatar)):
        heights = [np.interp(at, vertices[ring, 0], vertices[ring, 1]) for ring in (upper, lower)]
        rows[t, 0] = max(0.0, float(np.mean(heights[0] - heights[1])))
        rows[t, 1] = np.linalg.norm(vertices[upper[0]] - vertices[upper[-1]]) / rest_width
        rows[t, 2] = np.linalg.norm((vertices[middle].mean(axis=0) - vertices[edge])[1:])
    return LipShape(rows[:, 0].copy(), rows[:, 1].copy(), rows[:, 2].copy())


def lip_gap(latents: MotionLatents, avatar: Avatar | None = None) -> F32:
    """(T,) metres between the inner lips of the head's mesh; see ``shape_of_mesh``."""
    return shape_of_mesh(latents, avatar).gap


def shape_of_pictures(read: Sequence[tuple[float, float]], rest_width: float) -> LipShape:
    """Lips from what a tracker read.

    Args:
        read: Gap and width of the mouth of each frame in metres, NaN where no face was found.
        rest_width: Width of the mouth of the face at rest.

    Raises:
        FaceError: No frame shows a face.
    """
    gaps, widths = (bridge(column) for column in zip(*read, strict=True))
    return LipShape(gaps, (widths / rest_width).astype(np.float32), np.full_like(gaps, np.nan))


def _meshes(expressions: F32, avatar: Avatar | None) -> Iterator[F32]:
    """(V, 3) vertices of each expression; the array is used again."""
    head = load_head()
    person = (
        head.personalised(np.zeros(head.num_identity, np.float32))
        if avatar is None
        else avatar.personal_head
    )
    joints, still = np.zeros((len(head.joint_names), 3), np.float32), np.zeros(3, np.float32)
    vertices = np.empty_like(person.rest)
    for expression in expressions:
        person.vertices(expression, joints, still, vertices)
        yield vertices
