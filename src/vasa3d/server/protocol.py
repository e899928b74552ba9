"""What travels over the socket of ``vasa3d serve``; ``docs/protocol.md`` explains it.

Text messages are JSON objects whose ``type`` names one of the classes here. Binary messages are sound upwards and
motion downwards. ``web/src/generated.ts`` is made from this module by ``typescript``.

Sound (client): ``turn``, ``block`` as little-endian uint32, then int16 mono samples at the rate of the turn's
``Start``, or one Opus packet, as its ``codec`` says. Motion (server): ``turn``, ``first_frame`` as little-endian
uint32, then for every frame 52 uint16 (channels, in steps of 1/65535) and 6 float32 (pose). Frame t of a turn shows the
face at t / fps seconds of its sound.
"""

from __future__ import annotations

import json
import struct
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, ClassVar, TypeAlias, get_type_hints

import numpy as np
from numpy.typing import NDArray

from vasa3d.errors import InputError
from vasa3d.motion.generator import EMOTIONS, MotionControls
from vasa3d.types import ARKIT_CHANNELS, DEFAULT_FPS, F32, NUM_CHANNELS, MotionLatents

PROTOCOL_VERSION = 1
SUBPROTOCOL = "vasa3d.v1"
BEARER_PREFIX = "bearer."
"""Browsers cannot set headers of a socket: a token travels as a second subprotocol with this prefix."""

RATES = (8_000, 48_000)
MAX_TURN = 2**32 - 1
MAX_BLOCK_BYTES = 96_008
"""Largest binary message: a second of sound at 48 kHz."""
MAX_TEXT_BYTES = 4_096

CODECS = ("pcm", "opus")
OPUS_RATE = 48_000
"""The rate of a turn whose sound is Opus: that at which it is decoded."""

CLOSE_BAD_MESSAGE = 4400
CLOSE_WRONG_TOKEN = 4401
CLOSE_TIMEOUT = 4408
CLOSE_TOO_MANY = 4429
CLOSE_FAILED = 4500
CLOSE_FULL = 4503

_HEADER = struct.Struct("<II")
_FRAME = np.dtype([("dyn", "<u2", (NUM_CHANNELS,)), ("pose", "<f4", (6,))])


class ProtocolError(Exception):
    """A message that breaks the protocol; the session ends with ``CLOSE_BAD_MESSAGE``."""


@dataclass(frozen=True)
class Start:
    """A turn begins: sound follows. A turn that was under way is interrupted.

    Attributes:
        turn: Number of the turn, larger than all before it in this session.
        rate: Samples a second of the sound, 8,000 to 48,000; of Opus 48,000.
        codec: What the messages of sound hold: ``pcm``, plain samples, or ``opus``, a packet each.
        fps: Frames a second wanted, 1 to 60.
        seed: Seed of blinks, gaze and head motion.
        amplitude: Scale of mouth openings, 0 to 2.
        head_motion: Scale of head motion, 0 to 2.
        gaze: Yaw to the person's left and pitch up, degrees.
        emotion: Strength in [0, 1] by name.
    """

    type: ClassVar[str] = "start"
    turn: int
    rate: int
    codec: str = "pcm"
    fps: float = DEFAULT_FPS
    seed: int = 0
    amplitude: float = 1.0
    head_motion: float = 1.0
    gaze: tuple[float, float] = (0.0, 0.0)
    emotion: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check("turn", self.turn, 1, MAX_TURN)
        _check("rate", self.rate, *RATES)
        if self.codec not in CODECS:
            raise ProtocolError(f"codec is {self.codec[:40]!r}, expected {' or '.join(CODECS)}")
        if self.codec == "opus" and self.rate != OPUS_RATE:
            raise ProtocolError(f"rate is {self.rate}, expected {OPUS_RATE} for Opus")
        _check("fps", self.fps, 1.0, 60.0)
        _check("seed", self.seed, 0, 2**32 - 1)

    @property
    def controls(self) -> MotionControls:
        """What the motion is steered by.

        Raises:
            InputError: A value is out of range or an emotion is unknown.
        """
        return MotionControls(
            amplitude=self.amplitude,
            head_motion=self.head_motion,
            gaze=self.gaze,
            emotion=self.emotion,
        )


@dataclass(frozen=True)
class End:
    """The sound of a turn is complete; the server answers with the rest of its motion and ``Done``."""

    type: ClassVar[str] = "end"
    turn: int


