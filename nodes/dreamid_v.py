"""DreamID-V: swap the face of a clip with a Wan 2.1 model, in one node or step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..inject import model_folders
from .common import ADAPTER, FACES, Schema, number, with_text

if TYPE_CHECKING:
    from ..faces.types import FaceBatch
    from ..inject.dreamid_v_clip import SwapOptions
    from ..inject.loaded import LoadedAdapter

MASK = "Where the face is, one mask for each frame or one for all. Without it the whole frame may change."
TEXT = "The text 'chang face' (as the authors wrote it) by the text encoder of Wan 2.1; the same on both sides."
MODEL = "The MODEL of 'Load DreamID-V', with or without other patches."
FROM_LOADER = "From the same 'Load DreamID-V'."
PHOTO = "One photo of the person to show; best a crop of the face of about 512 pixels."
POSE = "Pose pictures of the same frames: 'DreamID-V Pose Pictures' or a DWPose node. Only for dreamidv.pth."
STRENGTH = "Factor of the pose (official: 1). 0 leaves the pose branch out."


def _whole(default: int, low: int, high: int, step: int, tooltip: str) -> tuple[str, dict[str, Any]]:
    return "INT", {"default": default, "min": low, "max": high, "step": step, "tooltip": tooltip}


def size_inputs() -> dict[str, Any]:
    """The size at which frames are worked on."""
    area = "The two sides give an area in pixels; the clip keeps its own proportions and is never enlarged."
    return {"width": _whole(832, 64, 4096, 16, area), "height": _whole(480, 64, 4096, 16, area)}


def step_inputs() -> dict[str, Any]:
    """Steps and shift of the authors' sampler."""
    steps = "Steps; 0 takes the authors': 12 with the pose branch, 16 for the faster file."
    return {
        "steps": _whole(0, 0, 200, 1, steps),
        "shift": number(5.0, 0.01, 100.0, 0.01, "Shift of the noise levels (official: 5)."),
    }


class LikenessLoadDreamIDV:
    """Load either published file as the host's own Wan model."""

    DISPLAY_NAME = "Load DreamID-V"
    CATEGORY = "Likeness/swap"
    DESCRIPTION = (
        "Loads dreamidv.pth or dreamidv_faster.pth, under any name, as ComfyUI's own Wan model and the pose branch "
        "beside it. Needs ComfyUI 0.3.60 or newer."
    )
    RETURN_TYPES = ("MODEL", ADAPTER, "STRING")
    RETURN_NAMES = ("model", "adapter", "report")
    OUTPUT_TOOLTIPS = ("The Wan model.", "What the file is, with its pose branch.", "Sizes and licences.")
    FUNCTION = "load"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        names = model_folders.list_files(model_folders.DIFFUSION)
        return {"required": {"file": (names, {"tooltip": "A file in models/diffusion_models or models/unet."})}}

    @classmethod
    def VALIDATE_INPUTS(cls, file: str) -> bool | str:  # noqa: N802 (the host's name)
        """A missing file is told with its source, size, licence and folder."""
        return model_folders.listed(model_folders.DIFFUSION, file)

    def load(self, file: str) -> dict[str, Any]:
        """Recognise the file and build both parts."""
        from ..inject.dreamid_v import load_file

        model, adapter = load_file(model_folders.find_file(model_folders.DIFFUSION, file))
        report = adapter.adapter.report.as_text()
        return with_text(report, model, adapter, report)


