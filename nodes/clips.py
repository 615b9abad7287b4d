"""Clips in files: swap faces from file to file, and clips as pictures with their sound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .common import DETECTOR, ENCODER, IDENTITY, PARSER, SWAPPER, TRACKS, ReadsClip, Schema, number

if TYPE_CHECKING:
    from pathlib import Path

    from ..adapters.clip_faces import FollowOptions
    from ..adapters.identity import Identity
    from ..adapters.swappers.clip import ClipMasks
    from ..inject.loaded_networks import LoadedDetector, LoadedEncoder
    from ..inject.loaded_parser import LoadedParser
    from ..inject.loaded_swapper import LoadedSwapper
    from ..media.facts import ClipFacts
    from ..media.write import WriteOptions

CATEGORY = "Likeness/clips"
FORMATS = ["auto", "mp4", "mov", "mkv"]
MAX_CHUNK = 256
MOST_FRAMES = 1_000_000
VIDEO_TOOLTIP = "A VIDEO instead of a file, on ComfyUI versions that have that type."
HIDDEN = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}


def clip_input(what: str, none_first: bool = False) -> tuple[list[str], dict[str, Any]]:
    """A COMBO of the clips in the input folder."""
    from ..inject.clips import NONE, list_clips

    names = list_clips()
    names = [NONE, *names[:-1]] if none_first else names
    return names, {"video_upload": True, "tooltip": what}


def file_inputs(prefix: str) -> dict[str, Any]:
    """Inputs that decide how a clip is written."""
    name = "Name below the output folder; a number is added."
    ending = "auto: .mp4 where it takes the clip's sound and subtitles, else .mov, else .mkv."
    quality = "0 loses nothing and makes large files; 18 shows next to no loss; 51 is worst. For H.264."
    return {
        "filename_prefix": ("STRING", {"default": prefix, "tooltip": name}),
        "format": (FORMATS, {"default": "auto", "tooltip": ending}),
        "quality": ("INT", {"default": 18, "min": 0, "max": 51, "step": 1, "tooltip": quality}),
    }


def follow_inputs() -> dict[str, Any]:
    """Inputs that decide which faces are found, followed and chosen."""
    from ..faces.select import ORDERS

    track = "Number faces by person through the whole clip. Off: each frame for itself."
    faces = "Persons' numbers in order of their first frame (tracked), or faces of each frame. Empty takes all."
    order = "How the faces of a frame are numbered where they are not tracked."
    limit = "With a reference: least cosine (for dlib largest distance). -1: the encoder's own."
    gap = "Frames that a person may be missing before their place counts no more, and that are filled in."
    fill = "Fills frames in which a person is lost and not found by a second look, between those before and after."
    steady = "Averages points over this many frames before and after. 0: every point exactly as it was found."
    return {
        "track": ("BOOLEAN", {"default": True, "tooltip": track}),
        "faces": ("STRING", {"default": "", "tooltip": faces}),
        "order": ([*ORDERS], {"default": ORDERS[0], "tooltip": order}),
        "limit": number(-1.0, -1.0, 2.0, 0.01, limit),
        "score": number(0.0, 0.0, 1.0, 0.01, "Least score of a face. 0 takes the detector's own."),
        "min_overlap": number(0.3, 0.0, 1.0, 0.01, "Least overlap of boxes from frame to frame."),
        "min_similarity": number(0.4, -1.0, 1.0, 0.01, "With an encoder: least cosine to be the same person."),
        "max_gap": ("INT", {"default": 10, "min": 0, "max": 1000, "step": 1, "tooltip": gap}),
        "fill": ("BOOLEAN", {"default": True, "tooltip": fill}),
        "smooth": ("INT", {"default": 0, "min": 0, "max": 30, "step": 1, "tooltip": steady}),
    }


def mask_inputs() -> dict[str, Any]:
    """Inputs that decide where a swapped face may be seen."""
    from .swap import SIDES

    sides = {side: number(0.0, 0.0, 90.0, 1.0, f"Percent of the face's crop cut off at the {side}.") for side in SIDES}
    parts = "With a parser: the parts that are swapped, as in 'Mask from Classes', such as face, -glasses."
    return {
        **sides,
        "blur": number(0.0, 0.0, 1.0, 0.01, "Fades the sides over this share of half a crop."),
        "parts": ("STRING", {"default": "face", "tooltip": parts}),
    }


class LikenessSwapClip(ReadsClip):
    """Swap faces through a clip, from file to file."""

    DISPLAY_NAME = "Swap Faces in Clip"
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Swaps faces in a clip of any length, a few frames in memory at a time. Number of frames, time stamps, "
        "rotation, sound and subtitles stay as they are."
    )
    RETURN_TYPES = ("VIDEO", "STRING", TRACKS, "INT", "STRING")
    RETURN_NAMES = ("video", "file", "tracks", "frames", "report")
    OUTPUT_TOOLTIPS = (
        "The new clip, on ComfyUI versions that have the type; else its path.",
        "Its name below the output folder.",
        "The swapped faces of every frame.",
        "Number of frames, the same as before.",
        "Who was swapped in which frames, what was left alone, how fast, and what could not be kept.",
    )
    FUNCTION = "swap"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        from .swap import paste_inputs, swap_inputs

        missing = (
            "What happens to a frame without a face to swap. keep: it passes unchanged and is named. skip: it passes "
            "unchanged and is counted. error: stop before anything is written and name it."
        )
        chunk = "Frames in memory at a time; 16 of 1920 x 1080 take about 1 GB."
        damaged = "A clip that is cut off or goes bad. error: stop. keep: write the frames before that, and say so."
        return {
            "required": {
                "clip": clip_input("A clip of the input folder; 'none' with a connected video."),
                "detector": (DETECTOR, {"tooltip": "From 'Load Face Detector'."}),
                "swapper": (SWAPPER, {"tooltip": "From 'Load Face Swapper'."}),
                "identity": (IDENTITY, {"tooltip": "Whom they become; encoded with arcface_buffalo_l."}),
                **follow_inputs(),
                **swap_inputs(),
                **paste_inputs(),
                **mask_inputs(),
                "on_missing_face": (["keep", "skip", "error"], {"default": "keep", "tooltip": missing}),
                "chunk": ("INT", {"default": 16, "min": 1, "max": MAX_CHUNK, "step": 1, "tooltip": chunk}),
                **file_inputs("likeness/swap_clip"),
                "damaged": (["error", "keep"], {"default": "error", "tooltip": damaged}),
            },
            "optional": {
                "video": ("VIDEO", {"tooltip": VIDEO_TOOLTIP}),
                "reference": (IDENTITY, {"tooltip": "Swaps the person like this one instead of counting."}),
                "encoder": (
                    ENCODER,
                    {"tooltip": "Needed for a reference and a weight other than 0.5; steadies tracks."},
                ),
                "parser": (PARSER, {"tooltip": "Swaps only the named parts of faces."}),
                "mask": (
                    "MASK",
                    {"tooltip": "Where frames may change: one for all, or one for each frame. Never softened."},
                ),
            },
            "hidden": HIDDEN,
        }

    def swap(
        self,
        clip: str,
        detector: LoadedDetector,
        swapper: LoadedSwapper,
        identity: Identity,
        chunk: int,
        damaged: Any,
        video: Any = None,
        reference: Identity | None = None,
        encoder: LoadedEncoder | None = None,
        parser: LoadedParser | None = None,
        mask: Tensor | None = None,
        prompt: Any = None,
        extra_pnginfo: Any = None,
        **settings: Any,
    ) -> dict[str, Any]:
        """Find, choose, swap, write."""
        from ..adapters.swappers.clip import ClipSwap, swap_clip
        from ..evaluation.clip_choice import clip_choice
        from ..inject.clips import as_video, clip_file, shown
        from ..inject.progress import frame_progress
        from ..media.transform import ClipJob
        from .swap import paste_options, swap_options

        limit = settings["limit"]
        job = ClipSwap(
            detector,
            swapper,
            identity,
            encoder,
            clip_choice(settings["order"], settings["faces"], reference, None if limit <= -1.0 else limit),
            _follow(settings),
            swap_options(settings),
            paste_options(settings),
            _masks(settings, parser, mask),
            settings["on_missing_face"],
        )
        with clip_file(clip, video) as source:
            target, name = _target(source, settings)
            work = ClipJob(source, target, chunk, write_options(settings, prompt, extra_pnginfo), damaged)
            written, faces, report = swap_clip(work, job, frame_progress())
        report = f"{name}\n{report}"
        return shown(report, name, as_video(target), name, faces, written.frames, report)


def _follow(settings: Mapping[str, Any]) -> FollowOptions:
    from ..adapters.clip_faces import FollowOptions
    from ..faces.tracking import TrackOptions

    tracks = TrackOptions(settings["min_overlap"], settings["min_similarity"], settings["max_gap"])
    return FollowOptions(settings["score"] or None, settings["track"], tracks, settings["fill"], settings["smooth"])


def _masks(settings: Mapping[str, Any], parser: LoadedParser | None, mask: Tensor | None) -> ClipMasks:
    from ..adapters.swappers.clip import ClipMasks

    sides = (settings["top"], settings["right"], settings["bottom"], settings["left"])
    return ClipMasks(sides, settings["blur"], parser, settings["parts"], mask)


def write_options(settings: Mapping[str, Any], prompt: Any, extra: Any) -> WriteOptions:
    """How a clip is encoded, and the graph that it carries."""
    from ..inject.clips import graph_metadata
    from ..media.write import WriteOptions

    return WriteOptions(quality=settings["quality"], metadata=graph_metadata(prompt, extra))


def _target(source: Path, settings: Mapping[str, Any]) -> tuple[Path, str]:
    from ..media.facts import read_facts

    return _new_file(read_facts(source), settings)


def _new_file(facts: ClipFacts, settings: Mapping[str, Any]) -> tuple[Path, str]:
    from ..inject.clips import new_file
    from ..media.layout import ending_for

    ending = ending_for(facts) if settings["format"] == "auto" else f".{settings['format']}"
    return new_file(settings["filename_prefix"], ending, facts.width, facts.height)


class LikenessLoadClip(ReadsClip):
    """A clip, or a part of one, as pictures and sound."""

    DISPLAY_NAME = "Load Clip"
    CATEGORY = CATEGORY
    DESCRIPTION = "Reads a clip, or a part of it, as pictures and sound. Turned clips of phones come upright."
    RETURN_TYPES = ("IMAGE", "AUDIO", "FLOAT", "INT", "STRING")
    RETURN_NAMES = ("images", "audio", "fps", "frames", "report")
    OUTPUT_TOOLTIPS = (
        "The frames.",
        "The sound of the same time; silence where the clip has none.",
        "Frames per second on average.",
        "Number of frames.",
        "Size, rate, codec, rotation, and what else the file holds.",
    )
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        first = "Number of the first frame, counted from 0."
        count = "How many frames; 0 for all from there on. All of them are held in memory."
        numbers: dict[str, Any] = {"default": 0, "min": 0, "max": MOST_FRAMES, "step": 1}
        return {
            "required": {
                "clip": clip_input("A clip of the input folder; 'none' with a connected video."),
                "first": ("INT", {**numbers, "tooltip": first}),
                "count": ("INT", {**numbers, "tooltip": count}),
            },
            "optional": {"video": ("VIDEO", {"tooltip": VIDEO_TOOLTIP})},
        }

    def load(
        self, clip: str, first: int, count: int, video: Any = None
    ) -> tuple[Tensor, dict[str, Any], float, int, str]:
        """Decode."""
        from ..inject.clips import clip_file
        from ..inject.progress import frame_progress
        from ..media.part import read_part

        with clip_file(clip, video) as source:
            part = read_part(source, first, count or None, on_frame=frame_progress())
        return part.frames, part.audio.as_audio(), part.rate, len(part.frames), part.report


class LikenessSaveClip:
    """Pictures and sound as a clip."""

    DISPLAY_NAME = "Save Clip"
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Writes pictures as a clip. With 'like' they get the time stamps, rotation, colour and sound of the clip they "
        "came from."
    )
    RETURN_TYPES = ("VIDEO", "STRING", "STRING")
    RETURN_NAMES = ("video", "file", "report")
    OUTPUT_TOOLTIPS = (
        "The new clip, on ComfyUI versions that have the type; else its path.",
        "Its name below the output folder.",
        "What was written, and what could not be kept.",
    )
    FUNCTION = "save"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        like = "The clip these pictures came from: its time stamps, rotation, colour and sound are taken. none: 'fps'."
        first = "With 'like': number of the frame there that the first picture is."
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The frames in order of time; alpha is left out."}),
                "fps": number(24.0, 0.01, 1000.0, 0.001, "Frames per second; not used with 'like'."),
                "like": clip_input(like, none_first=True),
                "first": ("INT", {"default": 0, "min": 0, "max": MOST_FRAMES, "step": 1, "tooltip": first}),
                **file_inputs("likeness/clip"),
            },
            "optional": {
                "audio": ("AUDIO", {"tooltip": "The sound, instead of that of 'like'; written as AAC."}),
                "video": ("VIDEO", {"tooltip": "The clip these pictures came from, as a VIDEO instead of 'like'."}),
            },
            "hidden": HIDDEN,
        }

    @classmethod
    def VALIDATE_INPUTS(cls, like: str) -> bool | str:  # noqa: N802 (the host's name)
        """Clips in sub-folders are good too."""
        from ..inject.clips import clip_exists

        return clip_exists(like)

    def save(
        self,
        images: Tensor,
        fps: float,
        like: str,
        first: int,
        audio: Any = None,
        video: Any = None,
        prompt: Any = None,
        extra_pnginfo: Any = None,
        **settings: Any,
    ) -> dict[str, Any]:
        """Encode."""
        from ..faces.images import as_rgb
        from ..inject.clips import NONE, as_video, clip_file, new_file, shown
        from ..inject.progress import frame_progress
        from ..media.audio import waveform_of
        from ..media.facts import read_facts
        from ..media.part import save_like, save_new

        # Alpha is left out here, where as_rgb would darken by it.
        with_alpha = isinstance(images, Tensor) and images.shape[-1:] == (4,)
        rgb = as_rgb(images[..., :3] if with_alpha else images)
        options = write_options(settings, prompt, extra_pnginfo)
        sound = None if audio is None else waveform_of(audio)
        if like == NONE and video is None:
            ending = ".mp4" if settings["format"] == "auto" else f".{settings['format']}"
            target, name = new_file(settings["filename_prefix"], ending, rgb.shape[2], rgb.shape[1])
            done = save_new(target, rgb, fps, sound, options, frame_progress())
        else:
            with clip_file(like, video) as source:
                facts = read_facts(source)
                target, name = _new_file(facts, settings)
                done = save_like(target, rgb, facts, first, sound, options, frame_progress())
        report = "\n".join([name, f"{done.frames} frames written", *(f"note: {note}" for note in done.notes)])
        return shown(report, name, as_video(target), name, report)


NODES = (LikenessSwapClip, LikenessLoadClip, LikenessSaveClip)
