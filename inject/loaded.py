"""An adapter under the host's care: the value of the socket LIKENESS_ADAPTER."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..adapters.adapter import (
    Adapter,
    BlockAttentionAdapter,
    CrossAttentionAdapter,
    GatedAttentionAdapter,
    TokenOptions,
)
from ..adapters.errors import MissingModelFile
from ..adapters.identity import Identity
from ..adapters.identity_ops import faces_alone
from .host import low_rank_patches
from .kept import Kept
from .layer_map import UNetLayer
from .managed import ManagedNetwork
from .memo import Memo
from .row_values import Pair, RowKeysValues
from .shared import Shared

Projection = Callable[[Tensor], list[Pair]]
Made = TypeVar("Made")
Own = TypeVar("Own", bound=Adapter)


class LoadedAdapter(Shared):
    """Holds an adapter's managed weights, and what was projected for models that are still in use.

    Attributes:
        adapter: the adapter as its family built it.
        managed: the weights that run once for each identity; all of them where none run in every step.
        managed_steps: the weights that run beside the model in every step, or None.
    """

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        # What runs once for each identity is not held, and not loaded, by models that only sample.
        network = adapter.token_network if isinstance(adapter, GatedAttentionAdapter) else adapter.network
        self.managed = ManagedNetwork(network)
        steps = _step_network(adapter)
        self.managed_steps = None if steps is None else ManagedNetwork(steps)
        self._made = Kept()
        self._patches: dict[tuple[str, ...], dict[str, Any]] = {}
        # A MODEL that is built of the file itself (a reference encoder), for as long as the adapter is in use.
        self.models: Memo[Any] = Memo(limit=1)

    def keys_values(
        self, identity: Identity, options: TokenOptions, device: torch.device, dtype: torch.dtype
    ) -> RowKeysValues:
        """Keys and values of an identity's faces in every layer, made once for as long as it, or a MODEL with them, is
        in use.
        """
        key = (identity.digest, options, device, dtype)
        return self.made(key, lambda: self._project(faces_alone(identity), options, device, dtype), of=identity)

    def made(self, key: tuple[object, ...], make: Callable[[], Made], of: object) -> Made:
        """What ``make`` gives, made once under ``key`` for as long as some MODEL holds it or ``of`` is in use: see
        `Kept.get`.
        """
        return self._made.get(key, make, of)

    def _project(
        self, identity: Identity, options: TokenOptions, device: torch.device, dtype: torch.dtype
    ) -> RowKeysValues:
        self.managed.load()
        with torch.inference_mode(False), torch.no_grad():
            tokens = self.adapter.tokens(identity, options)
            project = self._projection()
            positive = project(tokens.cond)
            negative = positive if tokens.uncond is None else project(tokens.uncond)
            placed = [[(k.to(device, dtype), v.to(device, dtype)) for k, v in pairs] for pairs in (positive, negative)]
        return RowKeysValues(*placed)

    def _projection(self) -> Projection:
        adapter = self.adapter
        if isinstance(adapter, (CrossAttentionAdapter, BlockAttentionAdapter)):
            return adapter.keys_values
        if isinstance(adapter, GatedAttentionAdapter):
            layers = list(adapter.layers.values())
            return lambda tokens: [layer.face_keys_values(tokens) for layer in layers]
        raise TypeError(f"{type(adapter).__name__} has no keys and values")

    def low_rank_patches(self, layers: Sequence[UNetLayer]) -> dict[str, Any]:
        """The adapter's own LoRA as weight patches of the host; the same objects at every call, so that they can be
        told again.
        """
        names = tuple(layer.weights for layer in layers)
        if names not in self._patches:
            self._patches[names] = low_rank_patches(self._low_rank_by_weight(names))
        return self._patches[names]

    def weight_patches(self, changes: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Any]:
        """(up, down) by weight name as weight patches of the host; the same objects for the same names."""
        names = tuple(changes)
        if names not in self._patches:
            self._patches[names] = low_rank_patches(changes)
        return self._patches[names]

    def _low_rank_by_weight(self, names: tuple[str, ...]) -> dict[str, tuple[Tensor, Tensor]]:
        if not isinstance(self.adapter, CrossAttentionAdapter):
            return {}
        ends = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}
        return {
            f"{names[index // 2]}.attn{index % 2 + 1}.{ends[end]}.weight": (change.up, change.down)
            for (index, end), change in self.adapter.low_rank().items()
        }


def trained_adapter(loaded: LoadedAdapter | None, kind: type[Own], node: str, what: str, cure: str) -> Own:
    """The adapter of a socket, for a node that takes one kind of which only users' own trained files exist.

    Args:
        loaded: what is connected.
        kind: the adapter's class.
        node: the node's name, for the message.
        what: the kind for people.
        cure: how to come by a file.

    Raises:
        MissingModelFile: nothing is connected, or another adapter.
    """
    adapter = None if loaded is None else loaded.adapter
    if isinstance(adapter, kind):
        return adapter
    raise MissingModelFile(
        node,
        expected=f"a trained {what} file in models/face_adapters, through 'Load Face Adapter'",
        found="no adapter" if adapter is None else f"a file of {adapter.report.title}",
        cure=cure,
    )


def _step_network(adapter: Adapter) -> nn.Module | None:
    if isinstance(adapter, BlockAttentionAdapter):
        return adapter.block_network
    if isinstance(adapter, GatedAttentionAdapter):
        return nn.ModuleList(adapter.layers.values())
    return adapter.step_network
