"""ArcFace ONNX files to safetensors: every way of writing the network gives its numbers, other files are refused."""

from __future__ import annotations

import importlib.util
import random
import struct
import sys

import pytest
import torch
from likeness_pack.adapters import registry
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.encoders.arcface_iresnet import published
from likeness_pack.adapters.encoders.arcface_iresnet.onnx_file import read_onnx
from likeness_pack.adapters.encoders.arcface_iresnet.onnx_weights import iresnet_weights
from likeness_pack.adapters.encoders.topofr.arch import IResNet, IResNetConfig
from likeness_pack.adapters.errors import BadCheckpoint
from likeness_pack.adapters.file_hash import file_sha256
from likeness_pack.faces.errors import LikenessError
from sources import ROOT

SMALL = IResNetConfig(blocks=(1, 2, 2, 1), widths=(4, 4, 8, 8, 8), embedding=6)


@pytest.fixture(scope="module")
def tool():
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        spec = importlib.util.spec_from_file_location("likeness_convert_onnx", ROOT / "tools" / "convert_onnx.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(ROOT / "tools"))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(11)
    network = IResNet(SMALL).eval()
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point() and tensor.ndim == 1:
                tensor.uniform_(0.4, 1.2) if name.endswith(("var", "weight")) else tensor.normal_(0, 0.2)
    return network


def varint(value):
    value &= (1 << 64) - 1
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def entry(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def floats(*sides):
    """The type of a float tensor, as a graph's inputs and outputs carry it; a name is a side of any length."""
    shape = b"".join(entry(1, entry(2, side) if isinstance(side, str) else entry(1, side)) for side in sides)
    return entry(2, entry(1, entry(1, 1) + entry(2, shape)))


class Writer:
    """Writes an `IResNet` as ONNX, in the wire format, with the freedoms that exporters take."""

    def __init__(self, **style):
        self.style = style
        self.nodes, self.constants, self.inputs = [], [], []
        self.count = 500

    def fresh(self):
        self.count += 1
        return f"{self.count}"

    def tensor(self, tensor, name):
        how = self.style.get("numbers", "raw")
        content = b"".join(entry(1, side) for side in tensor.shape) + entry(8, name)
        values = tensor.detach().contiguous()
        if how == "half":
            return content + entry(2, 10) + entry(9, values.half().numpy().tobytes())
        if how == "half bits":
            bits = values.half().view(torch.int16).flatten().tolist()
            return content + entry(2, 10) + entry(5, b"".join(varint(bit & 0xFFFF) for bit in bits))
        if how == "double":
            return content + entry(2, 11) + entry(10, values.double().numpy().tobytes())
        if how == "floats":
            return content + entry(2, 1) + entry(4, values.numpy().tobytes())
        if how == "beside":
            place = {"location": self.style["location"], "offset": str(len(self.beside)), "length": str(values.nbytes)}
            self.beside += values.numpy().tobytes()
            pairs = b"".join(entry(13, entry(1, key) + entry(2, value)) for key, value in place.items())
            return content + entry(2, 1) + pairs + entry(14, 1)
        return content + entry(2, 1) + entry(9, values.numpy().tobytes())

    beside = b""

    def constant(self, tensor):
        name = self.fresh()
        if self.style.get("constants") == "nodes":
            self.nodes.append(
                entry(4, "Constant") + entry(2, name) + entry(5, entry(1, "value") + entry(5, self.tensor(tensor, "")))
            )
            return name
        self.constants.append(self.tensor(tensor, name))
        self.inputs.append(name)
        if self.style.get("constants") == "shared":
            alias = self.fresh()
            self.node("Identity", [name], out=alias)
            return alias
        return name

    def node(self, kind, inputs, out=None, **settings):
        out = out or self.fresh()
        content = b"".join(entry(1, name) for name in inputs) + entry(2, out) + entry(4, kind)
        for name, value in settings.items():
            told = entry(1, name)
            if isinstance(value, float):
                told += varint(2 << 3 | 5) + struct.pack("<f", value) + entry(20, 1)
            elif isinstance(value, int):
                told += entry(3, value) + entry(20, 2)
            elif self.style.get("packed"):
                told += entry(8, b"".join(varint(one) for one in value)) + entry(20, 7)
            else:
                told += b"".join(entry(8, one) for one in value) + entry(20, 7)
            content += entry(5, told)
        self.nodes.append(content)
        return out

    def norm(self, x, norm):
        epsilon = self.style.get("epsilon", norm.eps)
        variance = norm.running_var + norm.eps - epsilon
        numbers = [self.constant(one) for one in (norm.weight, norm.bias, norm.running_mean, variance)]
        return self.node("BatchNormalization", [x, *numbers], epsilon=float(epsilon))

    def convolution(self, x, conv, norm, scale=1.0):
        kernel, stride = conv.kernel_size[0], self.style.get("stride", conv.stride[0])
        pads = [kernel // 2] * 4
        settings = {
            "kernel_shape": [kernel] * 2,
            "strides": [stride] * 2,
            "pads": pads,
            "dilations": [1, 1],
            "group": 1,
        }
        if self.style.get("norms") == "kept":
            return self.norm(self.node("Conv", [x, self.constant(conv.weight * scale)], **settings), norm)
        factor = norm.weight / (norm.running_var + norm.eps).sqrt()
        weight, bias = conv.weight * factor[:, None, None, None] * scale, norm.bias - norm.running_mean * factor
        return self.node("Conv", [x, self.constant(weight), self.constant(bias)], **settings)

    def slope(self, x, prelu):
        if self.style.get("constants") == "nodes":
            return self.node("PRelu", [x, self.node("Unsqueeze", [self.constant(prelu.weight)], axes=[1, 2])])
        return self.node("PRelu", [x, self.constant(prelu.weight[:, None, None])])

    def block(self, x, block):
        inner = self.slope(self.convolution(self.norm(x, block.bn1), block.conv1, block.bn2), block.prelu)
        inner = self.convolution(inner, block.conv2, block.bn3)
        shortcut = x if block.downsample is None else self.convolution(x, *block.downsample)
        pair = [shortcut, inner] if self.style.get("swapped") else [inner, shortcut]
        return self.node("Add", pair)

    def head(self, x, network):
        x = self.norm(x, network.bn2)
        if self.style.get("dropout"):
            x = self.node("Dropout", [x])
        if self.style.get("linear") == "matmul":
            x = self.node("Reshape", [x, self.constant(torch.zeros(2))])
            x = self.node("MatMul", [x, self.constant(network.fc.weight.T)])
            return self.norm(self.node("Add", [x, self.constant(network.fc.bias)]), network.features)
        x = self.node("Flatten", [x], axis=1)
        turned = self.style.get("linear") != "plain"
        weight = network.fc.weight if turned else network.fc.weight.T
        x = self.node("Gemm", [x, self.constant(weight), self.constant(network.fc.bias)], transB=int(turned), alpha=1.0)
        return x if self.style.get("last norm") == "none" else self.norm(x, network.features)

    def write(self, path, network):
        x, scale = "input.1", 1.0
        if self.style.get("inside"):
            x = self.node("Sub", [x, self.constant(torch.tensor([self.style["inside"]]))])
            x, scale = self.node("Mul", [x, self.constant(torch.tensor([0.0078125]))]), 128 / 127.5
        x = self.slope(self.convolution(x, network.conv1, network.bn1, scale), network.prelu)
        for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
            for block in layer:
                x = self.block(x, block)
        x = self.head(x, network)
        graph = b"".join(entry(1, node) for node in self.nodes) + b"".join(entry(5, one) for one in self.constants)
        graph += entry(2, "network") + entry(11, entry(1, "input.1") + floats("N", 3, 112, 112))
        if self.style.get("listed"):
            graph += b"".join(entry(11, entry(1, name)) for name in self.inputs)
        graph += entry(12, entry(1, x) + floats("N", network.fc.out_features))
        path.write_bytes(entry(1, 6) + entry(2, "exporter") + entry(7, graph) + entry(8, entry(2, 11)))
        return path


STYLES = {
    "published": {},
    "norms kept": {"norms": "kept"},
    "mxnet": {"norms": "kept", "epsilon": 2e-5, "inside": 127.5, "dropout": True, "listed": True, "numbers": "floats"},
    "constant nodes": {"constants": "nodes", "packed": True},
    "shared constants": {"constants": "shared", "swapped": True},
    "matmul": {"linear": "matmul"},
    "plain gemm": {"linear": "plain", "numbers": "double"},
    "beside": {"numbers": "beside", "location": "net.data"},
}


def outputs(path, network):
    """Embeddings of the built file and of the original."""
    header = read_header(path)
    match = registry.recognise(header, "encoder")
    encoder = match.family.build(header, match)
    faces = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(2)) * 2 - 1
    with torch.no_grad():
        return encoder.network(faces), network(faces)


@pytest.mark.parametrize("style", STYLES)
def test_every_way_of_writing_gives_the_same_numbers(tmp_path, tool, network, style):
    writer = Writer(**STYLES[style])
    source = writer.write(tmp_path / "some name.onnx", network)
    if writer.beside:
        (tmp_path / "net.data").write_bytes(writer.beside)
    done = tool.convert(source, tmp_path / "out.safetensors")
    got, expected = outputs(done.target, network)
    assert torch.allclose(got, expected, atol=1e-5, rtol=1e-4)
    assert done.encoder == "arcface_iresnet_1x2x2x1"


@pytest.mark.parametrize("numbers", ["half", "half bits"])
def test_half_precision_constants_are_read(tmp_path, tool, network, numbers):
    source = Writer(numbers=numbers, norms="kept").write(tmp_path / "a.onnx", network)
    got, expected = outputs(tool.convert(source, tmp_path / "a.safetensors").target, network)
    assert torch.allclose(got, expected, atol=2e-2) and not torch.equal(got, expected)


def test_a_folded_last_norm_is_replaced_by_nothing(tmp_path, tool, network):
    source = Writer(**{"last norm": "none"}).write(tmp_path / "a.onnx", network)
    target = tool.convert(source, tmp_path / "a.safetensors").target
    header = read_header(target)
    built = registry.load(target, "encoder").network
    face = torch.rand(1, 3, 112, 112)
    with torch.no_grad():
        plain = network.fc(network.bn2(network.stages(face)[-1]).flatten(1))
        assert torch.allclose(built(face), plain, atol=1e-5)
    assert header.shape("features.weight") == (6,)


def test_metadata_tell_source_and_id(tmp_path, tool, network, monkeypatch):
    source = Writer().write(tmp_path / "w600k_r50.onnx", network)
    plain = read_header(tool.convert(source, tmp_path / "a.safetensors").target).metadata
    assert plain["likeness.source"] == "w600k_r50.onnx"
    assert plain["likeness.source_sha256"] == file_sha256(source)
    # A name alone is no proof of what a network was trained on.
    assert "likeness.encoder_id" not in plain
    named = tool.convert(source, tmp_path / "b.safetensors", encoder_id="arcface_mine")
    assert named.encoder == "arcface_mine"
    monkeypatch.setitem(published.ENCODER_IDS, file_sha256(source), "arcface_buffalo_l")
    known = tool.convert(source, tmp_path / "c.safetensors")
    assert known.encoder == "arcface_buffalo_l"
    assert registry.load(known.target, "encoder").id == "arcface_buffalo_l"


def test_published_ids_are_those_of_the_packages():
    from likeness_pack.adapters.encoders.packages import ARCFACE, PACKS

    assert sorted(published.ENCODER_IDS.values()) == sorted(ARCFACE + pack for pack in PACKS)
    assert all(len(sha) == 64 for sha in published.ENCODER_IDS)


WRONG = {
    "strides": ({"stride": 2}, "strides"),
    "another middle": ({"inside": 100.0}, "instead of 127.5"),
    "outside": ({"numbers": "beside", "location": "../net.data"}, "outside its folder"),
    "nothing beside": ({"numbers": "beside", "location": "gone.data"}, "the file gone.data beside it"),
}


@pytest.mark.parametrize("name", WRONG)
def test_other_graphs_are_refused_with_a_reason(tmp_path, tool, network, name):
    style, reason = WRONG[name]
    source = Writer(**style).write(tmp_path / "a.onnx", network)
    with pytest.raises(BadCheckpoint, match=reason):
        tool.convert(source, tmp_path / "a.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


def test_networks_without_residual_blocks_are_refused(tmp_path, tool):
    writer = Writer()
    weight = writer.constant(torch.zeros(4, 3, 3, 3))
    out = writer.node("Relu", [writer.node("Conv", ["x", weight], pads=[1, 1, 1, 1])])
    graph = b"".join(entry(1, node) for node in writer.nodes) + b"".join(entry(5, one) for one in writer.constants)
    graph += entry(11, entry(1, "x")) + entry(12, entry(1, out))
    (tmp_path / "a.onnx").write_bytes(entry(7, graph))
    with pytest.raises(BadCheckpoint, match=r"Relu after .* instead of PRelu.*onnxruntime"):
        tool.convert(tmp_path / "a.onnx", tmp_path / "b.safetensors")


@pytest.mark.parametrize("content", [b"", b"\x00" * 40, b"hello, not an onnx file", entry(7, b"\x0a\xff\xff\xff\x7f")])
def test_files_that_are_no_networks_are_refused(tmp_path, content):
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(BadCheckpoint):
        iresnet_weights(read_onnx(tmp_path / "a.onnx"))
    with pytest.raises(BadCheckpoint, match="(?i)no such file"):
        read_onnx(tmp_path / "none.onnx")


def test_damaged_files_end_in_a_refusal_or_in_other_numbers(tmp_path, tool, network):
    whole = Writer().write(tmp_path / "a.onnx", network).read_bytes()
    dice = random.Random(5)
    refused = 0
    for number in range(120):
        content = bytearray(whole)
        if number % 3 == 0:
            del content[dice.randrange(len(content)) :]
        else:
            # Most bytes are weights; what describes the network stands at the beginning.
            for _ in range(1 + number % 4):
                content[dice.randrange(8000)] = dice.randrange(256)
        (tmp_path / "b.onnx").write_bytes(bytes(content))
        try:
            tool.convert(tmp_path / "b.onnx", tmp_path / "b.safetensors", force=True)
        except LikenessError:
            refused += 1
    assert refused > 60


def test_a_file_that_exists_is_kept(tmp_path, tool, network, capsys):
    source = Writer().write(tmp_path / "a.onnx", network)
    target = tmp_path / "a.safetensors"
    target.write_bytes(b"mine")
    assert tool.main([str(source)]) == 1
    assert target.read_bytes() == b"mine" and "--force" in capsys.readouterr().err
    assert tool.main([str(source), "--force", "--encoder-id", "arcface_x1"]) == 0
    assert "encoder arcface_x1" in capsys.readouterr().out
    assert tool.main([str(source), str(tmp_path / "c"), "--encoder-id", "Bad Id"]) == 1
    assert "small letters" in capsys.readouterr().err


def test_onnxruntime_agrees_where_it_is_installed(tmp_path, tool, network):
    """The same file through the runtime of the packs; without it the reference is torch alone."""
    source = Writer().write(tmp_path / "a.onnx", network)
    got, expected = outputs(tool.convert(source, tmp_path / "a.safetensors").target, network)
    if importlib.util.find_spec("onnxruntime") is not None:
        import onnxruntime

        faces = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(2)) * 2 - 1
        session = onnxruntime.InferenceSession(str(source), providers=["CPUExecutionProvider"])
        expected = torch.from_numpy(session.run(None, {"input.1": faces.numpy()})[0])
    assert (got - expected).abs().max() <= 1e-4
