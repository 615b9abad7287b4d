"""Make pictures bad on purpose, so that restorers can be compared."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..inject.host import progress_bar, stop_if_cancelled
from .common import Schema, number, with_text


class LikenessDegradePictures:
    """Blur, resize, noise and JPEG, twice."""

    DISPLAY_NAME = "Degrade Pictures"
    CATEGORY = "Likeness/restore"
    DESCRIPTION = (
        "Damages pictures as the training of face restorers does (RestorerID, Real-ESRGAN): blur, resize, camera noise "
        "and JPEG in two rounds. The same seed gives the same damage; the size stays."
    )
    RETURN_TYPES = ("IMAGE", "STRING")
    RETURN_NAMES = ("images", "report")
    OUTPUT_TOOLTIPS = ("The bad pictures, in the size of the good ones.", "What was done to each picture.")
    FUNCTION = "degrade"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        seed = {"default": 0, "min": 0, "max": 2**63 - 1, "tooltip": "Decides every random number."}
        rounds = {"default": 2, "min": 0, "max": 2, "tooltip": "How often everything happens; 0 changes nothing."}
        each = "On: every picture gets its own damage. Off: all get the same, with new noise, as frames of a clip do."
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "Good pictures."}),
                "seed": ("INT", seed),
                "rounds": ("INT", rounds),
                "blur": number(1.0, 0.0, 3.0, 0.05, "Factor of the blur's width; 1 as in training, 0 for none."),
                "resize": number(1.0, 0.0, 3.0, 0.05, "Exponent of the scale; 1 as in training, 0 for none."),
                "noise": number(1.0, 0.0, 10.0, 0.05, "Factor of the camera noise; 1 as in training, 0 for none."),
                "jpeg": number(1.0, 0.0, 3.0, 0.05, "Factor of what the quality lacks to 100; 0 for no JPEG."),
                "each_picture": ("BOOLEAN", {"default": True, "tooltip": each}),
            }
        }

    def degrade(
        self,
        images: Tensor,
        seed: int,
        rounds: int,
        blur: float,
        resize: float,
        noise: float,
        jpeg: float,
        each_picture: bool,
    ) -> dict[str, Any]:
        """Draw the plans and apply them, picture by picture."""
        from ..faces.images import as_rgb
        from ..training.degradations import Strengths, apply_plan, draw_plan, plan_for_frame, plan_text
        from ..training.seeds import seed_for

        rgb = as_rgb(images)
        strengths = Strengths(blur, resize, noise, jpeg, rounds)
        bar, done, lines = progress_bar(len(rgb)), [], []
        for place, image in enumerate(rgb):
            stop_if_cancelled()
            plan = draw_plan(image.shape[0], image.shape[1], seed_for(seed, place if each_picture else 0), strengths)
            if not each_picture:
                plan = plan_for_frame(plan, place)
            done.append(apply_plan(image.movedim(-1, 0)[None], plan))
            lines.append(f"image {place}: {plan_text(plan)}")
            bar.update(1)
        report = "\n".join(lines)
        return with_text(report, torch.cat(done).movedim(1, -1).contiguous(), report)


NODES = (LikenessDegradePictures,)
