"""Values that cross from one part of the system to another.

Small, frozen, checked on construction. Frames and units (``docs/conventions.md``): right-handed world in metres,
y up, face looking along +z; cameras are OpenCV pinholes; images are (H, W, 3) float32 sRGB in [0, 1] unless a field
says uint8; sound is mono float32 at 16 kHz.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
I32 = NDArray[np.int32]

SAMPLE_RATE = 16_000
"""Samples a second of all sound inside the system."""

DEFAULT_FPS = 25.0
"""Motion frames a second unless the user asks for another rate."""

ARKIT_CHANNELS: tuple[str, ...] = (
    "eyeBlinkLeft", "eyeLookDownLeft", "eyeLookInLeft", "eyeLookOutLeft", "eyeLookUpLeft",
    "eyeSquintLeft", "eyeWideLeft", "eyeBlinkRight", "eyeLookDownRight", "eyeLookInRight",
    "eyeLookOutRight", "eyeLookUpRight", "eyeSquintRight", "eyeWideRight", "jawForward",
    "jawRight", "jawLeft", "jawOpen", "mouthClose", "mouthFunnel", "mouthPucker",
    "mouthRight", "mouthLeft", "mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft",
    "mouthFrownRight", "mouthDimpleLeft", "mouthDimpleRight", "mouthStretchLeft",
    "mouthStretchRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower",
    "mouthShrugUpper", "mouthPressLeft", "mouthPressRight", "mouthLowerDownLeft",
    "mouthLowerDownRight", "mouthUpperUpLeft", "mouthUpperUpRight", "browDownLeft",
    "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft", "noseSneerRight", "tongueOut",
)  # fmt: skip
"""The 52 expression channels in Live Link Face column order (Apple's spelling; Left and Right are the person's own)."""

ARKIT_INDEX: dict[str, int] = {name: i for i, name in enumerate(ARKIT_CHANNELS)}
NUM_CHANNELS = len(ARKIT_CHANNELS)


def check_array(
    name: str, value: Any, shape: tuple[int | None, ...], dtype: Any = np.float32
) -> None:
    """Raise ``ValueError`` naming the array unless it has this shape (``None`` = any) and dtype, and is finite."""
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{name} must be a numpy array, got {type(value).__name__}")
    ok = value.ndim == len(shape) and all(
        want is None or want == got for want, got in zip(shape, value.shape, strict=False)
    )
    if not ok:
        want_text = "(" + ", ".join("any" if s is None else str(s) for s in shape) + ")"
        raise ValueError(f"{name} must have shape {want_text}, got {value.shape}")
    if value.dtype != dtype:
        raise ValueError(f"{name} must be {np.dtype(dtype).name}, got {value.dtype.name}")
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise ValueError(f"{name} holds NaN or Inf")


@dataclass(frozen=True)
class Camera:
    """OpenCV pinhole camera: x right, y down, z forward; pixel centres at half integers.

    Attributes:
        viewmat: (4, 4) float32 world-to-camera rigid transform.
        K: (3, 3) float32 intrinsics in pixels.
        width: Image width in pixels.
        height: Image height in pixels.
    """

    viewmat: F32
    K: F32
    width: int
    height: int

    def __post_init__(self) -> None:
        check_array("viewmat", self.viewmat, (4, 4))
        check_array("K", self.K, (3, 3))
        if self.width < 1 or self.height < 1:
            raise ValueError(f"camera size must be positive, got {self.width}x{self.height}")

    def resized(self, width: int, height: int) -> Camera:
        """The same view on another pixel grid."""
        scale = np.array([[width / self.width], [height / self.height], [1.0]], np.float32)
        return Camera(self.viewmat, (self.K * scale).astype(np.float32), width, height)


@dataclass(frozen=True)
class GaussianCloud:
    """Posed 3D Gaussians, ready to draw.

    Values that are not finite, or covariances that are not positive, are the renderer's to skip: a cloud of a moving
    head is made every few milliseconds, so only shapes are checked here.

    Attributes:
        means: (N, 3) float32 centres, world metres.
        covariances: (N, 6) float32 upper triangles xx, xy, xz, yy, yz, zz, square metres.
        opacities: (N,) float32 in [0, 1].
        colors: (N, 3) float32 sRGB in [0, 1].
    """

    means: F32
    covariances: F32
    opacities: F32
    colors: F32

    def __post_init__(self) -> None:
        n = len(self.means)
        for name, shape in (
            ("means", (n, 3)), ("covariances", (n, 6)), ("opacities", (n,)), ("colors", (n, 3)),
        ):  # fmt: skip
            value = getattr(self, name)
            if value.shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {value.shape}")

    def __len__(self) -> int:
        return len(self.means)

    def subset(self, chosen: np.ndarray) -> GaussianCloud:
        """The Gaussians that ``chosen``, indices or (N,) bool, names."""
        return GaussianCloud(
            self.means[chosen],
            self.covariances[chosen],
            self.opacities[chosen],
            self.colors[chosen],
        )


@dataclass(frozen=True)
class HeadParams:
    """Input of a ``HeadModel`` for T frames of one person.

    Attributes:
        identity: (I,) float32 identity coefficients, unit variance.
        expression: (T, E) float32 expression coefficients; for the shipped model the 52 ARKit channels.
        joints: (T, J, 3) float32 axis-angle rotations in radians, in the model's joint order.
        translation: (T, 3) float32 translation of the root, metres.
    """

    identity: F32
    expression: F32
    joints: F32
    translation: F32

    def __post_init__(self) -> None:
        t = len(self.expression)
        check_array("identity", self.identity, (None,))
        check_array("expression", self.expression, (None, None))
        check_array("joints", self.joints, (t, None, 3))
        check_array("translation", self.translation, (t, 3))

    def __len__(self) -> int:
        return len(self.expression)


@dataclass(frozen=True)
class AudioClip:
    """Mono sound at ``SAMPLE_RATE``.

    Attributes:
        samples: (S,) float32, nominally in [-1, 1].
        warnings: What the loader mended or noticed, for the user.
    """

    samples: F32
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_array("samples", self.samples, (None,))

    @property
    def duration_seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True)
class MotionLatents:
    """Motion of a face over time, free of whose face it is (VASA-1: x = [z_dyn, z_pose]).

    Frame t shows the face at t / fps seconds.

    Attributes:
        dyn: (T, D) float32 facial dynamics: lips, expression, gaze and lids in one code. ``layout`` says which code.
        pose: (T, 6) float32 head pose relative to the portrait's own: axis-angle in radians, then translation in
            metres, both in the avatar's world frame.
        fps: Frames a second.
        layout: ``"arkit52"``: ``dyn`` holds the channels of ``ARKIT_CHANNELS``, each in [0, 1].
    """

    dyn: F32
    pose: F32
    fps: float = DEFAULT_FPS
    layout: str = "arkit52"

    def __post_init__(self) -> None:
        if self.layout != "arkit52":
            raise ValueError(f"unknown latent layout {self.layout!r}, expected 'arkit52'")
        check_array("dyn", self.dyn, (None, NUM_CHANNELS))
        check_array("pose", self.pose, (len(self.dyn), 6))
        if not 1.0 <= self.fps <= 240.0:
            raise ValueError(f"fps must lie in [1, 240], got {self.fps}")

    def __len__(self) -> int:
        return len(self.dyn)

    def channel(self, name: str) -> F32:
        """(T,) values of one ARKit channel."""
        return self.dyn[:, ARKIT_INDEX[name]]

    @staticmethod
    def rest(num_frames: int = 1, fps: float = DEFAULT_FPS) -> MotionLatents:
        """A face that does nothing."""
        zeros = np.zeros
        return MotionLatents(
            zeros((num_frames, NUM_CHANNELS), np.float32), zeros((num_frames, 6), np.float32), fps
        )


@dataclass(frozen=True)
class Frame:
    """One drawn picture.

    Attributes:
        rgb: (H, W, 3) float32 sRGB in [0, 1], premultiplied by alpha where no background was given.
        alpha: (H, W) float32 coverage in [0, 1].
        depth: (H, W) float32 expected camera depth in metres where alpha > 0, else 0; or None when not asked for.
        normals: (H, W, 3) float32 unit vectors in the world frame, across the surface towards the camera, where
            alpha > 0, else 0; or None when not asked for.
    """

    rgb: F32
    alpha: F32
    depth: F32 | None = None
    normals: F32 | None = None

    def to_uint8(self) -> U8:
        """(H, W, 3) uint8 sRGB."""
        return (np.clip(self.rgb, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


@dataclass(frozen=True)
class Event:
    """Progress of a long step; the command line, a server and a notebook all consume these.

    Attributes:
        stage: Short name of what runs now, e.g. ``"fit"``.
        done: Units of work finished.
        total: Units of work in all, 0 when unknown.
        message: A line for the user; empty for none.
        warning: True when ``message`` is something the user should know about the result.
        data: Further values by name (losses, a preview picture).
    """

    stage: str
    done: int = 0
    total: int = 0
    message: str = ""
    warning: bool = False
    data: dict[str, Any] = field(default_factory=dict)
