"""Lip-sync: load MuseTalk, keep the person with UnAvgLip, paint mouths in frames and in clips."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..inject import model_folders
from .common import (
    ADAPTER,
    AUDIO_FEATURES,
    DETECTOR,
    ENCODER,
    FACES,
    IDENTITY,
    PARSER,
    ReadsClip,
    Schema,
    number,
    with_text,
)

if TYPE_CHECKING:
    from ..adapters.audio_features import AudioFeatures
    from ..adapters.identity import Identity
    from ..faces.types import FaceBatch
    from ..inject.lip_sync import LipSyncOptions
    from ..inject.loaded import LoadedAdapter
    from ..inject.loaded_networks import LoadedDetector, LoadedEncoder
    from ..inject.loaded_parser import LoadedParser

CATEGORY = "Likeness/lip-sync"
MODEL_TOOLTIP = "From 'Load MuseTalk', with or without 'Apply Lip-Sync Identity'."
VAE_TOOLTIP = "sd-vae-ft-mse, or the VAE of an SD1.x model. Latents are its mean, so that results repeat."
PARSER_TOOLTIP = "Tells the parts of the face, for pasting. Without it the lower half of the box is pasted softly."
MISSING = {
    "default": "keep",
    "tooltip": "What happens to a frame without a face. keep: it passes unchanged and is counted. error: stop and name "
    "it. The number of frames never changes.",
}
LENGTH = {
    "default": "clip",
    "tooltip": "clip: as many frames as there are. sound: forwards and backwards through the frames until the sound "
    "ends, as the authors' program does.",
}


def paint_inputs() -> dict[str, Any]:
    """Inputs that decide how faces are cut, painted and pasted."""
    from ..inject.lip_sync import ON_MISSING, PASTES

    paste = (
        "What is pasted. auto: jaw for v1.5, raw for v1, full_face with an identity; box without a parser. neck: raw "
        "with the neck."
    )
    shift = "Pixels by which the painted half moves down; positive opens the mouth wider. v1's bbox_shift; v1.5 has 0."
    margin = "Pixels of the picture below the chin that are painted too. -1: the version's own (v1.5: 10, v1: 0)."
    cheek = "With jaw: half the width of the chin's zone, in a face 512 wide; 80 in the authors' class, 90 in use."
    batch = "Frames painted at once."
    return {
        "paste": ([*PASTES], {"default": PASTES[0], "tooltip": paste}),
        "shift": ("INT", {"default": 0, "min": -100, "max": 100, "step": 1, "tooltip": shift}),
        "margin": ("INT", {"default": -1, "min": -1, "max": 200, "step": 1, "tooltip": margin}),
        "cheek": ("INT", {"default": 90, "min": 0, "max": 256, "step": 1, "tooltip": cheek}),
        "batch": ("INT", {"default": 8, "min": 1, "max": 256, "step": 1, "tooltip": batch}),
        "on_missing_face": ([*ON_MISSING], dict(MISSING)),
    }


class LikenessLoadMuseTalk:
    """Load MuseTalk's UNet."""

    DISPLAY_NAME = "Load MuseTalk"
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Loads MuseTalk's UNet (v1 or v1.5) as a model of ComfyUI's own kind: LoRAs, precision and memory settings "
        "work on it. It needs no sampler; connect it to 'Lip Sync'."
    )
    RETURN_TYPES = ("MODEL", "STRING")
    RETURN_NAMES = ("model", "report")
    OUTPUT_TOOLTIPS = ("The model, for the lip-sync nodes.", "What was recognised, and under which licence.")
    FUNCTION = "load"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        file = "unet.pth (v1.5) or pytorch_model.bin (v1) of TMElyralab/MuseTalk, in models/diffusion_models."
        version = "Both versions have the same tensors: choose by the publisher's folder, musetalk (v1) or musetalkV15."
        return {
            "required": {
                "file": (model_folders.list_files(model_folders.DIFFUSION), {"tooltip": file}),
                "version": (["auto", "v15", "v1"], {"default": "auto", "tooltip": version}),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, file: str) -> bool | str:  # noqa: N802 (the host's name)
        """A missing file is told with its source, size, licence and folder."""
        return model_folders.listed(model_folders.DIFFUSION, file)

    def load(self, file: str, version: str) -> dict[str, Any]:
        """Recognise the file and build the host's model."""
        from ..inject.musetalk import read_musetalk

        model, report = read_musetalk(model_folders.find_file(model_folders.DIFFUSION, file), version)
        return with_text(report, model, report)


class LikenessApplyLipIdentity:
    """Keep a person's look in lip-sync."""

    DISPLAY_NAME = "Apply Lip-Sync Identity"
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "UnAvgLip: face tokens of the person and a LoRA on a MuseTalk model, so that the painted mouth stays theirs. "
        "Its authors published no weights: it takes files trained with their code."
    )
    RETURN_TYPES = ("MODEL",)
    RETURN_NAMES = ("model",)
    OUTPUT_TOOLTIPS = ("The patched model, for the lip-sync nodes.",)
    FUNCTION = "apply"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        strength = "Of the face tokens (official: 0.5 in use, 0.25 in the evaluation). At 0 the LoRA still acts."
        lora = "Of the LoRA inside the file (official: 1). With both strengths 0 the model is MuseTalk's own."
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "From 'Load MuseTalk'; UnAvgLip was made for v1."}),
                "adapter": (ADAPTER, {"tooltip": "A UnAvgLip file, from 'Load Face Adapter'."}),
                "identity": (IDENTITY, {"tooltip": "The person, by arcface_buffalo_l; officially four photos."}),
                "strength": number(0.5, 0.0, 2.0, 0.01, strength),
                "lora_strength": number(1.0, 0.0, 2.0, 0.01, lora),
            }
        }

    def apply(
        self, model: Any, adapter: LoadedAdapter, identity: Identity, strength: float, lora_strength: float
    ) -> tuple[Any]:
        """Patch a clone."""
        from ..inject.unavglip import LipIdentityOptions, apply_lip_identity

        return (apply_lip_identity(model, adapter, identity, LipIdentityOptions(strength, lora_strength)),)


