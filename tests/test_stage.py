"""The clock of sessions that the server draws: sound and face of a turn stay together, whatever comes when."""

from __future__ import annotations

import numpy as np
import pytest

from vasa3d.server.protocol import Done, Start
from vasa3d.server.stage import (
    FACE_SECONDS,
    HEAD_SECONDS,
    SOUND_RATE,
    START_SECONDS,
    TICK,
    TICK_SAMPLES,
    Stage,
)
from vasa3d.types import ARKIT_INDEX, NUM_CHANNELS


def ramp(seconds: float, rate: int = SOUND_RATE) -> np.ndarray:
    """Sound whose every value tells its time in milliseconds, from 1."""
    return (np.arange(int(seconds * rate)) * 1000 // rate + 1).astype(np.int16)


def motion(first: int, count: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Motion whose first channel tells the frame, in steps of 1 / 1000."""
    dyn = np.zeros((count, NUM_CHANNELS), np.float32)
    dyn[:, 0] = (first + np.arange(count)) / 1000
    return first, dyn, np.zeros((count, 6), np.float32)


def test_face_and_sound_of_a_moment_come_together() -> None:
    stage = Stage()
    stage.begin(Start(turn=1, rate=SOUND_RATE, fps=25.0))
    stage.hear(1, ramp(2.0))
    stage.show(1, *motion(0, 50))
    assert stage.complete(Done(1, 50))
    done = None
    for tick in range(50):
        sound, face, done = stage.tick()
        assert sound[0] == tick * 40 + 1 and len(sound) == TICK_SAMPLES
        if tick * TICK >= FACE_SECONDS:
            assert face.dyn[0, 0] == pytest.approx(tick / 1000, abs=1e-6)
        assert (done is None) == (tick < 49)
    assert done == Done(1, 50)
    assert not stage.tick()[0].any()


def test_sound_waits_for_its_motion_and_goes_on_where_it_stood() -> None:
    stage = Stage()
    stage.begin(Start(turn=1, rate=SOUND_RATE, fps=25.0))
    stage.hear(1, ramp(1.0))
    assert not stage.tick()[0].any()
    stage.show(1, *motion(0, 2))
    assert START_SECONDS > 2 / 25 and not stage.tick()[0].any()
    stage.show(1, *motion(2, 8))
    heard = [stage.tick()[0] for _ in range(12)]
    assert [part[0] for part in heard] == [n * 40 + 1 for n in range(10)] + [0, 0]
    stage.show(1, *motion(10, 5))
    sound, face, _ = stage.tick()
    assert sound[0] == 401 and face.dyn[0, 0] == pytest.approx(0.010, abs=1e-6)


def test_other_rates_are_heard_at_ours() -> None:
    stage = Stage()
    stage.begin(Start(turn=1, rate=16000, fps=25.0))
    for first in range(0, 16000, 640):
        stage.hear(1, ramp(1.0, 16000)[first : first + 640])
    stage.show(1, *motion(0, 25))
    stage.complete(Done(1, 25))
    heard = []
    while (part := stage.tick())[2] is None:
        heard.append(part[0])
    total = np.concatenate(heard)
    assert abs(len(total) - SOUND_RATE) <= 2 * TICK_SAMPLES
    assert abs(total[SOUND_RATE // 2] - 501) <= 2


def test_a_cut_is_silent_at_once_and_tells_what_was_due() -> None:
    stage = Stage()
    stage.begin(Start(turn=1, rate=SOUND_RATE))
    stage.hear(1, ramp(1.0))
    stage.show(1, *motion(0, 25))
    assert stage.tick()[0].any()
    assert stage.cut() is None
    assert not stage.tick()[0].any() and stage.ahead_seconds == 0
    stage.hear(1, ramp(1.0))
    assert not stage.complete(Done(1, 25)) and stage.ahead_seconds == 0
    stage.begin(Start(turn=2, rate=SOUND_RATE))
    stage.hear(2, ramp(1.0))
    stage.complete(Done(2, 25))
    assert stage.cut() == Done(2, 25)


def test_a_microphone_is_seen_and_not_heard_and_never_falls_behind() -> None:
    stage = Stage()
    stage.begin(Start(turn=1, rate=SOUND_RATE, fps=25.0))
    stage.show(1, *motion(0, 250))
    for _ in range(200):
        stage.hear(1, ramp(0.05), silent=True)
        sound, face, _ = stage.tick()
        assert not sound.any()
    assert stage.ahead_seconds < 0.5
    assert face.dyn[0, 0] > 0.2


def test_a_face_without_a_turn_blinks_and_moves() -> None:
    stage = Stage(3)
    faces = [stage.tick()[1] for _ in range(500)]
    assert max(face.channel("eyeBlinkLeft")[0] for face in faces) > 0.5
    assert np.ptp([face.pose[0, 1] for face in faces]) > 0.005
    assert max(face.channel("jawOpen")[0] for face in faces) < 0.1


def test_a_head_comes_over_without_a_jerk_and_lips_let_go_soon() -> None:
    stage = Stage()
    speech = motion(0, 100)
    speech[1][:, ARKIT_INDEX["jawOpen"]] = 0.8
    speech[2][:, 1] = 0.15
    faces = [stage.tick()[1] for _ in range(25)]
    for turn in (1, 2):
        stage.begin(Start(turn=turn, rate=SOUND_RATE, fps=25.0))
        stage.hear(turn, ramp(2.0))
        stage.show(turn, *speech)
        # The first is cut while its head is still coming.
        faces += [stage.tick()[1] for _ in range(8 if turn == 1 else 40)]
        stage.cut()
        faces += [stage.tick()[1] for _ in range(3 if turn == 1 else 40)]
    jaw = np.array([face.channel("jawOpen")[0] for face in faces])
    yaw = np.array([face.pose[0, 1] for face in faces])
    silent = 25 + 8 + 3 + 40
    assert jaw[silent - 1] == pytest.approx(0.8)
    assert jaw[silent + round(FACE_SECONDS / TICK)] < 0.1
    assert yaw[silent - 1] == pytest.approx(0.15)
    # A minimum-jerk step is 1.875 times as fast as its mean at most; the head's own life adds little.
    fastest = 1.875 * 0.25 / HEAD_SECONDS
    assert np.abs(np.diff(yaw)).max() / TICK < fastest
