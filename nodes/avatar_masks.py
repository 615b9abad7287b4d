"""Say where each talking character is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .common import FACES, TRACKS, Schema, number, with_text

if TYPE_CHECKING:
    from ..adapters.families.hunyuan_avatar.face_mask import Overlap
    from ..faces.tracking import TrackedFaces
    from ..faces.types import FaceBatch

WHOLE = "whole picture"
HOLD = ("nearest frame", "empty")
MASK_USE = ("as it is", "box around it")


class LikenessAvatarFaceMasks:
    """One mask for each character."""

    DISPLAY_NAME = "Avatar Face Masks"
    CATEGORY = "Likeness/video"
    DESCRIPTION = (
        "Makes the masks in which each character of HunyuanVideo-Avatar hears its own audio: from the faces of the "
        "character picture, from persons followed through a clip, or from masks you draw or parse."
    )
    RETURN_TYPES = ("MASK", "MASK", "MASK", "MASK", "MASK", "STRING")
    RETURN_NAMES = ("character_1", "character_2", "character_3", "character_4", "everyone", "report")
    OUTPUT_TOOLTIPS = (
        "Of the first character, at the size of latents: one mask, or one for each latent frame.",
        "Of the second character; empty where there is none.",
        "Of the third character; empty where there is none.",
        "Of the fourth character; empty where there is none.",
        "All characters together.",
        "Where each mask comes from and how much of the picture it covers.",
    )
    FUNCTION = "make"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        from ..adapters.families.hunyuan_avatar.characters import CHARACTER_ORDERS, MOST
        from ..adapters.families.hunyuan_avatar.face_mask import AREA, OVERLAPS

        order = (
            "Which face is which character where nobody tracked them. official: the authors' choice of one, the last "
            "face larger than the first."
        )
        area = "How many times wider and higher than the face. 3 is the authors'; more for large movement."
        overlap = (
            "Places that several characters claim. nearest: the one whose face is nearest, so that no masks meet. "
            "share: each a part. keep: all of them."
        )
        missing = "One character without a face. error: stop. whole picture: as the authors' code."
        absent = "Frames in which a tracked person is not seen: the mask of the nearest frame, or none."
        size = "{} of the video in pixels. 0: that of the picture with the faces, or of the mask."
        length = "Frames of the video. 0: as many as there are frames of faces or masks."
        drawn = "Stands instead of the face of character {}: parsed or drawn, one or one for each frame."
        whole = {"default": 0, "min": 0, "max": 16384, "step": 8}
        return {
            "required": {
                "characters": ("INT", {"default": 1, "min": 1, "max": MOST, "tooltip": "How many talk."}),
                "order": ([*CHARACTER_ORDERS], {"default": "largest", "tooltip": order}),
                "area": number(AREA, 1.0, 10.0, 0.05, area),
                "overlap": ([*OVERLAPS], {"default": "nearest", "tooltip": overlap}),
                "on_missing_face": (["error", WHOLE], {"default": "error", "tooltip": missing}),
                "not_seen": ([*HOLD], {"default": HOLD[0], "tooltip": absent}),
                "mask_use": ([*MASK_USE], {"default": MASK_USE[0], "tooltip": "Drawn masks: themselves or their box."}),
                "width": ("INT", {**whole, "tooltip": size.format("Width")}),
                "height": ("INT", {**whole, "tooltip": size.format("Height")}),
                "frames": ("INT", {"default": 0, "min": 0, "max": 100000, "tooltip": length}),
            },
            "optional": {
                "faces": (FACES, {"tooltip": "Of the character picture, from 'Detect Faces'."}),
                "tracks": (TRACKS, {"tooltip": "Of a clip, from 'Track Faces': persons 0, 1, ... are the characters."}),
                **{f"mask_{n}": ("MASK", {"tooltip": drawn.format(n)}) for n in range(1, MOST + 1)},
            },
        }

    def make(
        self,
        characters: int,
        order: str,
        area: float,
        overlap: Overlap,
        on_missing_face: str,
        not_seen: str,
        mask_use: str,
        width: int,
        height: int,
        frames: int,
        faces: FaceBatch | None = None,
        tracks: TrackedFaces | None = None,
        **masks: Tensor,
    ) -> dict[str, Any]:
        """Make the masks, and empty ones for those who are not there."""
        from ..adapters.families.hunyuan_avatar.characters import MOST, CharacterOptions, character_masks, clip_of

        options = CharacterOptions(
            characters,
            order,
            area,
            overlap,
            box_of_masks=mask_use == MASK_USE[1],
            hold=not_seen == HOLD[0],
            whole_picture=on_missing_face == WHOLE,
        )
        known = faces if tracks is None else tracks
        drawn = {n: masks[f"mask_{n + 1}"] for n in range(MOST) if masks.get(f"mask_{n + 1}") is not None}
        size, length = clip_of(known, drawn, (height, width), frames)
        made = character_masks(known, drawn, size, length, options)
        nobody = [torch.zeros_like(made.masks[0])] * (MOST - characters)
        report = "\n".join(made.notes)
        return with_text(report, *made.masks, *nobody, torch.stack(made.masks).amax(0), report)


NODES = (LikenessAvatarFaceMasks,)
