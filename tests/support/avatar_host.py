"""The other models of a HunyuanVideo-Avatar run, thin: text encoders and image encoder of the host's own classes.

The language model's vocabulary (9 MB) need not be there: words get numbers by a rule, and the template takes as many
tokens as the published vocabulary gives it.
"""

from __future__ import annotations

import importlib
import json
import re
import zlib
from pathlib import Path
from typing import Any

import torch
from host_inprocess import fill_seeded
from torch import Tensor
from torch.nn.functional import avg_pool3d, interpolate, pad

# One head of the language model; the widths of CLIP-L and of the vocabulary are the published ones.
TEXT_WIDTH = 128
POOLED = 768
_START, _PAD = 128000, 128258
_KNOWN = {
    "<|start_header_id|>": 128006,
    "<|end_header_id|>": 128007,
    "<|eot_id|>": 128009,
    "<image>": 128257,
    "user": 882,
    "\n\n": 271,
}
_PIECES = re.compile(r"<\|?\w+\|?>|\n+| ?\w+|[^\w\s]")
# What the model is asked to do, in the system part of the template.
_SYSTEM = re.compile(r"(?<=system<\|end_header_id\|>\n\n)(.+?)(?=<\|eot_id\|>)", re.DOTALL)
_SYSTEM_TOKENS = 85


class WordTokenizer:
    """Stands in the place of the language model's tokenizer: one number for each word and sign."""

    @classmethod
    def from_pretrained(cls, *given: Any, **named: Any) -> WordTokenizer:
        """No file is read."""
        return cls()

    def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
        """The ids of a text, the start's first."""
        ids = [_START]
        ids += [_KNOWN.get(piece, zlib.crc32(piece.encode("utf-8")) % 100_000) for piece in self.pieces(text)]
        return {"input_ids": ids}

    def pieces(self, text: str) -> list[str]:
        """A text in pieces; the template's system part in its published number."""
        system = _SYSTEM.search(text)
        if system is None:
            return _PIECES.findall(text)
        words, count = system[0], _SYSTEM_TOKENS
        ends = [len(words) * number // count for number in range(count + 1)]
        told = [words[start:end] for start, end in zip(ends, ends[1:], strict=False)]
        before, behind = (_PIECES.findall(part) for part in (text[: system.start()], text[system.end() :]))
        return [*before, *told, *behind]

    def get_vocab(self) -> dict[str, int]:
        """The signs alone."""
        return dict(_KNOWN)


def _clip_l_config() -> dict[str, Any]:
    return {
        "hidden_act": "quick_gelu",
        "hidden_size": POOLED,
        "intermediate_size": 16,
        "max_position_embeddings": 77,
        "num_attention_heads": 12,
        "num_hidden_layers": 2,
        "vocab_size": 49408,
        "eos_token_id": 49407,
    }


def _llama_config() -> dict[str, Any]:
    return {
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 5,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
    }


def thin_clip() -> Any:
    """The host's CLIP value of type hunyuan_video: its own tokenizers, thin networks with seeded weights."""
    hunyuan = importlib.import_module("comfy.text_encoders.hunyuan_video")
    base = importlib.import_module("comfy.sd1_clip").SDClipModel
    llama = importlib.import_module("comfy.text_encoders.llama").Llama2

    class Thin(hunyuan.HunyuanVideoClipModel):  # type: ignore[misc, name-defined]
        def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: Any = None) -> None:
            torch.nn.Module.__init__(self)
            self.clip_l = base(
                device=device, dtype=dtype, return_projected_pooled=False, textmodel_json_config=_clip_l_config()
            )
            self.llama = base(
                device=device,
                layer="hidden",
                layer_idx=-3,
                textmodel_json_config=_llama_config(),
                dtype=dtype,
                special_tokens={"start": _START, "pad": _PAD},
                layer_norm_hidden_state=False,
                model_class=llama,
                enable_attention_masks=True,
                return_attention_masks=True,
                model_options={"model_name": "llama"},
            )
            self.dtypes = {dtype}

    class Words(hunyuan.LLAMA3Tokenizer):  # type: ignore[misc, name-defined]
        def __init__(self, **options: Any) -> None:
            importlib.import_module("comfy.sd1_clip").SDTokenizer.__init__(
                self,
                "",
                pad_with_end=False,
                embedding_size=TEXT_WIDTH,
                embedding_key="llama",
                tokenizer_class=WordTokenizer,
                has_start_token=True,
                has_end_token=False,
                pad_to_max_length=False,
                max_length=99999999,
                pad_token=_PAD,
                min_length=1,
            )

    class Tokenizer(hunyuan.HunyuanVideoTokenizer):  # type: ignore[misc, name-defined]
        def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = None) -> None:
            kept, hunyuan.LLAMA3Tokenizer = hunyuan.LLAMA3Tokenizer, Words
            try:
                super().__init__(embedding_directory=embedding_directory)
            finally:
                hunyuan.LLAMA3Tokenizer = kept

    target = importlib.import_module("comfy.supported_models_base").ClipTarget(Tokenizer, Thin)
    with torch.no_grad():  # the host writes into its own parameters while it is built
        clip = importlib.import_module("comfy.sd").CLIP(target)
        fill_seeded(clip.cond_stage_model, seed=8)
        for name, parameter in clip.cond_stage_model.named_parameters():
            if "embed" in name:
                parameter.mul_(4.0)
    return clip