@dataclass(frozen=True)
class Interrupt:
    """The turn under way is over at once; what is not yet sent of it is dropped."""

    type: ClassVar[str] = "interrupt"


@dataclass(frozen=True)
class Ready:
    """First message of the server.

    Attributes:
        version: Of the protocol.
        max_ahead_seconds: Sound further ahead of its motion than this waits in the socket.
        max_session_seconds: After so long the server ends the session.
    """

    type: ClassVar[str] = "ready"
    version: int
    max_ahead_seconds: float
    max_session_seconds: float


@dataclass(frozen=True)
class Done:
    """All motion of a turn is sent.

    Attributes:
        turn: Which.
        frames: How many frames it has.
    """

    type: ClassVar[str] = "done"
    turn: int
    frames: int


@dataclass(frozen=True)
class Interrupted:
    """A turn is over before its end; nothing of it follows."""

    type: ClassVar[str] = "interrupted"
    turn: int


@dataclass(frozen=True)
class Dropped:
    """The client reads too slowly: old frames of a turn were left out.

    Attributes:
        turn: Which.
        frames: How many.
    """

    type: ClassVar[str] = "dropped"
    turn: int
    frames: int


@dataclass(frozen=True)
class Failure:
    """Something is wrong; a close of the socket follows unless ``fatal`` is false.

    Attributes:
        message: What happened.
        hint: What to do.
        fatal: Whether the session ends.
    """

    type: ClassVar[str] = "failure"
    message: str
    hint: str
    fatal: bool


ClientMessage: TypeAlias = "Start | End | Interrupt"
ServerMessage: TypeAlias = "Ready | Done | Interrupted | Dropped | Failure"
CLIENT_MESSAGES: tuple[type, ...] = (Start, End, Interrupt)
SERVER_MESSAGES: tuple[type, ...] = (Ready, Done, Interrupted, Dropped, Failure)


def write_message(message: ClientMessage | ServerMessage) -> str:
    """A message as JSON text."""
    return json.dumps({"type": message.type, **asdict(message)})


def read_message(text: str, kinds: tuple[type, ...] = CLIENT_MESSAGES) -> Any:
    """The message of a JSON text.

    Args:
        text: What came.
        kinds: Classes it may be of.

    Raises:
        ProtocolError: It is none of them, or a value has another type or is out of range.
    """
    if len(text) > MAX_TEXT_BYTES:
        raise ProtocolError(f"a text message of {len(text)} characters")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("a text message that is no JSON") from error
    if not isinstance(value, dict):
        raise ProtocolError("a text message that is no object")
    name = value.pop("type", None)
    for kind in kinds:
        if kind.type == name:
            return _build(kind, value)
    raise ProtocolError(f"a message of type {str(name)[:40]!r}")


def pack_sound(turn: int, block: int, sound: NDArray[np.int16] | bytes) -> bytes:
    """A binary message of samples, or of an Opus packet."""
    body = sound if isinstance(sound, bytes) else sound.astype("<i2").tobytes()
    return _HEADER.pack(turn, block) + body


def unpack_sound(data: bytes) -> tuple[int, int, bytes]:
    """Turn, block number and sound of a binary message.

    Raises:
        ProtocolError: It is too short or too long.
    """
    if not _HEADER.size <= len(data) <= MAX_BLOCK_BYTES:
        raise ProtocolError(f"a binary message of {len(data)} bytes")
    turn, block = _HEADER.unpack_from(data)
    return turn, block, data[_HEADER.size :]


def plain_samples(sound: bytes) -> NDArray[np.int16]:
    """(S,) samples of a message's sound that is not coded.

    Raises:
        ProtocolError: It is no whole number of samples.
    """
    if len(sound) % 2:
        raise ProtocolError(f"{len(sound)} bytes of int16 samples")
    return np.frombuffer(sound, "<i2")


def pack_motion(turn: int, first_frame: int, motion: MotionLatents) -> bytes:
    """A binary message of motion."""
    frames = np.empty(len(motion), _FRAME)
    frames["dyn"] = np.round(np.clip(motion.dyn, 0.0, 1.0) * 65535)
    frames["pose"] = motion.pose
    return _HEADER.pack(turn, first_frame) + frames.tobytes()


