"""AM-Adapter: the look of an exemplar picture, matched to a target by segmentation maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..adapters.errors import MissingModelFile
from ..faces.errors import LikenessError
from ..inject.host import progress_bar
from .common import ADAPTER, Schema, number, percent, with_text

if TYPE_CHECKING:
    from ..adapters.families.am_adapter.adapter import AMMatcher
    from ..adapters.families.am_adapter.attention import Mode
    from ..adapters.families.am_adapter.maps import Resize
    from ..inject.exemplar import Control
    from ..inject.loaded import LoadedAdapter

CATEGORY = "Likeness/exemplar"
RESIZE_TOOLTIP = (
    "How maps are brought to size. official: smoothly, as the authors do; borders then match nothing. labels: nearest "
    "pixels, so that no colours mix."
)
MAP_TOOLTIP = "with one colour for each class, the same colours on both maps (training: Cityscapes' colours)."
CONTROLNEXT_TOOLTIP = "Optional: the ControlNeXt file of the same training, from 'Load Face Adapter'."
LATENT_CELL = 8


def resize_input() -> tuple[list[str], dict[str, Any]]:
    """How maps are resized."""
    return ["official", "labels"], {"default": "official", "tooltip": RESIZE_TOOLTIP}


def matcher_of(adapter: LoadedAdapter | None, mode: Mode) -> AMMatcher | None:
    """The matcher that is connected; the mode ``hard`` needs none.

    Raises:
        MissingModelFile: none is.
        LikenessError: another adapter is.
    """
    from ..adapters.families.am_adapter.adapter import AMMatcher

    if adapter is None and mode == "hard":
        return None
    if adapter is None:
        raise MissingModelFile(
            "AM-Adapter",
            expected="a matcher in the layout of matcher-25000.pth (0.16 MB) in models/face_adapters",
            found="none connected, and its authors have published no weights under any licence",
            cure="train one and load it with 'Load Face Adapter', or set mode to hard, which needs none",
        )
    if not isinstance(adapter.adapter, AMMatcher):
        raise _wrong_adapter("the matcher of AM-Adapter", adapter)
    return adapter.adapter


def control_of(adapter: LoadedAdapter | None, picture: Tensor, strength: float) -> Control | None:
    """ControlNeXt with its picture (1, 3, H, W); None where none is connected or it adds nothing.

    Raises:
        LikenessError: another adapter is connected.
    """
    from ..adapters.families.am_adapter.controlnext.adapter import ControlNeXtAdapter
    from ..inject.exemplar import Control

    if adapter is None or strength == 0:
        return None
    if not isinstance(adapter.adapter, ControlNeXtAdapter):
        raise _wrong_adapter("the ControlNeXt of AM-Adapter", adapter)
    return Control(adapter.managed, picture, strength)


def _wrong_adapter(expected: str, found: LoadedAdapter) -> LikenessError:
    return LikenessError(
        "AM-Adapter",
        expected=expected,
        found=f"a file of {found.adapter.report.title}",
        cure="connect the adapter and ControlNeXt each to its own input",
    )


class LikenessAMAdapterInvert:
    """Find the noise that leads to an exemplar picture."""

    DISPLAY_NAME = "Invert Exemplar"
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Leads an exemplar picture up to noise (DDIM inversion) and down again, once, with the official steps of "
        "AM-Adapter. Any number of pictures can then be sampled with 'Apply AM-Adapter'."
    )
    RETURN_TYPES = ("LATENT",)
    RETURN_NAMES = ("exemplar",)
    OUTPUT_TOOLTIPS = ("The exemplar at each noise level, noisiest first; decode it to look at the last one.",)
    FUNCTION = "invert"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        steps = {"default": 20, "min": 2, "max": 1000, "tooltip": "Steps up and steps down (official: 20)."}
        return {
            "required": {
                "appearance_model": ("MODEL", {"tooltip": "The SD1.5 model that sees the exemplar."}),
                "latent": ("LATENT", {"tooltip": "The exemplar, square (official: 512 x 512), from VAE Encode."}),
                "positive": ("CONDITIONING", {"tooltip": "Official: A photo of a <sks> driving scene."}),
                "negative": ("CONDITIONING", {"tooltip": "Official: the empty prompt. The way up sees it alone."}),
                "steps": ("INT", steps),
                "cfg": number(7.5, 0.0, 30.0, 0.1, "Guidance of the way down (official: 7.5)."),
            },
            "optional": {
                "exemplar_map": ("IMAGE", {"tooltip": f"For ControlNeXt: map of the exemplar, {MAP_TOOLTIP}"}),
                "controlnext": (ADAPTER, {"tooltip": CONTROLNEXT_TOOLTIP}),
                "control_strength": number(1.0, 0.0, 2.0, 0.01, "Strength of ControlNeXt (official: 1)."),
                "resize": resize_input(),
            },
        }

    def invert(
        self,
        appearance_model: Any,
        latent: dict[str, Any],
        positive: Any,
        negative: Any,
        steps: int,
        cfg: float,
        exemplar_map: Tensor | None = None,
        controlnext: LoadedAdapter | None = None,
        control_strength: float = 1.0,
        resize: Resize = "official",
    ) -> tuple[dict[str, Any]]:
        """Sample up and down."""
        from ..inject.exemplar import check_exemplar, exemplar_trajectory
        from ..inject.exemplar_maps import map_picture

        samples = latent["samples"]
        check_exemplar(samples)
        control = None
        if controlnext is not None:
            if exemplar_map is None:
                raise LikenessError(
                    "Invert Exemplar",
                    expected="the exemplar's map for ControlNeXt",
                    found="none",
                    cure="connect exemplar_map",
                )
            picture = map_picture(exemplar_map, LATENT_CELL * samples.shape[-1], resize)
            control = control_of(controlnext, picture, control_strength)
        bar = progress_bar(2 * steps)
        made = exemplar_trajectory(
            appearance_model,
            samples,
            positive,
            negative,
            steps=steps,
            cfg=cfg,
            control=control,
            progress=lambda done, total: bar.update_absolute(done, total),
        )
        return (made,)


class LikenessAMAdapterApply:
    """Patch a model so that it takes an exemplar's look."""

    DISPLAY_NAME = "Apply AM-Adapter"
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Patches a copy of the model: its self-attention also sees an exemplar picture, matched by segmentation maps, "
        "so that each region takes the look of the exemplar's region of the same class."
    )
    RETURN_TYPES = ("MODEL",)
    RETURN_NAMES = ("model",)
    OUTPUT_TOOLTIPS = ("The patched model, for any sampler; 'AM-Adapter Sampler' has the official steps.",)
    FUNCTION = "apply"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        mode = "soft: the matcher corrects the attention (official). hard: only regions of one class see each other."
        strength = "Share of the exemplar's attention (official: 1). 0 runs no pass of the exemplar."
        begin, end = "When the exemplar begins to act.", "When it stops acting."
        mask = "Where in the picture it acts. One mask, or one per picture of the batch."
        matcher = "The matcher, from 'Load Face Adapter'. Its authors have published none: train one, or use hard."
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "The SD1.5 model that draws the picture."}),
                "appearance_model": ("MODEL", {"tooltip": "The model that sees the exemplar (official: the same)."}),
                "exemplar": ("LATENT", {"tooltip": "From 'Invert Exemplar'."}),
                "exemplar_map": ("IMAGE", {"tooltip": f"Map of the exemplar, {MAP_TOOLTIP}"}),
                "target_map": ("IMAGE", {"tooltip": f"Map of the picture to draw, {MAP_TOOLTIP}"}),
                "mode": (["soft", "hard"], {"default": "soft", "tooltip": mode}),
                "strength": number(1.0, 0.0, 1.0, 0.01, strength),
                "start_percent": percent(0.0, begin),
                "end_percent": percent(1.0, end),
            },
            "optional": {
                "adapter": (ADAPTER, {"tooltip": matcher}),
                "controlnext": (ADAPTER, {"tooltip": CONTROLNEXT_TOOLTIP}),
                "control_strength": number(1.0, 0.0, 2.0, 0.01, "Strength of ControlNeXt (official: 1)."),
                "resize": resize_input(),
                "mask": ("MASK", {"tooltip": mask}),
            },
        }

    def apply(
        self,
        model: Any,
        appearance_model: Any,
        exemplar: dict[str, Any],
        exemplar_map: Tensor,
        target_map: Tensor,
        mode: Mode,
        strength: float,
        start_percent: float,
        end_percent: float,
        adapter: LoadedAdapter | None = None,
        controlnext: LoadedAdapter | None = None,
        control_strength: float = 1.0,
        resize: Resize = "official",
        mask: Tensor | None = None,
    ) -> tuple[Any]:
        """Patch a clone."""
        from ..inject.am_adapter import MatchOptions, apply_am_adapter
        from ..inject.exemplar import read_trajectory
        from ..inject.exemplar_maps import map_picture

        matcher = matcher_of(adapter, mode)
        trajectory = read_trajectory(appearance_model, exemplar)
        side = LATENT_CELL * trajectory.latents.shape[-1]
        of_exemplar, of_target = (map_picture(image, side, resize) for image in (exemplar_map, target_map))
        seen = control_of(controlnext, of_exemplar, control_strength)
        drawn = control_of(controlnext, of_target, control_strength)
        options = MatchOptions(mode, strength, start_percent, end_percent, mask, resize)
        controls = None if seen is None or drawn is None else (seen, drawn)
        maps = (of_exemplar[0], of_target[0])
        return (apply_am_adapter(model, appearance_model, matcher, trajectory, maps, options, controls),)


