"""The demo: two workflows in a real ComfyUI on this machine, through its HTTP interface. ``make demo`` sets everything
up first.

1. identity_check: who is on the photos, and is the altered copy of a person that person?
2. fact_portrait: a photo, a face encoder and a FACT adapter make a portrait, where the user's weights are there. On a
   fresh machine the small weights that come with the pack do the same with drawn persons instead: new pictures of the
   person given as reference beside the plain model's, with the measured identity distance as captions.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tools" / "dev")]

from comfy_process import ComfyProcess, make_base  # noqa: E402 (the path is set above)
from likeness_path import register  # noqa: E402

# The three files of the portrait: loader title in the workflow, input, family of our registry or None, folders,
# stand-in.
BASE_MODEL, ENCODER, ADAPTER = "Base model (SD1.5)", "Encoder (TransFace-S)", "Adapter (FACT)"
PUBLISHED = ("transface_s_ms1mv2_fact", "fact_maj")
# The small weights of the pack that the ordinary loaders list.
DRAWN = ("drawn_encoder.safetensors", "drawn_fact.safetensors")
TEXT_KEYS = "1.1.transformer_blocks.0.attn2.to_k.weight"
BASE_HINT = "any SD1.5 checkpoint (about 2 GB, under its own licence) in models/checkpoints"


def write_photos(folder: Path) -> None:
    """Photographs that installed packages carry for tests, and a mirrored, blurred, re-lit copy of one."""
    import numpy as np
    from PIL import Image, ImageEnhance, ImageFilter, ImageOps
    from skimage import data

    folder.mkdir(parents=True, exist_ok=True)
    astronaut = Image.fromarray(np.asarray(data.astronaut()))
    astronaut.save(folder / "astronaut.png")
    copy = ImageOps.mirror(astronaut).filter(ImageFilter.GaussianBlur(1.5))
    ImageEnhance.Brightness(copy).enhance(0.7).save(folder / "astronaut_copy.png")
    spec = importlib.util.find_spec("insightface")
    if spec is None or spec.origin is None:
        raise SystemExit("the group photo is part of the package insightface: pip install --no-deps insightface")
    group = Path(spec.origin).parent / "data" / "images" / "t1.jpg"
    (folder / "t1.jpg").write_bytes(group.read_bytes())


def load_workflow(name: str) -> dict[str, Any]:
    """A workflow in API form."""
    text = (ROOT / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def set_input(workflow: Mapping[str, Any], title: str, **values: Any) -> None:
    """Set inputs of the node with a title."""
    nodes = [node for node in workflow.values() if node["_meta"]["title"] == title]
    if len(nodes) != 1:
        raise SystemExit(f"{len(nodes)} nodes are titled {title!r}")
    nodes[0]["inputs"] |= values


def texts(outputs: Mapping[str, Any], node: str) -> str:
    """What a node showed as text."""
    return "\n".join((outputs.get(node) or {}).get("text", []))


def run_identity_check(host: ComfyProcess) -> None:
    """Faces of a group, and one altered photo among seven people."""
    print("\n== identity_check: photos -> faces -> similarity")
    outputs = host.run(load_workflow("identity_check"))
    group = texts(outputs, "5")
    print(f"t1.jpg: {group.splitlines()[0].split()[0]} faces")
    print(group)
    print("\nmirrored, blurred, darker copy of the astronaut against seven people (the astronaut is the last):")
    print(texts(outputs, "13"))
    show_pictures(host, outputs)


def usable_files(models: Path) -> dict[str, Path]:
    """The user's own files for the portrait, recognised by content, where the model folders have them all."""
    register()
    from likeness_pack.adapters import registry
    from likeness_pack.faces.errors import LikenessError

    found: dict[str, Path] = {}
    for title, folder, kind, family in (
        (ENCODER, "face_encoders", "encoder", "transface"),
        (ADAPTER, "face_adapters", "adapter", "fact"),
    ):
        for path in sorted((models / folder).glob("*")):
            try:
                report = registry.describe(path, kind=kind)  # type: ignore[arg-type]
            except LikenessError:
                continue
            if path.is_file() and report.family == family and not path.name.startswith("standin"):
                found[title] = path
    own = [path for path in sorted((models / "checkpoints").glob("*.safetensors")) if _is_users_sd15(path)]
    if own:
        found[BASE_MODEL] = own[0]
    return found


