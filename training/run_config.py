"""What a long run is told, in a JSON or TOML file: read, checked, and made into a run."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from ..adapters import registry
from ..adapters.demo_weights import DRAWN_ENCODER
from ..adapters.detectors import packages as detector_packages
from ..adapters.encoders import packages as encoder_packages
from ..faces.errors import LikenessError
from .adapter_base import PROMPT, drawn_base, folder_base
from .adapter_material import Kind, drawn_material, photo_material
from .fact.curriculum import Ramp
from .fact.models import ResamplerShape
from .fact.options import AdapterOptions
from .loop import LoopOptions
from .people_folder import load_people
from .recogniser.people import DrawnPeople
from .recogniser.task import RecipeOptions
from .run import Trained
from .runs import DRAWN_SHAPE, PREVIEW_STEPS, AdapterRun, RecogniserRun

DRAWN = "drawn"
TASKS = ("fact", "faceid", "recogniser")
ELSEWHERE = {
    "lafr": "tools/train_lafr.py",
    "dreamid": "tools/train_dreamid.py",
    "imagineid": "tools/train_imagineid.py",
}
DEMO_WEIGHTS = Path(__file__).resolve().parents[1] / "demo_weights"
RATES = {"fact": 5e-5, "faceid": 1e-4, "recogniser": 1e-3}


class BadConfig(LikenessError):
    """A configuration that cannot be read or asks for what does not exist."""


@dataclass(frozen=True)
class Common:
    """What every task is told.

    Attributes:
        task: ``fact``, ``faceid`` (both adapters) or ``recogniser``.
        output: folder for the file, the state, losses, previews and logs.
        name: of the trained file.
        source: ``drawn``, or a folder with one sub-folder of photographs for each person.
        steps: length of the whole run.
        learning_rate: rate of the first step; 0 takes the task's own.
        seed: decides every random number.
        save_every: steps between two states.
        preview_every: steps between two previews; 0 for none.
        tell_every: steps between two printed lines.
        tensorboard: whether logs are written.
        detector: what finds faces in photographs: ``mtcnn``, ``insightface_buffalo_l``, ``insightface_antelopev2``, or
            the file of a detector.
        device: where to train, as torch names it; auto takes CUDA where there is one.
    """

    task: str
    output: str
    name: str = "trained"
    source: str = DRAWN
    steps: int = 10_000
    learning_rate: float = 0.0
    seed: int = 0
    save_every: int = 500
    preview_every: int = 500
    tell_every: int = 50
    tensorboard: bool = True
    detector: str = "mtcnn"
    device: str = "auto"


@dataclass(frozen=True)
class AdapterExtra:
    """What adapters are told besides the options of `fact.options.AdapterOptions`.

    Attributes:
        base: ``drawn``, or a folder in diffusers' layout.
        prompt: what every photograph shows.
        encoder: face encoder: a file, ``dlib_resnet``, ``arcface_buffalo_l`` or ``arcface_antelopev2``; empty takes
            that of the drawn faces model.
        size: side of the portraits that are cut out of photographs, a multiple of 64.
        people, each: number of drawn persons, and of portraits of each.
        tokens: number of FaceID's face tokens.
        preview_steps: steps of the sampler in previews.
        resampler: sizes of FACT's projector by name; empty takes the published ones, and small ones for drawn faces.
    """

    base: str = DRAWN
    prompt: str = PROMPT
    encoder: str = ""
    size: int = 512
    people: int = 200
    each: int = 6
    tokens: int = 16
    preview_steps: int = PREVIEW_STEPS
    resampler: Any = None


@dataclass(frozen=True)
class RecogniserExtra:
    """What recognisers are told besides `recogniser.task.RecipeOptions`.

    Attributes:
        network: ``transformer`` (TransFace's layout) or ``resnet`` (TopoFR's).
        embedding: width of the embedding.
        people: number of drawn persons.
    """

    network: str = "transformer"
    embedding: int = 64
    people: int = 500


@dataclass(frozen=True)
class RunConfig:
    """A checked configuration.

    Attributes:
        common: see `Common`.
        own: the task's further values.
        folder: relative paths start here.
    """

    common: Common
    own: Mapping[str, Any]
    folder: Path

    @property
    def output(self) -> Path:
        """The run's folder."""
        return self.folder / self.common.output

    @property
    def file(self) -> Path:
        """The file that is written at the end."""
        return self.output / f"{self.common.name}.safetensors"

    @property
    def state(self) -> Path:
        """Where the run is kept."""
        return self.output / f"{self.common.name}.training_state"

    @property
    def loop(self) -> LoopOptions:
        """For the loop."""
        rate = self.common.learning_rate or RATES[self.common.task]
        return LoopOptions(self.common.steps, rate, save_every=self.common.save_every)


