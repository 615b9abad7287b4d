"""DreamID-V on the host's own Wan model: the model out of the file, and the pose pictures inside its self-attentions.

Blocks are wrapped one by one (``patches_replace["dit"]``); inside a block the host's attention override sees queries
after their rotation, and the first attention of a block is the one over the frames. What is added stands before the
output projection, so that ``o(A + gate * P)`` is the authors' formula.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..adapters import registry
from ..adapters.errors import BadCheckpoint, BaseModelMismatch, HostTooOld
from ..adapters.families.dreamid_v.adapter import DreamIDVAdapter
from ..adapters.families.dreamid_v.arch import PoseNetwork
from ..adapters.families.dreamid_v.layout import IN_CHANNELS
from ..adapters.families.dreamid_v.pictures import FRAME_STEP, MULTIPLE
from ..faces.errors import BadImage, LikenessError
from . import host
from .apply import guard_forward
from .call_state import call_state
from .dit_blocks import DOUBLE
from .loaded import LoadedAdapter
from .managed import ManagedNetwork
from .patching import block_slot, clone_model, set_block_slot
from .reference_features import compute_dtype, tensor_digest
from .shared import Shared

SLOT = "pose"
OVERRIDE = "optimized_attention_override"
# Wan's blocks hand an attention override on since this version (commit d7f40442 of September 2025).
FIRST_VERSION = "0.3.60"
TITLE = "DreamID-V"

Block = Callable[[dict[str, Any]], dict[str, Any]]


def require_wan() -> Any:
    """The host's module of Wan.

    Raises:
        HostTooOld: this ComfyUI has no Wan, or one without reference or attention override.
    """
    try:
        wan = importlib.import_module("comfy.ldm.wan.model")
        attention = importlib.import_module("comfy.ldm.modules.attention")
    except ImportError as error:
        raise _too_old("one without Wan") from error
    known = inspect.signature(wan.WanModel.__init__).parameters
    passes_on = inspect.signature(wan.WanSelfAttention.forward).parameters
    if "in_dim_ref_conv" not in known or "transformer_options" not in passes_on or not hasattr(attention, "wrap_attn"):
        raise _too_old("one whose Wan takes no reference or no attention override")
    return wan


def _too_old(found: str) -> HostTooOld:
    return HostTooOld(
        TITLE,
        expected=f"ComfyUI {FIRST_VERSION} or newer",
        found=found,
        cure="update ComfyUI, or swap with the nodes of 'Likeness/swap', which need no newer one",
    )


def load_model(adapter: DreamIDVAdapter) -> Any:
    """A MODEL of the host's own Wan with the file's weights.

    Raises:
        HostTooOld: this ComfyUI cannot run it.
        BadCheckpoint: the host does not know the file's tensors.
    """
    require_wan()
    model, differing = host.whole_unet(adapter.base_tensors())
    if differing:
        raise BadCheckpoint(
            adapter.report.title,
            expected="a Wan 2.1 model as ComfyUI has it",
            found=f"{len(differing)} tensors that do not belong to one",
            cure="use the publisher's unchanged file",
        )
    return model


def load_file(path: Path) -> tuple[Any, LoadedAdapter]:
    """MODEL and adapter of a published file.

    Raises:
        HostTooOld: this ComfyUI cannot run it; told before the file is read.
        LikenessError: another file; every error of the registry.
    """
    require_wan()
    adapter = registry.load(path, kind="adapter")
    if not isinstance(adapter, DreamIDVAdapter):
        raise _another(adapter.report.title, "use the loader made for that file")
    return load_model(adapter), LoadedAdapter(adapter)


def dreamid_v_adapter(loaded: LoadedAdapter) -> DreamIDVAdapter:
    """The adapter behind the socket. Raises LikenessError for a file of another family."""
    if isinstance(loaded.adapter, DreamIDVAdapter):
        return loaded.adapter
    raise _another(loaded.adapter.report.title, "connect both outputs of 'Load DreamID-V'")


def _another(title: str, cure: str) -> LikenessError:
    return LikenessError(
        TITLE, expected="one of its own files (dreamidv.pth, dreamidv_faster.pth)", found=title, cure=cure
    )


def check_model(model: Any, adapter: DreamIDVAdapter) -> None:
    """Raise BaseModelMismatch unless MODEL is a Wan of the adapter's sizes that takes a clip, a mask and a photo."""
    network, sizes = model.model.diffusion_model, adapter.sizes
    wan = require_wan()
    if isinstance(network, wan.WanModel):
        channels = int(network.patch_embedding.weight.shape[1])
        found = (int(network.dim), len(network.blocks), channels, network.ref_conv is not None)
        if found == (sizes.width, sizes.layers, IN_CHANNELS, True):
            return
        told = f"width {found[0]}, {found[1]} blocks, {channels} channels"
    else:
        told = f"the model {type(model.model).__name__}"
    raise BaseModelMismatch(
        TITLE,
        expected=f"its own model ({sizes.layers} blocks of width {sizes.width}, {IN_CHANNELS} channels)",
        found=told,
        cure="connect the MODEL of 'Load DreamID-V'",
    )


