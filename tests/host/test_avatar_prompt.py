"""Prompts with a picture, through the host's own tokenizers, language model and image encoder, all thin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from avatar_host import TEXT_WIDTH, WordTokenizer, thin_clip, thin_clip_vision
from host_encoders import clip_vision
from host_inprocess import engine
from likeness_pack.adapters.errors import EncoderMismatch
from likeness_pack.faces.errors import BadImage, LikenessError
from likeness_pack.inject.hunyuan_avatar_call import TEXT_MASK
from likeness_pack.inject.hunyuan_avatar_prompt import CROP, LENGTH, NEGATIVE, PREFIX, encode_prompt, picture_rows
from likeness_pack.nodes.hunyuan_avatar import LikenessEncodeAvatarPrompt
from module_folders import ModuleFolders

PROMPT = "A woman (smiling:1.2) speaks"
ROWS = 16


@pytest.fixture(scope="module", autouse=True)
def needs_hunyuan() -> None:
    if not engine().has_wrappers:
        pytest.skip("needs a newer host: this ComfyUI has no HunyuanVideo")


@pytest.fixture(scope="module")
def clip() -> Any:
    return thin_clip()


@pytest.fixture(scope="module")
def vision(module_folders: ModuleFolders) -> Any:
    return thin_clip_vision(module_folders.mktemp("vision"))


def picture(seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 96, 64, 3, generator=torch.Generator().manual_seed(seed))


def encoded(clip: Any, vision: Any, prompt: str = PROMPT, seed: int = 0) -> tuple[torch.Tensor, dict[str, Any]]:
    ((states, values),) = encode_prompt(clip, picture_rows(vision, picture(seed)), prompt)
    return states, values


def test_the_text_is_the_host_s_own_and_the_picture_stands_behind_it(clip: Any, vision: Any) -> None:
    """Up to the end of the user's part the language model sees what the host's own encoding shows it."""
    states, values = encoded(clip, vision)
    assert states.shape == (1, LENGTH + ROWS - 1, TEXT_WIDTH) and values["pooled_output"].shape == (1, 768)
    tokens = clip.tokenize(PROMPT, disable_weights=True)
    own, pooled = clip.encode_from_tokens(tokens, return_pooled=True)
    torch.testing.assert_close(states[:, : own.shape[1]], own, atol=1e-5, rtol=1e-5)
    assert torch.equal(values["pooled_output"], pooled)
    other, _ = encoded(clip, vision, seed=1)
    count = own.shape[1] + len(WordTokenizer().pieces("\nThe person looks like"))
    assert torch.equal(states[:, :count], other[:, :count])
    assert (states - other)[:, count : count + ROWS].abs().amax(-1).min() > 0


def test_padding_is_one_vector_that_no_word_sees(clip: Any, vision: Any) -> None:
    """As the official merging of text and picture leaves it."""
    states, values = encoded(clip, vision)
    mask = values[TEXT_MASK]
    valid = int(mask.sum())
    text = valid - (ROWS - 1)
    assert mask.shape == states.shape[:2]
    assert mask[0, :text].all() and not mask[0, text:LENGTH].any() and mask[0, LENGTH:].all()
    pads = states[0, valid:]
    assert len(pads) == LENGTH - text and torch.allclose(pads, pads[:1].expand_as(pads), atol=1e-6)
    assert not torch.allclose(states[0, valid - 1], pads[0], atol=1e-3)


def test_a_written_out_language_model_gives_the_same(clip: Any, vision: Any) -> None:
    """Valid rows alone, without any padding: the mask and the positions do what they should."""
    rows = picture_rows(vision, picture())
    states, values = encoded(clip, vision)
    template = clip.tokenizer.llama_template + "\nThe person looks like<image>"
    ids = [entry[0] for entry in clip.tokenize(PROMPT, llama_template=template, disable_weights=True)["llama"][0]]
    network = clip.cond_stage_model.llama.transformer
    with torch.no_grad():
        words = network.model.embed_tokens(torch.tensor([ids[:-1]]), out_dtype=torch.float32)
        out = network(
            None,
            None,
            embeds=torch.cat((words, rows[None]), dim=1),
            intermediate_output=-3,
            final_layer_norm_intermediate=False,
        )[1]
    valid = int(values[TEXT_MASK].sum())
    assert out.shape[1] == CROP + valid
    torch.testing.assert_close(states[:, :valid], out[:, CROP:], atol=1e-5, rtol=1e-5)


def test_the_picture_is_stretched_to_the_encoder_s_square(vision: Any) -> None:
    """Bilinear, without keeping its aspect; the host's own preparation leaves it alone."""
    import numpy as np
    from PIL import Image

    image = (picture() * 255).round() / 255
    pillow = Image.fromarray((image[0] * 255).byte().numpy()).resize((336, 336), Image.Resampling.BILINEAR)
    square = torch.from_numpy(np.asarray(pillow).copy()).float()[None] / 255
    with torch.no_grad():
        expected = vision.encode_image(square, crop=False)["mm_projected"][0]
    torch.testing.assert_close(picture_rows(vision, image), expected, atol=5e-2, rtol=5e-2)


def test_both_prompts_of_the_node(clip: Any, vision: Any) -> None:
    positive, negative = LikenessEncodeAvatarPrompt().encode(clip, vision, picture(), "speaks", NEGATIVE, PREFIX)
    expected, _ = encoded(clip, vision, PREFIX + "speaks")
    below, values = encoded(clip, vision, NEGATIVE)
    assert torch.equal(positive[0][0], expected) and torch.equal(negative[0][0], below)
    assert torch.equal(negative[0][1][TEXT_MASK], values[TEXT_MASK])


def test_refusals(clip: Any, vision: Any, tmp_path: Path) -> None:
    rows = picture_rows(vision, picture())
    with pytest.raises(LikenessError, match="a prompt of at most 256 tokens with its prefix"):
        encode_prompt(clip, rows, "word " * 300)
    with pytest.raises(EncoderMismatch, match=f"picture rows of width {TEXT_WIDTH}, found 8"):
        encode_prompt(clip, rows[:, :8], PROMPT)
    with pytest.raises(EncoderMismatch, match="a CLIP of HunyuanVideo, with llava_llama3 and clip_l"):
        encode_prompt(type("Clip", (), {"cond_stage_model": object(), "tokenizer": object()})(), rows, PROMPT)
    with pytest.raises(EncoderMismatch, match="image encoder of LLaVA with its projector"):
        picture_rows(clip_vision(tmp_path), picture())
    with pytest.raises(BadImage, match="one picture"):
        picture_rows(vision, picture().expand(2, -1, -1, -1))
