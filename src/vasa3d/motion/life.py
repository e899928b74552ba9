"""The life of a face as the diffusion transformer draws it, sampled at any frame rate.

The transformer gives code and pose 25 times a second. The code is decoded to expression channels; lids are closed by
blinks drawn as events of their own, whose number a minute is the user's to choose. A head that is asked to move less
or more is scaled, and the eyes, which hold their target while the head moves, make up for the difference.

At other rates than 25 a second, values between frames are those of Catmull and Rom's cubics for the pose, straight
lines for expression.
"""

from __future__ import annotations

import numpy as np

from vasa3d.head.gaze import PITCH_DEGREES, YAW_DEGREES
from vasa3d.motion.conditions import condition_vector
from vasa3d.motion.denoiser import STATE_SIZE, DenoiserWeights
from vasa3d.motion.diffusion import MotionSampler, SamplerConfig
from vasa3d.motion.idle import HEAD_LIMITS_DEGREES, Blinks
from vasa3d.motion.latents import LATENT_SIZE, load_codec
from vasa3d.types import ARKIT_CHANNELS, ARKIT_INDEX, DEFAULT_FPS, F32

CAMERA_DISTANCE_METRES = 0.9
"""Distance of the camera from the face that portraits are fitted with (``portrait.fitting``): a head at d times the
portrait's distance is moved by (1 - d) times this towards the camera."""

SPOKEN = tuple(
    i for i, name in enumerate(ARKIT_CHANNELS)
    if name.startswith(("jaw", "mouth", "tongue")) and not name.startswith(("mouthSmile", "mouthFrown"))
)  # fmt: skip
"""Channels that belong to speech."""

_HEAD_COMPENSATION = 0.85
_EYE_LIMIT_DEGREES = 25.0
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
        self._codec = load_codec()
        self._head_motion = head_motion
        self._states = np.zeros((0, STATE_SIZE), np.float32)
        self._first = 0

    def hear(self, voice: F32) -> None:
        """Take voice features of further frames."""
        self._states = np.concatenate([self._states, self._sampler.push(voice)])

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
        share = np.clip(at - low, 0.0, 1.0).astype(np.float32)[:, None]
        share[share < 1e-4] = 0.0

        def row(step: int) -> np.ndarray:
            return np.clip(low + step, 0, len(self._states) - 1)

        first, last = row(-1)[0], row(2)[-1]
        channels = self._codec.decode(self._states[first : last + 1, :LATENT_SIZE])
        channels = channels[low - first] * (1.0 - share) + channels[row(1) - first] * share
        poses = self._states[:, LATENT_SIZE:]
        before, here, there, after = (poses[row(k)] for k in (-1, 0, 1, 2))
        start, stop = 0.5 * (there - before), 0.5 * (after - here)
        s2, s3 = share**2, share**3
        pose = (
            (2 * s3 - 3 * s2 + 1) * here + (s3 - 2 * s2 + share) * start
            + (3 * s2 - 2 * s3) * there + (s3 - s2) * stop
        )  # fmt: skip
        pose = self._scaled(channels, pose.astype(np.float32))
        blink = self._blinks.at(times).astype(np.float32)
        channels[:, _LIDS] = blink[:, None]
        keep = max(0, int(low[-1]) - 2)
        self._states = self._states[keep:]
        self._first += keep
        return channels, pose

    def _scaled(self, channels: F32, pose: F32) -> F32:
        """Pose with its wanted size; ``channels`` get the gaze that goes with it, in place."""
        limits = np.radians(np.array(HEAD_LIMITS_DEGREES))[[1, 0, 2]].astype(np.float32)
        turned = (
            1.6 * limits * np.tanh(pose[:, :3] * np.float32(self._head_motion) / (1.6 * limits))
        )
        change = np.degrees(turned - pose[:, :3]) * np.float32(_HEAD_COMPENSATION)
        shift_gaze(channels, -change[:, 1], change[:, 0])
        out = pose.copy()
        out[:, :3] = turned
        out[:, 3:] *= np.float32(min(1.0, self._head_motion))
        return out


def gaze_degrees(channels: F32) -> tuple[F32, F32]:
    """(T,) yaw to the person's left and (T,) pitch up of the eyes in the head, mean of both eyes."""
    yaw = (channels[:, _OUT].mean(axis=1) - channels[:, _IN].mean(axis=1)) * np.float32(YAW_DEGREES)
    up = (channels[:, _UP].mean(axis=1) - channels[:, _DOWN].mean(axis=1)) * np.float32(
        PITCH_DEGREES
    )
    return yaw, up


def shift_gaze(channels: F32, yaw: F32, up: F32) -> None:
    """Turn the eyes by degrees (T,), in place; both eyes end up alike."""
    was_yaw, was_up = gaze_degrees(channels)
    limit = np.float32(_EYE_LIMIT_DEGREES)
    left = np.clip(was_yaw + yaw, -limit, limit)[:, None] / np.float32(YAW_DEGREES)
    raised = np.clip(was_up + up, -limit, limit)[:, None] / np.float32(PITCH_DEGREES)
    channels[:, _OUT], channels[:, _IN] = np.maximum(left, 0.0), np.maximum(-left, 0.0)
    channels[:, _UP], channels[:, _DOWN] = np.maximum(raised, 0.0), np.maximum(-raised, 0.0)
