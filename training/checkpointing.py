"""State of a training run in one safetensors file: weights, optimiser, counters. Reading it runs no code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from ..adapters.checkpoint import CheckpointHeader, load_strictly, load_tensors, read_header
from ..adapters.errors import BadCheckpoint
from ..adapters.file_hash import file_sha256, tensors_start
from ..adapters.model_spec import TENSORS_HASH, architecture_of, model_spec

FORMAT = "likeness_training_v1"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file so that ``path`` always holds a whole one: the new file replaces the old at the end.

    Files that loaders read carry the hash of their tensors, by the name that model tools know, so that it can be told
    whether they were changed later; a run's own state does without.

    Raises:
        OSError: the folder cannot be written to.
    """
    part = path.with_name(f"{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(plain, part, dict(metadata))
        if path.suffix == ".safetensors":
            save_file(plain, part, {**metadata, TENSORS_HASH: file_sha256(part, tensors_start(part))})
    except SafetensorError as error:
        # A full disk, or a folder that may not be written to.
        raise OSError(f"{path} cannot be written: {error}") from error
    part.replace(path)


def write_model(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], kind: str, base: str = ""
) -> None:
    """Write a finished model: ``metadata``, and beside them what model tools ask for by names of their own.

    Args:
        path: a safetensors file; its stem becomes part of the title.
        tensors: of the file.
        metadata: what its loader reads.
        kind: what the file is, such as ``fact-adapter``.
        base: its base model, by a name of `BASE_ARCHITECTURES` or its own; "" where it has none.

    Raises:
        OSError: the folder cannot be written to.
    """
    architecture = architecture_of(base, kind) if base else kind
    write_tensors(path, tensors, {**model_spec(f"{path.stem} ({kind})", architecture), **metadata})


def save_state(
    path: Path,
    step: int,
    network: nn.Module,
    optimizer: Optimizer,
    extra: Mapping[str, Tensor],
    options: Mapping[str, Any],
) -> None:
    """Write everything that a run needs to go on after ``step`` finished steps.

    Args:
        path: the file.
        step: number of finished steps.
        network: whose parameters are trained.
        optimizer: over these parameters.
        extra: further tensors of the task.
        options: what the run was started with; plain values.
    """
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    tensors |= {f"extra.{name}": value for name, value in extra.items()}
    for number, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in values.items()}
    metadata = {"format": FORMAT, "step": str(step), "options": json.dumps(dict(options), sort_keys=True)}
    write_tensors(path, tensors, metadata)


def load_state(
    path: Path, network: nn.Module, optimizer: Optimizer, options: Mapping[str, Any]
) -> tuple[int, dict[str, Tensor]]:
    """Put the state of a run back; return its finished steps and the task's further tensors.

    Raises:
        BadCheckpoint: no training state, or one of other options.
        KeyMismatch: its tensors do not fit the network.
    """
    header = read_header(path)
    if header.metadata.get("format") != FORMAT:
        found = header.metadata.get("format", "a file without that note")
        raise _refused(header, f"a training state ({FORMAT})", found, "choose the state file of the run")
    _check_options(header, options)
    load_strictly(network, load_tensors(header, "network."), what=path.name)
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in load_tensors(header, "optimizer.").items():
        number, _, slot = name.partition(".")
        slots.setdefault(int(number), {})[slot] = value
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(header.metadata["step"]), load_tensors(header, "extra.")


def _check_options(header: CheckpointHeader, options: Mapping[str, Any]) -> None:
    saved = json.loads(header.metadata.get("options", "{}"))
    wanted = json.loads(json.dumps(dict(options)))
    other = [name for name in sorted(saved.keys() | wanted.keys()) if saved.get(name) != wanted.get(name)]
    if other:
        raise _refused(
            header,
            ", ".join(f"{name} {saved.get(name)}" for name in other),
            ", ".join(f"{name} {wanted.get(name)}" for name in other),
            "go on with the options it was started with, or start again under another name",
        )


def _refused(header: CheckpointHeader, expected: str, found: str, cure: str) -> BadCheckpoint:
    return BadCheckpoint(header.path.name, expected=expected, found=found, cure=cure)
