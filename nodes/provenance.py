"""Provenance: save pictures with it, read it from files, check where a model file comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .common import IDENTITY, Schema, with_text

if TYPE_CHECKING:
    from ..adapters.identity import Identity

CATEGORY = "Likeness/provenance"


class LikenessSavePicture:
    """Save pictures with their provenance."""

    DISPLAY_NAME = "Save Picture with Provenance"
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Saves PNG files that say what made them: nodes, model files with their licences, and a hash of the identity. "
        "ComfyUI's own save nodes write the same, without the identity's hash."
    )
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("report",)
    OUTPUT_TOOLTIPS = ("What was written into the files.",)
    FUNCTION = "save"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        prefix = "Name below the output folder; a number is added."
        mark = (
            "Hide a mark in the picture (package invisible-watermark; 256 pixels or more). It changes pixels a little."
        )
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The pictures."}),
                "filename_prefix": ("STRING", {"default": "likeness/picture", "tooltip": prefix}),
                "invisible_mark": ("BOOLEAN", {"default": False, "tooltip": mark}),
            },
            "optional": {
                f"identity_{i}": (IDENTITY, {"tooltip": "An identity that was used; its hash is written."})
                for i in (1, 2, 3, 4)
            },
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    def save(
        self,
        images: Tensor,
        filename_prefix: str,
        invisible_mark: bool,
        prompt: Any = None,
        extra_pnginfo: Mapping[str, Any] | None = None,
        **identities: Identity,
    ) -> dict[str, Any]:
        """Write the files."""
        from ..adapters.provenance import identity_digests, manifest_text
        from ..faces.images import as_rgb
        from ..inject.clips import new_file, picture_entry
        from ..inject.file_names import writing
        from ..inject.host import stop_if_cancelled
        from ..inject.saved_files import manifest_and_texts
        from ..media.invisible_mark import mark_picture
        from ..media.texts import write_png

        digests = identity_digests([identities[name] for name in sorted(identities)])
        manifest, texts = manifest_and_texts(prompt, extra_pnginfo, digests)
        saved = []
        for picture in as_rgb(images):
            stop_if_cancelled()
            path, name = new_file(filename_prefix, ".png", picture.shape[1], picture.shape[0])
            with writing(path, is_new=True):
                write_png(path, mark_picture(picture) if invisible_mark else picture, texts)
            saved.append(picture_entry(name))
        report = manifest_text(manifest)
        return {"ui": {"images": saved, "text": [report]}, "result": (report,)}


class LikenessReadProvenance:
    """Read what made a file."""

    DISPLAY_NAME = "Read Provenance"
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Tells what made a picture or clip of the input folder, as its file says; and looks for the invisible mark."
    )
    RETURN_TYPES = ("STRING", "BOOLEAN", "STRING")
    RETURN_NAMES = ("report", "found", "json")
    OUTPUT_TOOLTIPS = ("What the file says.", "Whether it has provenance.", "The same for programs.")
    FUNCTION = "read"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        from ..inject.saved_files import list_input_files
        from ..media.texts import READABLE

        mark = "Look for the invisible mark too (package invisible-watermark)."
        return {
            "required": {
                "file": (list_input_files(READABLE), {"tooltip": "A PNG, MP4, MOV or MKV of the input folder."}),
                "invisible_mark": ("BOOLEAN", {"default": False, "tooltip": mark}),
            }
        }

    @classmethod
    def IS_CHANGED(cls, file: str = "", **_: Any) -> str:  # noqa: N802 (the host's name)
        """Read again when the file changed."""
        from ..inject.saved_files import input_stamp

        return input_stamp(file)

    def read(self, file: str, invisible_mark: bool) -> dict[str, Any]:
        """Read one file."""
        from ..adapters.provenance import BadManifest, manifest_of, manifest_text
        from ..inject.saved_files import input_file
        from ..media.invisible_mark import MarkFailed, is_marked
        from ..media.pictures import read_picture
        from ..media.texts import CLIPS, read_texts

        path = input_file(file)
        try:
            manifest = manifest_of(read_texts(path), path.name)
            report, found, values = manifest_text(manifest), True, json.dumps(manifest.as_dict())
        except BadManifest as error:
            report, found, values = str(error), False, "{}"
        if invisible_mark and path.suffix.lower() not in CLIPS:
            try:
                marked = "found" if is_marked(read_picture(path)[0]) else "not found"
            except MarkFailed as error:
                marked = f"not looked for ({error})"
            report += f"\ninvisible mark: {marked}"
        return with_text(report, report, found, values)


class LikenessCheckModelFile:
    """Check where a model file comes from and what its licence asks."""

    DISPLAY_NAME = "Check Model Licence"
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Tells from a model file, its card and nothing else: base model, licence, possible licence drift, whether the "
        "tensors fit the claim and were changed after saving, and what holds in use with encoders. No legal advice."
    )
    RETURN_TYPES = ("STRING", "BOOLEAN", "STRING")
    RETURN_NAMES = ("report", "ok", "json")
    OUTPUT_TOOLTIPS = ("One line for each check.", "False where a check warns.", "The same for programs.")
    FUNCTION = "check"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        from ..inject.lineage_files import NONE, list_lineage_files

        files = list_lineage_files()
        card = "The model card (README.md) as text. Empty: the one beside the file, if there is one."
        parts = "Licences of what it needs when it runs, one in a line: name: licence."
        return {
            "required": {
                "file": (files, {"tooltip": "A file of the adapter, encoder, LoRA or checkpoint folders."}),
                "card": ("STRING", {"default": "", "multiline": True, "tooltip": card}),
                "base_licence": (
                    "STRING",
                    {"default": "", "tooltip": "Licence ids of the base models, separated by commas; empty: unstated."},
                ),
                "runtime_parts": ("STRING", {"default": "", "multiline": True, "tooltip": parts}),
                "base_file": (
                    [NONE, *files],
                    {
                        "default": NONE,
                        "tooltip": "Compare its hash with the base file that the model names. Reads it whole.",
                    },
                ),
            }
        }

    def check(self, file: str, card: str, base_licence: str, runtime_parts: str, base_file: str) -> dict[str, Any]:
        """Run the checks."""
        from ..evaluation.lineage.checks import parts_from_text
        from ..evaluation.lineage.model_card import card_beside
        from ..evaluation.lineage.report import check_file
        from ..inject.host import stop_if_cancelled
        from ..inject.lineage_files import NONE, lineage_file
        from ..inject.lineage_files import header as header_of

        header = header_of(file)
        report = check_file(
            header,
            card if card.strip() else card_beside(header.path),
            base=None if base_file == NONE else lineage_file(base_file),
            base_licences=[one.strip() for one in base_licence.split(",") if one.strip()],
            parts=parts_from_text(runtime_parts),
            on_block=stop_if_cancelled,
        )
        return with_text(report.as_text(), report.as_text(), report.ok, report.as_json())


class LikenessSaveModelMetadata:
    """Write a copy of a model file that says what it is."""

    DISPLAY_NAME = "Save Model Metadata"
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Writes a copy of a .safetensors file, beside it, that says what it is: title, author, licence, base model. "
        "Tensors and the file itself stay as they are. Model tools and Check Model Licence read it."
    )
    RETURN_TYPES = ("STRING", "STRING")
    RETURN_NAMES = ("report", "file")
    OUTPUT_TOOLTIPS = ("What the new file says, checked.", "The new file's name.")
    FUNCTION = "save"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        from ..inject.lineage_files import NONE, list_lineage_files

        def text(tooltip: str, **more: Any) -> tuple[str, dict[str, Any]]:
            return "STRING", {"default": "", "tooltip": tooltip, **more}

        files = list_lineage_files()
        return {
            "required": {
                "file": (
                    files,
                    {"tooltip": "A .safetensors file of the adapter, encoder or LoRA folders, or a checkpoint."},
                ),
                "name": text("Name of the new file, in the folder of the first one."),
                "title": text("Name for people. Empty: as in the file, or the new file's name."),
                "author": text("Who made it. Empty: as in the file."),
                "licence": text("Licence id such as cc-by-nc-4.0. Empty: as in the file."),
                "base_licence": text("Licence ids of the base models, separated by commas, to see what got lost."),
                "merged_from": text("Models it was merged from or trained on. Empty: as in the file."),
                "description": text("What it does and what it was trained on. Empty: as in the file.", multiline=True),
                "base_file": (
                    [NONE, *files],
                    {"default": NONE, "tooltip": "The base model's file, whose hash is written. Reads it whole."},
                ),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, file: str) -> bool | str:  # noqa: N802 (the host's name)
        """A missing file is one sentence."""
        from ..inject.lineage_files import FILES
        from ..inject.model_folders import listed

        return listed(FILES, file)

    def save(
        self,
        file: str,
        name: str,
        title: str,
        author: str,
        licence: str,
        base_licence: str,
        merged_from: str,
        description: str,
        base_file: str,
    ) -> dict[str, Any]:
        """Write and check the copy."""
        from ..adapters.checkpoint import read_header
        from ..adapters.file_hash import file_sha256
        from ..adapters.model_spec import BASE_HASH
        from ..evaluation.lineage.report import check_file
        from ..evaluation.lineage.rewrite import described, hidden_change, write_with_metadata
        from ..inject.file_names import writing
        from ..inject.host import stop_if_cancelled
        from ..inject.lineage_files import NONE, header, lineage_file
        from ..inject.training_places import file_beside

        source = header(file)
        target = file_beside(source.path, name)
        entries = {"title": title, "author": author, "license": licence, "merged_from": merged_from}
        changes = described(source, target.stem, {**entries, "description": description})
        base = None if base_file == NONE else lineage_file(base_file)
        if base is not None:
            changes[BASE_HASH] = file_sha256(base, on_block=stop_if_cancelled)
        with writing(target, is_new=True):
            said = write_with_metadata(source, target, changes, stop_if_cancelled)
        licences = [one.strip() for one in base_licence.split(",") if one.strip()]
        report = check_file(read_header(target), base_licences=licences).as_text()
        report = "\n".join(filter(None, (report, hidden_change(source, said))))
        return with_text(report, report, target.name)


NODES = (LikenessSavePicture, LikenessReadProvenance, LikenessCheckModelFile, LikenessSaveModelMetadata)