class LikenessDreamIDVPose:
    """Draw what the pose branch sees, and the mask."""

    DISPLAY_NAME = "DreamID-V Pose Pictures"
    CATEGORY = "Likeness/swap"
    DESCRIPTION = (
        "Draws the 68 points of the faces of a clip, and the mask of the largest face, as the authors' DWPose way "
        "does. Approximates it: dlib's points in place of DWPose's, and no body. Needs dlib (see the help page)."
    )
    RETURN_TYPES = ("IMAGE", "MASK", "STRING")
    RETURN_NAMES = ("pose", "mask", "report")
    OUTPUT_TOOLTIPS = ("One picture for each frame.", "The face of each frame.", "Frames with and without a face.")
    FUNCTION = "draw"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        missing = (
            "What happens to a frame without a face. error: stop and name it. keep: a black picture and an empty mask."
        )
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The frames of the clip."}),
                "faces": (FACES, {"tooltip": "The faces of these frames, one person, from 'Detect Faces'."}),
                "on_missing_face": (["error", "keep"], {"default": "error", "tooltip": missing}),
            }
        }

    def draw(self, images: Tensor, faces: FaceBatch, on_missing_face: str) -> dict[str, Any]:
        """Find the points and draw them."""
        from ..adapters.detectors.points68 import LICENCE, load_dlib_points
        from ..adapters.families.dreamid_v.body_pose import clip_pictures
        from ..faces.images import as_rgb
        from ..inject.host import progress_bar, stop_if_cancelled

        rgb = as_rgb(images)
        bar = progress_bar(len(rgb))

        def each() -> None:
            stop_if_cancelled()
            bar.update(1)

        points = load_dlib_points()(rgb, faces, each)
        pose, mask = clip_pictures(points, rgb.shape[1], rgb.shape[2], on_missing_face == "keep")
        empty = sum(not len(one) for one in points)
        report = f"{len(points)} frames, {empty} without a face; points by dlib ({LICENCE}); no body is drawn"
        return with_text(report, pose, mask, report)


class LikenessPrepareDreamIDV:
    """Bring frames, photo, mask and pose pictures to the model's size."""

    DISPLAY_NAME = "Prepare Clip for DreamID-V"
    CATEGORY = "Likeness/swap"
    DESCRIPTION = (
        "Brings the frames of one chunk, the photo, the mask and the pose pictures to the model's size, as the authors "
        "do. The last frame is repeated until the count is 4n + 1; 'Restore DreamID-V Frames' takes those off again."
    )
    RETURN_TYPES = ("IMAGE", "IMAGE", "MASK", "IMAGE", "STRING")
    RETURN_NAMES = ("frames", "photo", "mask", "pose", "report")
    OUTPUT_TOOLTIPS = (
        "The frames.",
        "The photo on white, in the clip's proportions.",
        "The mask; white where none was connected.",
        "The pose pictures; black where none were connected.",
        "Sizes and counts.",
    )
    FUNCTION = "prepare"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "Frames of the clip, 81 at most as the authors use it."}),
                "photo": ("IMAGE", {"tooltip": PHOTO}),
                **size_inputs(),
            },
            "optional": {"mask": ("MASK", {"tooltip": MASK}), "pose": ("IMAGE", {"tooltip": POSE})},
        }

    def prepare(
        self,
        images: Tensor,
        photo: Tensor,
        width: int,
        height: int,
        mask: Tensor | None = None,
        pose: Tensor | None = None,
    ) -> dict[str, Any]:
        """Resize, cut and pad."""
        from ..inject.dreamid_v_clip import checked_clip, filled, fit_of, prepared

        clip = checked_clip(images, photo, mask, pose)
        to = fit_of(clip, width * height)
        ready = prepared(clip, to)
        report = f"{len(clip.frames)} frames of {to.source[1]} x {to.source[0]} as {len(ready.frames)} of "
        report += f"{to.size[1]} x {to.size[0]}"
        return with_text(report, ready.frames, ready.photo, *filled(ready), report)


