"""TransFace: recognition by keys and shapes, the crop and mask that reach the network, photos to identities."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.encoders.base import chosen_landmarks, encode_photos, photo_hash, with_embeddings
from likeness_pack.adapters.encoders.transface.arch import TransFace, TransFaceConfig
from likeness_pack.adapters.encoders.transface.family import FAMILY, TransFaceEncoder
from likeness_pack.adapters.errors import KeyMismatch
from likeness_pack.faces.errors import BadImage, BadMask, FaceChoice, NoFaceFound
from likeness_pack.faces.templates import template_points
from likeness_pack.faces.types import FaceBatch, Faces
from safetensors.torch import save_file

SMALL = TransFaceConfig(width=16, depth=2, embedding=24)


@pytest.fixture(scope="module")
def network() -> TransFace:
    torch.manual_seed(0)
    network = TransFace(SMALL).eval()
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.normal_(0, 0.2)
    return network


@pytest.fixture(scope="module")
def encoder(network: TransFace) -> TransFaceEncoder:
    return TransFaceEncoder("transface_16x2", "small", FAMILY.licence, network)


def _face(x: float = 0.0, y: float = 0.0, scale: float = 1.0) -> Faces:
    points = template_points("arcface", 112).float() * scale + torch.tensor([x, y])
    return Faces(torch.tensor([[x, y, x + 112 * scale, y + 112 * scale]]), points[None], torch.ones(1))


def _photos(count: int, height: int = 150, width: int = 140) -> torch.Tensor:
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(3))


def _batch(*faces: Faces, height: int = 150, width: int = 140) -> FaceBatch:
    return FaceBatch(faces, (height, width), "user")


def _two() -> Faces:
    a, b = _face(4, 6), _face(20, 30, 0.9)
    return Faces(*(torch.cat([getattr(a, n), getattr(b, n)]) for n in ("boxes", "landmarks5", "scores")))


def _header(tmp_path, tensors):
    path = tmp_path / "a name that says nothing.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(path))
    return read_header(path)


class TestRecognition:
    def test_sizes_come_from_shapes(self, tmp_path, network):
        header = _header(tmp_path, network.state_dict())
        match = FAMILY.recognise(header)
        assert match.variant == "transface"
        assert {match.hyper[name] for name in ("width", "depth")} == {16, 2}
        built = FAMILY.build(header, match)
        assert built.id == "transface_16x2"
        assert not built.network.training
        assert not any(p.requires_grad for p in built.network.parameters())
        image = torch.rand(1, 3, 112, 112)
        with torch.no_grad():
            assert torch.equal(built.network(image).embedding, network(image).embedding)

    @pytest.mark.parametrize(
        ("width", "depth", "name"), [(512, 12, "transface_s"), (512, 24, "transface_b"), (768, 24, "transface_l")]
    )
    def test_official_sizes_have_names(self, width, depth, name):
        with torch.device("meta"):
            tensors = TransFace(TransFaceConfig(width=width, depth=depth)).state_dict()
        hyper = FAMILY.recognise(_MetaHeader(tensors)).hyper
        assert FAMILY.encoder_id(hyper) == name

    def test_half_precision_file_runs_in_float32(self, tmp_path, network):
        half = {name: t.half() if t.is_floating_point() else t for name, t in network.state_dict().items()}
        header = _header(tmp_path, half)
        built = FAMILY.build(header, FAMILY.recognise(header))
        assert {p.dtype for p in built.network.parameters()} == {torch.float32}

    def test_without_gate_it_is_the_arcface_transformer(self, tmp_path, network):
        tensors = {name: t for name, t in network.state_dict().items() if not name.startswith("senet.")}
        header = _header(tmp_path, tensors)
        match = FAMILY.recognise(header)
        assert match.variant == "arcface_vit"
        built = FAMILY.build(header, match)
        assert built.id == "arcface_vit_16x2"
        image = torch.rand(1, 3, 112, 112)
        with torch.no_grad():
            out, gated = built.network(image), network(image)
            assert torch.allclose(out.tokens, gated.tokens)
            assert torch.allclose(out.embedding, network.feature(gated.tokens.flatten(1)))
        assert out.weight is None

    def test_every_refusal_has_a_reason(self, tmp_path, network):
        tensors = dict(network.state_dict())
        without_head = {name: t for name, t in tensors.items() if not name.startswith("feature.")}
        assert FAMILY.recognise(_header(tmp_path, without_head)) == "no feature.0.weight"
        other_grid = tensors | {"pos_embed": torch.zeros(1, 196, 16)}
        assert "196 tokens" in FAMILY.recognise(_header(tmp_path, other_grid))
        other_head = tensors | {"feature.0.weight": torch.zeros(16, 100)}
        assert "(16, 100)" in FAMILY.recognise(_header(tmp_path, other_head))

    def test_leftover_and_missing_keys_are_told(self, tmp_path, network):
        tensors = dict(network.state_dict()) | {"extra.weight": torch.zeros(2)}
        del tensors["blocks.1.mlp.fc2.bias"]
        header = _header(tmp_path, tensors)
        with pytest.raises(KeyMismatch, match=r"blocks\.1.*extra"):
            FAMILY.build(header, FAMILY.recognise(header))


class _MetaHeader:
    """A header of tensors that have shapes only."""

    def __init__(self, tensors):
        self.tensors = tensors

    def has(self, *names):
        return all(name in self.tensors for name in names)

    def shape(self, name):
        return tuple(self.tensors[name].shape) if name in self.tensors else None

    def with_prefix(self, prefix):
        return {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}


class TestNetwork:
    def test_last_four_rows_and_columns_are_never_read(self, network):
        image = torch.rand(1, 3, 112, 112)
        changed = image.clone()
        changed[:, :, 108:], changed[:, :, :, 108:] = 0, 1
        with torch.no_grad():
            assert torch.equal(network(image).embedding, network(changed).embedding)

    def test_relu6_has_its_ceiling(self, network):
        mlp = network.blocks[0].mlp
        x = torch.full((1, 1, 16), 1e4)
        with torch.no_grad():
            hidden = mlp.fc1(x)
            expected = mlp.fc2(hidden.clamp(0, 6))
            assert hidden.max() > 6
            assert torch.allclose(mlp(x), expected)


class TestCrop:
    def test_a_face_on_the_template_is_read_as_it_is(self, encoder, network):
        photo = _photos(1, 112, 112)
        identity = encode_photos(encoder, photo, _batch(_face(), height=112, width=112))
        with torch.no_grad():
            expected = network((photo.movedim(-1, 1) - 0.5) / 0.5)
        assert torch.allclose(identity.features["embedding"], expected.embedding, atol=1e-4)
        assert torch.allclose(identity.features["tokens"], expected.tokens, atol=1e-4)

    def test_masked_background_is_black_before_the_warp(self, encoder):
        photo = _photos(1)
        mask = torch.zeros(1, 150, 140)
        mask[:, 40:110, 40:100] = 1
        with_mask = encode_photos(encoder, photo, _batch(_face(10, 12)), mask)
        by_hand = encode_photos(encoder, photo * mask[..., None], _batch(_face(10, 12)))
        plain = encode_photos(encoder, photo, _batch(_face(10, 12)))
        assert torch.equal(with_mask.features["tokens"], by_hand.features["tokens"])
        assert not torch.allclose(with_mask.features["tokens"], plain.features["tokens"])
        assert with_mask.masked and not plain.masked
        assert not any("unmasked: expect weaker identity" in note for note in with_mask.notes)
        assert any("unmasked: expect weaker identity" in note for note in plain.notes)

    def test_each_face_gets_its_own_photo_and_mask(self, encoder):
        photos, faces = _photos(3), [_face(1, 2), _two(), _face(9, 9)]
        masks = (torch.rand(3, 150, 140, generator=torch.Generator().manual_seed(5)) > 0.3).float()
        together = encode_photos(encoder, photos, _batch(*faces), masks, which="all")
        singles = [
            encode_photos(encoder, photos[i : i + 1], _batch(faces[i]), masks[i : i + 1], which="all") for i in range(3)
        ]
        rows = torch.cat([one.features["embedding"] for one in singles])
        assert torch.allclose(together.features["embedding"], rows, atol=1e-5)

    def test_a_mask_that_hides_the_face_is_refused(self, encoder):
        """An empty or an inverted one would give an identity of darkness."""
        photos, faces = _photos(2), _batch(_face(3, 4), _face(-60, 0))
        head = torch.zeros(1, 150, 140)
        head[:, :110, :90] = 1
        encode_photos(encoder, photos, faces, head)
        # One point seen is enough: hands and hair hide parts of faces.
        nose = torch.zeros(1, 150, 140)
        nose[:, 65:85, 45:75] = 1
        encode_photos(encoder, photos[:1], _batch(_face(3, 4)), nose)
        for bad in (torch.zeros(1, 150, 140), 1 - head, torch.zeros(1, 64, 64)):
            with pytest.raises(BadMask, match=r"image 0 .*white over the face .*black at its eyes"):
                encode_photos(encoder, photos, faces, bad)
        with pytest.raises(BadMask, match="image 1"):
            encode_photos(encoder, photos, faces, torch.cat([head, head * 0]))

    def test_one_mask_serves_all_and_a_wrong_count_is_refused(self, encoder):
        photos = _photos(2)
        mask = torch.zeros(1, 150, 140)
        mask[:, 30:90, 30:90] = 1
        faces = _batch(_face(3, 4), _face(5, 6))
        one = encode_photos(encoder, photos, faces, mask)
        two = encode_photos(encoder, photos, faces, mask.expand(2, -1, -1))
        assert one.digest == two.digest
        with pytest.raises(BadMask, match="3 masks"):
            encode_photos(encoder, photos, faces, mask.expand(3, -1, -1))


class TestPhotos:
    def test_best_and_all(self, encoder):
        photos, faces = _photos(2), _batch(_two(), _face(2, 3))
        best, everyone = (encode_photos(encoder, photos, faces, which=which) for which in ("best", "all"))
        assert len(best) == 2 and len(everyone) == 3
        assert torch.allclose(best.features["embedding"], everyone.features["embedding"][[0, 2]], atol=1e-5)
        hashes = [photo_hash(photo) for photo in photos]
        assert everyone.photos == (hashes[0], hashes[0], hashes[1])
        index, points = chosen_landmarks(faces, "all")
        assert index.tolist() == [0, 0, 1] and points.shape == (3, 5, 2)

    def test_missing_face_policies(self, encoder):
        photos, faces = _photos(3), _batch(_face(1, 1), Faces.none(), _face(2, 2))
        with pytest.raises(NoFaceFound, match=r"image 1 \(counted from 0\).*1 of 3"):
            encode_photos(encoder, photos, faces)
        skipped = encode_photos(encoder, photos, faces, on_missing_face="skip")
        kept = encode_photos(encoder, photos, faces, on_missing_face="keep")
        assert len(skipped) == 2 and any("image 1" in note and "left out" in note for note in skipped.notes)
        assert len(kept) == 3 and any("image 1" in note and "zeros" in note for note in kept.notes)
        for name, rows in kept.features.items():
            assert not rows[1].any()
            assert torch.equal(rows[[0, 2]], skipped.features[name])
        assert kept.photos[1] == photo_hash(photos[1]) and len(skipped.photos) == 2

    @pytest.mark.parametrize("policy", ["error", "skip", "keep"])
    def test_no_face_at_all_is_always_an_error(self, encoder, policy):
        with pytest.raises(NoFaceFound, match="images 0, 1"):
            encode_photos(encoder, _photos(2), _batch(Faces.none(), Faces.none()), on_missing_face=policy)

    def test_pictures_of_another_graph_are_refused(self, encoder):
        with pytest.raises(BadImage, match=r"1 pictures of 140 x 150.*2 of 140 x 150"):
            encode_photos(encoder, _photos(2), _batch(_face()))
        with pytest.raises(BadImage):
            encode_photos(encoder, _photos(1, 100, 100), _batch(_face()))

    def test_unknown_policy_is_refused(self, encoder):
        with pytest.raises(FaceChoice, match="'ignore'"):
            encode_photos(encoder, _photos(1), _batch(_face()), on_missing_face="ignore")

    def test_chunks_change_nothing_and_report_progress(self, encoder):
        photos, faces = _photos(19), _batch(*[_face(i, 2 * i) for i in range(19)])
        steps = []
        whole = encode_photos(encoder, photos, faces, on_progress=lambda done, total: steps.append((done, total)))
        assert steps[-1] == (19, 19) and len(steps) > 1
        last = encode_photos(encoder, photos[18:], _batch(_face(18, 36)))
        assert torch.allclose(whole.features["embedding"][18:], last.features["embedding"], atol=1e-5)

    def test_progress_may_cancel(self, encoder):
        def cancel(done, total):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            encode_photos(encoder, _photos(1), _batch(_face()), on_progress=cancel)

    def test_hash_is_of_pixels_and_size(self):
        photo = _photos(1)[0]
        assert photo_hash(photo) == photo_hash((photo * 255).round() / 255)
        assert photo_hash(photo) != photo_hash(1 - photo)
        assert photo_hash(torch.zeros(2, 8, 3)) != photo_hash(torch.zeros(8, 2, 3))

    def test_embeddings_go_back_into_the_faces(self, encoder):
        photos, faces = _photos(3), _batch(_two(), Faces.none(), _face(2, 3))
        known = with_embeddings(faces, photos, encoder)
        everyone = encode_photos(encoder, photos, faces, which="all", on_missing_face="skip")
        assert known.embedding_encoder == encoder.id
        assert known.counts == (2, 0, 1) and known.images[1].embeddings is None
        rows = torch.cat([known.images[0].embeddings, known.images[2].embeddings])
        assert torch.equal(rows, everyone.features["embedding"])
        nobody = with_embeddings(replace(faces, images=(Faces.none(),) * 3), photos, encoder)
        assert nobody.embedding_encoder == encoder.id and nobody.counts == (0, 0, 0)
