"""Webcam: one motion for each picture, rest before a face comes, a turned head is a turned head."""

import cv2
import numpy as np
import pytest
import skimage.data

from vasa3d.errors import InputError
from vasa3d.portrait.webcam import track_camera


class FakeCapture:
    """Nothing, then the astronaut drifting to the right, then nothing, then the end."""

    def __init__(self) -> None:
        face = cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2BGR)
        nothing = np.full_like(face, 90)
        moved = [
            cv2.warpAffine(face, np.float64([[1, 0, 2.0 * n], [0, 1, 0]]), (512, 512), borderMode=1)
            for n in range(10)
        ]
        self.pictures = [nothing, nothing, *moved, nothing]

    def read(self) -> tuple[bool, np.ndarray | None]:
        return (True, self.pictures.pop(0)) if self.pictures else (False, None)


def test_every_picture_gives_a_frame_that_follows_the_face() -> None:
    motions = list(track_camera(FakeCapture(), fps=30.0))
    assert [len(m) for m in motions] == [1] * 13
    assert all(m.fps == 30.0 for m in motions)
    assert np.abs(motions[1].dyn).max() == 0.0
    shift = np.array([m.pose[0, 3] for m in motions[2:12]])
    assert shift[0] == pytest.approx(0.0, abs=0.003)
    assert shift[-1] > shift[0] + 0.004
    assert np.abs(np.degrees(motions[11].pose[0, :3])).max() < 8.0
    assert motions[11].channel("mouthSmileLeft")[0] > 0.2
    np.testing.assert_array_equal(motions[12].dyn, motions[11].dyn)


def test_no_camera_is_a_clear_error() -> None:
    with pytest.raises(InputError) as caught:
        next(track_camera(97))
    assert caught.value.hint
