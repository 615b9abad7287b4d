"""The engine of a ComfyUI inside this process, and tiny base models with the real layer topology.

``engine()`` imports the engine once: of the checkout that COMFYUI_PATH names, else of the ``comfyui`` package. The tiny
models need no file and no detection; their statistics agree between both engines, so one expected value serves both.
"""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

Kind = Literal["SD15", "SDXL"]
Conditioning = list[list[Any]]

CONTEXT_WIDTH: dict[str, int] = {"SD15": 768, "SDXL": 2048}
POOLED_WIDTH: dict[str, int | None] = {"SD15": None, "SDXL": 1280}
ATTENTION_LAYERS: dict[str, int] = {"SD15": 16, "SDXL": 70}

_COMMON: dict[str, Any] = {
    "image_size": 32,
    "use_checkpoint": False,
    "use_spatial_transformer": True,
    "legacy": False,
    "in_channels": 4,
    "out_channels": 4,
    "use_temporal_attention": False,
}
_TOPOLOGY: dict[str, dict[str, Any]] = {
    "SD15": {
        "num_res_blocks": [2] * 4,
        "channel_mult": [1, 2, 4, 4],
        "transformer_depth": [1] * 6 + [0] * 2,
        "transformer_depth_output": [1] * 9 + [0] * 3,
        "transformer_depth_middle": 1,
        "context_dim": 768,
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
    },
    "SDXL": {
        "num_res_blocks": [2] * 3,
        "channel_mult": [1, 2, 4],
        "transformer_depth": [0, 0, 2, 2, 10, 10],
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
        "transformer_depth_middle": 10,
        "context_dim": 2048,
        "use_linear_in_transformer": True,
        "adm_in_channels": 2816,
        "num_classes": "sequential",
    },
}


class HostMissing(RuntimeError):
    """No usable ComfyUI for these tests; the message says what to install or set."""


@dataclass(frozen=True)
class Engine:
    """The imported engine: its base folder (temporary, removed at exit) and whether it is an upstream checkout."""

    base: Path
    upstream: bool

    @property
    def models(self) -> Path:
        """The models folder that this engine searches."""
        return Path(_folder_paths().models_dir)

    @property
    def has_wrappers(self) -> bool:
        """Whether the engine has ``comfy.patcher_extension`` (and with it Flux, HunyuanVideo and Wan)."""
        return importlib.util.find_spec("comfy.patcher_extension") is not None


def _folder_paths() -> Any:
    for name in ("folder_paths", "comfy.cmd.folder_paths"):
        if name in sys.modules:
            return sys.modules[name]
    return importlib.import_module("comfy.cmd.folder_paths")


@contextmanager
def _no_arguments() -> Iterator[None]:
    """Both engines read sys.argv at import; pytest's arguments are not theirs."""
    argv, sys.argv = sys.argv, sys.argv[:1]
    try:
        yield
    finally:
        sys.argv = argv


@lru_cache(maxsize=1)
def engine() -> Engine:
    """Import the engine on the CPU; the first call takes seconds, every later one returns the same value."""
    checkout = os.environ.get("COMFYUI_PATH")
    base = Path(tempfile.mkdtemp(prefix="likeness-host-"))
    atexit.register(shutil.rmtree, base, ignore_errors=True)
    for folder in ("custom_nodes", "models/checkpoints", "input", "output", "temp", "user"):
        (base / folder).mkdir(parents=True)
    with _no_arguments():
        if checkout:
            _import_upstream(Path(checkout).resolve(), base)
        else:
            _import_package(base)
    return Engine(base, upstream=bool(checkout))


def on_cpu() -> bool:
    """Whether the engine stays on the CPU: always, unless LIKENESS_DEVICE asks for the card."""
    return os.environ.get("LIKENESS_DEVICE", "cpu") != "cuda"


def _import_upstream(checkout: Path, base: Path) -> None:
    if not (checkout / "comfy" / "model_patcher.py").is_file():
        raise HostMissing(f"COMFYUI_PATH={checkout} is not a ComfyUI checkout: it has no comfy/model_patcher.py.")
    # First on the path, always: the project root may be on it too, and holds a folder named nodes.
    sys.path[:] = [str(checkout), *(entry for entry in sys.path if entry != str(checkout))]
    options = importlib.import_module("comfy.options")
    if checkout not in Path(str(options.__file__)).resolve().parents:
        raise HostMissing(f"{options.__file__} hides {checkout}: remove the comfyui package from this environment.")
    options.enable_args_parsing(False)
    args = importlib.import_module("comfy.cli_args").args
    args.cpu, args.base_directory, args.disable_api_nodes, args.fp32_text_enc = on_cpu(), str(base), True, True
    args.use_pytorch_cross_attention = True
    # utils before nodes: nodes.py puts comfy/ first on sys.path, where utils.py would hide the package of that name.
    importlib.import_module("utils.extra_config")
    for name in ("folder_paths", "comfy.model_management", "nodes", "execution"):
        importlib.import_module(name)


