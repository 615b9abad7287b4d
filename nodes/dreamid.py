"""DreamID (image): landmark pictures, and SwapNet ready for a sampler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from .common import ADAPTER, FACES, IDENTITY, Schema, number, with_text

if TYPE_CHECKING:
    from ..adapters.identity import Identity
    from ..faces.types import FaceBatch
    from ..inject.loaded import LoadedAdapter

POINTS = ("68", "5")
MAX_STEPS = 50


class LikenessDreamIDLandmarks:
    """Draw what the pose guider sees."""

    DISPLAY_NAME = "DreamID Landmark Picture"
    CATEGORY = "Likeness/swap"
    DESCRIPTION = (
        "Draws the landmarks of cut-out faces as white discs on black, one picture for each crop, for 'Apply DreamID'."
    )
    RETURN_TYPES = ("IMAGE", "STRING")
    RETURN_NAMES = ("landmarks", "report")
    OUTPUT_TOOLTIPS = ("One picture for each crop.", "Which points they are.")
    FUNCTION = "draw"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        points = "As the file was trained; its report says it. 68: needs dlib (see the help page). 5: those of 'faces'."
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The pictures in which the faces were found."}),
                "faces": (FACES, {"tooltip": "The faces with their places, from 'Crop Faces'."}),
                "points": ([*POINTS], {"default": POINTS[0], "tooltip": points}),
            }
        }

    def draw(self, images: Tensor, faces: FaceBatch, points: str) -> dict[str, Any]:
        """Find the points and draw them."""
        from ..adapters.detectors.points68 import LICENCE, load_dlib_points
        from ..adapters.families.dreamid.landmark_picture import crop_landmarks
        from ..faces.images import as_rgb
        from ..inject.host import stop_if_cancelled

        if points == "5":
            found, told = [one.landmarks5 for one in faces.images], f"by {faces.detector}"
        else:
            found, told = load_dlib_points()(as_rgb(images), faces, stop_if_cancelled), f"by dlib ({LICENCE})"
        pictures = crop_landmarks(found, faces)
        report = (
            f"{len(pictures)} pictures of {points} points {told}; the target's own, without the source's face shape"
        )
        return with_text(report, pictures, report)


class LikenessApplyDreamID:
    """Tell SwapNet what to swap."""

    DISPLAY_NAME = "Apply DreamID"
    CATEGORY = "Likeness/swap"
    DESCRIPTION = (
        "Gives the faces of cut-out pictures the identity of a source, in one to four steps of any sampler at cfg 1. "
        "It needs a file that you train: no weights of DreamID were ever published."
    )
    RETURN_TYPES = ("MODEL", "LATENT", "SIGMAS", "STRING")
    RETURN_NAMES = ("model", "latent", "sigmas", "report")
    OUTPUT_TOOLTIPS = (
        "SwapNet, for these pictures only.",
        "The empty latent to sample, one row for each target.",
        "Noise levels for 'SamplerCustom'.",
        "What was recognised, the prompt it wants, and the steps.",
    )
    FUNCTION = "apply"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        steps = "0: those the file was trained for. 1 and 4 are the paper's."
        positive = "The file's prompt ('cinematic full head portrait'), through the text encoder of its base model."
        landmarks = "From 'DreamID Landmark Picture'; one for each target, or one for all. Without: no pose guider."
        strength = "Factor of the identity tokens; officially 1. The source's features are read whatever it is."
        return {
            "required": {
                "vae": ("VAE", {"tooltip": "The VAE of the base model, Stable Diffusion 2.x."}),
                "target": ("IMAGE", {"tooltip": "Crops whose face is replaced, from 'Crop Faces' (512, FFHQ)."}),
                "source": ("IMAGE", {"tooltip": "One crop of the face that they get, cut out in the same way."}),
                "positive": ("CONDITIONING", {"tooltip": positive}),
                "identity": (IDENTITY, {"tooltip": "The source's, of the encoder that the file names."}),
                "steps": ("INT", {"default": 0, "min": 0, "max": MAX_STEPS, "step": 1, "tooltip": steps}),
                "id_strength": number(1.0, 0.0, 3.0, 0.01, strength),
                "pose_strength": number(1.0, 0.0, 3.0, 0.01, "Factor of the landmarks; officially 1."),
            },
            "optional": {
                "adapter": (ADAPTER, {"tooltip": "A trained DreamID file, from 'Load Face Adapter'."}),
                "landmarks": ("IMAGE", {"tooltip": landmarks}),
            },
        }

    def apply(
        self,
        vae: Any,
        target: Tensor,
        source: Tensor,
        positive: Any,
        identity: Identity,
        steps: int,
        id_strength: float,
        pose_strength: float,
        adapter: LoadedAdapter | None = None,
        landmarks: Tensor | None = None,
    ) -> dict[str, Any]:
        """Encode, run FaceNet and patch."""
        from ..inject.dreamid import SwapOptions, apply_dreamid

        options = SwapOptions(steps, id_strength, pose_strength)
        swap = apply_dreamid(adapter, vae, target, source, positive, identity, landmarks, options)
        return with_text(swap.report, swap.model, {"samples": swap.samples}, swap.sigmas, swap.report)


NODES = (LikenessApplyDreamID, LikenessDreamIDLandmarks)
