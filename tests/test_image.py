"""Any picture file becomes an upright sRGB array, or a clear error."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from vasa3d.errors import ImageError, VasaError
from vasa3d.portrait.image import MAX_SIDE, NEUTRAL, Photo, _scaled, load_image

HARD = Path(__file__).parents[1] / "../shared/data/portraits/hard"


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """(300, 400, 3) uint8 with smooth colours and a mark that tells every orientation apart."""
    row, column = np.mgrid[0:300, 0:400]
    rgb = np.stack([60 + row * 0.6, 40 + column * 0.5, 200 - row * 0.3], -1).astype(np.uint8)
    rgb[20:80, 30:160] = (230, 40, 30)
    return rgb


def error(got: np.ndarray, want: np.ndarray) -> float:
    assert got.shape == want.shape
    return float(np.abs(got.astype(int) - want).mean())


def png_chunk(kind: bytes, data: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + check


@pytest.mark.parametrize(
    ("name", "options", "tolerance"),
    [
        ("a.png", {}, 0.0),
        ("a.bmp", {}, 0.0),
        ("a.tiff", {}, 0.0),
        ("a.jpg", {"quality": 97}, 1.5),
        ("a.webp", {"lossless": True}, 0.0),
        ("a.heic", {"quality": 95}, 2.0),
        ("a.avif", {"quality": 95}, 2.0),
        ("a.jp2", {}, 1.0),
    ],
)
def test_formats_keep_colours(tmp_path, scene, name, options, tolerance) -> None:
    Image.fromarray(scene).save(tmp_path / name, **options)
    photo = load_image(tmp_path / name)
    assert photo.rgb.dtype == np.uint8
    assert photo.alpha is None
    assert photo.warnings == ()
    assert error(photo.rgb, scene) <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_undone(tmp_path, scene, orientation) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    picture = Image.fromarray(scene)
    stored = picture.transpose(undo[orientation]) if orientation in undo else picture
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    assert error(load_image(tmp_path / "a.png").rgb, scene) == 0.0


def test_damaged_exif_is_no_reason_to_refuse(tmp_path, scene) -> None:
    Image.fromarray(scene).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff broken")
    assert load_image(tmp_path / "a.jpg").rgb.shape == scene.shape


def test_cmyk_matches_its_rgb_original(tmp_path, scene) -> None:
    Image.fromarray(scene).convert("CMYK").save(tmp_path / "a.jpg", quality=97)
    assert error(load_image(tmp_path / "a.jpg").rgb, scene) < 2.0


def test_grey_modes(tmp_path, scene) -> None:
    grey = np.array(Image.fromarray(scene).convert("L"))
    want = np.repeat(grey[..., None], 3, -1)
    Image.fromarray(grey).save(tmp_path / "8.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "16.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "16.tiff")
    Image.fromarray(grey.astype(np.float32) / 255).save(tmp_path / "float.tiff")
    for file in tmp_path.iterdir():
        assert error(load_image(file).rgb, want) == 0.0, file.name


def test_sixteen_bit_colour_keeps_its_range(tmp_path, scene) -> None:
    height, width = scene.shape[:2]
    rows = (scene.astype(np.uint16) * 257).astype(">u2").tobytes()
    stride = width * 6
    body = b"".join(b"\0" + rows[y * stride : (y + 1) * stride] for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    data = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(body))
    data += png_chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    assert error(load_image(tmp_path / "a.png").rgb, scene) <= 1.0


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tiff"])
def test_colour_under_full_transparency_never_shows(tmp_path, scene, name) -> None:
    alpha = np.zeros(scene.shape[:2], np.uint8)
    alpha[50:250, 100:300] = 255
    alpha[100:120, 100:300] = 128
    hidden = np.where(alpha[..., None] == 0, np.uint8([255, 0, 255]), scene)
    rgba = Image.fromarray(np.dstack([hidden, alpha]))
    rgba.save(tmp_path / name, **({"lossless": True, "exact": True} if "webp" in name else {}))
    photo = load_image(tmp_path / name)
    assert np.array_equal(photo.alpha, alpha)
    assert (photo.rgb[alpha == 0] == NEUTRAL).all()
    assert np.array_equal(photo.rgb[alpha == 255], scene[alpha == 255])
    half = (scene[110, 200].astype(float) * 128 + NEUTRAL * 127) / 255
    assert np.abs(photo.rgb[110, 200] - half).max() <= 1


def test_hidden_colour_does_not_bleed_when_reduced(tmp_path) -> None:
    rgba = np.zeros((300, MAX_SIDE + 800, 4), np.uint8)
    rgba[:] = (255, 0, 255, 0)
    rgba[:, 1::3] = (100, 100, 100, 255)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    photo = load_image(tmp_path / "a.png")
    assert max(photo.rgb.shape) == MAX_SIDE
    assert np.ptp(photo.rgb.astype(int), axis=-1).max() <= 2


def test_palette_with_transparency_and_grey_alpha(tmp_path) -> None:
    indices = np.zeros((300, 300), np.uint8)
    indices[100:200, 100:200] = 1
    picture = Image.fromarray(indices).convert("P")
    picture.putpalette([255, 0, 255, 10, 200, 30])
    picture.save(tmp_path / "p.png", transparency=0)
    photo = load_image(tmp_path / "p.png")
    assert tuple(photo.rgb[150, 150]) == (10, 200, 30)
    assert tuple(photo.rgb[0, 0]) == (NEUTRAL,) * 3
    grey = np.dstack([np.full((300, 300), 77, np.uint8), (indices * 255).astype(np.uint8)])
    Image.fromarray(grey, "LA").save(tmp_path / "la.png")
    photo = load_image(tmp_path / "la.png")
    assert tuple(photo.rgb[150, 150]) == (77,) * 3
    assert tuple(photo.rgb[0, 0]) == (NEUTRAL,) * 3


def test_colour_profiles_become_srgb(tmp_path, scene) -> None:
    srgb = ImageCms.createProfile("sRGB")
    same = ImageCms.ImageCmsProfile(srgb).tobytes()
    Image.fromarray(scene).save(tmp_path / "same.png", icc_profile=same)
    assert error(load_image(tmp_path / "same.png").rgb, scene) < 1.0
    lab = ImageCms.profileToProfile(
        Image.fromarray(scene), srgb, ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    lab.save(tmp_path / "lab.tiff")
    assert error(load_image(tmp_path / "lab.tiff").rgb, scene) < 3.0


def test_wide_gamut_profile_is_applied(tmp_path, scene) -> None:
    swapped = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    tags = {
        swapped[132 + 12 * i : 136 + 12 * i].decode(): 132 + 12 * i
        for i in range(struct.unpack(">I", swapped[128:132])[0])
    }
    red, blue = tags["rXYZ"] + 4, tags["bXYZ"] + 4
    swapped[red : red + 8], swapped[blue : blue + 8] = (
        swapped[blue : blue + 8],
        swapped[red : red + 8],
    )
    Image.fromarray(scene).save(tmp_path / "a.png", icc_profile=bytes(swapped))
    assert error(load_image(tmp_path / "a.png").rgb, scene[..., ::-1]) < 2.0


def test_broken_profile_is_a_warning(tmp_path, scene) -> None:
    Image.fromarray(scene).save(tmp_path / "a.png", icc_profile=b"not a profile" * 20)
    photo = load_image(tmp_path / "a.png")
    assert error(photo.rgb, scene) == 0.0
    assert any("profile" in text for text in photo.warnings)


def test_an_animation_that_breaks_off_is_no_crash(tmp_path, scene) -> None:
    Image.fromarray(scene).save(tmp_path / "a.gif")
    whole = (tmp_path / "a.gif").read_bytes()
    (tmp_path / "a.gif").write_bytes(whole[:-1] + b"!")
    try:
        assert load_image(tmp_path / "a.gif").rgb.shape == scene.shape
    except ImageError as error:
        assert "damaged" in error.message


def test_animation_gives_its_first_frame_and_says_so(tmp_path, scene) -> None:
    first = Image.fromarray(scene)
    first.save(tmp_path / "a.gif", save_all=True, append_images=[ImageOps.invert(first)])
    photo = load_image(tmp_path / "a.gif")
    assert error(photo.rgb, scene) < 6.0
    assert any("first" in text for text in photo.warnings)


def test_large_pictures_are_reduced(tmp_path) -> None:
    Image.new("RGB", (MAX_SIDE * 2, 1000), (10, 120, 200)).save(tmp_path / "a.jpg", quality=95)
    photo = load_image(tmp_path / "a.jpg")
    assert photo.rgb.shape == (500, MAX_SIDE, 3)
    assert np.abs(photo.rgb[250, 2000].astype(int) - (10, 120, 200)).max() <= 2


def test_sizes_at_the_edge(tmp_path) -> None:
    Image.new("RGB", (500, 63)).save(tmp_path / "tiny.png")
    with pytest.raises(ImageError, match="too small"):
        load_image(tmp_path / "tiny.png")
    Image.new("RGB", (500, 100)).save(tmp_path / "small.png")
    assert any("low resolution" in text for text in load_image(tmp_path / "small.png").warnings)
    for side in (11_000, 60_000):  # below and above Pillow's own limit
        header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
        bomb = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")
        (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bomb)
        with pytest.raises(ImageError, match="million pixels"):
            load_image(tmp_path / "bomb.png")


def test_name_does_not_matter(tmp_path, scene) -> None:
    Image.fromarray(scene).save(tmp_path / "a.jpg", format="PNG")
    assert error(load_image(tmp_path / "a.jpg").rgb, scene) == 0.0


def test_unusable_files(tmp_path, scene) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("hello, this is no picture\n" * 50)
    (tmp_path / "script.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 300 300\n")
    Image.new("RGBA", (300, 300), (1, 2, 3, 0)).save(tmp_path / "clear.png")
    for name in ("missing.jpg", "empty.jpg", "text.jpg", "script.eps", "clear.png", ""):
        with pytest.raises(ImageError) as caught:
            load_image(tmp_path / name)
        assert caught.value.message.endswith(".")
        assert caught.value.hint


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "tiff", "heic", "avif", "jp2"])
def test_damaged_files_are_pictures_or_clear_errors(tmp_path, scene, suffix) -> None:
    buffer = io.BytesIO()
    Image.fromarray(scene).save(
        buffer,
        format={"jpg": "JPEG", "heic": "HEIF", "jp2": "JPEG2000"}.get(suffix, suffix.upper()),
    )
    whole = buffer.getvalue()
    random = np.random.default_rng(7)
    file = tmp_path / f"a.{suffix}"
    for trial in range(24):
        data = bytearray(whole)
        if trial < 8:
            data = data[: len(data) * (trial + 1) // 9]
        else:
            for place in random.integers(0, len(data), 1 + trial):
                data[place] = random.integers(256)
        file.write_bytes(data)
        try:
            assert isinstance(load_image(file), Photo)
        except VasaError as caught:
            assert isinstance(caught, ImageError)


def test_half_a_jpeg_is_an_error(tmp_path, scene) -> None:
    buffer = io.BytesIO()
    Image.fromarray(scene).save(buffer, "JPEG")
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue()[: buffer.tell() // 2])
    with pytest.raises(ImageError, match="damaged"):
        load_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_wide_greys_need_no_more_memory_than_the_file(kind) -> None:
    values = np.linspace(0, 65535, 1_000_000).astype(kind).reshape(1000, 1000)
    values[:2, :3] = [[np.nan, np.inf, -np.inf], [-1.0, 3.0, 70.0]] if kind is np.float32 else 0
    tracemalloc.start()
    try:
        grey = _scaled(values)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * values.size
    wanted = np.clip(np.nan_to_num(values, nan=0, posinf=0, neginf=0), 0, None) / 65535.0 * 255.0
    assert np.abs(grey - wanted).max() <= 0.51


@pytest.mark.skipif(not HARD.is_dir(), reason="shared/data/portraits/hard is not here")
def test_hard_set_loads_or_refuses() -> None:
    refused = {"truncated.jpg", "empty.jpg", "not_an_image.jpg", "tiny_48px.png"}
    reference = load_image(HARD / "photo.tiff").rgb
    for file in sorted(HARD.iterdir()):
        if file.suffix in (".json", ".txt"):
            continue
        if file.name in refused:
            with pytest.raises(ImageError):
                load_image(file)
            continue
        photo = load_image(file)
        if file.name.startswith("exif_orientation"):
            assert photo.rgb.shape == (900, 1024, 3)
        if file.name in ("cmyk.jpg", "photo.heic", "icc_srgb.jpg", "png_named_jpg.jpg"):
            assert error(photo.rgb, reference) < 1.0
        if file.name == "alpha_magenta_hidden.png":
            assert (photo.rgb[photo.alpha == 0] == NEUTRAL).all()
