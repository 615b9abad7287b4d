"""Follow persons through a clip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..inject.host import progress_bar
from .common import DETECTOR, ENCODER, FACES, IDENTITY, TRACKS, Schema, number, with_text

if TYPE_CHECKING:
    from ..adapters.identity import Identity
    from ..faces.tracking import TrackedFaces
    from ..faces.types import FaceBatch
    from ..inject.loaded_networks import LoadedDetector, LoadedEncoder


class LikenessTrackFaces:
    """Number the faces of a clip by person."""

    DISPLAY_NAME = "Track Faces"
    CATEGORY = "Likeness/faces"
    DESCRIPTION = (
        "Follows persons through a clip by overlap and, with an encoder, by likeness. Numbers stay the same, also "
        "when persons cross or come back. The number of frames never changes."
    )
    RETURN_TYPES = (TRACKS, FACES, "IMAGE", "STRING", "INT")
    RETURN_NAMES = ("tracks", "faces", "overlay", "report", "count")
    OUTPUT_TOOLTIPS = (
        "Who is who, for 'Select Persons'.",
        "The same faces for every node that takes faces, in order of persons.",
        "The frames with every face's person number drawn in.",
        "Each person's frames.",
        "Number of persons.",
    )
    FUNCTION = "track"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        gap = "Frames that a person may be missing before their place counts no more, and that are filled in."
        fill = "Fills frames in which a person is lost with points between those before and after."
        steady = "Averages points over this many frames before and after. 0: every point exactly as it was found."
        again = "Looks again only where a person is lost, around the place where the face should be."
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The frames in order of time."}),
                "faces": (FACES, {"tooltip": "All faces, from 'Detect Faces' with on_missing_face keep."}),
                "min_overlap": number(0.3, 0.0, 1.0, 0.01, "Least overlap of boxes from frame to frame."),
                "min_similarity": number(0.4, -1.0, 1.0, 0.01, "Least cosine of embeddings to be the same person."),
                "max_gap": ("INT", {"default": 10, "min": 0, "max": 1000, "step": 1, "tooltip": gap}),
                "fill": ("BOOLEAN", {"default": True, "tooltip": fill}),
                "smooth": ("INT", {"default": 0, "min": 0, "max": 30, "step": 1, "tooltip": steady}),
            },
            "optional": {
                "encoder": (ENCODER, {"tooltip": "Compares persons by likeness too."}),
                "detector": (DETECTOR, {"tooltip": again}),
            },
        }

    def track(
        self,
        images: Tensor,
        faces: FaceBatch,
        min_overlap: float,
        min_similarity: float,
        max_gap: int,
        fill: bool,
        smooth: int,
        encoder: LoadedEncoder | None = None,
        detector: LoadedDetector | None = None,
    ) -> dict[str, Any]:
        """Link, look again, fill, smooth."""
        from ..adapters.encoders.base import with_embeddings
        from ..faces.crops import check_same_pictures
        from ..faces.images import as_rgb
        from ..faces.overlay import draw_faces
        from ..faces.track_gaps import detect_again, fill_gaps
        from ..faces.tracking import TrackOptions, track_faces, tracks_table
        from ..faces.tracking import smooth as smoothed

        rgb = as_rgb(images)
        check_same_pictures(rgb, faces)
        known = faces if encoder is None else with_embeddings(faces, rgb, encoder)
        tracks = track_faces(known, TrackOptions(min_overlap, min_similarity, max_gap))
        if detector is not None:
            bar = progress_bar(1)
            tracks = detect_again(tracks, rgb, detector, max_gap, lambda done, total: bar.update_absolute(done, total))
        tracks = fill_gaps(tracks, max_gap) if fill else tracks
        tracks = smoothed(tracks, smooth)
        report = tracks_table(tracks)
        return with_text(report, tracks, tracks, draw_faces(rgb, tracks, tracks.persons), report, len(tracks.people))


class LikenessSelectPersons:
    """Keep some persons of a clip."""

    DISPLAY_NAME = "Select Persons"
    CATEGORY = "Likeness/faces"
    DESCRIPTION = (
        "Keeps persons of a tracked clip by number, or those like a reference, with one choice for all frames."
    )
    RETURN_TYPES = (FACES, TRACKS, "STRING")
    RETURN_NAMES = ("faces", "tracks", "report")
    OUTPUT_TOOLTIPS = ("Their faces.", "Their tracks.", "Who was kept, and how alike they are.")
    FUNCTION = "select"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        numbers = "Persons' numbers as 'Track Faces' shows them, such as 0 or 0,2. Empty keeps all."
        limit = "With a reference: least cosine (for dlib largest distance). -1: the encoder's own."
        return {
            "required": {
                "tracks": (TRACKS, {"tooltip": "From 'Track Faces'."}),
                "persons": ("STRING", {"default": "0", "tooltip": numbers}),
                "limit": number(-1.0, -1.0, 2.0, 0.01, limit),
            },
            "optional": {"reference": (IDENTITY, {"tooltip": "Keeps those like this person instead of numbers."})},
        }

    def select(
        self, tracks: TrackedFaces, persons: str, limit: float, reference: Identity | None = None
    ) -> tuple[TrackedFaces, TrackedFaces, str]:
        """Choose by number or by reference."""
        from ..evaluation.tracks import people_like
        from ..faces.select import parse_indices
        from ..faces.tracking import select_people, tracks_table

        told = ""
        if reference is not None:
            numbers, told = people_like(tracks, reference, None if limit <= -1.0 else limit)
        else:
            numbers = parse_indices(persons, max(tracks.people, default=-1) + 1, "persons")
        chosen = select_people(tracks, numbers)
        return chosen, chosen, "\n".join(part for part in (tracks_table(chosen), told) if part)


NODES = (LikenessTrackFaces, LikenessSelectPersons)