class LikenessLipSync:
    """Paint mouths after a voice, in frames."""

    DISPLAY_NAME = "Lip Sync"
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Paints the mouth of one face in each frame after a voice, with MuseTalk in a single step. Frame n hears "
        "window n of the audio features: make these at the frames' own rate."
    )
    RETURN_TYPES = ("IMAGE", "INT", "STRING")
    RETURN_NAMES = ("images", "frames", "report")
    OUTPUT_TOOLTIPS = (
        "The frames; pixels that are not pasted stay as they are.",
        "Number of frames.",
        "What was done.",
    )
    FUNCTION = "sync"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        from ..inject.lip_sync import LENGTHS

        faces = "The first face of each frame is painted: choose with 'Select Persons'. Parsed faces need no parser."
        features = "From 'Audio Features': system musetalk_v15 or musetalk_v1 as the model is, fps of the frames."
        track = "Whose voice, with several tracks."
        return {
            "required": {
                "model": ("MODEL", {"tooltip": MODEL_TOOLTIP}),
                "vae": ("VAE", {"tooltip": VAE_TOOLTIP}),
                "images": ("IMAGE", {"tooltip": "The frames in order of time."}),
                "faces": (FACES, {"tooltip": faces}),
                "audio_features": (AUDIO_FEATURES, {"tooltip": features}),
                "track": ("INT", {"default": 1, "min": 1, "max": 16, "step": 1, "tooltip": track}),
                "length": ([*LENGTHS], dict(LENGTH)),
                **paint_inputs(),
            },
            "optional": {"parser": (PARSER, {"tooltip": PARSER_TOOLTIP})},
        }

    def sync(
        self,
        model: Any,
        vae: Any,
        images: Tensor,
        faces: FaceBatch,
        audio_features: AudioFeatures,
        track: int,
        length: Any,
        parser: LoadedParser | None = None,
        **settings: Any,
    ) -> dict[str, Any]:
        """Run MuseTalk over the frames."""
        from ..adapters.families.musetalk.voice import voice_of_features
        from ..inject.lip_sync import LipSync, sync_images, sync_report
        from ..inject.progress import frame_progress

        job = LipSync(model, vae, _options(settings), parser)
        voice = voice_of_features(audio_features, job.facts.version, track - 1)
        found, count = sync_images(job, images, faces, voice, settings["on_missing_face"], length, frame_progress())
        report = sync_report(job, count, len(found), voice, job.region_of(faces))
        return with_text(report, found, len(found), report)