def read_config(path: Path) -> RunConfig:
    """Read and check a configuration.

    Raises:
        BadConfig: unreadable, unknown names, values of another type, or another task.
    """
    values = dict(_values(path))
    task = values.get("task")
    if task in ELSEWHERE:
        raise BadConfig(
            path.name, expected=f"task {' or '.join(TASKS)}", found=f"task {task}", cure=f"use {ELSEWHERE[str(task)]}"
        )
    if task not in TASKS or "output" not in values:
        found = f"task {task!r}" if task not in TASKS else "no output"
        expected = f"task {' or '.join(TASKS)}, and an output folder"
        raise BadConfig(path.name, expected=expected, found=found, cure="name both")
    known = {one.name for one in fields(Common)}
    own = _own_names(str(task))
    unknown = sorted(values.keys() - known - own)
    if unknown:
        raise BadConfig(
            path.name,
            expected=f"names among {', '.join(sorted(known | own))}",
            found=", ".join(unknown),
            cure="correct or remove them",
        )
    common = _checked(Common, {name: value for name, value in values.items() if name in known}, path)
    if min(common.steps, common.save_every, common.tell_every) < 1 or common.learning_rate < 0:
        raise BadConfig(
            path.name,
            expected="steps, save_every and tell_every of 1 or more and a learning_rate that is not negative",
            found=f"{common.steps}, {common.save_every}, {common.tell_every} and {common.learning_rate:g}",
            cure="correct them",
        )
    rest = {name: value for name, value in values.items() if name in own}
    return RunConfig(common, rest, path.resolve().parent)


def built(config: RunConfig) -> Trained:
    """Make the run: read photographs or draw faces, load models. Raises the errors of each part."""
    return _recogniser(config) if config.common.task == "recogniser" else _adapter(config)


def _adapter(config: RunConfig) -> Trained:
    common, path = config.common, Path(config.common.name)
    extra = _checked(AdapterExtra, _named(AdapterExtra, config.own), path)
    given = _named(AdapterOptions, config.own)
    given |= {name: _ramp(given[name], name) for name in ("drop", "shuffle") if name in given}
    options = _checked(AdapterOptions, {**given, "steps": common.steps, "seed": common.seed}, path)
    kind: Kind = "fact" if common.task == "fact" else "faceid"
    encoder = _encoder(config, extra.encoder)
    drawn = extra.base == DRAWN
    base = drawn_base(DEMO_WEIGHTS) if drawn else folder_base(config.folder / extra.base, extra.prompt)
    if common.source == DRAWN:
        material = drawn_material(base, encoder, kind, extra.people, extra.each, common.seed)
        source, files = f"{extra.people} drawn persons, {extra.each} portraits of each", ""
    else:
        detector = _detector(config)
        photos = load_people(config.folder / common.source, detector, extra.size, least=2)
        material, source, files = photo_material(photos, base, encoder, kind), photos.told(), photos.digest
    shape = _checked(ResamplerShape, extra.resampler, path) if extra.resampler else DRAWN_SHAPE if drawn else None
    device = _device(common.device)
    return AdapterRun(kind, base, material, options, source, shape, extra.tokens, extra.preview_steps, device, files)


