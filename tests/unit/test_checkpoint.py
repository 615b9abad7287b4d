"""Reading headers and tensors of every container, canonical names, and the strict load."""

from __future__ import annotations

import tracemalloc

import pytest
import torch
from likeness_pack.adapters.checkpoint import load_strictly, load_tensors, read_header
from likeness_pack.adapters.errors import BadCheckpoint, KeyMismatch, UnsafeCheckpoint
from safetensors.torch import save_file
from sparse_files import write_sparse_safetensors, write_zero_storage_torch
from torch import nn


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return {
        "proj.weight": torch.randn(4, 3, generator=generator),
        "proj.bias": torch.randn(4, generator=generator).half(),
        "count": torch.tensor(5),
        "empty": torch.zeros(0, 3),
        "turned": torch.randn(3, 5, generator=generator).t(),
    }


def write(path, content, container):
    if container == "safetensors":
        save_file({name: tensor.contiguous() for name, tensor in content.items()}, path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=container == "torch_zip")
    return path


@pytest.mark.parametrize("container", ["safetensors", "torch_zip", "torch_legacy"])
def test_every_container_gives_the_same_tensors(tmp_path, container):
    expected = tensors()
    header = read_header(write(tmp_path / "file.weights", expected, container))
    assert header.container == container
    assert set(header.tensors) == set(expected)
    loaded = load_tensors(header)
    for name, tensor in expected.items():
        assert header.shape(name) == tuple(tensor.shape)
        assert header.tensors[name].dtype == tensor.dtype == loaded[name].dtype
        assert torch.equal(loaded[name], tensor)


@pytest.mark.parametrize("container", ["safetensors", "torch_zip", "torch_legacy"])
def test_file_can_be_replaced_while_its_tensors_live(tmp_path, container):
    path = write(tmp_path / "file.weights", tensors(), container)
    loaded = load_tensors(read_header(path))
    before = loaded["proj.weight"].clone()
    path.write_bytes(b"\0" * path.stat().st_size)
    path.unlink()
    assert torch.equal(loaded["proj.weight"], before)


def test_prefix_filters_and_is_stripped(tmp_path):
    path = tmp_path / "a.bin"
    torch.save({"image_proj": {"a": torch.ones(2)}, "ip_adapter": {"1.to_k_ip.weight": torch.ones(2, 3)}}, path)
    header = read_header(path)
    assert header.has("image_proj.a", "ip_adapter.1.to_k_ip.weight")
    assert not header.has("image_proj.a", "image_proj.b")
    assert list(header.with_prefix("ip_adapter.")) == ["1.to_k_ip.weight"]
    assert set(load_tensors(header, "image_proj.")) == {"a"}


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {"module.a.b": torch.ones(2)}, "epoch": 3, "optimizer_states": [{"state": {0: torch.ones(1)}}]},
        {"model": {"a": {"b": torch.ones(2)}}},
        {"module.model.a.b": torch.ones(2)},
        {"a": {"b": torch.ones(2)}},
    ],
)
def test_wrapper_levels_are_removed(tmp_path, content):
    torch.save(content, tmp_path / "a.ckpt")
    header = read_header(tmp_path / "a.ckpt")
    assert set(header.tensors) == {"a.b"}
    assert torch.equal(load_tensors(header)["a.b"], torch.ones(2))


def test_a_level_that_does_not_wrap_everything_stays(tmp_path):
    torch.save({"model": {"a": torch.ones(2)}, "ema": {"a": torch.ones(2)}}, tmp_path / "a.ckpt")
    assert set(read_header(tmp_path / "a.ckpt").tensors) == {"model.a", "ema.a"}


def test_plain_values_become_metadata(tmp_path):
    torch.save({"a": torch.ones(2), "epoch": 3, "config": {"name": "x"}}, tmp_path / "a.ckpt")
    assert dict(read_header(tmp_path / "a.ckpt").metadata) == {"epoch": "3", "config.name": "x"}


def test_names_that_collide_after_joining_are_refused(tmp_path):
    torch.save({"a.b": torch.ones(2), "a": {"b": torch.ones(2)}}, tmp_path / "a.ckpt")
    with pytest.raises(BadCheckpoint, match="a.b twice"):
        read_header(tmp_path / "a.ckpt")


def test_numpy_numbers_do_not_stop_a_load(tmp_path):
    numpy = pytest.importorskip("numpy")
    content = {"a": torch.arange(6.0).reshape(2, 3), "loss": numpy.float32(1.5), "step": numpy.int64(3)}
    for legacy in (False, True):
        path = tmp_path / f"{legacy}.ckpt"
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        header = read_header(path)
        assert header.metadata["loss"] == "1.5"
        assert torch.equal(load_tensors(header)["a"], content["a"])


