"""Motion-conditioned deformation of the avatar (VASA-3D, section 3.2).

Base deformation: motion latent -> head parameters; the mesh carries the Gaussians. With latents in ARKit channels the
paper's networks M^e and M^p have closed forms. A portrait rarely shows a neutral face: the part of its expression that
belongs to the person's look (a smile in the eyes, raised brows, heavy lids) stays as ``mood`` under the motion,

    expression = mood + (1 - mood) * dyn,

while mouth opening and parted lips are left to the motion alone. Nobody smiles with rounded lips: as dyn rounds them
(mouthPucker, mouthFunnel), the mood lets the corners of the mouth go.

VAS deformation: residuals of every Gaussian's position, rotation, scale, colour and opacity as a latent-conditioned
mixture of per-Gaussian modes; rank 0 means none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vasa3d.head import NECK_SHARE, ArkitHead, eye_rotations
from vasa3d.types import (
    ARKIT_CHANNELS,
    ARKIT_INDEX,
    F32,
    NUM_CHANNELS,
    HeadParams,
    MotionLatents,
    check_array,
)

_MOOD_SHARE = {
    "mouthSmile": 0.35, "mouthDimple": 0.35, "mouthFrown": 0.35, "cheekSquint": 0.4, "cheekPuff": 0.0,
    "eyeBlink": 0.8, "eyeSquint": 0.7, "eyeWide": 0.8, "brow": 0.9, "noseSneer": 0.1,
}  # fmt: skip
"""How much of each channel of the portrait stays as mood, by prefix; unnamed channels leave nothing. A mood must not
part the lips, so little is left of noseSneer, which draws the upper lip up by 6 mm."""

_MOOD_LIMIT = 0.6
_CORNERS = np.array(
    [n.startswith(("mouthSmile", "mouthDimple", "mouthFrown")) for n in ARKIT_CHANNELS]
)
"""Channels of the mood that rounded lips let go."""
_ROUNDING = [ARKIT_INDEX["mouthPucker"], ARKIT_INDEX["mouthFunnel"]]
_FULLY_ROUND = 0.5
"""Sum of the rounding channels from which the corners are free."""
VAS_ATTRIBUTES = 14
"""Residual of one Gaussian: mean 3, rotation 4, log scale 3, colour 3, opacity 1."""
VAS_INPUTS = NUM_CHANNELS + 6 + 1
"""What weighs the modes: the channels of ``dyn``, the six numbers of ``pose``, and 1."""


_LEAST_REACH = np.float32(1e-9)
_LEAST_FACTOR = 1e-11
"""Smaller ones change less than a nanometre or a rounding of float32: they cost nothing as zeros."""


@dataclass(frozen=True)
class VasResidual:
    """Per-Gaussian residual modes, in the steps in which files hold them.

    Attributes:
        modes: (R, N, 14) int8 change of mean, quaternion, log scale, colour and opacity per mode; 127 is the reach.
        reach: (R, 14) float32 change that 127 stands for; metres for means.
        mixing: (R, VAS_INPUTS) float32 linear map from ``residual_inputs`` to the weight of each mode.
    """

    modes: NDArray[np.int8]
    reach: F32
    mixing: F32

    def __post_init__(self) -> None:
        check_array("modes", self.modes, (None, None, VAS_ATTRIBUTES), np.int8)
        check_array("reach", self.reach, (len(self.modes), VAS_ATTRIBUTES))
        check_array("mixing", self.mixing, (len(self.modes), VAS_INPUTS))

    @staticmethod
    def zero(num_gaussians: int) -> VasResidual:
        """No residual."""
        return VasResidual(
            np.zeros((0, num_gaussians, VAS_ATTRIBUTES), np.int8),
            np.zeros((0, VAS_ATTRIBUTES), np.float32),
            np.zeros((0, VAS_INPUTS), np.float32),
        )

    @staticmethod
    def of(changes: F32, mixing: F32) -> VasResidual:
        """The residual of changes (R, N, 14) float32, each rounded to 1/127 of its mode's and attribute's largest."""
        check_array("modes", changes, (None, None, VAS_ATTRIBUTES))
        reach = np.maximum(np.abs(changes).max(1, initial=0.0), _LEAST_REACH)
        return VasResidual(np.round(changes / reach[:, None] * 127).astype(np.int8), reach, mixing)

    @property
    def rank(self) -> int:
        return len(self.modes)

    @property
    def changes(self) -> F32:
        """(R, N, 14) float32 change of each attribute per mode, metres for means."""
        return self.modes * (self.reach / np.float32(127))[:, None]

    def factors(self, latents: MotionLatents, frame: int = 0) -> F32:
        """(R, 14) float32 change that one step of ``modes`` makes in one frame of motion."""
        weights = self.mixing @ residual_inputs(latents, frame)
        factors = weights[:, None] * (self.reach / np.float32(127))
        factors[np.abs(factors) < _LEAST_FACTOR] = 0.0
        return factors


def residual_inputs(latents: MotionLatents, frame: int = 0) -> F32:
    """(VAS_INPUTS,) float32 that one frame of motion gives to the VAS residual; translation counts in decimetres."""
    pose = latents.pose[frame] * np.array([1, 1, 1, 10, 10, 10], np.float32)
    return np.concatenate([latents.dyn[frame], pose, np.ones(1, np.float32)])


def mood_of(expression: F32) -> F32:
    """(52,) part of a portrait's expression (52,) that stays under all motion."""
    share = np.zeros(len(ARKIT_CHANNELS), np.float32)
    for i, name in enumerate(ARKIT_CHANNELS):
        for prefix, value in _MOOD_SHARE.items():
            if name.startswith(prefix):
                share[i] = value
    return np.clip(expression * share, 0.0, _MOOD_LIMIT).astype(np.float32)