class LikenessConditionDreamIDV:
    """Put clip, mask and photo beside the text, and the pose pictures into the model."""

    DISPLAY_NAME = "Condition DreamID-V"
    CATEGORY = "Likeness/swap"
    DESCRIPTION = (
        "Encodes one chunk of a clip for any sampler of ComfyUI. In a KSampler set cfg 5, which is the authors' "
        "guidance of 4, and put 'ModelSamplingSD3' with shift 5 before it. Needs ComfyUI 0.3.60 or newer."
    )
    RETURN_TYPES = ("MODEL", "CONDITIONING", "CONDITIONING", "LATENT")
    RETURN_NAMES = ("model", "positive", "negative", "latent")
    OUTPUT_TOOLTIPS = (
        "The model, which sees the pose pictures.",
        "Text, clip, mask and photo.",
        "The same without the photo.",
        "An empty latent of the clip's size.",
    )
    FUNCTION = "condition"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        ready = "From 'Prepare Clip for DreamID-V'."
        return {
            "required": {
                "model": ("MODEL", {"tooltip": MODEL}),
                "adapter": (ADAPTER, {"tooltip": FROM_LOADER}),
                "positive": ("CONDITIONING", {"tooltip": TEXT}),
                "negative": ("CONDITIONING", {"tooltip": TEXT}),
                "vae": ("VAE", {"tooltip": "The VAE of Wan 2.1."}),
                "frames": ("IMAGE", {"tooltip": ready}),
                "photo": ("IMAGE", {"tooltip": ready}),
                "mask": ("MASK", {"tooltip": ready}),
                "pose_strength": number(1.0, 0.0, 4.0, 0.01, STRENGTH),
            },
            "optional": {"pose": ("IMAGE", {"tooltip": POSE})},
        }

    def condition(
        self,
        model: Any,
        adapter: LoadedAdapter,
        positive: Any,
        negative: Any,
        vae: Any,
        frames: Tensor,
        photo: Tensor,
        mask: Tensor,
        pose_strength: float,
        pose: Tensor | None = None,
    ) -> tuple[Any, Any, Any, dict[str, Tensor]]:
        """Patch and encode."""
        from ..inject.dreamid_v_clip import Clip, condition_clip

        clip = Clip(frames, photo, mask, pose)
        patched, *texts, latent = condition_clip(model, adapter, (positive, negative), vae, clip, pose_strength)
        return (patched, *texts, {"samples": latent})


class LikenessDreamIDVSampler:
    """The authors' sampler and noise levels, for 'SamplerCustom'."""

    DISPLAY_NAME = "DreamID-V Sampler"
    CATEGORY = "Likeness/swap"
    DESCRIPTION = (
        "The authors' UniPC for flow models and its noise levels, for 'SamplerCustom' with cfg 5. ComfyUI's own uni_pc "
        "is another method."
    )
    RETURN_TYPES = ("SAMPLER", "SIGMAS")
    RETURN_NAMES = ("sampler", "sigmas")
    OUTPUT_TOOLTIPS = ("The sampler.", "The noise levels.")
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        steps = "Steps (official: 12 with the pose branch, 16 for the faster file)."
        return {"required": {**step_inputs(), "steps": _whole(12, 2, 200, 1, steps)}}

    def make(self, steps: int, shift: float) -> tuple[Any, Tensor]:
        """Build both."""
        from ..inject.dreamid_v_sampling import official_sampler, official_sigmas

        return official_sampler(), official_sigmas(steps, shift)


class LikenessRestoreDreamIDV:
    """Bring sampled frames back to the clip's size."""

    DISPLAY_NAME = "Restore DreamID-V Frames"
    CATEGORY = "Likeness/swap"
    DESCRIPTION = (
        "Brings the decoded frames back to the clip's own size and count. Borders that were cut are those of the clip."
    )
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("images",)
    OUTPUT_TOOLTIPS = ("As many frames as the clip has, and as large.",)
    FUNCTION = "restore"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        same = "The same as in 'Prepare Clip for DreamID-V'."
        return {
            "required": {
                "frames": ("IMAGE", {"tooltip": "From 'VAE Decode'."}),
                "images": ("IMAGE", {"tooltip": same}),
                "width": _whole(832, 64, 4096, 16, same),
                "height": _whole(480, 64, 4096, 16, same),
            }
        }

    def restore(self, frames: Tensor, images: Tensor, width: int, height: int) -> tuple[Tensor]:
        """Enlarge and put the borders back."""
        from ..inject.dreamid_v_clip import restored_frames

        return (restored_frames(frames, images, width * height),)