def _recogniser(config: RunConfig) -> Trained:
    common, path = config.common, Path(config.common.name)
    extra = _checked(RecogniserExtra, _named(RecogniserExtra, config.own), path)
    options = _checked(RecipeOptions, {**_named(RecipeOptions, config.own), "seed": common.seed}, path)
    if options.recipe not in ("plain", "transface", "topofr") or extra.network not in ("transformer", "resnet"):
        raise BadConfig(
            "recogniser",
            expected="recipe plain, transface or topofr, and network transformer or resnet",
            found=f"{options.recipe} and {extra.network}",
            cure="choose among these",
        )
    network: Any = extra.network
    if common.source == DRAWN:
        people = DrawnPeople(extra.people, common.seed)
        told = f"{extra.people} drawn persons"
        return RecogniserRun(network, people, options, told, extra.embedding, _device(common.device))
    photos = load_people(config.folder / common.source, _detector(config))
    device = _device(common.device)
    return RecogniserRun(network, photos, options, photos.told(), extra.embedding, device, photos.digest)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise BadConfig(
            "device",
            expected="auto, cpu, cuda or another device of this torch",
            found=f"{name} ({str(error)[:80]})",
            cure="choose a device that this machine has",
        ) from error


def _encoder(config: RunConfig, name: str) -> Any:
    if not name:
        return registry.load(DEMO_WEIGHTS / DRAWN_ENCODER, kind="encoder")
    return encoder_packages.load_named(name, [config.folder], config.folder.joinpath)


def _detector(config: RunConfig) -> Any:
    return detector_packages.load_named(config.common.detector, [config.folder], config.folder.joinpath)


def _values(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        values = _toml(text, path) if path.suffix.lower() == ".toml" else json.loads(text)
    except (OSError, ValueError) as error:
        found = str(error).splitlines()[0][:160]
        raise BadConfig(path.name, expected="a JSON or TOML file", found=found, cure="correct the file") from error
    if not isinstance(values, dict):
        raise BadConfig(path.name, expected="names with values", found=type(values).__name__, cure="correct the file")
    return values


def _toml(text: str, path: Path) -> Any:
    try:
        library = importlib.import_module("tomllib")
    except ImportError as error:
        raise BadConfig(
            path.name,
            expected="Python 3.11 or later for TOML",
            found="an earlier one",
            cure="write the same values as JSON",
        ) from error
    return library.loads(text)


def _own_names(task: str) -> set[str]:
    kinds: tuple[Any, ...] = (
        (RecogniserExtra, RecipeOptions) if task == "recogniser" else (AdapterExtra, AdapterOptions)
    )
    return {one.name for kind in kinds for one in fields(kind)} - {"steps", "seed"}


def _named(kind: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    names = {one.name for one in fields(kind)}
    return {name: value for name, value in values.items() if name in names}


def _ramp(value: Any, name: str) -> Ramp:
    if isinstance(value, list) and 2 <= len(value) <= 3 and all(isinstance(one, int | float) for one in value):
        return Ramp(*map(float, value))
    raise BadConfig(
        name, expected="[start, end] or [start, end, part of the run]", found=repr(value), cure="write it so"
    )


def _checked(kind: Any, values: Any, path: Path) -> Any:
    """Build a dataclass whose plain values have the types of its defaults."""
    if not isinstance(values, dict):
        raise BadConfig(path.name, expected="names with values", found=repr(values), cure="correct the file")
    types = {one.name: one.type for one in fields(kind)}
    for name, value in values.items():
        wanted = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}.get(str(types.get(name, "")))
        wrong = wanted is not None and (
            not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted)
        )
        if wrong or name not in types:
            expected = f"{name} as {types[name]}" if name in types else f"names among {', '.join(types)}"
            raise BadConfig(path.name, expected=expected, found=f"{name} {value!r}", cure="correct it")
    return kind(**values)
