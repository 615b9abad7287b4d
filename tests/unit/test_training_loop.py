"""The loop, its state files, and pictures of a folder."""

from __future__ import annotations

import pytest
import torch
from likeness_pack.adapters.errors import BadCheckpoint, KeyMismatch
from likeness_pack.faces.errors import BadImage
from likeness_pack.training.checkpointing import write_tensors
from likeness_pack.training.loop import LoopOptions, TrainingFailed, cosine_rate, train
from likeness_pack.training.pictures import PictureBatch, PictureFolder, stacked
from likeness_pack.training.seeds import generator_for
from PIL import Image
from torch import nn


class LineTask:
    """Learns y = 2x on points that depend on the step alone."""

    def __init__(self, width=1, **options):
        self.network = nn.Linear(width, 1)
        for parameter in self.network.parameters():
            parameter.data.fill_(0.5)
        self.options = {"task": "line", **options}
        self.count = torch.zeros((), dtype=torch.int64)
        self.bad_at = None

    def parameter_groups(self):
        return [{"params": [self.network.weight]}, {"params": [self.network.bias], "lr": 0.1, "weight_decay": 0.0}]

    def losses(self, step):
        x = torch.randn(8, self.network.in_features, generator=generator_for("points", step))
        loss = (self.network(x) - 2 * x[:, :1]).square().mean()
        return {"total": loss * (float("nan") if step == self.bad_at else 1.0)}

    def after_step(self, step):
        self.count += 1

    def extra_state(self):
        return {"count": self.count}

    def load_extra(self, tensors):
        self.count = tensors["count"].clone()


OPTIONS = LoopOptions(20, 0.1, save_every=4)


def test_it_learns_and_counts_every_step(tmp_path):
    task, seen = LineTask(), []
    done = train(task, LoopOptions(200, 0.1), on_step=lambda step, losses: seen.append((step, losses["total"])))
    assert done == 200 and [step for step, _ in seen] == list(range(1, 201)) and int(task.count) == 200
    assert seen[-1][1] < 0.01 * seen[0][1] and abs(task.network.weight.item() - 2) < 0.1


@pytest.mark.parametrize("stops", [(7,), (1, 2, 3, 19), (20,), (0, 8)])
def test_any_stops_give_the_same_weights(stops, tmp_path):
    whole, file = LineTask(), tmp_path / "run.training_state"
    train(whole, OPTIONS)
    for stop in stops:
        train(LineTask(), OPTIONS, file, stop_after=stop)
    task = LineTask()
    assert train(task, OPTIONS, file) == 20
    assert torch.equal(task.network.weight, whole.network.weight) and torch.equal(task.network.bias, whole.network.bias)
    assert int(task.count) == 20


class Cancelled(Exception):
    pass


def test_a_cancel_keeps_what_was_done(tmp_path):
    file = tmp_path / "run.training_state"

    def cancel(step, losses):
        if step == 6:
            raise Cancelled

    with pytest.raises(Cancelled):
        train(LineTask(), OPTIONS, file, on_step=cancel)
    seen = []
    train(LineTask(), OPTIONS, file, on_step=lambda step, losses: seen.append(step))
    assert seen == list(range(7, 21))
    assert list(tmp_path.iterdir()) == [file]


def test_a_loss_that_is_no_number_stops_and_spoils_nothing(tmp_path):
    file, task = tmp_path / "run.training_state", LineTask()
    task.bad_at = 6
    with pytest.raises(TrainingFailed, match="step 7: expected a loss that is a number, found total nan"):
        train(task, OPTIONS, file)
    seen = []
    train(LineTask(), OPTIONS, file, on_step=lambda step, losses: seen.append(step))
    assert seen[0] == 5


def test_other_options_are_refused(tmp_path):
    file = tmp_path / "run.training_state"
    train(LineTask(seed=1), OPTIONS, file, stop_after=3)
    with pytest.raises(BadCheckpoint, match="expected seed 1, found seed 2"):
        train(LineTask(seed=2), OPTIONS, file)
    with pytest.raises(BadCheckpoint, match="expected steps 20, found steps 30"):
        train(LineTask(seed=1), LoopOptions(30, 0.1), file)
    with pytest.raises(KeyMismatch, match="weight"):
        train(LineTask(width=2, seed=1), OPTIONS, file)
    write_tensors(file, {"a": torch.ones(1)}, {})
    with pytest.raises(BadCheckpoint, match="expected a training state"):
        train(LineTask(seed=1), OPTIONS, file)