class LikenessSwapClipDreamIDV:
    """A whole clip in one node."""

    DISPLAY_NAME = "Swap Clip (DreamID-V)"
    CATEGORY = "Likeness/swap"
    DESCRIPTION = (
        "Shows the person of the photo in a clip: prepares, samples and restores it, in chunks of 81 frames that fade "
        "into each other. As many frames come out as went in, at the same size. Needs ComfyUI 0.3.60 or newer."
    )
    RETURN_TYPES = ("IMAGE", "STRING")
    RETURN_NAMES = ("images", "report")
    OUTPUT_TOOLTIPS = ("The swapped frames; keep the clip's own frame rate.", "Sizes, chunks and steps.")
    FUNCTION = "swap"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        guidance = "The authors' scale (official: 4), which is one less than a KSampler's cfg."
        inside = (
            "Take the swap only inside the mask; outside every pixel stays. Off takes whole frames, as the authors."
        )
        chunk = "Frames sampled at once, 4n + 1 (official: 81). Fewer need less memory and flicker more."
        overlap = "Frames over which one chunk fades into the next."
        seed = (
            "INT",
            {"default": 0, "min": 0, "max": 2**64 - 1, "tooltip": "Seed of the noise, alike for all chunks."},
        )
        return {
            "required": {
                "model": ("MODEL", {"tooltip": MODEL}),
                "adapter": (ADAPTER, {"tooltip": FROM_LOADER}),
                "positive": ("CONDITIONING", {"tooltip": TEXT}),
                "negative": ("CONDITIONING", {"tooltip": TEXT}),
                "vae": ("VAE", {"tooltip": "The VAE of Wan 2.1."}),
                "images": ("IMAGE", {"tooltip": "The frames of the clip, any number."}),
                "photo": ("IMAGE", {"tooltip": PHOTO}),
                "seed": seed,
                **step_inputs(),
                "guidance": number(4.0, 0.0, 30.0, 0.05, guidance),
                **size_inputs(),
                "chunk_frames": _whole(81, 5, 241, 4, chunk),
                "overlap": _whole(8, 0, 80, 1, overlap),
                "pose_strength": number(1.0, 0.0, 4.0, 0.01, STRENGTH),
                "inside_mask": ("BOOLEAN", {"default": False, "tooltip": inside}),
            },
            "optional": {"mask": ("MASK", {"tooltip": MASK}), "pose": ("IMAGE", {"tooltip": POSE})},
        }

    def swap(
        self,
        model: Any,
        adapter: LoadedAdapter,
        positive: Any,
        negative: Any,
        vae: Any,
        images: Tensor,
        photo: Tensor,
        mask: Tensor | None = None,
        pose: Tensor | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Swap chunk by chunk."""
        from ..inject.dreamid_v_clip import checked_clip, swap_clip

        clip = checked_clip(images, photo, mask, pose)
        swapped, report = swap_clip(model, adapter, vae, positive, negative, clip, _swap_options(**options))
        return with_text(report, swapped, report)


def _swap_options(width: int, height: int, chunk_frames: int, **same: Any) -> SwapOptions:
    from ..inject.dreamid_v_clip import SwapOptions

    return SwapOptions(area=width * height, chunk=chunk_frames, **same)


NODES = (
    LikenessLoadDreamIDV,
    LikenessDreamIDVPose,
    LikenessPrepareDreamIDV,
    LikenessConditionDreamIDV,
    LikenessDreamIDVSampler,
    LikenessRestoreDreamIDV,
    LikenessSwapClipDreamIDV,
)
