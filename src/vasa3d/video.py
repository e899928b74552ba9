"""Video files out and in: a stream of ``Frame`` values becomes mp4, mov or a PNG sequence.

- ``.mp4``: H.264 (yuv420p) and AAC, plays everywhere;
- ``.mov``: the same, or with transparency ProRes 4444 and PCM, for editing;
- a folder, or a pattern such as ``dir/frame_%05d.png``: one PNG a frame, with or without alpha.

Frame t is shown from t / fps to (t + 1) / fps seconds at a constant rate; sound sample s is heard at
s / 48000 seconds. Sound and pictures are written alternately, so nothing is held in memory. Colours
are sRGB values carried as BT.709, limited range, and tagged so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import closing
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

import av
import av.container
import av.error
import av.stream
import numpy as np
from PIL import Image

from vasa3d.audio.clips import CONTAINERS, probe_sound, resampled, sound_blocks
from vasa3d.errors import InputError, OutputError
from vasa3d.files import atomic_file, atomic_folder, input_file, output_error, output_path
from vasa3d.types import F32, SAMPLE_RATE, U8, AudioClip, Frame

SOUND_RATE = 48_000
"""Samples a second of all sound that is written."""

MIN_FPS, MAX_FPS = 1.0, 240.0
MAX_SECONDS = 600.0
"""Longest video that is read."""
MAX_PICTURE_PIXELS = 8192 * 4608
"""Largest pictures that are read."""
_OPENING = {
    "format_whitelist": CONTAINERS + ",gif,h264,hevc,mpegvideo,yuv4mpegpipe",
    "protocol_whitelist": "file",
}

_X264 = {"crf": "17", "preset": "veryfast", "profile": "high"}
_AAC_BITS_PER_CHANNEL = 128_000
_PRORES = {"profile": "4444", "vendor": "apl0", "alpha_bits": "16"}
_BT709 = 1  # this number in all three of ITU-T H.273's tables
_LIMITED_RANGE = 1
_PICTURE_NAME = "frame_%05d.png"
_PATTERN = re.compile(r"%(0\d+)?d")


def write_video(
    path: str | Path,
    frames: Iterable[Frame],
    audio: str | Path | AudioClip | None = None,
    fps: float = 25.0,
    force: bool = False,
    transparent: bool = False,
) -> None:
    """Write frames, and sound, into a file that appears when it is complete.

    Args:
        path: ``.mp4``, ``.mov``, a folder, or a ``.png`` name with a number field.
        frames: Pictures of one size.
        audio: Recording to hear, from the first frame on: a file, which keeps its own quality, or a clip.
            Sound that lasts longer than the frames is cut; PNG sequences have none.
        fps: Frames a second.
        force: Replace what is there.
        transparent: Keep the frames' alpha; needs ``.mov`` or PNG.

    Raises:
        OutputError: The path is not usable (see ``check_video_path``), or the disk is full.
        AudioError: The recording cannot be read.
        InputError: There are no frames, or their rate is out of range.
    """
    target = check_video_path(path, force, transparent)
    check_rate(fps)
    stream = iter(frames)
    first = next(stream, None)
    if first is None:
        raise InputError("there are no frames to write.", hint="use a longer recording or motion")
    stream = chain([first], stream)
    if _is_container(target):
        sound = _sound(audio)
        with atomic_file(target, force) as temporary:
            _write_container(temporary, stream, first.rgb.shape, sound, fps, transparent)
    else:
        _write_pictures(target, stream, force, transparent)


def write_picture(
    path: str | Path, frame: Frame, *, force: bool = False, transparent: bool = False
) -> None:
    """Write one frame as a PNG.

    Args:
        path: Where to, ``.png``.
        frame: The picture.
        force: Replace what is there.
        transparent: Keep the frame's alpha.

    Raises:
        OutputError: The file exists, or cannot be written.
    """
    picture = _straight(frame, np.uint8) if transparent else frame.to_uint8()
    with atomic_file(path, force) as temporary:
        Image.fromarray(picture).save(temporary, "PNG", compress_level=4)


def check_rate(fps: float) -> None:
    """Check a number of frames a second.

    Raises:
        InputError: It is no number, or not within ``MIN_FPS`` and ``MAX_FPS``.
    """
    if not MIN_FPS <= fps <= MAX_FPS:
        raise InputError(
            f"{fps:g} frames a second is not possible.",
            hint=f"choose a rate between {MIN_FPS:g} and {MAX_FPS:g}, for example 25",
        )


def check_video_path(path: str | Path, force: bool = False, transparent: bool = False) -> Path:
    """Check an output path of ``write_video`` before the work that leads to it.

    Args:
        path: As for ``write_video``.
        force: Replace what is there.
        transparent: Alpha shall be kept.

    Returns:
        The path, absolute.

    Raises:
        OutputError: The kind of file is unknown or has no transparency, something is there
            already, or the folder is missing or not writable.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix == ".png":
        if len(_PATTERN.findall(target.name)) != 1 or target.name.count("%") != 1:
            raise OutputError(
                f"{target.name} can name one picture only.",
                hint="use a number field, as in frame_%05d.png, or the name of a folder",
            )
        return output_path(target.parent, force, True, _numbered(target.name)) / target.name
    if suffix == "" or target.is_dir():
        return output_path(target, force, True, _numbered(_PICTURE_NAME))
    if not _is_container(target):
        raise OutputError(
            f"{suffix} is no kind of video that can be written.",
            hint="use .mp4, .mov, a folder, or a pattern such as frame_%05d.png",
        )
    if transparent and suffix != ".mov":
        raise OutputError(
            f"{suffix} files hold no transparency.", hint="use .mov, or a folder for PNG pictures"
        )
    return output_path(target, force)


