"""Image files in: any still picture becomes an upright (H, W, 3) uint8 sRGB array.

Applied in this order: the camera's orientation (EXIF), greys of 16 bits, 32 bits or floating point
to 8 bits over their full range, reduction to at most ``MAX_SIDE`` pixels a side (a JPEG is decoded
small), the colour profile (ICC) to sRGB, transparency over a neutral grey. Files are
untrusted: only picture formats are opened (no PostScript), and sizes are checked before pixels are decoded.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image, ImageCms, ImageOps

from vasa3d.errors import ImageError
from vasa3d.files import input_file
from vasa3d.types import U8

MAX_PIXELS = 120_000_000
"""More than any phone or camera makes; beyond lie decompression bombs."""

MAX_SIDE = 4096
"""Pixels of the longer side that are kept: several times what any avatar can show."""

MIN_SIDE = 64
SMALL_SIDE = 256

NEUTRAL = 128
"""Grey level that stands behind transparent pixels."""

_BAND_ROWS = 64

_FORMATS = (
    "JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "DIB", "AVIF", "HEIF", "JPEG2000", "PPM",
    "TGA",
)  # fmt: skip
_WHAT_WORKS = "use a JPEG, PNG, WebP, HEIC, AVIF or TIFF picture"

Image.init()
pillow_heif.register_heif_opener()


@dataclass(frozen=True)
class Photo:
    """An upright picture.

    Attributes:
        rgb: (H, W, 3) uint8 sRGB; transparent parts are mixed with a neutral grey.
        alpha: (H, W) uint8 opacity that the file brought along (a hint for the matte), or None.
        warnings: What the loader mended or noticed, for the user.
    """

    rgb: U8
    alpha: U8 | None = None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        height, width = self.rgb.shape[:2]
        if self.rgb.shape != (height, width, 3) or self.rgb.dtype != np.uint8:
            raise ValueError(f"rgb must be (H, W, 3) uint8, got {self.rgb.shape} {self.rgb.dtype}")
        if self.alpha is not None and (
            self.alpha.shape != (height, width) or self.alpha.dtype != np.uint8
        ):
            raise ValueError(f"alpha must be ({height}, {width}) uint8, got {self.alpha.shape}")


def load_image(path: str | Path) -> Photo:
    """Read a picture file.

    Args:
        path: JPEG, PNG, WebP, HEIC, AVIF, TIFF, GIF, BMP or JPEG 2000, recognised by its content.

    Returns:
        The upright picture, at most ``MAX_SIDE`` pixels a side.

    Raises:
        ImageError: Not a readable picture, damaged, too large (over ``MAX_PIXELS``) or too small.
    """
    file = input_file(path, "an image", ImageError)
    notes: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own remarks on odd files; ours are in the result
        with _open(file) as picture:
            _check_size(file, picture)
            try:
                if getattr(picture, "is_animated", False) and picture.format != "MPO":
                    notes.append(f"{file.name} holds several pictures; the first one is used.")
                rgb, alpha = _decode(picture, notes)
            except Exception as error:  # decoders raise every kind of error on damaged files
                raise ImageError(
                    f"{file} is damaged: {_reason(error)}.", hint="copy or download it again"
                ) from error
    if alpha is not None and alpha.max(initial=0) == 0:
        raise ImageError(f"{file} is fully transparent.", hint="use an opaque picture")
    small = min(rgb.shape[:2])
    if small < MIN_SIDE:
        raise ImageError(
            f"{file} is too small ({rgb.shape[1]}x{rgb.shape[0]} pixels).",
            hint=f"use a picture of at least {SMALL_SIDE} pixels a side",
        )
    if small < SMALL_SIDE:
        notes.append(
            f"{file.name} has a low resolution ({rgb.shape[1]}x{rgb.shape[0]}): "
            "the result will look soft."
        )
    return Photo(rgb, alpha, tuple(notes))


def _open(file: Path) -> Image.Image:
    try:
        return Image.open(file, formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise _too_large(file) from error
    except (OSError, ValueError, EOFError, RuntimeError) as error:
        raise ImageError(f"{file} is not a picture that can be read.", hint=_WHAT_WORKS) from error


def _check_size(file: Path, picture: Image.Image) -> None:
    if picture.width * picture.height > MAX_PIXELS:
        raise _too_large(file)


def _too_large(file: Path) -> ImageError:
    return ImageError(
        f"{file} has more than {MAX_PIXELS // 1_000_000} million pixels.",
        hint=f"reduce it to {MAX_SIDE} pixels a side first",
    )


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:120].rstrip(".") or type(error).__name__


def _decode(picture: Image.Image, notes: list[str]) -> tuple[U8, U8 | None]:
    picture.draft(None, (MAX_SIDE, MAX_SIDE))  # JPEG: decode straight to a smaller size
    picture.load()
    profile = picture.info.get("icc_profile")
    picture = _eight_bit(_upright(picture, notes))
    if max(picture.size) > MAX_SIDE:
        picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BICUBIC, reducing_gap=3.0)
    alpha = None
    if picture.mode in ("RGBA", "LA"):
        alpha = picture.getchannel("A")
        picture = picture.convert("RGB") if picture.mode == "RGBA" else picture.getchannel("L")
    rgb = np.array(_to_srgb(picture, profile, notes))
    if alpha is None:
        return rgb, None
    coverage = np.array(alpha)
    if coverage.min(initial=255) == 255:
        return rgb, None
    weight = coverage[..., None].astype(np.uint16)
    mixed = (rgb * weight + NEUTRAL * (255 - weight) + 127) // 255
    return mixed.astype(np.uint8), coverage


def _upright(picture: Image.Image, notes: list[str]) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # a damaged EXIF block is no reason to refuse a sound picture
        notes.append("the picture's EXIF data are damaged; it is taken as upright.")
        return picture


def _eight_bit(picture: Image.Image) -> Image.Image:
    """Bring any mode to one of L, LA, RGB, RGBA, CMYK, LAB or YCbCr with 8 bits a channel."""
    if picture.mode in ("L", "LA", "RGB", "RGBA", "CMYK", "LAB", "YCbCr"):
        if picture.mode in ("L", "RGB") and "transparency" in picture.info:
            return picture.convert("RGBA")
        return picture
    if picture.mode in ("P", "PA"):
        see_through = picture.mode == "PA" or "transparency" in picture.info
        return picture.convert("RGBA" if see_through else "RGB")
    if picture.mode.startswith(("I", "F")):
        return Image.fromarray(_scaled(np.asarray(picture)))
    return picture.convert("RGBA" if "a" in picture.mode.lower() else "RGB")


def _scaled(values: np.ndarray) -> U8:
    """(H, W) greys of 16 bits, 32 bits or floating point to 8 bits over their full range.

    A few rows at a time: the numbers in between are up to eight times as wide as those of the file.
    """
    out = np.empty(values.shape, np.uint8)
    bands = [slice(start, start + _BAND_ROWS) for start in range(0, len(values), _BAND_ROWS)]
    if values.dtype.kind == "f":
        peak = max((float(_finite(values[band]).max(initial=0.0)) for band in bands), default=0.0)
        full = next((top for top in (1.0, 255.0, 65535.0) if peak <= top), peak)
        for band in bands:
            out[band] = np.clip(_finite(values[band]) / full, 0.0, 1.0) * 255.0 + 0.5
        return out
    full = 65535 if values.max(initial=0) <= 65535 else 2**31 - 1
    for band in bands:
        wide = np.clip(values[band], 0, None).astype(np.uint64)
        out[band] = (wide * 255 + full // 2) // full
    return out


def _finite(values: np.ndarray) -> np.ndarray:
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def _to_srgb(picture: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    srgb = ImageCms.createProfile("sRGB")
    if picture.mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        return _converted(picture, lab, srgb)
    if profile:
        try:
            embedded = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            return _converted(picture, embedded, srgb)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            notes.append("the picture's colour profile cannot be used; its colours may be off.")
    return picture.convert("RGB")


def _converted(
    picture: Image.Image, source: ImageCms.ImageCmsProfile, target: ImageCms.ImageCmsProfile
) -> Image.Image:
    done = ImageCms.profileToProfile(
        picture, source, target, renderingIntent=ImageCms.Intent.PERCEPTUAL, outputMode="RGB"
    )
    assert done is not None  # only None when converting in place
    return done