class LikenessAMAdapterSampler:
    """The official steps of AM-Adapter as a sampler."""

    DISPLAY_NAME = "AM-Adapter Sampler"
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "The authors' DDIM for 'SamplerCustom': evenly spaced steps that each lead 1000 / steps back, the host's ddim "
        "a little further."
    )
    RETURN_TYPES = ("SAMPLER", "SIGMAS")
    RETURN_NAMES = ("sampler", "sigmas")
    OUTPUT_TOOLTIPS = ("The sampler.", "Its noise levels; both belong together.")
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        steps = {"default": 20, "min": 2, "max": 1000, "tooltip": "Official: 20; as many as the inversion has."}
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "The model that will be sampled."}),
                "steps": ("INT", steps),
            }
        }

    def make(self, model: Any, steps: int) -> tuple[Any, Tensor]:
        """Build both."""
        from ..inject.exemplar import official_schedule

        return official_schedule(model, steps)


class LikenessRetrieveExemplar:
    """Choose the exemplar that fits a target best."""

    DISPLAY_NAME = "Retrieve Exemplar"
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Chooses one exemplar of a batch, with its map. Attention moves looks between regions of one class, so what "
        "counts is that the same classes lie in the same places: overlap of the maps. With CLIP vision and a picture "
        "whose look is wanted, likeness of the pictures counts instead."
    )
    RETURN_TYPES = ("IMAGE", "IMAGE", "INT", "STRING")
    RETURN_NAMES = ("exemplar", "exemplar_map", "index", "report")
    OUTPUT_TOOLTIPS = ("The exemplar.", "Its map.", "Its place in the batch, from 0.", "All scores.")
    FUNCTION = "retrieve"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        clip = "Optional, with 'picture': the CLIP vision model that compares pictures."
        return {
            "required": {
                "target_map": ("IMAGE", {"tooltip": f"Map of the picture to draw, {MAP_TOOLTIP}"}),
                "exemplars": ("IMAGE", {"tooltip": "The pictures to choose from, as a batch."}),
                "exemplar_maps": ("IMAGE", {"tooltip": "Their maps, in the same order."}),
            },
            "optional": {
                "clip_vision": ("CLIP_VISION", {"tooltip": clip}),
                "picture": ("IMAGE", {"tooltip": "Optional, with 'clip_vision': a picture of the wanted look."}),
            },
        }

    def retrieve(
        self,
        target_map: Tensor,
        exemplars: Tensor,
        exemplar_maps: Tensor,
        clip_vision: Any = None,
        picture: Tensor | None = None,
    ) -> dict[str, Any]:
        """Score and choose."""
        from ..faces.images import as_rgb
        from ..inject.exemplar_maps import best_of, check_pairs, map_scores, picture_scores, score_table

        target_map, exemplars = as_rgb(target_map, "target map"), as_rgb(exemplars, "exemplars")
        exemplar_maps = as_rgb(exemplar_maps, "exemplar maps")
        check_pairs(target_map, exemplars, exemplar_maps)
        if (clip_vision is None) is not (picture is None):
            raise LikenessError(
                "Retrieve Exemplar",
                expected="both clip_vision and picture, or neither",
                found="one of them",
                cure="connect both to compare pictures, or remove it to compare maps",
            )
        if clip_vision is None or picture is None:
            kind, scores = "mean overlap of classes", map_scores(target_map, exemplar_maps)
        else:
            kind, scores = "likeness of pictures (CLIP)", picture_scores(clip_vision, picture, exemplars)
        best = best_of(scores)
        report = score_table(scores, best, kind)
        return with_text(report, exemplars[best : best + 1], exemplar_maps[best : best + 1], best, report)


NODES = (LikenessAMAdapterInvert, LikenessAMAdapterApply, LikenessAMAdapterSampler, LikenessRetrieveExemplar)