class PoseTokens(nn.Module):
    """Tokens (1, N, C) of a clip's pose pictures, as weights for the host's memory manager.

    Args:
        tokens: with zeros for the photo's tokens in front.
    """

    def __init__(self, tokens: Tensor) -> None:
        super().__init__()
        self.tokens = nn.Parameter(tokens, requires_grad=False)


@dataclass(frozen=True, eq=False)
class PoseTerm(Shared):
    """One clip's pose in a model.

    Attributes:
        network: the pose branch, under the host's memory manager.
        tokens: `PoseTokens`, likewise.
        strength: factor of what is added (official: 1).
    """

    network: ManagedNetwork
    tokens: ManagedNetwork
    strength: float

    def added(self, number: int, q: Tensor, turn: Tensor, attend: Callable[..., Tensor]) -> Tensor:
        """What block ``number`` adds to its attention, (B, N, C)."""
        network, tokens = self.network.network, self.tokens.network
        assert isinstance(network, PoseNetwork) and isinstance(tokens, PoseTokens)
        pose = tokens.tokens
        if pose.shape[1] != q.shape[1]:
            raise BaseModelMismatch(
                TITLE,
                expected=f"{pose.shape[1]} tokens, those of the pose pictures and of one photo",
                found=f"{q.shape[1]} tokens in the model",
                cure="sample the latent of the same 'Condition DreamID-V', without a node that cuts it into windows",
            )
        return network.layer(number)(q, pose.to(q.device, q.dtype), turn, attend)


@dataclass(frozen=True, eq=False)
class PoseBlock(Shared):
    """The patch around one block.

    Attributes:
        number: of the block.
        term: the clip's pose.
        previous: the patch of another pack that was found in the slot and is still called, or None.
    """

    number: int
    term: PoseTerm
    previous: Callable[..., dict[str, Any]] | None = None

    def __call__(self, args: dict[str, Any], extra: Mapping[str, Block], **kwargs: Any) -> dict[str, Any]:
        options = args.get("transformer_options") or {}
        override = _WithPose(self, args["pe"], options.get(OVERRIDE), call_state(options))
        inner = {**args, "transformer_options": {**options, OVERRIDE: override}}
        return extra["original_block"](inner) if self.previous is None else self.previous(inner, extra, **kwargs)