def read_video(
    path: str | Path,
    max_frames: int | None = None,
    *,
    fps: float | None = None,
    max_side: int | None = None,
) -> tuple[Iterator[U8], float]:
    """Open a video file for reading its pictures one by one, at a constant rate.

    Picture k is the one nearest to k / fps seconds after the first, so that a varying rate, as phones record, does not
    change the speed.

    Args:
        path: Any common video file.
        max_frames: Stop after so many pictures.
        fps: Pictures a second; None for the file's own mean.
        max_side: Reduce pictures to this many pixels of their longer side.

    Returns:
        Iterator of (H, W, 3) uint8 sRGB pictures, upright, with square pixels; and the pictures a second.

    Raises:
        InputError: Not a readable video file, or one that is too large or too long; the iterator raises it too, when
            that shows only later or no picture can be decoded.
    """
    file = input_file(path, "a video", InputError)
    try:
        container = av.open(str(file.resolve()), options=_OPENING)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise _not_video(file) from error
    try:
        stream = _moving(container)
        if stream is None:
            raise _not_video(file)
        context = stream.codec_context
        if context.width * context.height > MAX_PICTURE_PIXELS:
            raise InputError(
                f"{file} has pictures of {context.width}x{context.height} pixels.",
                hint="reduce it to 1920x1080 first",
            )
        if (container.duration or 0) / av.time_base > MAX_SECONDS:
            raise _too_long(file)
    except InputError:
        container.close()
        raise
    rate = float(fps or stream.average_rate or stream.guessed_rate or 25)
    rate = min(max(rate, MIN_FPS), MAX_FPS)
    pictures = _at_rate(_pictures(container, stream, max_side), rate, file)
    return islice(pictures, max_frames), rate


def has_pictures(path: str | Path) -> bool:
    """Whether a file holds moving pictures; the cover of an album is none."""
    try:
        with av.open(str(Path(path)), options=_OPENING) as container:
            return _moving(container) is not None
    except (av.error.FFmpegError, OSError, ValueError):
        return False


def _moving(container: av.container.InputContainer) -> av.VideoStream | None:
    """The first stream of moving pictures."""
    cover = av.stream.Disposition.attached_pic
    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & cover and stream.codec_context is not None
    ]
    return streams[0] if streams else None


def _not_video(file: Path) -> InputError:
    return InputError(
        f"{file} is not a video that can be read.", hint="use an MP4, MOV, MKV or WebM video"
    )


