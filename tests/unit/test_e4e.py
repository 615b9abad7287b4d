"""e4e: recognition, alignment against Pillow, the white background, codes; the generator's layers."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.encoders.base import encode_photos, with_embeddings
from likeness_pack.adapters.encoders.e4e import family
from likeness_pack.adapters.encoders.e4e.align import align_face, e4e_input, ffhq_quad, quad_width
from likeness_pack.adapters.encoders.e4e.arch import Encoder4Editing
from likeness_pack.adapters.encoders.e4e.decoder import read_generator
from likeness_pack.adapters.encoders.e4e.family import LICENCE, E4EEncoder
from likeness_pack.adapters.encoders.e4e.stylegan2 import Generator, Kernel, ModulatedConv
from likeness_pack.adapters.errors import KeyMismatch, UnknownCheckpoint
from likeness_pack.adapters.registry import load, recognise
from likeness_pack.faces.errors import BadLandmarks, FaceChoice
from likeness_pack.faces.resample import resize_pixels
from likeness_pack.faces.types import FaceBatch, Faces
from likeness_pack.tools.standins.fill import filled_all
from sparse_files import write_zero_storage_torch
from torch.nn import functional

FACE = torch.tensor([[220.0, 260.0], [330.0, 250.0], [280.0, 330.0], [240.0, 400.0], [325.0, 392.0]])


def encoder_shapes() -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        network = Encoder4Editing()
    return {name: tuple(value.shape) for name, value in network.state_dict().items() if "tracked" not in name}


def whole_file(**more: object) -> dict[str, object]:
    shapes = {f"encoder.{name}": shape for name, shape in encoder_shapes().items()}
    return {"state_dict": shapes, "latent_avg": (18, 512), **more}


class Stub(torch.nn.Module):
    """Codes that tell what the network saw: row 0 begins with the means of red, green and blue."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += list(images)
        codes = torch.zeros(len(images), 18, 512)
        codes[:, 0, :3] = images.mean(dim=(2, 3))
        return codes


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warp to the crop's own size: the official detour over 4096 pixels is tested by itself."""
    monkeypatch.setattr(family, "align_face", lambda pixels, quad: align_face(pixels, quad, 512, 512))


def stub_encoder(mean: float = 0.0) -> tuple[E4EEncoder, Stub]:
    stub = Stub()
    return E4EEncoder(stub, torch.full((18, 512), mean), LICENCE), stub  # type: ignore[arg-type]


@pytest.mark.parametrize("mean", [(18, 512), (1, 512), (512,), (1, 18, 512)])
def test_the_published_layout_loads(tmp_path: Path, mean: tuple[int, ...]) -> None:
    """Encoder and mean code are taken; the generator beside them stays out of it."""
    path = write_zero_storage_torch(tmp_path / "e4e.pt", whole_file(latent_avg=mean))
    match = recognise(read_header(path))
    assert (match.family.id, match.family.kind) == ("e4e", "encoder")
    encoder = load(path)
    assert encoder.mean.shape == (18, 512)
    assert not encoder.network.training
    assert not any(parameter.requires_grad for parameter in encoder.network.parameters())


def test_a_file_without_the_mean_code_is_refused(tmp_path: Path) -> None:
    path = write_zero_storage_torch(tmp_path / "bare.pt", encoder_shapes())
    with pytest.raises(KeyMismatch, match="latent_avg"):
        load(path)


def test_a_missing_head_is_a_named_error(tmp_path: Path) -> None:
    content = whole_file()
    shapes = dict(content["state_dict"])  # type: ignore[call-overload]
    del shapes["encoder.styles.3.convs.2.bias"]
    path = write_zero_storage_torch(tmp_path / "cut.pt", {**content, "state_dict": shapes})
    with pytest.raises(KeyMismatch, match="1 missing: styles.3"):
        load(path)


def _pil() -> object:
    return importlib.import_module("PIL.Image")