def test_digest_tells_trained_files_apart(tmp_path):
    content = tensors()
    for container in ("safetensors", "torch_zip", "torch_legacy"):
        first = read_header(write(tmp_path / "one", content, container)).digest
        again = read_header(write(tmp_path / "two", content, container)).digest
        changed = content | {"proj.weight": content["proj.weight"] + 1}
        assert read_header(write(tmp_path / "one", changed, container)).digest != first
        # A torch zip names its folder after the file, so only the other two are equal byte for byte.
        assert again == first or container == "torch_zip"


def test_a_file_that_changed_is_not_loaded(tmp_path):
    path = write(tmp_path / "a", tensors(), "safetensors")
    header = read_header(path)
    write(path, tensors() | {"more": torch.ones(3)}, "safetensors")
    with pytest.raises(BadCheckpoint, match="another one in its place"):
        load_tensors(header)


def test_foreign_classes_refuse_the_load_but_not_the_header(tmp_path):
    import argparse

    torch.save({"state_dict": {"a": torch.ones(2)}, "args": argparse.Namespace(lr=1)}, tmp_path / "my file.ckpt")
    header = read_header(tmp_path / "my file.ckpt")
    assert header.foreign == ("argparse.Namespace",)
    with pytest.raises(UnsafeCheckpoint, match=r'argparse.Namespace.*convert_checkpoint.py "my file.ckpt"'):
        load_tensors(header)


def test_recognition_of_a_large_file_allocates_little(tmp_path):
    shapes = {f"blocks.{i}.weight": (4096, 4096) for i in range(16)}
    for path in (
        write_sparse_safetensors(tmp_path / "large.safetensors", shapes),
        write_zero_storage_torch(tmp_path / "large.ckpt", shapes),
        write_zero_storage_torch(tmp_path / "legacy.ckpt", shapes, legacy=True),
    ):
        tracemalloc.start()
        header = read_header(path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert sum(info.nbytes for info in header.tensors.values()) == 1 << 30
        assert peak < 20_000_000
    assert (tmp_path / "large.safetensors").stat().st_size > 1 << 30


def test_an_expanded_tensor_stays_small_when_loaded(tmp_path):
    header = read_header(write_zero_storage_torch(tmp_path / "a.ckpt", {"w": (1 << 20, 1 << 20)}))
    loaded = load_tensors(header)["w"]
    assert loaded.shape == (1 << 20, 1 << 20)
    assert loaded.untyped_storage().nbytes() == 4


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.gate = nn.Parameter(torch.tensor(0.0))


def test_strict_load_converts_dtype_and_single_numbers():
    source = Small().state_dict()
    content = {name: tensor.clone() for name, tensor in source.items() if "num_batches" not in name}
    content["linear.weight"] = content["linear.weight"].half()
    content["gate"] = torch.tensor([0.5])
    content["other.num_batches_tracked"] = torch.tensor(3)
    module = Small()
    load_strictly(module, content, what="a")
    assert module.linear.weight.dtype == torch.float32
    assert torch.equal(module.linear.weight, content["linear.weight"].float())
    assert module.gate.shape == () and module.gate.item() == 0.5


def test_strict_load_fills_a_module_on_the_meta_device():
    content = {name: tensor for name, tensor in Small().state_dict().items() if "num_batches" not in name}
    with torch.device("meta"):
        module = Small()
    load_strictly(module, content, what="a")
    assert not any(tensor.is_meta for tensor in module.state_dict().values())
    assert torch.equal(module.linear.weight, content["linear.weight"])


def test_strict_load_reports_missing_leftover_and_shapes_by_prefix():
    content = Small().state_dict()
    del content["norm.running_mean"], content["norm.running_var"]
    content |= {f"extra.layers.{i}.weight": torch.ones(1) for i in range(5)}
    content["linear.bias"] = torch.ones(7)
    module = Small()
    before = module.linear.weight.clone()
    with pytest.raises(KeyMismatch) as caught:
        load_strictly(module, content, what="file.ckpt, projector")
    message = str(caught.value)
    assert message.startswith("file.ckpt, projector")
    assert "2 missing: norm (2)" in message
    assert "5 left over: extra.layers (5)" in message
    assert "linear.bias (7,) instead of (4,)" in message
    assert torch.equal(module.linear.weight, before)


def test_ignorable_keys_are_left_over_without_complaint_but_never_missing():
    content = Small().state_dict() | {"mask_token": torch.ones(1), "head.weight": torch.ones(2)}
    ignorable = {"mask_token": "only for training", "head.": "recognition head", "linear.": "not to be lost"}
    load_strictly(Small(), content, what="a", ignorable=ignorable)
    del content["linear.weight"]
    with pytest.raises(KeyMismatch, match="1 missing"):
        load_strictly(Small(), content, what="a", ignorable=ignorable)