def _too_long(file: Path) -> InputError:
    return InputError(
        f"{file} is longer than {MAX_SECONDS / 60:g} minutes.", hint="cut it into shorter parts"
    )


def _at_rate(timed: Iterator[tuple[float, U8]], fps: float, file: Path) -> Iterator[U8]:
    """Pictures at k / fps seconds from pictures with their times."""
    count, shown, shown_at, start = 0, None, 0.0, 0.0
    for time, rgb in timed:
        if shown is None:
            start = time
        at = time - start
        if (
            at > MAX_SECONDS
        ):  # also one wrong time in a short clip, which would repeat a picture till then
            raise _too_long(file)
        while shown is not None and count / fps <= (shown_at + at) / 2:
            yield shown
            count += 1
            if count > MAX_SECONDS * fps:
                raise _too_long(file)
        shown, shown_at = rgb, at
    if shown is None:
        raise InputError(
            f"{file} has no pictures that can be read.", hint="copy or download it again"
        )
    while count / fps < shown_at + 0.5 / fps:
        yield shown
        count += 1


def _pictures(
    container: av.container.InputContainer, stream: av.VideoStream, max_side: int | None
) -> Iterator[tuple[float, U8]]:
    """Decoded pictures and their times in seconds."""
    stream.thread_type = "AUTO"
    step = 1.0 / float(stream.average_rate or 25)
    with container:
        try:
            for count, frame in enumerate(container.decode(stream)):
                wide = frame.width * float(stream.sample_aspect_ratio or 1)
                scale = min(1.0, (max_side or np.inf) / max(wide, frame.height))
                size = (max(1, round(wide * scale)), max(1, round(frame.height * scale)))
                if size != (frame.width, frame.height):
                    frame = frame.reformat(*size, format="rgb24", interpolation="AREA")
                quarter_turns = round(getattr(frame, "rotation", 0) / 90) % 4
                rgb = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
                time = count * step if frame.time is None else frame.time
                yield time, np.ascontiguousarray(np.rot90(rgb, quarter_turns))
        except av.error.FFmpegError:
            return  # a damaged tail: what came before it is good


def _is_container(path: Path) -> bool:
    return path.suffix.lower() in (".mp4", ".mov") and not path.is_dir()


def _numbered(pattern: str) -> re.Pattern[str]:
    """The names of a sequence: ``frame_%05d.png`` with any number."""
    return re.compile(_PATTERN.sub("[0-9]+", re.escape(pattern)))


def _sound(audio: str | Path | AudioClip | None) -> tuple[int, Iterator[F32]] | None:
    """Number of channels, and (n, C) float32 blocks at ``SOUND_RATE``."""
    if audio is None:
        return None
    if isinstance(audio, AudioClip):
        return 1, resampled(iter([audio.samples[:, None]]), SAMPLE_RATE, SOUND_RATE)
    info = probe_sound(audio)
    blocks, channels = sound_blocks(info), len(info.weights)
    if channels > 2:
        blocks, channels = (block @ info.weights[:, None] for block in blocks), 1
    return channels, resampled(blocks, info.rate, SOUND_RATE)


def _write_container(
    path: Path,
    frames: Iterator[Frame],
    shape: tuple[int, ...],
    sound: tuple[int, Iterator[F32]] | None,
    fps: float,
    transparent: bool,
) -> None:
    rate = Fraction(fps).limit_denominator(1001)
    try:
        # Closing writes what is buffered, so a full disk may show only there.
        with closing(av.open(str(path), "w", options={"movflags": "+faststart"})) as container:
            pictures = _Pictures(container, shape[0], shape[1], rate, transparent)
            track = _Track(container, *sound, lossless=transparent) if sound else None
            for index, frame in enumerate(frames):
                pictures.add(frame)
                if track:
                    track.fill(float((index + 1) / rate))
            pictures.finish()
            if track:
                track.finish()
    except av.error.FFmpegError as error:
        raise output_error(path, OSError(error.errno, error.strerror)) from error


