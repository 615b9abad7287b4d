"""Train a face adapter or a face encoder on drawn faces or on a folder of photographs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ..inject.host import progress_bar, stop_if_cancelled
from .common import DETECTOR, ENCODER, Schema, number, with_text

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from ..training.adapter_base import Base
    from ..training.people_folder import PeopleFolder
    from ..training.run import Trained

logger = logging.getLogger(__name__)

DRAWN, FOLDER = "drawn faces", "folder"
KINDS = {"FACT": "fact", "IP-Adapter FaceID": "faceid"}
RETURN_TYPES = ("STRING", "IMAGE", "IMAGE", "STRING")
RETURN_NAMES = ("file_name", "loss_plot", "previews", "report")
CANCEL = "Cancel at any time: the same inputs with resume go on where it stopped, and end with the same file."
RESUME = "Go on where a run of the same inputs stopped. Off: start anew, under a new name."


def _whole(default: int, low: int, high: int, tooltip: str) -> tuple[str, dict[str, Any]]:
    return "INT", {"default": default, "min": low, "max": high, "tooltip": tooltip}


class _Trainer:
    """What the host asks of both trainers."""

    @classmethod
    def IS_CHANGED(cls, source: str = DRAWN, folder: str = "", **_: Any) -> str:  # noqa: N802 (the host's name)
        """Train on photographs that came, went or changed."""
        from ..inject.training_places import folder_stamp

        return folder_stamp(folder or "") if source == FOLDER else ""


def _source_inputs(name: str, folder: str) -> dict[str, Any]:
    place = "Name of a folder inside ComfyUI's input folder, with a sub-folder of photographs for each person."
    source = "drawn faces: no photographs needed. folder: photographs of two or more persons."
    return {
        "source": ([DRAWN, FOLDER], {"default": DRAWN, "tooltip": source}),
        "folder": ("STRING", {"default": "", "tooltip": place}),
        "name": ("STRING", {"default": name, "tooltip": f"Name of the new file in models/{folder}."}),
        "people": _whole(200, 2, 100_000, "Drawn persons; photographs have as many as there are sub-folders."),
    }


def _run_inputs(steps: int, rate: float) -> dict[str, Any]:
    return {
        "steps": _whole(steps, 1, 10_000_000, "Steps of the whole run; the rate falls to 0 at its end."),
        "learning_rate": number(rate, 1e-7, 1.0, 1e-7, "Rate at the first step."),
        "seed": _whole(0, 0, 2**63 - 1, "Decides every random number."),
        "preview_every": _whole(
            100, 0, 1_000_000, "Steps between two looks at losses and pictures; 0: at the end only."
        ),
        "resume": ("BOOLEAN", {"default": True, "tooltip": RESUME}),
    }


class LikenessTrainAdapter(_Trainer):
    """Train an adapter over a frozen base model."""

    DISPLAY_NAME = "Train Face Adapter"
    CATEGORY = "Likeness/train"
    DESCRIPTION = (
        "Trains FACT or IP-Adapter FaceID: on drawn faces with the small model that comes with the pack, or on "
        f"photographs with an SD1.5 model. {CANCEL}"
    )
    RETURN_TYPES = RETURN_TYPES
    RETURN_NAMES = RETURN_NAMES
    OUTPUT_TOOLTIPS = (
        "The file in models/face_adapters, for 'Load Face Adapter'.",
        "Losses over the steps.",
        "For up to four persons: the face given, the plain model, the adapter.",
        "What was trained on what, and the last losses.",
    )
    FUNCTION = "train"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        kind = "FACT reads an encoder's tokens through gated layers; FaceID reads its embedding."
        encoder = "TransFace for FACT, ArcFace for FaceID; without one, that of the drawn faces model."
        return {
            "required": {
                "kind": (list(KINDS), {"default": "FACT", "tooltip": kind}),
                **_source_inputs("my_adapter", "face_adapters"),
                "persons": _whole(1, 1, 256, "Persons in a step; the official FACT trainer takes 1."),
                "pictures": _whole(3, 1, 64, "Pictures of each person in a step; official: 3."),
                "size": _whole(512, 64, 1024, "Side of the portraits cut from photographs; drawn ones have 64."),
                **_run_inputs(10_000, 5e-5),
            },
            "optional": {
                "model": ("MODEL", {"tooltip": "The SD1.5 model to train on, for photographs."}),
                "vae": ("VAE", {"tooltip": "Its VAE."}),
                "positive": ("CONDITIONING", {"tooltip": "One prompt for all photographs, such as 'a person'."}),
                "encoder": (ENCODER, {"tooltip": encoder}),
                "detector": (DETECTOR, {"tooltip": "What finds the faces in photographs."}),
            },
        }

    def train(
        self,
        kind: str,
        source: str,
        folder: str,
        name: str,
        people: int,
        persons: int,
        pictures: int,
        size: int,
        steps: int,
        learning_rate: float,
        seed: int,
        preview_every: int,
        resume: bool,
        model: Any = None,
        vae: Any = None,
        positive: Any = None,
        encoder: Any = None,
        detector: Any = None,
    ) -> dict[str, Any]:
        """Encode what is learned from, train, write the file."""
        import torch

        from ..inject.training_host import trained_file, training_device
        from ..training.adapter_material import drawn_material, photo_material
        from ..training.fact.options import AdapterOptions
        from ..training.runs import DRAWN_SHAPE, AdapterRun

        place = trained_file(name, "face_adapters", resume)
        task: Any = KINDS[kind]
        # The host runs nodes in inference mode, where no gradient is kept.
        with torch.inference_mode(False), torch.enable_grad():
            options = AdapterOptions(steps=steps, persons=persons, pictures=pictures, seed=seed)
            drawn = source == DRAWN
            base, encoder = _base(drawn, model, vae, positive), _encoder(encoder)
            if drawn:
                told = f"{people} drawn persons, {2 * pictures} portraits of each"
                material = drawn_material(base, encoder, task, people, 2 * pictures, seed)
            else:
                photos = _photos(folder, detector, size // 64 * 64, 2)
                told, material = photos.told(), photo_material(photos, base, encoder, task)
            shape, files = DRAWN_SHAPE if drawn else None, "" if drawn else photos.digest
            trained = AdapterRun(task, base, material, options, told, shape, device=training_device(), files=files)
            return _carried_out(trained, place, steps, learning_rate, preview_every)


class LikenessTrainEncoder(_Trainer):
    """Train a small face encoder."""

    DISPLAY_NAME = "Train Face Encoder"
    CATEGORY = "Likeness/train"
    DESCRIPTION = (
        "Trains a small face encoder with the plain margin loss, or with the recipe of TransFace or TopoFR. "
        f"{CANCEL} It is for experiments: encoders for use are trained on millions of photographs."
    )
    RETURN_TYPES = RETURN_TYPES
    RETURN_NAMES = RETURN_NAMES
    OUTPUT_TOOLTIPS = (
        "The file in models/face_encoders, for 'Load Face Encoder'.",
        "Losses over the steps.",
        "A face of each of the first persons, as the network is given them.",
        "What was trained on what, and the last losses.",
    )
    FUNCTION = "train"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        recipe = "transface: DPAP and EHSM, for the transformer. topofr: PTSA and SDE. plain: neither."
        network = "transformer: TransFace's layout. resnet: TopoFR's layout."
        return {
            "required": {
                "recipe": (["plain", "transface", "topofr"], {"default": "plain", "tooltip": recipe}),
                "network": (["transformer", "resnet"], {"default": "transformer", "tooltip": network}),
                **_source_inputs("my_encoder", "face_encoders"),
                "batch": _whole(48, 2, 1024, "Pictures in a step."),
                **_run_inputs(2000, 1e-3),
            },
            "optional": {"detector": (DETECTOR, {"tooltip": "What finds the faces in photographs."})},
        }

    def train(
        self,
        recipe: str,
        network: str,
        source: str,
        folder: str,
        name: str,
        people: int,
        batch: int,
        steps: int,
        learning_rate: float,
        seed: int,
        preview_every: int,
        resume: bool,
        detector: Any = None,
    ) -> dict[str, Any]:
        """Find the faces, train, write the file."""
        import torch

        from ..inject.training_host import trained_file, training_device
        from ..training.recogniser.people import SIZE, DrawnPeople
        from ..training.recogniser.task import RecipeOptions
        from ..training.runs import RecogniserRun

        place = trained_file(name, "face_encoders", resume)
        with torch.inference_mode(False), torch.enable_grad():
            chosen: Any = recipe
            options = RecipeOptions(recipe=chosen, batch=batch, seed=seed)
            faces: Any
            if source == DRAWN:
                faces, told, files = DrawnPeople(people, seed), f"{people} drawn persons", ""
            else:
                faces = _photos(folder, detector, SIZE, 1)
                told, files = faces.told(), faces.digest
            layout: Any = network
            trained = RecogniserRun(layout, faces, options, told, device=training_device(), files=files)
            return _carried_out(trained, place, steps, learning_rate, preview_every)


def _base(drawn: bool, model: Any, vae: Any, positive: Any) -> Base:
    from ..inject.drawn_model import FOLDER as WEIGHTS  # noqa: N811 (it is a constant)
    from ..inject.training_host import prompt_of, unet_tensors, vae_functions
    from ..training.adapter_base import Base, drawn_base, unet_of

    if drawn:
        return drawn_base(WEIGHTS)
    if model is None or vae is None or positive is None:
        raise _unconnected("an SD1.5 model, its VAE and a prompt", "connect model, vae and positive")
    return Base(unet_of(unet_tensors(model)), *vae_functions(vae), prompt_of(positive))


def _encoder(encoder: Any) -> Any:
    from ..adapters import registry
    from ..adapters.demo_weights import DRAWN_ENCODER
    from ..inject.drawn_model import FOLDER as WEIGHTS  # noqa: N811 (it is a constant)

    return registry.load(WEIGHTS / DRAWN_ENCODER, kind="encoder") if encoder is None else encoder


def _photos(folder: str, detector: Any, size: int, least: int) -> PeopleFolder:
    import torch

    from ..inject.progress import frame_progress
    from ..inject.training_places import training_folder
    from ..training.people_folder import load_people

    if detector is None:
        raise _unconnected("a face detector", "connect detector")
    with torch.no_grad():
        return load_people(training_folder(folder), detector, size, least, frame_progress())


def _unconnected(expected: str, cure: str) -> Exception:
    from ..adapters.errors import MissingModelFile

    return MissingModelFile(
        "training on photographs", expected=expected, found="an open input", cure=f"{cure}, or choose drawn faces"
    )


def _carried_out(
    trained: Trained, place: tuple[Path, Path], steps: int, learning_rate: float, preview_every: int
) -> dict[str, Any]:
    """Train with progress, save once, and give what the node shows."""
    from ..inject.shown_pictures import shown_picture
    from ..inject.training_host import PREVIEW_SIDE
    from ..training.loop import LoopOptions
    from ..training.plot import picture_tensor, stacked, tensor_picture
    from ..training.run import LossHistory, run

    path, state = place
    history, bar = LossHistory.beside(state), progress_bar(steps)
    done = False

    def on_step(step: int, losses: Any) -> None:
        bar.update_absolute(step, steps)
        stop_if_cancelled()

    def on_preview(step: int, pictures: Tensor) -> None:
        board = stacked([history.plot(path.stem), tensor_picture(pictures.flatten(0, 1))])
        bar.update_absolute(step, steps, ("JPEG", board, PREVIEW_SIDE))

    try:
        loop = LoopOptions(steps, learning_rate)
        finished = run(
            trained, loop, state, history, preview_every=preview_every, on_step=on_step, on_preview=on_preview
        )
        if not path.is_file():
            trained.save(path, finished)
        plot, previews = history.plot(path.stem), trained.preview()
        done = True
    finally:
        trained.close()
        if not done and state.is_file():
            logger.warning("%s: stopped; queue the same inputs with resume on to go on", path.name)
    report = _report(path.name, trained, finished, history.rows.get(finished, {}))
    answer = with_text(report, path.name, picture_tensor(plot), previews, report)
    sheet = tensor_picture(previews.flatten(0, 1))
    answer["ui"]["images"] = [shown_picture(one, "likeness_training") for one in (plot, sheet)]
    return answer


def _report(name: str, trained: Trained, finished: int, losses: dict[str, float]) -> str:
    last = ", ".join(f"{key} {value:.4f}" for key, value in losses.items())
    return f"file: {name}\nlearned from: {trained.told()}\nsteps: {finished}\nlast losses: {last or 'not kept'}"


NODES = (LikenessTrainAdapter, LikenessTrainEncoder)
