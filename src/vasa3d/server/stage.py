"""What is heard and seen at every moment of a session that the server draws: one clock for sound and picture.

The clock ticks every ``TICK`` = 40 ms. A tick takes the next 1,920 samples (48 kHz) of the turn under way and shows the
face of the same moment of the turn, so the two cannot drift apart. A turn begins to be heard when ``START_SECONDS`` of
it have their motion; where its sound or its motion runs out, both wait. Between turns the face lives on by itself. At a
change from one to the other, what was shown less what the new source has there is added, and fades by a minimum-jerk
step e: face(t) = source(t) + (1 - e(t / T)) offset. Lips let go soon; a head has weight and takes longer.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import soxr
from numpy.typing import NDArray

from vasa3d.kernels.easing import ease
from vasa3d.motion.generator import MotionControls
from vasa3d.motion.idle import IdleLife
from vasa3d.server.protocol import Done, Start
from vasa3d.types import F32, NUM_CHANNELS, MotionLatents

SOUND_RATE = 48_000
TICK = 0.04
TICK_SAMPLES = round(SOUND_RATE * TICK)
START_SECONDS = 0.1
FACE_SECONDS = 0.2
HEAD_SECONDS = 0.7
MAX_MICROPHONE_LAG = 0.4
"""A microphone's sound that waits longer than this is passed over: its clock runs faster than ours, or it stalled."""


@dataclass
class _Turn:
    """A turn on the stage; positions count samples at ``SOUND_RATE`` from its beginning.

    Attributes:
        start: Its first message.
        resampler: From its rate to ours, where they differ.
        sound: What is not yet heard.
        waiting: Samples in ``sound``.
        heard: Position of the clock.
        motion: (first frame, channels, poses) in order, from the one that is shown.
        frames: Frames whose motion is there.
        silent: Its sound is the client's own microphone, which nobody wants to hear again.
        playing: It has begun to be heard.
        done: What ends it, once all motion is there.
    """

    start: Start
    resampler: soxr.ResampleStream | None
    sound: deque[NDArray[np.int16]] = field(default_factory=deque)
    waiting: int = 0
    heard: int = 0
    motion: deque[tuple[int, F32, F32]] = field(default_factory=deque)
    frames: int = 0
    silent: bool = False
    playing: bool = False
    done: Done | None = None

    def playable(self) -> int:
        """Samples that can be heard now: those whose motion is there."""
        if self.done is not None:
            return self.waiting
        settled = int(self.frames / self.start.fps * SOUND_RATE)
        return max(0, min(self.waiting, settled - self.heard))

    def take(self, count: int) -> NDArray[np.int16]:
        """The next samples; fewer than ``count`` at the end."""
        parts: list[NDArray[np.int16]] = []
        while count > 0 and self.sound:
            block = self.sound.popleft()
            if len(block) > count:
                self.sound.appendleft(block[count:])
                block = block[:count]
            parts.append(block)
            count -= len(block)
        taken = np.concatenate(parts) if parts else np.zeros(0, np.int16)
        self.waiting -= len(taken)
        self.heard += len(taken)
        return taken

    def face(self) -> tuple[F32, F32] | None:
        """Channels (52,) and pose (6,) of this moment; the last ones known where some are missing."""
        frame = int(self.heard / SOUND_RATE * self.start.fps + 1e-6)
        while len(self.motion) > 1 and self.motion[1][0] <= frame:
            self.motion.popleft()
        if not self.motion:
            return None
        first, dyn, pose = self.motion[0]
        row = min(max(frame - first, 0), len(dyn) - 1)
        return dyn[row], pose[row]