def test_a_finished_run_is_finished(tmp_path):
    file = tmp_path / "deeper" / "run.training_state"
    train(LineTask(), OPTIONS, file)
    content = file.read_bytes()
    assert train(LineTask(), OPTIONS, file, on_step=lambda step, losses: pytest.fail("no step is left")) == 20
    assert file.read_bytes() == content


def test_rates_fall_to_zero_and_groups_keep_their_factor():
    assert cosine_rate(0, 10, 0.2) == 0.2 and cosine_rate(5, 10, 0.2) == pytest.approx(0.1)
    assert cosine_rate(9, 10, 0.2) < 0.01
    task = LineTask()
    train(task, LoopOptions(1, 0.1, weight_decay=0.0, clip=0))
    # The first step of Adam moves by the rate.
    assert abs(task.network.weight.item() - 0.5) == pytest.approx(0.1, rel=1e-3)
    assert abs(task.network.bias.item() - 0.5) == pytest.approx(0.01, rel=1e-3)


# Pictures


def save(path, width, height, colour=(200, 30, 60), **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (width, height), colour)
    image.paste((0, 255, 0), (0, 0, width, height // 4))
    image.save(path, **more)


def test_a_folder_gives_squares_in_order(tmp_path):
    save(tmp_path / "照片" / "b one.png", 100, 80)
    save(tmp_path / "a.JPG", 64, 200)
    save(tmp_path / "small.png", 40, 300)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("no", encoding="utf-8")
    pictures = PictureFolder(tmp_path, 64)
    assert [pictures.name(number) for number in range(len(pictures))] == ["a.JPG", "b one.png"]
    assert {path.name: reason for path, reason in pictures.left_out.items()} == {
        "small.png": "40x300 pixels",
        "broken.png": "cannot be read (UnidentifiedImageError)",
    }
    both = stacked(pictures, [1, 0])
    assert both.shape == (2, 3, 64, 64) and both.dtype == torch.float32 and both.min() >= 0 and both.max() <= 1
    # The green band of the wide picture stays; that of the tall one is cut away.
    assert both[0, 1, 4].mean() > 0.9 and both[1, 1, 4].mean() < 0.2
    assert torch.equal(stacked(pictures, [1]), both[:1])


def test_a_turned_photograph_is_turned_back(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    save(tmp_path / "a.png", 64, 64, exif=exif)
    assert PictureFolder(tmp_path, 64).picture(0)[1, -4].mean() > 0.9


def test_a_full_cache_reads_again(tmp_path, monkeypatch):
    save(tmp_path / "a.png", 64, 64)
    kept = PictureFolder(tmp_path, 64).picture(0)
    monkeypatch.setattr("likeness_pack.training.pictures._CACHE_BYTES", 10)
    pictures = PictureFolder(tmp_path, 64)
    assert torch.equal(pictures.picture(0), kept) and not pictures._kept


@pytest.mark.parametrize(("name", "found"), [("nowhere", "no such folder"), ("empty", "no picture")])
def test_a_folder_without_pictures_is_refused(tmp_path, name, found):
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadImage, match=found):
        PictureFolder(tmp_path / name, 64)
    save(tmp_path / "empty" / "tiny.png", 8, 8)
    with pytest.raises(BadImage, match="tiny.png: 8x8 pixels|no such folder"):
        PictureFolder(tmp_path / name, 64)


def test_small_pictures_are_told_and_hidden_ones_do_not_count(tmp_path):
    save(tmp_path / "a.png", 64, 64)
    save(tmp_path / "b.png", 8, 8)
    (tmp_path / ".thumbnails").mkdir()
    save(tmp_path / ".thumbnails" / "c.png", 64, 64)
    pictures = PictureFolder(tmp_path, 64)
    assert pictures.told() == "1 pictures; left out: b.png: 8x8 pixels"
    assert pictures.digest == PictureFolder(tmp_path, 64).digest != PictureFolder(tmp_path, 8).digest


def test_a_file_that_breaks_later_is_named(tmp_path):
    save(tmp_path / "a.png", 64, 64)
    pictures = PictureFolder(tmp_path, 64)
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[:60])
    with pytest.raises(BadImage, match="a.png: expected a picture, found damaged data"):
        pictures.picture(0)


def test_pictures_in_memory_are_cut_alike():
    images = torch.rand(2, 96, 64, 4, generator=torch.Generator().manual_seed(0))
    batch = PictureBatch(images, 64)
    assert len(batch) == 2 and batch.name(1) == "picture 1"
    rgb = images[..., :3] * images[..., 3:]
    assert torch.allclose(batch.picture(1), rgb[1, 16:80].movedim(-1, 0), atol=1e-5)
    with pytest.raises(BadImage, match="expected 128 pixels"):
        PictureBatch(images, 128)