def _is_users_sd15(path: Path) -> bool:
    """Whether a checkpoint is a text-to-image SD1.5 of the user's: text context of 768, four latent channels."""
    from likeness_pack.adapters.checkpoint import read_header
    from likeness_pack.faces.errors import LikenessError

    if path.name.startswith("standin"):
        return False
    try:
        header = read_header(path)
    except LikenessError:
        return False
    unet = "model.diffusion_model.input_blocks."
    text, latent = (header.shape(unet + name) for name in (TEXT_KEYS, "0.0.weight"))
    return text is not None and latent is not None and (text[1], latent[1]) == (768, 4)


def write_standins(models: Path) -> dict[str, Path]:
    """Stand-ins in the published layouts for a small SD1.5, written once."""
    register()
    from standins.command import write_standin

    wanted = {
        BASE_MODEL: ("checkpoints", "sd15-thin", ()),
        ENCODER: ("face_encoders", "transface-s", ()),
        ADAPTER: ("face_adapters", "fact-v1", (320,)),
    }
    paths: dict[str, Path] = {}
    for title, (folder, kind, widths) in wanted.items():
        known = sorted((models / folder).glob(f"standin-{kind}*"))
        paths[title] = known[0] if known else write_standin(kind, models / folder, widths)
    return paths


def has_drawn_weights() -> bool:
    """Whether the pack came with its small weights."""
    return all((ROOT / "demo_weights" / name).is_file() for name in DRAWN)


def run_drawn_portrait(host: ComfyProcess) -> None:
    """Drawn person -> identity -> FACT on the small base model -> pictures with their identity distance."""
    print("\n== drawn_fact_portrait: drawn person -> identity -> FACT -> new pictures, beside the plain model's")
    outputs = host.run(load_workflow("drawn_fact_portrait"), timeout=1800.0)
    print(texts(outputs, "15"))
    show_pictures(host, outputs)
    print(real_sentence())


def run_portrait(host: ComfyProcess, files: Mapping[str, Path], real: bool) -> None:
    """Photo -> identity -> FACT on SD1.5 -> picture."""
    print("\n== fact_portrait: photo -> identity -> FACT on SD1.5 -> picture")
    workflow = load_workflow("fact_portrait")
    set_input(workflow, BASE_MODEL, ckpt_name=files[BASE_MODEL].name)
    set_input(workflow, ENCODER, encoder=files[ENCODER].name)
    set_input(workflow, ADAPTER, file=files[ADAPTER].name)
    if not real:
        set_input(workflow, "Size", width=256, height=256)
        set_input(workflow, "Sampler", steps=4)
    outputs = host.run(workflow, timeout=3600.0)
    print(texts(outputs, "7"))
    show_pictures(host, outputs)
    if not real:
        print(noise_sentence())


def noise_sentence() -> str:
    """One line: why the picture is noise, and which files make it real."""
    return f"This picture is noise by construction, since stand-ins have no trained weights; {files_sentence()}"


def real_sentence() -> str:
    """One line: these are drawings, and which files make portraits of photos."""
    return f"These are drawn persons at 64 pixels; for photos, {files_sentence()}"


def files_sentence() -> str:
    """The files that make the portrait real."""
    from likeness_pack.adapters.model_table import published_file

    named = [published_file(name) for name in PUBLISHED]
    told = [
        f"{file.file} ({file.size_text}, {file.weight_licence or 'licence not stated'}) in models/{file.folder}"
        for file in named
    ]
    return "these files make it real: " + "; ".join([*told, BASE_HINT])


def show_pictures(host: ComfyProcess, outputs: Mapping[str, Any]) -> None:
    """Print where the saved pictures are."""
    for path in host.images(outputs):
        print(f"picture: {path}")


def main() -> int:
    """Run both workflows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--base", type=Path, default=ROOT / ".host", help="ComfyUI base directory, with models in models/"
    )
    base = make_base(parser.parse_args().base.resolve())
    write_photos(base / "input")
    files = usable_files(base / "models")
    real = len(files) == 3
    drawn = not real and has_drawn_weights()
    if not real and not drawn:
        files = write_standins(base / "models")
    with ComfyProcess(base) as host:
        run_identity_check(host)
        if drawn:
            run_drawn_portrait(host)
        else:
            run_portrait(host, files, real)
    return 0


if __name__ == "__main__":
    sys.exit(main())