def thin_clip_vision(folder: Path, width: int = 32, patch: int = 84) -> Any:
    """The host's CLIP_VISION value with LLaVA's projector, (336 / patch) ** 2 rows."""
    config = {
        "hidden_act": "quick_gelu",
        "hidden_size": width,
        "image_size": 336,
        "intermediate_size": 32,
        "layer_norm_eps": 1e-05,
        "model_type": "clip_vision_model",
        "num_attention_heads": 2,
        "num_channels": 3,
        "num_hidden_layers": 2,
        "patch_size": patch,
        "projection_dim": 16,
        "projector_type": "llava3",
    }
    path = folder / "llava_vision.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    value = importlib.import_module("comfy.clip_vision").ClipVisionModel(str(path))
    kind = importlib.import_module("comfy.clip_model").LlavaProjector
    operations = importlib.import_module("comfy.ops").manual_cast
    # The host's projector is as wide as the published language model.
    value.model.multi_modal_projector = kind(width, TEXT_WIDTH, torch.float32, torch.device("cpu"), operations)
    value.model.float()
    fill_seeded(value.model, seed=4)
    return value


class VideoVae:
    """A video VAE's interface with next to no work: means of 8 x 8 pixels in 4 frames, the first frame alone."""

    def encode_tiled(self, pixels: Tensor, **options: Any) -> Tensor:
        """Frames (F, H, W, 3) to latents (1, 16, (F - 1) / 4 + 1, H / 8, W / 8)."""
        return self.encode(pixels)

    def encode(self, pixels: Tensor) -> Tensor:
        """The same."""
        frames = pixels[..., :3].movedim(-1, 0)[None] * 2 - 1
        first, rest = avg_pool3d(frames[:, :, :1], (1, 8, 8)), frames[:, :, 1:]
        parts = [first, avg_pool3d(rest, (4, 8, 8))] if rest.shape[2] else [first]
        return pad(torch.cat(parts, dim=2).repeat(1, 5, 1, 1, 1), (0, 0, 0, 0, 0, 0, 0, 1))

    def decode_tiled(self, samples: Tensor, **options: Any) -> Tensor:
        """Latents (1, 16, T, h, w) to frames (1, 4 T - 3, 8 h, 8 w, 3)."""
        times = [0, *(t for t in range(1, samples.shape[2]) for _ in range(4))]
        colours = samples[:, :3, times]
        large = interpolate(colours, scale_factor=(1.0, 8.0, 8.0))
        return ((large + 1) / 2).clamp(0, 1).movedim(1, -1)

    def temporal_compression_decode(self) -> int:
        """Frames for a latent frame."""
        return 4

    def spacial_compression_decode(self) -> int:
        """Pixels for a cell."""
        return 8