@pytest.mark.parametrize("kernel", ["bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(40, 31), (90, 200), (57, 100), (13, 7)])
def test_resizing_is_pillows(kernel: str, size: tuple[int, int]) -> None:
    """Every value, larger and smaller, one axis or both."""
    image = _pil()
    pixels = np.random.RandomState(0).randint(0, 256, (57, 83), dtype=np.uint8)
    height, width = size
    wanted = np.asarray(image.fromarray(pixels).resize((width, height), getattr(image.Resampling, kernel.upper())))  # type: ignore[attr-defined]
    got = resize_pixels(torch.from_numpy(pixels), height, width, kernel)  # type: ignore[arg-type]
    assert np.array_equal(got.numpy(), wanted)


def _official(pixels: np.ndarray, quad: np.ndarray, size: int, transform: int) -> np.ndarray:
    """The steps of align_face in Pillow."""
    image_module = _pil()
    image = image_module.fromarray(pixels)  # type: ignore[attr-defined]
    side = 2 * np.hypot(*((quad[3] - quad[0]) / 2))
    shrink = int(np.floor(side / size * 0.5))
    if shrink > 1:
        new = (int(np.rint(image.size[0] / shrink)), int(np.rint(image.size[1] / shrink)))
        image, quad, side = image.resize(new, image_module.Resampling.LANCZOS), quad / shrink, side / shrink  # type: ignore[attr-defined]
    border = max(int(np.rint(side * 0.1)), 3)
    low, high = np.floor(quad.min(0)).astype(int) - border, np.ceil(quad.max(0)).astype(int) + border
    box = (max(low[0], 0), max(low[1], 0), min(high[0], image.size[0]), min(high[1], image.size[1]))
    if box[2] - box[0] < image.size[0] or box[3] - box[1] < image.size[1]:
        image, quad = image.crop(box), quad - box[:2]
    corners = tuple((quad + 0.5).flatten())
    warped = image.transform(
        (transform, transform), image_module.Transform.QUAD, corners, image_module.Resampling.BILINEAR
    )  # type: ignore[attr-defined]
    return np.asarray(warped.resize((size, size), image_module.Resampling.LANCZOS))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "place", [FACE, FACE * 0.5 - 100, FACE.flip(1) * 0.9, FACE * 1.2 + 60], ids=["inside", "corner", "turned", "rim"]
)
def test_alignment_is_pillows(place: torch.Tensor) -> None:
    """Crop, black outside, and shrinking first where the face is much larger than the crop."""
    pixels = np.random.RandomState(1).randint(0, 256, (640, 560, 3), dtype=np.uint8)
    quad = ffhq_quad(place)
    for size, transform in ((64, 256), (256, 512)):
        got = align_face(torch.from_numpy(pixels).movedim(-1, 0), quad, size, transform).movedim(0, -1).numpy()
        wanted = _official(pixels, quad.numpy(), size, transform)
        assert np.abs(got.astype(int) - wanted).max() <= 1
        assert (got != wanted).mean() < 1e-3


def test_the_quad_follows_the_face() -> None:
    quad = ffhq_quad(FACE)
    assert quad_width(quad) == pytest.approx(float(quad[:, 0].max() - quad[:, 0].min()))
    moved = ffhq_quad(FACE * 2 + torch.tensor([5.0, -7.0]))
    torch.testing.assert_close(moved, quad * 2 + torch.tensor([5.0, -7.0]).double())


@pytest.mark.usefixtures("quick")
def test_the_mean_code_is_added_once() -> None:
    """Two faces of one photo; the note on the mask; one row for each face."""
    encoder, stub = stub_encoder(mean=2.0)
    images = torch.rand(1, 640, 560, 3)
    faces = Faces(torch.tensor([[200.0, 200, 400, 450]] * 2), torch.stack([FACE, FACE + 20]), torch.ones(2))
    identity = encode_photos(encoder, images, FaceBatch((faces,), (640, 560), "user"), which="all")
    codes = identity.features["w_plus"]
    assert codes.shape == (2, 18, 512)
    torch.testing.assert_close(codes[:, 0, :3], 2 + torch.stack(stub.seen).mean(dim=(2, 3)))
    assert (codes[:, 1:] == 2).all()
    assert any("white" in note for note in identity.notes)


@pytest.mark.usefixtures("quick")
def test_the_background_becomes_white() -> None:
    encoder, stub = stub_encoder()
    mask = torch.zeros(1, 640, 560)
    mask[:, 200:450, 180:380] = 1
    faces = Faces(torch.tensor([[200.0, 200, 400, 450]]), FACE[None], torch.ones(1))
    batch = FaceBatch((faces,), (640, 560), "user")
    identity = encode_photos(encoder, torch.rand(1, 640, 560, 3) * 0.3, batch, mask)
    (seen,) = stub.seen
    assert identity.masked
    assert (seen[:, :6, :6] == 1).all()
    assert seen[:, 120:136, 120:136].max() < 0


def test_without_a_mask_the_picture_stays() -> None:
    pixels = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    nothing = torch.zeros(64, 64, dtype=torch.uint8)
    torch.testing.assert_close(e4e_input(pixels, None), e4e_input(pixels, nothing))
    assert (e4e_input(pixels, nothing + 255) == 1).all()


@pytest.mark.usefixtures("quick")
def test_persons_are_not_selected_by_e4e() -> None:
    encoder, _ = stub_encoder()
    faces = Faces(torch.tensor([[200.0, 200, 400, 450]]), FACE[None], torch.ones(1))
    with pytest.raises(FaceChoice, match="e4e .*w_plus"):
        with_embeddings(FaceBatch((faces,), (640, 560), "user"), torch.rand(1, 640, 560, 3), encoder)


def test_a_small_head_is_refused_with_its_width() -> None:
    encoder, _ = stub_encoder()
    with pytest.raises(BadLandmarks, match="more than 160 pixels wide, found one of"):
        encoder.encode_faces(torch.rand(1, 640, 560, 3), [0], torch.zeros(1, 4), FACE[None] * 0.2, None)


def test_a_generator_of_few_levels_draws(tmp_path: Path) -> None:
    """Codes give pictures one by one as together; another code another picture; a stored noise is used."""
    network = Generator((8, 8, 8))
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    network.load_state_dict(filled_all(shapes, torch.float32))
    codes = torch.randn(2, 6, 512)
    with torch.no_grad():
        both = network(codes)
        assert both.shape == (2, 3, 16, 16)
        torch.testing.assert_close(both[1:], network(codes[1:]), atol=1e-5, rtol=1e-5)
        assert (both[0] - both[1]).abs().max() > 1e-3
        network.noises.noise_4 += 1
        assert (network(codes) - both).abs().max() > 1e-4


def test_modulation_is_the_scaled_and_normalised_kernel() -> None:
    """Against the definition: each sample's own kernel, scaled by its style, brought to unit length."""
    torch.manual_seed(0)
    conv = ModulatedConv(5, 7, 3)
    for parameter in conv.parameters():
        torch.nn.init.normal_(parameter)
    x, row = torch.randn(2, 5, 6, 6), torch.randn(2, 512)
    style = conv.modulation(row)
    for sample in range(2):
        kernel = conv.weight[0] / (5 * 9) ** 0.5 * style[sample, :, None, None]
        kernel = kernel * torch.rsqrt(kernel.square().sum((1, 2, 3), keepdim=True) + 1e-8)
        expected = functional.conv2d(x[sample : sample + 1], kernel, padding=1)
        torch.testing.assert_close(conv(x, row)[sample : sample + 1], expected, atol=1e-4, rtol=1e-4)


def test_the_stored_kernel_is_turned_round() -> None:
    """A true convolution: an impulse gives the kernel itself."""
    kernel = Kernel()
    kernel.kernel.copy_(torch.arange(16.0).view(4, 4))
    impulse = torch.zeros(1, 1, 5, 5)
    impulse[0, 0, 2, 2] = 1
    assert torch.equal(kernel.blur(impulse, 1, 2)[0, 0, :4, :4], kernel.kernel)
    assert kernel.enlarge(torch.ones(1, 2, 3, 3)).shape == (1, 2, 6, 6)


def test_an_encoder_file_without_generator_is_refused(tmp_path: Path) -> None:
    path = write_zero_storage_torch(tmp_path / "e4e.pt", whole_file())
    with pytest.raises(UnknownCheckpoint, match="the generator"):
        read_generator(path)
