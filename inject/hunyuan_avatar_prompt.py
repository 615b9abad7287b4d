"""Prompts as HunyuanVideo-Avatar was trained with them: text, then the character's picture behind its end.

The host's own encoding drops what follows the end of the user's part, and with it the picture. Facts: ``hymm_sp/
text_encoder`` and ``sample_inference_audio.py`` of Tencent-Hunyuan/HunyuanVideo-Avatar with transformers 4.45.1, whose
way to put a picture in the place of one token its numbers depend on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from ..adapters.errors import EncoderMismatch
from ..faces.errors import BadImage, LikenessError
from .hunyuan_avatar_call import TEXT_MASK

PREFIX = "Authentic, Realistic, Natural, High-quality, Lens-Fixed, "
NEGATIVE = (
    "Aerial view, aerial view, overexposed, low quality, deformation, a poor composition, bad hands, bad teeth, "
    "bad eyes, bad limbs, distortion, blurring, Lens changes"
)
# What stands behind the template, and the token that the picture's rows take the place of.
PICTURE_TEXT, PICTURE_TOKEN = "\nThe person looks like<image>", 128257
# Tokens of the template before the prompt, and the longest prompt with the picture's words.
CROP, LENGTH = 95, 256
LAYER = -3
VISION_SIDE = 336


@dataclass(frozen=True)
class _Row:
    """One prompt before the language model.

    Attributes:
        ids: its tokens, the picture's one among them last.
        pooled: tokens for CLIP-L.
    """

    ids: list[int]
    pooled: Any


def picture_rows(clip_vision: Any, image: Tensor) -> Tensor:
    """The rows (R, C) that a picture (1, H, W, 3) puts into the text; 576 with the published image encoder.

    Raises:
        EncoderMismatch: an image encoder without LLaVA's projector.
        BadImage: no single picture.
    """
    if image.ndim != 4 or image.shape[0] != 1:
        raise BadImage(
            "character picture",
            expected="one picture (1, height, width, 3)",
            found=f"the shape {tuple(image.shape)}",
            cure="give the one picture whose latent goes into 'Apply HunyuanVideo-Avatar'",
        )
    side = int(getattr(clip_vision, "image_size", VISION_SIDE))
    # Without keeping its aspect, as the official code does; the host then finds nothing left to resize.
    small = interpolate(image[..., :3].movedim(-1, 1).float(), (side, side), mode="bilinear", antialias=True)
    rows = clip_vision.encode_image(small.clamp(0, 1).movedim(1, -1), crop=False)["mm_projected"]
    if rows is None:
        raise EncoderMismatch(
            "encode avatar prompt",
            expected="the image encoder of LLaVA with its projector (llava_llama3_vision)",
            found="one without a projector",
            cure="load llava_llama3_vision.safetensors with 'Load CLIP Vision'",
        )
    return torch.as_tensor(rows)[0]


def encode_prompt(clip: Any, rows: Tensor, prompt: str) -> list[list[Any]]:
    """Conditioning of a prompt (its prefix included) with the character's picture.

    Args:
        clip: the host's CLIP value with LLaVA-Llama-3 and CLIP-L.
        rows: (R, C) from `picture_rows`.
        prompt: the text; weights in parentheses mean nothing here.

    Returns:
        One entry: states (1, 256 + R - 1, C), the pooled vector of CLIP-L, and the official mask of positions.

    Raises:
        EncoderMismatch: another CLIP, or a picture of another width.
        LikenessError: a prompt too long for the picture to be seen.
    """
    parts = _parts(clip)
    row = _tokenised(clip, prompt)
    clip.cond_stage_model.reset_clip_options()
    clip.load_model()
    device = clip.patcher.load_device
    clip.cond_stage_model.set_clip_options({"execution_device": device})
    with torch.no_grad():
        states = _states(parts[0], row.ids, rows, device)
        pooled = parts[1].encode_token_weights(row.pooled)[1]
    text = len(row.ids) - CROP
    mask = position_mask(text, len(rows))
    return [[states.cpu(), {"pooled_output": torch.as_tensor(pooled).cpu(), TEXT_MASK: mask}]]


def position_mask(text: int, rows: int) -> Tensor:
    """The official mask (1, 256 + rows - 1): ones for ``text`` tokens, zeros up to 256, then ones for the picture.

    Its sum is that of the valid tokens; its positions are not, as the picture stands right behind the text.
    """
    mask = torch.ones(1, LENGTH + rows - 1)
    mask[:, text:LENGTH] = 0
    return mask


def _parts(clip: Any) -> tuple[Any, Any]:
    """The language model and CLIP-L of a CLIP. Raises EncoderMismatch."""
    model = clip.cond_stage_model
    found = getattr(model, "llama", None), getattr(model, "clip_l", None)
    template = getattr(clip.tokenizer, "llama_template", None)
    if None in found or template is None:
        raise EncoderMismatch(
            "encode avatar prompt",
            expected="a CLIP of HunyuanVideo, with llava_llama3 and clip_l",
            found=f"one of {type(model).__name__}",
            cure="load clip_l and llava_llama3 with 'DualCLIPLoader' and the type hunyuan_video",
        )
    return found


def _tokenised(clip: Any, prompt: str) -> _Row:
    template = clip.tokenizer.llama_template + PICTURE_TEXT
    tokens = clip.tokenize(prompt, llama_template=template, disable_weights=True)
    ids = [entry[0] for entry in tokens["llama"][0]]
    if len(ids) > CROP + LENGTH or not ids or ids[-1] != PICTURE_TOKEN:
        raise LikenessError(
            "encode avatar prompt",
            expected=f"a prompt of at most {LENGTH} tokens with its prefix and the picture's words",
            found=f"{len(ids) - CROP}",
            cure="shorten the prompt",
        )
    return _Row(ids, tokens["l"])


def _states(llama: Any, ids: Sequence[int], rows: Tensor, device: torch.device) -> Tensor:
    """States (1, 256 + R - 1, C) of the layer before the last two, without a final norm."""
    network = llama.transformer
    words = torch.tensor([list(ids[:-1])], device=device)
    embedded = network.get_input_embeddings()(words, out_dtype=torch.float32)
    if rows.shape[-1] != embedded.shape[-1]:
        raise EncoderMismatch(
            "encode avatar prompt",
            expected=f"picture rows of width {embedded.shape[-1]}",
            found=f"{rows.shape[-1]}",
            cure="load the image encoder that belongs to this language model (llava_llama3_vision)",
        )
    joined = torch.cat((embedded, rows[None].to(embedded)), dim=1)
    valid, length = joined.shape[1], CROP + LENGTH + len(rows) - 1
    # Padding is zeros at one position, sees all that is valid and not itself.
    embedded = pad(joined, (0, 0, 0, length - valid))
    mask = torch.zeros(1, length, device=device, dtype=torch.long)
    mask[:, :valid] = 1
    positions = torch.ones(1, length, device=device, dtype=torch.long)
    positions[0, :valid] = torch.arange(valid, device=device)
    out = network(
        None,
        mask,
        embeds=embedded,
        intermediate_output=LAYER,
        final_layer_norm_intermediate=False,
        dtype=torch.float32,
        position_ids=positions,
    )
    return torch.as_tensor(out[1]).float()[:, CROP:]