class _WithPose:
    """The attention override of one block in one call: only the block's first attention is over the frames."""

    def __init__(self, block: PoseBlock, turn: Tensor, previous: Callable[..., Tensor] | None, state: Any) -> None:
        self._block, self._turn, self._previous, self._state = block, turn, previous, state
        self._done = False

    def __call__(
        self, attend: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, *rest: Any, **named: Any
    ) -> Tensor:
        def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            if self._previous is not None:
                return self._previous(attend, q, k, v, *rest, **named)
            return attend(q, k, v, *rest, **named)

        out = attention(q, k, v)
        if self._done:
            return out
        self._done = True
        if self._state is not None:
            self._state.mark(SLOT, self._block.number)
        term = self._block.term
        return torch.add(out, term.added(self._block.number, q, self._turn, attention), alpha=term.strength)


def apply_pose(model: Any, loaded: LoadedAdapter, pictures: Tensor, strength: float = 1.0) -> Any:
    """Return a clone of MODEL that sees pose pictures; the MODEL that came in is left as it was.

    Args:
        model: MODEL of the same file.
        loaded: the file with the pose branch.
        pictures: (4n + 1, H, W, 3), 0..1, at the size of the frames.
        strength: factor of what is added (official: 1); 0 leaves the model as it is.

    Raises:
        HostTooOld, BaseModelMismatch: the host or the model cannot take it.
        LikenessError: the faster file, which has no pose branch.
        BadImage: another number or size of pictures.
    """
    adapter = dreamid_v_adapter(loaded)
    check_model(model, adapter)
    if adapter.pose is None:
        raise LikenessError(
            TITLE,
            expected="the file with the pose branch (dreamidv.pth)",
            found="the faster one, which takes no pose pictures",
            cure="disconnect the pose pictures, or load dreamidv.pth",
        )
    check_frames(pictures, "pose pictures")
    clone = clone_model(model)
    if strength == 0.0:
        return clone
    network, dtype = adapter.pose, compute_dtype(model)
    made_of = ("pose", tensor_digest(pictures), dtype)
    tokens = loaded.made(made_of, lambda: _tokens(loaded.managed, network, pictures, dtype), of=pictures)
    term = PoseTerm(loaded.managed, tokens, strength)
    for number in range(adapter.sizes.layers):
        key = (DOUBLE, number)
        found = block_slot(clone, key)
        previous = found.previous if isinstance(found, PoseBlock) else found
        set_block_slot(clone, key, PoseBlock(number, term, previous))
    guard_forward(clone, SLOT, adapter.sizes.layers, (term.network, term.tokens))
    return clone


def _tokens(managed: ManagedNetwork, network: PoseNetwork, pictures: Tensor, dtype: torch.dtype) -> ManagedNetwork:
    """`PoseTokens` of a clip, projected once, with zeros for the photo's tokens in front."""
    host.stop_if_cancelled()
    device = managed.load()
    with torch.inference_mode(False), torch.no_grad():
        clip = pictures.to(device, torch.float32).movedim(-1, 0)[None]
        tokens = network.project_pose(clip).to("cpu", dtype)
        photo = pictures.shape[1] // MULTIPLE * (pictures.shape[2] // MULTIPLE)
        front = tokens.new_zeros(1, photo, tokens.shape[-1])
        return ManagedNetwork(PoseTokens(torch.cat((front, tokens), dim=1)))


def check_frames(frames: Tensor, what: str, like: Tensor | None = None) -> None:
    """Raise BadImage unless frames are (4n + 1, H, W, 3) with sides of whole 16 pixels, and of the size of ``like``."""
    shape = tuple(frames.shape)
    fits = frames.ndim == 4 and shape[3] == 3 and shape[0] % FRAME_STEP == 1
    fits = fits and not (shape[1] % MULTIPLE or shape[2] % MULTIPLE)
    if fits and (like is None or like.shape == frames.shape):
        return
    expected = f"4n + 1 frames with sides of whole {MULTIPLE} pixels" if like is None else f"{tuple(like.shape)}"
    raise BadImage(
        f"{what} for {TITLE}",
        expected=expected,
        found=f"{shape}",
        cure="connect what 'Prepare Clip for DreamID-V' made",
    )