class Stage:
    """One session's face and voice.

    Args:
        seed: Of the face's own life.
    """

    def __init__(self, seed: int = 0) -> None:
        controls = MotionControls()
        self._life = IdleLife(seed, controls.blink_rate, controls.head_motion, controls.gaze)
        self._turn: _Turn | None = None
        self._shown = self._offset = (np.zeros(NUM_CHANNELS, np.float32), np.zeros(6, np.float32))
        self._source: _Turn | None = None
        self._since = HEAD_SECONDS
        self._ticks = 0

    @property
    def ahead_seconds(self) -> float:
        """Sound that waits to be heard."""
        return 0.0 if self._turn is None else self._turn.waiting / SOUND_RATE

    def begin(self, start: Start) -> None:
        """A turn begins, in place of the last one."""
        resampler = None
        if start.rate != SOUND_RATE:
            resampler = soxr.ResampleStream(start.rate, SOUND_RATE, 1, "int16", "MQ")
        self._turn = _Turn(start, resampler)

    def hear(self, number: int, samples: NDArray[np.int16], silent: bool = False) -> None:
        """Sound of a turn at its own rate; that of other turns is passed over.

        Args:
            number: Of the turn.
            samples: (S,) int16.
            silent: Show the face, but let nothing be heard.
        """
        turn = self._of(number)
        if turn is None:
            return
        turn.silent = turn.silent or silent
        if turn.resampler is not None:
            samples = turn.resampler.resample_chunk(samples)
        if len(samples):
            turn.sound.append(samples)
            turn.waiting += len(samples)
        if turn.silent and turn.playable() > MAX_MICROPHONE_LAG * SOUND_RATE:
            turn.take(turn.playable() - int(START_SECONDS * SOUND_RATE))

    def show(self, number: int, first: int, dyn: F32, pose: F32) -> None:
        """Motion (n, 52) and (n, 6) of a turn, from a frame on."""
        turn = self._of(number)
        if turn is not None and len(dyn):
            turn.motion.append((first, dyn, pose))
            turn.frames = first + len(dyn)

    def complete(self, done: Done) -> bool:
        """All motion of a turn is there; false if the turn has been cut meanwhile."""
        turn = self._of(done.turn)
        if turn is None:
            return False
        if turn.resampler is not None:
            tail = turn.resampler.resample_chunk(np.zeros(0, np.int16), last=True)
            turn.sound.append(tail)
            turn.waiting += len(tail)
        turn.done = done
        return True

    def cut(self) -> Done | None:
        """Silence at once; returns what would have ended the turn, if that was known already."""
        turn, self._turn = self._turn, None
        return None if turn is None else turn.done

    def tick(self) -> tuple[NDArray[np.int16], MotionLatents, Done | None]:
        """Go on by ``TICK``.

        Returns:
            (``TICK_SAMPLES``,) samples, the face at their beginning (one frame), and what ends the turn if this was
            the end of it.
        """
        turn, ended, spoken = self._turn, None, None
        sound = np.zeros(TICK_SAMPLES, np.int16)
        if turn is not None:
            playable = turn.playable()
            if turn.done is not None or playable >= START_SECONDS * SOUND_RATE:
                turn.playing = True
            if turn.playing:
                spoken = turn.face()
                if turn.done is not None or playable >= TICK_SAMPLES:
                    taken = turn.take(TICK_SAMPLES)
                    if not turn.silent:
                        sound[: len(taken)] = taken
            if turn.done is not None and not turn.waiting:
                self._turn, ended = None, turn.done
        face = self._face(turn, spoken)
        self._ticks += 1
        return sound, face, ended

    def _of(self, number: int) -> _Turn | None:
        turn = self._turn
        return turn if turn is not None and turn.start.turn == number else None

    def _face(self, turn: _Turn | None, spoken: tuple[F32, F32] | None) -> MotionLatents:
        """What is shown now: the face of a turn or, without one, of its own life, and what fades of the last source."""
        now = np.array([self._ticks * TICK])
        dyn, pose = self._life.at(now, np.array([0.0 if spoken is None else 1.0]))
        source, face = None, (dyn[0], pose[0])
        if spoken is not None:
            source, face = turn, spoken
        self._since += TICK
        if source is not self._source:
            self._source, self._since = source, 0.0
            self._offset = (self._shown[0] - face[0], self._shown[1] - face[1])
        lips, head = 1.0 - ease(self._since / np.array([FACE_SECONDS, HEAD_SECONDS]))
        self._shown = (
            np.clip(face[0] + np.float32(lips) * self._offset[0], 0.0, 1.0),
            face[1] + np.float32(head) * self._offset[1],
        )
        return MotionLatents(self._shown[0][None], self._shown[1][None], 1.0 / TICK)