def _import_package(base: Path) -> None:
    if importlib.util.find_spec("comfy") is None or importlib.util.find_spec("comfy.cmd") is None:
        raise HostMissing(
            f"{sys.executable} has no ComfyUI: run tools/dev/setup_env.py and use its .venv, or set COMFYUI_PATH."
        )
    args = importlib.import_module("comfy.cli_args").args
    args.cpu, args.cwd, args.fp32_text_enc, args.disable_known_models = on_cpu(), str(base), True, True
    args.use_pytorch_cross_attention = True
    importlib.import_module("comfy.cmd.folder_paths")
    importlib.import_module("comfy.cmd.execution")
    vanilla = importlib.import_module("comfy.nodes.vanilla_node_importing")
    # What a server calls to load folder packs: it gives folder_paths, nodes and execution their top-level names.
    vanilla.mitigated_import_of_vanilla_custom_nodes()


def unet_config(
    kind: Kind, model_channels: int = 32, dtype: torch.dtype = torch.float32, **options: Any
) -> dict[str, Any]:
    """The UNet options of a tiny model: published topology, free width; ``options`` override single entries."""
    return {**_COMMON, **_TOPOLOGY[kind], "model_channels": model_channels, "dtype": dtype, **options}


def tiny_model(
    kind: Kind = "SD15",
    model_channels: int = 32,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    fill: Callable[[torch.nn.Module], object] | None = None,
    **options: Any,
) -> Any:
    """Return a ModelPatcher around a tiny UNet: SD15 10.4 M parameters and 16 attn2, SDXL 56.8 M and 70.

    Weights are seeded normals scaled by 1/sqrt(fan in), or what ``fill(diffusion_model)`` puts there.
    """
    engine()
    supported = importlib.import_module("comfy.supported_models")
    management = importlib.import_module("comfy.model_management")
    patcher = importlib.import_module("comfy.model_patcher")
    config = getattr(supported, kind)(unet_config(kind, model_channels, dtype, **options))
    if kind == "SDXL" and "num_head_channels" not in options:
        config.unet_config["num_head_channels"] = max(1, model_channels // 2)
    model = config.get_model({}, "", device=torch.device("cpu")).eval()
    if fill is None:
        fill_seeded(model.diffusion_model, seed)
    else:
        fill(model.diffusion_model)
    return patcher.ModelPatcher(model, load_device=management.get_torch_device(), offload_device=torch.device("cpu"))


def fill_seeded(module: torch.nn.Module, seed: int = 0) -> None:
    """Fill parameters in place: normals / sqrt(fan in) for matrices, one for norm weights, zero for biases."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.dim() > 1:
                values = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(values / parameter[0].numel() ** 0.5)
            else:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)


def conditioning(kind: Kind = "SD15", batch: int = 1, seed: int = 1, tokens: int = 77, **extra: Any) -> Conditioning:
    """Host conditioning of seeded noise: (batch, tokens, 768 or 2048), with the pooled vector SDXL needs."""
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(batch, tokens, CONTEXT_WIDTH[kind], generator=generator)
    pooled = POOLED_WIDTH[kind]
    values = dict(extra)
    if pooled is not None:
        values["pooled_output"] = torch.randn(batch, pooled, generator=generator)
    return [[context, values]]


def model_kind(model: Any) -> Kind:
    """Which topology a patcher of ``tiny_model`` has."""
    return "SDXL" if model.model.model_config.unet_config["context_dim"] == CONTEXT_WIDTH["SDXL"] else "SD15"


def sample(
    model: Any,
    positive: Conditioning | None = None,
    negative: Conditioning | None = None,
    *,
    steps: int = 2,
    cfg: float = 4.0,
    size: int | tuple[int, int] = 8,
    batch: int = 1,
    seed: int = 3,
    sampler: str = "euler",
    scheduler: str = "normal",
    latent: Tensor | None = None,
    denoise: float = 1.0,
    callback: Callable[..., None] | None = None,
    noise_mask: Tensor | None = None,
) -> Tensor:
    """Sample as the KSampler node does; returns the latent (batch, 4, H, W) of an all-zero or given latent."""
    engine()
    comfy_sample = importlib.import_module("comfy.sample")
    kind = model_kind(model)
    height, width = (size, size) if isinstance(size, int) else size
    latent = torch.zeros(batch, 4, height, width) if latent is None else latent
    with torch.inference_mode():
        return comfy_sample.sample(
            model,
            comfy_sample.prepare_noise(latent, seed),
            steps,
            cfg,
            sampler,
            scheduler,
            conditioning(kind, seed=1) if positive is None else positive,
            conditioning(kind, seed=2) if negative is None else negative,
            latent,
            denoise=denoise,
            disable_pbar=True,
            seed=seed,
            callback=callback,
            noise_mask=noise_mask,
        )


def attention_blocks(kind: Kind) -> Sequence[tuple[str, int, int]]:
    """(block name, block number, depth index) of every cross attention in call order, as the host names them."""
    if kind == "SD15":
        inputs, outputs, depth = {1: 1, 2: 1, 4: 1, 5: 1, 7: 1, 8: 1}, dict.fromkeys(range(3, 12), 1), 1
    else:
        inputs, outputs, depth = {4: 2, 5: 2, 7: 10, 8: 10}, {0: 10, 1: 10, 2: 10, 3: 2, 4: 2, 5: 2}, 10
    stages = [("input", inputs), ("middle", {0: depth}), ("output", outputs)]
    return [(name, number, i) for name, blocks in stages for number, count in blocks.items() for i in range(count)]