class _Pictures:
    """The video stream of a file being written."""

    def __init__(
        self,
        container: av.container.OutputContainer,
        height: int,
        width: int,
        rate: Fraction,
        transparent: bool,
    ) -> None:
        self._container = container
        self._shape = (height, width)
        self._transparent = transparent
        self._time_base = 1 / rate
        self._count = 0
        codec, options = ("prores_ks", _PRORES) if transparent else ("libx264", _X264)
        self._stream = container.add_stream(codec, rate=rate, options=options)
        self._stream.pix_fmt = "yuva444p10le" if transparent else "yuv420p"
        self._stream.width = width + (0 if transparent else width % 2)
        self._stream.height = height + (0 if transparent else height % 2)
        context = self._stream.codec_context
        context.time_base = self._time_base
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = _LIMITED_RANGE

    def add(self, frame: Frame) -> None:
        if frame.alpha.shape != self._shape:
            raise ValueError(f"frame {self._count} is {frame.alpha.shape}, not {self._shape}")
        if self._transparent:
            picture = av.VideoFrame.from_ndarray(_straight(frame, np.uint16), format="rgba64le")
        else:
            rgb = frame.to_uint8()
            odd = (self._stream.height - rgb.shape[0], self._stream.width - rgb.shape[1])
            if any(odd):
                rgb = np.pad(rgb, ((0, odd[0]), (0, odd[1]), (0, 0)), mode="edge")
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        picture = picture.reformat(
            format=self._stream.pix_fmt,
            dst_colorspace="ITU709",
            dst_color_range="MPEG",
            interpolation="AREA",
        )
        picture.pts, picture.time_base = self._count, self._time_base
        self._count += 1
        self._container.mux(self._stream.encode(picture))

    def finish(self) -> None:
        self._container.mux(self._stream.encode(None))


class _Track:
    """The sound stream of a file being written."""

    def __init__(
        self,
        container: av.container.OutputContainer,
        channels: int,
        blocks: Iterator[F32],
        lossless: bool,
    ) -> None:
        self._container = container
        self._layout = "stereo" if channels == 2 else "mono"
        self._blocks = blocks
        self._waiting = np.zeros((0, channels), np.float32)
        self._written = 0
        self._stream = container.add_stream(
            "pcm_s16le" if lossless else "aac", rate=SOUND_RATE, layout=self._layout
        )
        if not lossless:
            self._stream.bit_rate = _AAC_BITS_PER_CHANNEL * channels

    def fill(self, seconds: float) -> None:
        """Write the sound up to this time, where there is so much."""
        wanted = round(seconds * SOUND_RATE) - self._written
        while len(self._waiting) < wanted:
            block = next(self._blocks, None)
            if block is None:
                break
            self._waiting = np.concatenate([self._waiting, block])
        piece, self._waiting = self._waiting[:wanted], self._waiting[wanted:]
        if len(piece) == 0:
            return
        planar = np.ascontiguousarray(np.clip(piece, -1.0, 1.0).T)
        frame = av.AudioFrame.from_ndarray(planar, format="fltp", layout=self._layout)
        frame.sample_rate = SOUND_RATE
        frame.pts, frame.time_base = self._written, Fraction(1, SOUND_RATE)
        self._written += len(piece)
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        self._container.mux(self._stream.encode(None))


def _straight(frame: Frame, dtype: type[np.unsignedinteger]) -> np.ndarray:
    """(H, W, 4) of colour that is not premultiplied, and alpha: what files hold."""
    alpha = np.clip(frame.alpha, 0.0, 1.0)[..., None]
    rgb = np.clip(frame.rgb / np.maximum(alpha, 1e-6), 0.0, 1.0)
    full = np.iinfo(dtype).max
    return (np.concatenate([rgb, alpha], -1) * full + 0.5).astype(dtype)


def _write_pictures(target: Path, frames: Iterator[Frame], force: bool, transparent: bool) -> None:
    is_pattern = target.suffix.lower() == ".png"
    folder, name = (target.parent, target.name) if is_pattern else (target, _PICTURE_NAME)
    with atomic_folder(folder, _numbered(name), force) as temporary:
        for index, frame in enumerate(frames):
            picture = _straight(frame, np.uint8) if transparent else frame.to_uint8()
            Image.fromarray(picture).save(temporary / (name % index), compress_level=4)
