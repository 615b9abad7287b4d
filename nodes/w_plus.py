"""Edit, mix and look at W+ codes; official settings of the W+ adapter's stages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..inject import model_folders
from ..inject.host import progress_bar, stop_if_cancelled
from .common import IDENTITY, Schema, number, with_text

if TYPE_CHECKING:
    from ..adapters.identity import Identity


class LikenessEditWPlus:
    """Move a face along a direction."""

    DISPLAY_NAME = "Edit W+ (Direction)"
    CATEGORY = "Likeness/identity"
    DESCRIPTION = "Moves an e4e identity along an edit direction: age, smile, pose. Several of these in a row add up."
    RETURN_TYPES = (IDENTITY, "STRING")
    RETURN_NAMES = ("identity", "report")
    OUTPUT_TOOLTIPS = ("The edited identity.", "What was edited and how far.")
    FUNCTION = "edit"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        from ..adapters.families.w_plus.directions import ATTRIBUTES, ROWS
        from ..inject.direction_files import list_directions

        strength = (
            "How far; negative goes the other way, and the demo uses -4 to 2. For ffhq_pca.pt: the coordinate to "
            "reach, in standard deviations."
        )
        bounds = {"min": -1, "max": ROWS - 1}
        rows = "-1 takes the direction's own rows. 0-3: pose and shape, 4-7: features, 8-17: colour and light."
        return {
            "required": {
                "identity": (IDENTITY, {"tooltip": "From 'Encode Identity' with the e4e encoder."}),
                "direction": (
                    list_directions(),
                    {"tooltip": "A file in models/face_adapters/w_directions: .npy, .pt, or ffhq_pca.pt."},
                ),
                "attribute": (
                    [*ATTRIBUTES],
                    {"default": "smile", "tooltip": "Read for ffhq_pca.pt only: which of its attributes."},
                ),
                "strength": (
                    "FLOAT",
                    {
                        "default": 0.0,
                        "min": -20.0,
                        "max": 20.0,
                        "step": 0.1,
                        "display": "slider",
                        "tooltip": strength,
                    },
                ),
            },
            "optional": {
                "first_row": ("INT", {"default": -1, **bounds, "tooltip": f"First row to move. {rows}"}),
                "last_row": ("INT", {"default": -1, **bounds, "tooltip": f"Last row to move. {rows}"}),
            },
        }

    def edit(
        self,
        identity: Identity,
        direction: str,
        attribute: str,
        strength: float,
        first_row: int = -1,
        last_row: int = -1,
    ) -> dict[str, Any]:
        """Read the direction and move the codes."""
        from ..adapters.families.w_plus.directions import read_direction
        from ..adapters.families.w_plus.edits import edited_identity
        from ..adapters.identity_ops import identity_report
        from ..inject.direction_files import find_direction

        way = read_direction(find_direction(direction), attribute)
        own_first, own_end = way.rows
        rows = (own_first if first_row < 0 else first_row, own_end if last_row < 0 else last_row + 1)
        edited = edited_identity(identity, way, strength, rows)
        report = identity_report(edited)
        return with_text(report, edited, report)


class LikenessMixWPlus:
    """Two faces in one."""

    DISPLAY_NAME = "Mix W+"
    CATEGORY = "Likeness/identity"
    DESCRIPTION = "Takes some rows of an e4e identity from another: pose of one, features or colours of the other."
    RETURN_TYPES = (IDENTITY, "STRING")
    RETURN_NAMES = ("identity", "report")
    OUTPUT_TOOLTIPS = ("The mixed identity.", "What was mixed.")
    FUNCTION = "mix"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        from ..adapters.families.w_plus.directions import ROWS

        rows = {"min": 0, "max": ROWS - 1}
        tooltip = "0-3: pose and shape, 4-7: features, 8-17: colour and light."
        return {
            "required": {
                "identity_1": (IDENTITY, {"tooltip": "The face that is kept, of the e4e encoder."}),
                "identity_2": (IDENTITY, {"tooltip": "The face whose rows come in, of the e4e encoder."}),
                "first_row": ("INT", {"default": 0, **rows, "tooltip": f"First row from identity_2. {tooltip}"}),
                "last_row": ("INT", {"default": 7, **rows, "tooltip": f"Last row from identity_2. {tooltip}"}),
                "amount": number(0.5, 0.0, 1.0, 0.01, "0 keeps identity_1, 1 takes identity_2 in these rows."),
            }
        }

    def mix(
        self, identity_1: Identity, identity_2: Identity, first_row: int, last_row: int, amount: float
    ) -> dict[str, Any]:
        """Mix the codes."""
        from ..adapters.families.w_plus.edits import mixed_identity
        from ..adapters.identity_ops import identity_report

        mixed = mixed_identity(identity_1, identity_2, (first_row, last_row + 1), amount)
        report = identity_report(mixed)
        return with_text(report, mixed, report)


class LikenessPreviewWPlus:
    """The face a W+ code stands for."""

    DISPLAY_NAME = "Preview W+"
    CATEGORY = "Likeness/identity"
    DESCRIPTION = "Shows the face of a W+ code, drawn by the StyleGAN2 generator that the e4e file carries."
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("images",)
    OUTPUT_TOOLTIPS = ("One picture of 1024 pixels for each code.",)
    FUNCTION = "draw"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        files = "e4e_ffhq_encode.pt in models/face_encoders: the file of the e4e encoder holds the generator too."
        return {
            "required": {
                "identity": (IDENTITY, {"tooltip": "Of the e4e encoder, edited or not."}),
                "file": (model_folders.list_files(model_folders.ENCODERS), {"tooltip": files}),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, file: str) -> bool | str:  # noqa: N802 (the host's name)
        """A missing file is told with its source, size, licence and folder."""
        return model_folders.listed(model_folders.ENCODERS, file)

    def draw(self, identity: Identity, file: str) -> tuple[Tensor]:
        """Draw one code after the other, which bounds the memory."""
        from ..adapters.encoders.e4e.decoder import read_generator
        from ..adapters.families.w_plus.adapter import w_plus_codes
        from ..inject.managed import ManagedNetwork

        codes = w_plus_codes(identity, self.DISPLAY_NAME)
        with torch.inference_mode(False):
            managed = ManagedNetwork(read_generator(model_folders.find_file(model_folders.ENCODERS, file)))
        device = managed.load()
        bar = progress_bar(len(codes))
        pictures = []
        for code in codes:
            stop_if_cancelled()
            with torch.no_grad():
                (picture,) = managed.network(code[None].to(device))
            pictures.append((picture.float().cpu() / 2 + 0.5).clamp(0, 1).movedim(0, -1))
            bar.update(1)
        return (torch.stack(pictures),)


class LikenessWPlusStage:
    """Official settings for a W+ adapter file."""

    DISPLAY_NAME = "W+ Stage Settings"
    CATEGORY = "Likeness/adapter"
    DESCRIPTION = (
        "Strength and start_percent as the authors use them with each of the two W+ adapter files. Connect both to "
        "'Apply Identity', and sample with the scheduler 'normal'."
    )
    RETURN_TYPES = ("FLOAT", "FLOAT")
    RETURN_NAMES = ("strength", "start_percent")
    OUTPUT_TOOLTIPS = ("Official strength of the stage.", "When the adapter begins to act.")
    FUNCTION = "settings"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        from ..adapters.families.w_plus.edits import STAGES

        stage = "in the wild: wplus_adapter.bin, whole scenes. face: wplus_adapter_stage1.bin, aligned faces."
        delay = "Percent of the steps in which only the text acts (official: 20)."
        return {
            "required": {
                "stage": ([*STAGES], {"default": "in the wild", "tooltip": stage}),
                "steps": ("INT", {"default": 30, "min": 1, "max": 10000, "tooltip": "Steps of the sampler."}),
                "delay": number(20.0, 0.0, 100.0, 1.0, delay),
            }
        }

    def settings(self, stage: str, steps: int, delay: float) -> tuple[float, float]:
        """Look the stage up."""
        from ..adapters.families.w_plus.edits import STAGES, official_start

        return STAGES[stage][0], official_start(steps, delay)


NODES = (LikenessEditWPlus, LikenessMixWPlus, LikenessPreviewWPlus, LikenessWPlusStage)