class LikenessLipSyncClip(ReadsClip):
    """Paint mouths after a voice, from file to file."""

    DISPLAY_NAME = "Lip Sync Clip"
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Paints the mouth of one person through a clip of any length and any frame rate, a few frames in memory at a "
        "time, and writes it with the sound. Every frame hears what is said at its own time."
    )
    RETURN_TYPES = ("VIDEO", "STRING", "INT", "STRING")
    RETURN_NAMES = ("video", "file", "frames", "report")
    OUTPUT_TOOLTIPS = (
        "The new clip, on ComfyUI versions that have the type; else its path.",
        "Its name below the output folder.",
        "Number of frames.",
        "What was done, and what could not be kept.",
    )
    FUNCTION = "sync"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        from ..inject.lip_sync import LENGTHS
        from .clips import HIDDEN, MAX_CHUNK, VIDEO_TOOLTIP, clip_input, file_inputs

        person = "Whose mouth: persons are numbered in order of their first frame, as 'Track Faces' does."
        steady = "Averages the face's place over this many frames before and after. 0: as it was found."
        chunk = "Frames in memory at a time."
        return {
            "required": {
                "clip": clip_input("A clip of the input folder; 'none' with a connected video."),
                "model": ("MODEL", {"tooltip": MODEL_TOOLTIP}),
                "vae": ("VAE", {"tooltip": VAE_TOOLTIP}),
                "detector": (DETECTOR, {"tooltip": "From 'Load Face Detector'."}),
                "encoder": (ENCODER, {"tooltip": "whisper-tiny, from 'Load Audio Encoder'."}),
                "audio": ("AUDIO", {"tooltip": "The voice; it begins with the first frame and replaces the sound."}),
                "person": ("INT", {"default": 0, "min": 0, "max": 1000, "step": 1, "tooltip": person}),
                "length": ([*LENGTHS], dict(LENGTH)),
                **paint_inputs(),
                "score": number(0.0, 0.0, 1.0, 0.01, "Least score of a face. 0 takes the detector's own."),
                "smooth": ("INT", {"default": 0, "min": 0, "max": 30, "step": 1, "tooltip": steady}),
                "chunk": ("INT", {"default": 16, "min": 1, "max": MAX_CHUNK, "step": 1, "tooltip": chunk}),
                **file_inputs("likeness/lipsync_clip"),
            },
            "optional": {
                "parser": (PARSER, {"tooltip": PARSER_TOOLTIP}),
                "video": ("VIDEO", {"tooltip": VIDEO_TOOLTIP}),
            },
            "hidden": HIDDEN,
        }

    def sync(
        self,
        clip: str,
        model: Any,
        vae: Any,
        detector: LoadedDetector,
        encoder: LoadedEncoder,
        audio: Any,
        person: int,
        parser: LoadedParser | None = None,
        video: Any = None,
        prompt: Any = None,
        extra_pnginfo: Any = None,
        **settings: Any,
    ) -> dict[str, Any]:
        """Hear, find, paint, write."""
        from ..adapters.clip_faces import FollowOptions
        from ..inject.clips import as_video, clip_file, new_file, shown
        from ..inject.lip_clip import ClipSyncOptions, sync_clip, voice_for
        from ..inject.lip_sync import LipSync, sync_report
        from ..inject.progress import frame_progress
        from ..media.audio import waveform_of
        from ..media.facts import read_facts
        from ..media.revoice import RevoicedClip
        from ..media.transform import ClipJob
        from .clips import write_options

        job = LipSync(model, vae, _options(settings), parser)
        follow = FollowOptions(settings["score"] or None, smooth=settings["smooth"])
        options = ClipSyncOptions(person, follow, settings["on_missing_face"], settings["length"])
        ending = ".mp4" if settings["format"] == "auto" else f".{settings['format']}"
        written = write_options(settings, prompt, extra_pnginfo)
        with clip_file(clip, video) as source:
            facts = read_facts(source)
            target, name = new_file(settings["filename_prefix"], ending, facts.width, facts.height)
            work = RevoicedClip(ClipJob(source, target, settings["chunk"], written), waveform_of(audio))
            voice = voice_for(job, encoder, audio, work.rate)
            done, count = sync_clip(job, work, detector, voice, options, frame_progress())
        told = sync_report(job, count, done.frames, voice, job.region(parser is not None))
        report = "\n".join([name, told, *(f"note: {note}" for note in done.notes)])
        return shown(report, name, as_video(target), name, done.frames, report)


def _options(settings: dict[str, Any]) -> LipSyncOptions:
    from ..inject.lip_sync import LipSyncOptions

    return LipSyncOptions(*(settings[name] for name in ("paste", "shift", "margin", "cheek", "batch")))


NODES = (LikenessLoadMuseTalk, LikenessApplyLipIdentity, LikenessLipSync, LikenessLipSyncClip)