def unpack_motion(data: bytes) -> tuple[int, int, F32, F32]:
    """Turn, first frame, channels (n, 52) and poses (n, 6) of a binary message.

    Raises:
        ProtocolError: It is no message of motion.
    """
    if len(data) < _HEADER.size or (len(data) - _HEADER.size) % _FRAME.itemsize:
        raise ProtocolError(f"a binary message of {len(data)} bytes")
    turn, first = _HEADER.unpack_from(data)
    frames = np.frombuffer(data, _FRAME, offset=_HEADER.size)
    dyn = frames["dyn"].astype(np.float32) / np.float32(65535)
    return turn, first, dyn, np.ascontiguousarray(frames["pose"], np.float32)


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ProtocolError(f"{name} is {value}, expected {low:g} to {high:g}")


def _build(kind: type, value: dict[str, Any]) -> Any:
    """An instance of a message class from plain JSON values."""
    hints = get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}
    for name in value:
        if name not in known:
            raise ProtocolError(f"{kind.type} has no {str(name)[:40]!r}")
    arguments = {}
    for name, part in known.items():
        if name not in value:
            if part.default is MISSING and part.default_factory is MISSING:
                raise ProtocolError(f"{kind.type} needs {name}")
            continue
        arguments[name] = _convert(f"{kind.type}.{name}", hints[name], value[name])
    return kind(**arguments)


def _convert(name: str, hint: Any, value: Any) -> Any:
    """A JSON value as the type that a field declares."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int and number and abs(value) < 2**53 and int(value) == value:
        return int(value)
    if hint is float and number and abs(value) < 1e6:
        return float(value)
    if hint is bool and isinstance(value, bool):
        return value
    if hint is str and isinstance(value, str):
        return value
    if hint == tuple[float, float] and isinstance(value, list) and len(value) == 2:
        return tuple(_convert(name, float, item) for item in value)
    if hint == dict[str, float] and isinstance(value, dict):
        return {str(key): _convert(name, float, item) for key, item in value.items()}
    raise ProtocolError(f"{name} is {json.dumps(value)[:40]}")


def typescript() -> str:
    """The text of ``web/src/generated.ts``: channels, emotions, messages and constants."""
    lines = [
        "/** Made by scripts/make_web_types.py from the Python package; do not edit. */",
        "",
        f"export const PROTOCOL_VERSION = {PROTOCOL_VERSION};",
        f'export const SUBPROTOCOL = "{SUBPROTOCOL}";',
        f'export const BEARER_PREFIX = "{BEARER_PREFIX}";',
        f"export const MIN_RATE = {RATES[0]};",
        f"export const MAX_RATE = {RATES[1]};",
        f"export const MAX_BLOCK_BYTES = {MAX_BLOCK_BYTES};",
        f"export const OPUS_RATE = {OPUS_RATE};",
        f"export const MOTION_HEADER_BYTES = {_HEADER.size};",
        f"export const MOTION_FRAME_BYTES = {_FRAME.itemsize};",
        "",
        f"export const CHANNELS = {json.dumps(list(ARKIT_CHANNELS))} as const;",
        "export type Channel = (typeof CHANNELS)[number];",
        "",
        "/** Offsets of the channels at full strength; a name without Left or Right stands for both. */",
        f"export const EMOTIONS: Record<string, Record<string, number>> = {json.dumps(EMOTIONS)};",
    ]
    for kind in (*CLIENT_MESSAGES, *SERVER_MESSAGES):
        hints = get_type_hints(kind)
        summary = str(kind.__doc__).splitlines()[0]
        lines += ["", f"/** {summary} */", f"export interface {kind.__name__} {{"]
        lines.append(f'  type: "{kind.type}";')
        for part in fields(kind):
            needed = part.default is MISSING and part.default_factory is MISSING
            lines.append(f"  {part.name}{'' if needed else '?'}: {_TYPES[hints[part.name]]};")
        lines.append("}")
    for name, kinds in (("ClientMessage", CLIENT_MESSAGES), ("ServerMessage", SERVER_MESSAGES)):
        lines += ["", f"export type {name} = {' | '.join(kind.__name__ for kind in kinds)};"]
    return "\n".join(lines) + "\n"


_TYPES = {
    int: "number",
    float: "number",
    bool: "boolean",
    str: "string",
    tuple[float, float]: "[number, number]",
    dict[str, float]: "Record<string, number>",
}


def describe(error: Exception) -> tuple[str, str]:
    """What to tell a client about an error, and what to do."""
    if isinstance(error, InputError):
        return error.message, error.hint
    if isinstance(error, ProtocolError):
        return f"the server does not understand {error}.", "see docs/protocol.md"
    return "something went wrong on the server.", "connect again"
