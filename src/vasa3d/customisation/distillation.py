"""Score distillation (Poole et al. 2022) with a text-to-image model that the user has: views that no frame shows.

With z the encoded drawing, eps noise, z_t = sqrt(a_t) z + sqrt(1 - a_t) eps and eps' what the model takes for the noise
under classifier-free guidance s,

    eps' = eps_0 + s (eps_text - eps_0),      d loss / d z = (1 - a_t) (eps' - eps).

The model is a folder of ``diffusers`` with a latent diffusion model (``unet``, ``vae``, ``text_encoder``); only
safetensors are read and nothing is downloaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from vasa3d.errors import InputError, MissingError

_PROMPT = "photo of the head of a person, {view}, sharp, natural skin"
_NEGATIVE = "blurry, deformed, cartoon"
_TIMES = (0.02, 0.5)
"""Times that are drawn, as parts of the model's; later ones ask for another person."""
_VIEWS = ((45.0, "from the front"), (120.0, "from the side"), (181.0, "from behind"))


class ScoreDistillation:
    """A model's pull on drawn views.

    Args:
        pipeline: A latent text-to-image pipeline of ``diffusers``.
        guidance: s.
        place: Memory that drawings lie in, as torch names it; the model goes there.
    """

    def __init__(self, pipeline: Any, guidance: float = 7.5, place: str = "cpu") -> None:
        self._vae, self._unet = pipeline.vae.eval().to(place), pipeline.unet.eval().to(place)
        for network in (self._vae, self._unet):
            network.requires_grad_(False)
        self._guidance = guidance
        scheduler = pipeline.scheduler
        self._alphas = scheduler.alphas_cumprod.float()
        self._predicts_noise = scheduler.config.prediction_type == "epsilon"
        factor = 2 ** (len(self._vae.config.block_out_channels) - 1)
        self._side = int(self._unet.config.sample_size) * factor
        with torch.no_grad():
            self._texts = {
                name: torch.cat(
                    pipeline.encode_prompt(_PROMPT.format(view=name), "cpu", 1, True, _NEGATIVE)[:2]
                ).to(place)
                for _, name in _VIEWS
            }

    @staticmethod
    def load(folder: str | Path, place: str = "cpu") -> ScoreDistillation:
        """The model in a folder.

        Args:
            folder: As ``diffusers`` saves it.
            place: As for the class.

        Raises:
            MissingError: ``diffusers`` is not installed.
            InputError: There is no such model in the folder.
        """
        path = Path(folder).expanduser()
        if not (path / "model_index.json").is_file():
            raise InputError(
                f"{path} holds no model of diffusers.",
                hint="give the folder that contains model_index.json",
            )
        try:
            from diffusers import (  # pyright: ignore[reportMissingImports]
                StableDiffusionPipeline,
            )
        except ImportError as error:
            raise MissingError(
                "score distillation needs the package diffusers.",
                hint="pip install 'vasa3d[sds]', or leave out --sds",
            ) from error
        try:
            pipeline = StableDiffusionPipeline.from_pretrained(
                path, local_files_only=True, use_safetensors=True, safety_checker=None
            )
            return ScoreDistillation(pipeline, place=place)
        except (OSError, ValueError, KeyError, AttributeError, RuntimeError, TypeError) as error:
            raise InputError(
                f"the model in {path} cannot be used.",
                hint="use a Stable Diffusion model saved by diffusers as safetensors",
            ) from error

    def __call__(
        self, picture: torch.Tensor, yaw_degrees: float, rng: np.random.Generator
    ) -> torch.Tensor:
        """Scalar whose gradient pulls a drawing towards what the model takes for likely.

        Args:
            picture: (H, W, 3) the drawing.
            yaw_degrees: Where it is seen from, 0 in front.
            rng: Of time and noise.
        """
        image = 2.0 * picture.permute(2, 0, 1)[None] - 1.0
        image = functional.interpolate(image, (self._side, self._side), mode="bilinear")
        latent = self._vae.encode(image).latent_dist.mean * self._vae.config.scaling_factor
        count = len(self._alphas)
        time = int(rng.integers(int(_TIMES[0] * count), max(int(_TIMES[1] * count), 1) + 1))
        alpha = self._alphas[min(time, count - 1)]
        noise = torch.from_numpy(rng.standard_normal(latent.shape).astype(np.float32)).to(
            latent.device
        )
        text = self._texts[next(name for most, name in _VIEWS if abs(yaw_degrees) <= most)]
        with torch.no_grad():
            noisy = alpha.sqrt() * latent + (1.0 - alpha).sqrt() * noise
            found = self._unet(
                torch.cat([noisy, noisy]), min(time, count - 1), encoder_hidden_states=text
            ).sample
            wanted, without = found.chunk(2)
            guess = without + self._guidance * (wanted - without)
            if not self._predicts_noise:
                guess = alpha.sqrt() * guess + (1.0 - alpha).sqrt() * noisy
            pull = (1.0 - alpha) * (guess - noise)
            target = latent - torch.nan_to_num(pull)
        return 0.5 * functional.mse_loss(latent, target)
