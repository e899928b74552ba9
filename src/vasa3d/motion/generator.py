"""Sound to motion: what is heard becomes lips by coarticulation and a living face by the diffusion transformer.

``speak`` is ``MotionStream`` fed at once, so a stream gives the same motion as a whole file. Lips run at 100 frames a
second inside, the life of the face (``motion/life.py``) at 25. Frame t of the result shows the face at t / fps
seconds of the sound, whatever the look-ahead: 72.5 ms of the encoder and 40 ms of the transformer (without it, 30 ms of
coarticulation) are waited for, not shifted into the result.

Lips are those of coarticulation, with its guarantees for contacts, unless ``GeneratorConfig.lips`` asks for the
transformer's; contacts of the lips that the encoder is sure of are held in either case.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vasa3d.audio.clips import load_audio
from vasa3d.audio.features import FRAME_RATE
from vasa3d.errors import InputError
from vasa3d.kernels.easing import interpolate
from vasa3d.motion import coarticulation
from vasa3d.motion.controls import EMOTIONS, Emotion, MotionControls
from vasa3d.motion.denoiser import BLOCK, load_denoiser_weights
from vasa3d.motion.diffusion import SamplerConfig
from vasa3d.motion.idle import IdleLife, Phrases
from vasa3d.motion.life import CAMERA_DISTANCE_METRES, SPOKEN, GeneratedLife
from vasa3d.motion.pretrained import PretrainedVoice
from vasa3d.motion.prosody import FRAMES_AHEAD, ProsodyStream, Stress
from vasa3d.motion.speech import (
    VISEMES,
    EncoderStream,
    SpeechActivity,
    closure_threshold,
    concatenate,
)
from vasa3d.motion.transcript import Transcript, TranscriptEncoder, fit_transcript
from vasa3d.motion.voice import STEPS, VoiceStream
from vasa3d.types import ARKIT_INDEX, DEFAULT_FPS, F32, SAMPLE_RATE, AudioClip, MotionLatents
from vasa3d.weights import assets_dir

__all__ = ["EMOTIONS", "GeneratorConfig", "MotionControls", "MotionStream", "speak"]

_BLOCK_SECONDS = 30
_STRESS_SECONDS = max(0, FRAMES_AHEAD - coarticulation.FRAMES_AHEAD) / FRAME_RATE
"""How long after a stress the face answers: a stress is known later than the lips are due."""
REST_SECONDS = 0.24
"""Time in which an interrupted mouth comes to rest."""
_PAUSE_FRAMES = 30
_WARM_UP_SECONDS = 6


@dataclass(frozen=True)
class GeneratorConfig:
    """Where motion comes from.

    Attributes:
        life: Head, gaze, brows: ``diffusion``, or ``rules`` (``motion/idle.py``).
        lips: ``rules`` (``motion/coarticulation.py``), or ``diffusion``.
        sampler: How the diffusion transformer is sampled.
        weights: File of a transformer of one's own training, in place of the shipped one.
        voice_model: Folder of the pretrained network that it was trained to hear with, if it was; such a generator
            takes whole recordings only.
    """

    life: str = "diffusion"
    lips: str = "rules"
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    weights: Path | None = None
    voice_model: Path | None = None

    def __post_init__(self) -> None:
        for name in ("life", "lips"):
            if getattr(self, name) not in ("diffusion", "rules"):
                raise ValueError(f"{name} must be 'diffusion' or 'rules'")
        if self.lips == "diffusion" and self.life != "diffusion":
            raise ValueError("lips of the transformer come with its life only")


def speak(
    audio: AudioClip,
    *,
    fps: float = DEFAULT_FPS,
    seed: int = 0,
    controls: MotionControls | None = None,
    transcript: str | Path | Transcript | None = None,
    config: GeneratorConfig | None = None,
) -> MotionLatents:
    """Motion of a face that says this sound.

    Args:
        audio: Mono sound at 16 kHz.
        fps: Frames a second, 1 to 240.
        seed: Seed of blinks, gaze and head motion.
        controls: What to steer; default ``MotionControls()``.
        transcript: What is said, as ``read_transcript`` takes it; sharpens the lips. One that does not fit the sound
            is left out with a warning.
        config: Where motion comes from.

    Returns:
        ceil(duration * fps) frames, at least one.

    Raises:
        MissingError: The speech encoder's weights are missing.
        InputError: The transcript cannot be read.
    """
    fitted = transcript if isinstance(transcript, Transcript) else None
    if transcript is not None and (fitted is None or fitted.segments is None):
        fitted, notes = fit_transcript(audio, transcript)
        for note in notes:
            warnings.warn(note, stacklevel=2)
    stream = MotionStream(fps=fps, seed=seed, controls=controls, transcript=fitted, config=config)
    if config is not None and config.voice_model is not None:
        stream.foresee(PretrainedVoice(config.voice_model).hear(audio.samples))
    block = _BLOCK_SECONDS * SAMPLE_RATE
    starts = range(0, len(audio.samples), block)
    parts = [stream.push(audio.samples[start : start + block]) for start in starts]
    parts.append(stream.flush())
    return MotionLatents(
        np.concatenate([part.dyn for part in parts]),
        np.concatenate([part.pose for part in parts]),
        fps,
    )


class MotionStream:
    """Motion of growing sound, 0.1 s behind it.

    Args:
        fps: Frames a second, 1 to 240.
        seed: Seed of blinks, gaze and head motion.
        controls: What to steer.
        transcript: What is said from the first sample on, with times or without.
        config: Where motion comes from.
    """

    def __init__(
        self,
        *,
        fps: float = DEFAULT_FPS,
        seed: int = 0,
        controls: MotionControls | None = None,
        transcript: Transcript | None = None,
        config: GeneratorConfig | None = None,
    ) -> None:
        if not 1.0 <= fps <= 240.0:
            raise InputError(f"fps is {fps}.", hint="choose a value from 1 to 240")
        self.fps, self.seed = fps, seed
        self.controls = controls if controls is not None else MotionControls()
        self.config = config or GeneratorConfig()
        self._transcript = transcript
        self._threshold = closure_threshold()
        emotion = self.controls.emotion
        self._emotion = Emotion(emotion) if any(emotion.values()) else None
        self.reset()

    def reset(self) -> None:
        """Start over: no sound heard, same seed."""
        c = self.controls
        given = self._transcript
        self._encoder = EncoderStream() if given is None else TranscriptEncoder(given)
        self._idle: IdleLife | None = None
        self._life: GeneratedLife | None = None
        if self.config.life == "rules":
            self._idle = IdleLife(self.seed, c.blink_rate, c.head_motion, c.gaze)
        else:
            self._life = GeneratedLife(
                self.seed, blink_rate=c.blink_rate, head_motion=c.head_motion, gaze=c.gaze,
                distance=c.distance, emotion=c.emotion, style=c.style, config=self.config.sampler,
                weights=load_denoiser_weights(self.config.weights),
            )  # fmt: skip
        self._mouth = np.zeros((0, len(ARKIT_INDEX) + 2), np.float32)
        self._voice = np.zeros((0, 2), np.float32)
        self._tokens = 0
        self._foreseen: F32 | None = None
        self._first = 0
        self._frames_out = 0
        self._begin(0)

    def foresee(self, voice: F32) -> None:
        """Give what a pretrained network hears in the whole recording that will be pushed.

        Args:
            voice: (T, size) features at motion frames.
        """
        self._foreseen = voice

    def _begin(self, frame: int) -> None:
        """Sound begins at a frame of 10 ms."""
        self._start = frame
        self._samples_in = 0
        self._prosody = ProsodyStream()
        self._phrases = Phrases()
        self._heard = frame
        self._listener = VoiceStream()
        self._context = _silence(coarticulation.FRAMES_BEHIND)

    def push(self, samples: F32) -> MotionLatents:
        """Take more sound.

        Args:
            samples: (S,) float32 at 16 kHz, any length.

        Returns:
            The frames that it settles, none at all included.
        """
        samples = np.asarray(samples, np.float32)
        self._samples_in += len(samples)
        if self._life is not None:
            self._listener.listen(samples)
        self._hear(self._encoder.push(samples))
        return self._take(max(self._frames_out, self._ready()))

    def flush(self) -> MotionLatents:
        """End the sound: all frames that are still due. ``reset`` before the next sound."""
        self._listener.end()
        self._hear(self._encoder.flush())
        seconds = self._start / FRAME_RATE + self._samples_in / SAMPLE_RATE
        total = max(1, int(np.ceil(seconds * self.fps - 1e-6)), self._frames_out)
        while self._ready() < total:
            self._hear(_silence(STEPS * BLOCK))
        return self._take(total)

    def interrupt(self) -> MotionLatents:
        """Stop speaking at once, as when the other one begins to talk.

        Sound that was heard and not yet shown is forgotten, with what is left of a transcript. The mouth is at rest
        after ``REST_SECONDS``; head, eyes and brows live on.

        Returns:
            The frames of the next 0.3 s; sound that is pushed next begins after them.
        """
        now = int(np.ceil(self._frames_out / self.fps * FRAME_RATE - 1e-6))
        resume = -(-(now + _PAUSE_FRAMES) // STEPS) * STEPS
        fade = 1.0 - _ease(np.arange(resume - now) / (REST_SECONDS * FRAME_RATE))[:, None]
        for name in ("_mouth", "_voice"):
            track: F32 = getattr(self, name)
            last = track[min(max(now - self._first, 0), len(track) - 1)] if len(track) else 0.0
            end = np.broadcast_to(last * fade, (len(fade), track.shape[1])).astype(np.float32)
            setattr(self, name, np.concatenate([track[: now - self._first], end]))
        self._voice[-len(fade) :, 1] = np.maximum(self._voice[-len(fade) :, 1], 1.0)
        if self._life is not None:
            none = np.zeros(STEPS, np.float32)
            quiet = VoiceStream().push(_silence(STEPS), none, none + np.float32(1.0))
            missing = resume // STEPS - self._tokens
            self._life.hear(np.repeat(quiet, max(0, missing), axis=0))
            self._tokens = resume // STEPS
        self._encoder = EncoderStream()
        self._begin(resume)
        return self._take(max(self._frames_out, self._ready()))

    def _ready(self) -> int:
        """How many frames from the start can be given."""
        settled = self._first + min(len(self._mouth), len(self._voice)) - 1
        ready = int(np.floor(settled * self.fps / FRAME_RATE + 1e-9)) + 1 if settled >= 0 else 0
        return ready if self._life is None else min(ready, self._life.frames_ready(self.fps))

    def _hear(self, activity: SpeechActivity) -> None:
        rhythm = self._prosody.push(activity)
        late = self._start / FRAME_RATE + _STRESS_SECONDS
        stresses = [Stress(s.seconds + late, s.strength) for s in rhythm.stresses]
        life = self._idle or self._life
        assert life is not None
        for frame in self._phrases.ends(rhythm.speaking * rhythm.belief):
            life.pause((self._heard + frame) / FRAME_RATE)
        self._heard += len(activity)
        if self._idle is not None:
            self._idle.hear(stresses)
        else:
            assert self._life is not None
            self._life.stress(stresses)
            voice = self._listener.push(activity, rhythm.speaking, rhythm.belief)
            if self.config.voice_model is not None:
                if self._foreseen is None:
                    raise InputError(
                        "this generator hears whole recordings only.",
                        hint="use speak, or a generator trained without a voice model",
                    )
                at = np.arange(self._tokens, self._tokens + len(voice))
                voice = self._foreseen[np.minimum(at, len(self._foreseen) - 1)]
            self._tokens += len(voice)
            self._life.hear(voice)
        heard = coarticulation.decided(activity, rhythm.certainty)
        self._context = concatenate([self._context, heard])
        parts = coarticulation.mouth(
            self._context, self._threshold, self.controls.amplitude, self.controls.style
        )
        new = np.concatenate(parts, axis=1)
        self._mouth = np.concatenate([self._mouth, new])
        self._voice = np.concatenate(
            [self._voice, np.stack([rhythm.speaking, rhythm.belief], axis=1)]
        )
        keep = coarticulation.FRAMES_BEHIND + coarticulation.FRAMES_AHEAD
        self._context = _tail(self._context, min(keep, len(self._context)))

    def _take(self, stop: int) -> MotionLatents:
        """Frames from the last one given up to ``stop``."""
        index = np.arange(self._frames_out, stop)
        if len(index) == 0:
            return MotionLatents.rest(0, self.fps)
        times = index / self.fps
        mouth = _sample(self._mouth, times, self._first)
        speaking, belief = _sample(self._voice, times, self._first).T
        mouth, contacts = mouth[:, :-2], mouth[:, -2:]
        if self._idle is not None:
            dyn, pose = self._idle.at(times, speaking * belief)
            dyn += mouth * belief[:, None]
        else:
            assert self._life is not None
            dyn, pose = self._life.at(times)
            self._speak(dyn, mouth, contacts.max(axis=1, keepdims=True), belief[:, None])
        pose[:, 5] += np.float32((1.0 - self.controls.distance) * CAMERA_DISTANCE_METRES)
        if self._emotion is not None:
            self._emotion.show(dyn, *(contacts * belief[:, None]).T)
        self._frames_out = stop
        self._forget(times[-1])
        dyn = np.minimum(np.maximum(dyn, np.float32(0.0)), np.float32(1.0))
        return MotionLatents(dyn, pose, self.fps)

    def _speak(self, dyn: F32, mouth: F32, contact: F32, belief: F32) -> None:
        """Give a living face its lips, in place."""
        rules = mouth * belief
        spoken = list(SPOKEN)
        if self.config.lips == "diffusion":
            drawn = dyn[:, spoken] * belief
            dyn[:, spoken] = drawn + (rules[:, spoken] - drawn) * contact
        else:
            dyn[:, spoken] = 0.0
            np.maximum(dyn, rules, out=dyn)

    def _forget(self, seconds: float) -> None:
        drop = int(np.clip(int(seconds * FRAME_RATE) - self._first, 0, len(self._mouth)))
        self._mouth, self._voice = self._mouth[drop:], self._voice[drop:]
        self._first += drop


def warm_up() -> None:
    """Compile all kernels that turn sound into motion, where that has not been done."""
    sound = load_audio(assets_dir() / "demo.flac").samples[: _WARM_UP_SECONDS * SAMPLE_RATE]
    for life in ("diffusion", "rules"):
        speak(AudioClip(sound), fps=30.0, config=GeneratorConfig(life=life))


def _ease(x: np.ndarray) -> F32:
    x = np.clip(x, 0.0, 1.0)
    return (x * x * (3.0 - 2.0 * x)).astype(np.float32)


def _silence(count: int) -> SpeechActivity:
    visemes = np.zeros((count, len(VISEMES)), np.float32)
    visemes[:, 0] = 1.0
    return SpeechActivity(visemes, np.zeros(count, np.float32), np.full(count, -90.0, np.float32))


def _tail(activity: SpeechActivity, count: int) -> SpeechActivity:
    start = len(activity) - count
    return SpeechActivity(
        activity.visemes[start:], activity.closure[start:], activity.level[start:]
    )


def _sample(track: F32, times: np.ndarray, first: int) -> F32:
    """Rows of a track of ``FRAME_RATE`` whose row 0 is frame ``first``, linear between rows."""
    return interpolate(track, times * FRAME_RATE - first)
