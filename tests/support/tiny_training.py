"""Material for training tests: photographs of drawn persons, a detector that knows them, a tiny drawn faces model."""

from __future__ import annotations

from pathlib import Path

import torch
from likeness_pack.adapters.demo_weights import DRAWN_BASE, DRAWN_ENCODER, DRAWN_VAE, PROMPT_PREFIX, UNET_PREFIX
from likeness_pack.faces.types import Faces
from likeness_pack.training.checkpointing import write_tensors
from likeness_pack.training.demo.autoencoder import Autoencoder, published_tensors
from likeness_pack.training.demo.base import BaseModel
from likeness_pack.training.demo.conditioning import CONTEXT, TOKENS
from likeness_pack.training.demo.portraits import portrait_attributes
from likeness_pack.training.demo.recognition import expected_landmarks
from likeness_pack.training.drawn_faces import Attributes, draw, sample_identities
from likeness_pack.training.dreamid_names import to_original
from likeness_pack.training.recogniser.networks import save_recogniser, small_recogniser
from likeness_pack.training.seeds import generator_for
from PIL import Image
from torch import Tensor

WIDTHS = (32, 32, 32, 32)


class KnownDetector:
    """Finds one face where an average drawn portrait has it, and none in black pictures."""

    name, default_score, network = "known", 0.5, None

    def __call__(self, images: Tensor, score: float) -> list[Faces]:
        points = expected_landmarks(Attributes.neutral(1), images.shape[1])
        low, high = points.amin(dim=1), points.amax(dim=1)
        box = torch.cat([low - (high - low) * 0.6, high + (high - low) * 0.6], dim=1)
        return [Faces(box, points, torch.ones(1)) if float(one.max()) > 0 else Faces.none() for one in images]


def photographs(folder: Path, persons: int = 3, each: int = 2, size: int = 96) -> Path:
    """A folder with a sub-folder for each drawn person."""
    identities = sample_identities(persons, generator_for("photographs")).repeated(each)
    faces = draw(identities, portrait_attributes(persons * each, generator_for("portraits")), size)
    for number, picture in enumerate(faces.images):
        person = folder / f"person {number // each}"
        person.mkdir(parents=True, exist_ok=True)
        Image.fromarray((picture * 255).round().byte().numpy()).save(person / f"{number}.png")
    return folder


def tiny_drawn_weights(folder: Path) -> Path:
    """Base, autoencoder and encoder of the drawn faces model, untrained and narrow."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        base, autoencoder = BaseModel(WIDTHS), Autoencoder((8, 8, 8, 8))
    tensors = {UNET_PREFIX + name: one for name, one in to_original(base.unet.state_dict()).items()}
    tensors |= {PROMPT_PREFIX + name: one for name, one in base.prompt.state_dict().items()}
    write_tensors(folder / DRAWN_BASE, tensors, {"context": str(CONTEXT), "tokens": str(TOKENS)})
    write_tensors(folder / DRAWN_VAE, published_tensors(autoencoder), {})
    save_recogniser(small_recogniser("transformer", 2, 0), folder / DRAWN_ENCODER, {})
    return folder
