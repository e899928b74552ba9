"""The life of a face as the diffusion transformer draws it, sampled at any frame rate.

The transformer gives code and pose 25 times a second. The code is decoded to expression channels. Three
things are events, drawn on their own (``motion/idle.py``): blinks, of which so many come a minute as the user asks,
often with large jumps of the gaze and ends of phrases; jumps of the gaze about its target, which the eyes hold
while the head moves; and small nods and raised brows on stressed syllables, on top of what the transformer does. What
the head does is told about its own mean of the last ``SETTLING_SECONDS``, so that it stays about the portrait's pose
for hours.

At other rates than 25 a second, values between frames are those of Catmull and Rom's cubics for the pose, straight
lines for expression.
"""

from __future__ import annotations

import numpy as np

from vasa3d.head.gaze import PITCH_DEGREES, YAW_DEGREES
from vasa3d.kernels.easing import follow
from vasa3d.motion.conditions import condition_vector
from vasa3d.motion.denoiser import DenoiserWeights
from vasa3d.motion.diffusion import MotionSampler, SamplerConfig
from vasa3d.motion.idle import HEAD_LIMITS_DEGREES, NOD_DEGREES, Accents, Blinks, Gaze
from vasa3d.motion.latents import LATENT_SIZE, load_codec
from vasa3d.motion.prosody import Stress
from vasa3d.types import ARKIT_CHANNELS, ARKIT_INDEX, DEFAULT_FPS, F32, NUM_CHANNELS

CAMERA_DISTANCE_METRES = 0.9
"""Distance of the camera from the face that portraits are fitted with (``portrait.fitting``): a head at d times the
portrait's distance is moved by (1 - d) times this towards the camera."""

SPOKEN = tuple(
    i for i, name in enumerate(ARKIT_CHANNELS)
    if name.startswith(("jaw", "mouth", "tongue")) and not name.startswith(("mouthSmile", "mouthFrown"))
)  # fmt: skip
"""Channels that belong to speech."""

SETTLING_SECONDS = 15.0
"""Over which the head's own mean is taken."""

_CALM = np.array([i for i in range(NUM_CHANNELS + 6) if i not in SPOKEN])
_POSE = np.arange(6)
_POSE_COLUMNS = NUM_CHANNELS + _POSE
_CALM_SHARE = 0.5
"""How much of a change of expression and pose comes with one frame: a tremble of the code is no motion. The pose is
calmed twice, or the head would tick where one block of the transformer meets the next."""
_NOD_SHARE, _BROW_ACCENT = 0.6, 0.16
_BROWS = [ARKIT_INDEX[n] for n in ("browInnerUp", "browOuterUpLeft", "browOuterUpRight")]
_HEAD_ROOM = 1.6
"""Limits of the head over those of ``motion/idle.py``."""
_LIMITS = np.radians(_HEAD_ROOM * np.array(HEAD_LIMITS_DEGREES))[[1, 0, 2]].astype(np.float32)
_LIDS = [ARKIT_INDEX["eyeBlinkLeft"], ARKIT_INDEX["eyeBlinkRight"]]
_OUT = [ARKIT_INDEX[n] for n in ("eyeLookOutLeft", "eyeLookInRight")]
_IN = [ARKIT_INDEX[n] for n in ("eyeLookInLeft", "eyeLookOutRight")]
_UP = [ARKIT_INDEX[n] for n in ("eyeLookUpLeft", "eyeLookUpRight")]
_DOWN = [ARKIT_INDEX[n] for n in ("eyeLookDownLeft", "eyeLookDownRight")]