def mix_mood(dyn: F32, mood: F32) -> F32:
    """Expression channels (T, 52) of latents over a mood (52,)."""
    under = _mood_under(dyn, mood)
    return np.clip(under + (1.0 - under) * dyn, 0.0, 1.0).astype(np.float32)


def unmix_mood(expression: F32, mood: F32) -> F32:
    """Latents (..., 52) whose expression over this mood (52,) is the given one (..., 52)."""
    # Rounding is not the corners' own: it is known before them.
    under = _mood_under(np.clip((expression - mood) / (1.0 - mood), 0.0, 1.0), mood)
    return np.clip((expression - under) / (1.0 - under), 0.0, 1.0).astype(np.float32)


def _mood_under(dyn: F32, mood: F32) -> F32:
    """(..., 52) what is left of a mood (52,) under latents (..., 52)."""
    rounding = np.clip(dyn[..., _ROUNDING].sum(-1, keepdims=True) / _FULLY_ROUND, 0.0, 1.0)
    return mood * (1.0 - rounding * _CORNERS)


def base_deformation(
    latents: MotionLatents, head: ArkitHead, identity: F32, mood: F32, rest_eyes: F32
) -> HeadParams:
    """Head parameters of motion latents (M^e and M^p of the paper).

    Args:
        latents: T frames of motion.
        head: The head model, with ARKit channels.
        identity: (I,) identity of the person.
        mood: (52,) expression that stays.
        rest_eyes: (2, 3) axis-angle of the eyes in the portrait; gaze of the motion is relative to it.

    Returns:
        Head parameters for T frames.
    """
    index = {name: i for i, name in enumerate(head.joint_names)}
    joints = np.zeros((len(latents), len(index), 3), np.float32)
    turn = latents.pose[:, :3]
    joints[:, index["neck"]] = NECK_SHARE * turn
    joints[:, index["head"]] = (1.0 - NECK_SHARE) * turn
    eyes = rest_eyes + eye_rotations(latents.dyn)
    joints[:, index["eyeLeft"]] = eyes[:, 0]
    joints[:, index["eyeRight"]] = eyes[:, 1]
    return HeadParams(
        identity=identity,
        expression=mix_mood(latents.dyn, mood),
        joints=joints,
        translation=np.ascontiguousarray(latents.pose[:, 3:]),
    )
