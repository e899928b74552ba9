"""Speech features of a large pretrained network in place of the encoder's: Wav2Vec2 (as VASA-1), HuBERT and kin.

``transformers`` (the extra ``pretrained``) opens the network from a folder. It hears a whole recording at 50 frames a
second; the mean of two is what the motion generator hears at one of its frames, each feature normalised over the
recording. A generator has to be trained on these features (``vasa3d train motion --voice-model``) and cannot stream.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vasa3d.errors import InputError, MissingError
from vasa3d.types import DEFAULT_FPS, F32, SAMPLE_RATE

_LEAST_SAMPLES = 1600


class PretrainedVoice:
    """A pretrained network as an ear.

    Args:
        folder: What ``save_pretrained`` of ``transformers`` wrote: ``config.json`` and ``model.safetensors``.

    Attributes:
        folder: As given.
        size: Features at each frame.

    Raises:
        MissingError: ``transformers`` is not installed.
        InputError: The folder holds no network that hears sound.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from transformers import AutoModel  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise MissingError(
                "transformers is not installed.", hint='pip install "vasa3d[pretrained]"'
            ) from error
        try:
            # Weights in any other form are pickles, which can run code.
            self._model: Any = AutoModel.from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True
            )
        except (OSError, ValueError) as error:
            raise InputError(
                f"{folder} holds no pretrained network.",
                hint="give the folder of a Wav2Vec2 or HuBERT model: config.json and model.safetensors",
            ) from error
        if not hasattr(self._model, "feature_extractor"):
            raise InputError(
                f"the network in {folder} does not hear sound.",
                hint="give the folder of a Wav2Vec2 or HuBERT model",
            )
        self._model.eval()
        self.folder = Path(folder)
        self.size = int(self._model.config.hidden_size)

    def hear(self, samples: F32) -> F32:
        """(T, size) features of samples (S,) at 16 kHz, T = ceil(25 S / 16000)."""
        import torch

        count = int(np.ceil(len(samples) / SAMPLE_RATE * DEFAULT_FPS - 1e-6))
        sound = np.pad(samples, (0, max(0, _LEAST_SAMPLES - len(samples))))
        sound = (sound - sound.mean()) / (sound.std() + 1e-7)
        with torch.no_grad():
            states = self._model(torch.from_numpy(sound.astype(np.float32))[None])
        hidden = states.last_hidden_state[0].numpy()
        pairs = np.pad(hidden, ((0, len(hidden) % 2), (0, 0)), mode="edge")
        voice = pairs.reshape(-1, 2, self.size).mean(axis=1)
        voice = (voice - voice.mean(axis=0)) / (voice.std(axis=0) + 1e-3)
        missing = max(0, count - len(voice))
        return np.pad(voice, ((0, missing), (0, 0)), mode="edge")[:count].astype(np.float32)