class GeneratedLife:
    """Life of one face with its voice.

    Args:
        seed: Same seed, same sound, same life.
        blink_rate: Blinks a minute.
        head_motion: Scale of head motion.
        gaze: Yaw to the person's left and pitch up at which the eyes rest, degrees.
        distance: Of the head, over the portrait's.
        emotion: Signed strength by name.
        style: 0 mumbled, 1 plain, 2 over-articulated.
        config: How motion is sampled.
        weights: A network to use in place of the shipped one.
    """

    def __init__(
        self,
        seed: int,
        *,
        blink_rate: float,
        head_motion: float,
        gaze: tuple[float, float] = (0.0, 0.0),
        distance: float = 1.0,
        emotion: dict[str, float] | None = None,
        style: float = 1.0,
        config: SamplerConfig | None = None,
        weights: DenoiserWeights | None = None,
    ) -> None:
        condition = condition_vector(gaze, distance, emotion or {}, style)
        self._sampler = MotionSampler(seed, condition, config, weights)
        self._blinks = Blinks(blink_rate, np.random.default_rng([seed, 1]))
        self._gaze = Gaze(gaze, np.random.default_rng([seed, 4]), self._blinks.look)
        self._accents = Accents(np.random.default_rng([seed, 7]))
        self._codec = load_codec()
        self._mean = np.zeros(6, np.float32)
        self._head_motion = head_motion
        self._calm = np.zeros(len(_CALM), np.float32)
        self._calmer = np.zeros(6, np.float32)
        self._states = np.zeros((0, NUM_CHANNELS + 6), np.float32)
        self._first = 0

    def hear(self, voice: F32) -> None:
        """Take voice features of further frames."""
        self._states = np.concatenate([self._states, self._settled(self._sampler.push(voice))])

    def stress(self, stresses: list[Stress]) -> None:
        """Take stressed syllables, before the frames that follow them."""
        self._accents.hear(stresses)

    def pause(self, seconds: float) -> None:
        """A phrase has ended, before the frames that follow."""
        self._blinks.cue(seconds)

    def frames_ready(self, fps: float) -> int:
        """How many frames from the start can be given."""
        count = self._first + len(self._states)
        if fps == DEFAULT_FPS:
            return count
        return int(np.ceil(max(0, count - 2) / DEFAULT_FPS * fps - 1e-6))

    def at(self, times: np.ndarray) -> tuple[F32, F32]:
        """The face at increasing times in seconds that are ready; each call continues after the last.

        Returns:
            (n, 52) channels, speech included, and (n, 6) head pose.
        """
        at = times * DEFAULT_FPS - self._first
        low = np.minimum(np.floor(at + 1e-6).astype(int), len(self._states) - 1)
        share = np.minimum(np.maximum(at - low, 0.0), 1.0).astype(np.float32)[:, None]
        share[share < 1e-4] = 0.0
        channels, pose = np.split(self._states[low], [NUM_CHANNELS], axis=1)
        if share.any():
            channels, pose = self._between(low, share)
        nod = self._accents.nods(times).astype(np.float32)
        pose[:, 0] += np.float32(np.radians(_NOD_SHARE * NOD_DEGREES)) * nod
        pose = self._scaled(pose)
        raised = np.float32(_BROW_ACCENT) * self._accents.brows(times).astype(np.float32)
        channels[:, _BROWS] += raised[:, None]
        self._gaze.write(channels, times, np.degrees(pose[:, [1, 0, 2]]))
        blink = self._blinks.at(times).astype(np.float32)
        channels[:, _LIDS] = blink[:, None]
        keep = max(0, int(low[-1]) - 2)
        self._states = self._states[keep:]
        self._first += keep
        return channels, pose

    def _between(self, low: np.ndarray, share: F32) -> tuple[F32, F32]:
        """Channels and pose by shares (n, 1) of the way from states ``low`` to the next."""
        last = len(self._states) - 1
        rows = [self._states[np.clip(low + k, 0, last)] for k in (-1, 0, 1, 2)]
        channels = rows[1][:, :NUM_CHANNELS] * (1.0 - share) + rows[2][:, :NUM_CHANNELS] * share
        before, here, there, after = (row[:, NUM_CHANNELS:] for row in rows)
        start, stop = 0.5 * (there - before), 0.5 * (after - here)
        s2, s3 = share**2, share**3
        pose = (
            (2 * s3 - 3 * s2 + 1) * here + (s3 - 2 * s2 + share) * start
            + (3 * s2 - 2 * s3) * there + (s3 - s2) * stop
        )  # fmt: skip
        return channels, pose.astype(np.float32)

    def _settled(self, states: F32) -> F32:
        """Channels and pose of states: both calmed, the pose about its own slow mean."""
        channels = self._codec.decode(states[:, :LATENT_SIZE])
        out = np.concatenate([channels, states[:, LATENT_SIZE:]], axis=1)
        follow(out, _CALM, np.float32(_CALM_SHARE), self._calm)
        follow(out, _POSE_COLUMNS, np.float32(_CALM_SHARE), self._calmer)
        pose = out[:, NUM_CHANNELS:].copy()
        follow(pose, _POSE, np.float32(1.0 / (SETTLING_SECONDS * DEFAULT_FPS)), self._mean)
        out[:, NUM_CHANNELS:] -= pose
        return out

    def _scaled(self, pose: F32) -> F32:
        """Pose of the wanted size."""
        out = pose * np.float32(self._head_motion)
        out[:, :3] = _LIMITS * np.tanh(out[:, :3] / _LIMITS)
        return out


def gaze_degrees(channels: F32) -> tuple[F32, F32]:
    """(T,) yaw to the person's left and (T,) pitch up of the eyes in the head, mean of both eyes."""
    yaw = (channels[:, _OUT].mean(axis=1) - channels[:, _IN].mean(axis=1)) * np.float32(YAW_DEGREES)
    up = (channels[:, _UP].mean(axis=1) - channels[:, _DOWN].mean(axis=1)) * np.float32(
        PITCH_DEGREES
    )
    return yaw, up
