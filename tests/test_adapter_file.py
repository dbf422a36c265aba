import dataclasses
import errno
import itertools
import json
import resource

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import imvideoedit
from imvideoedit.common.errors import UserError
from imvideoedit.edit_batch import Input
from imvideoedit.methods.adapter_file import (
    METHODS,
    AdapterHeader,
    adapter_hash,
    load_adapter,
    read_header,
    read_state,
    save_adapter,
    warm_start,
)
from imvideoedit.methods.adapter_header import CHECKS, FORMAT_VERSION
from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.methods.two_stream import TwoStreamMethod
from imvideoedit.wan.backbone import Backbone
from imvideoedit.wan.identity import parameter_hash
from imvideoedit.wan.kinship import architecture, sketch
from tests.conftest import awaken, tiny_batch, tiny_transformer

SIGMA = torch.tensor([0.3, 0.8])
TRAINING = {"steps": 12, "seed": 3, "max_area": 4096, "sampler": {"steps": 50, "guidance": 5.0, "shift": 5.0}}
STREAMS = [kind for kind in METHODS.values() if issubclass(kind, TwoStreamMethod)]
BUILDS = [
    lambda stream=stream, adapter=adapter, kind=kind: kind(source_stream=stream, adapter=adapter, rank=4)
    for stream, adapter, kind in itertools.product(("cached", "joint"), ("full", "lora"), STREAMS)
]


def backbone_of(transformer):
    return Backbone("tiny", "r1", transformer, None, None, None, 5.0)


def saved(path, method=None, **options):
    """An adapter file, and the velocity its method gives."""
    transformer, method = tiny_transformer(), method or PredictUpdate(adapter="lora", rank=4)
    method.install(transformer)
    awaken(method)
    save_adapter(method, path, AdapterHeader.describe(method, backbone_of(transformer), TRAINING), **options)
    batch = tiny_batch()
    return method, method.velocity(transformer, batch)(batch.target_BCFHW, SIGMA)


def rewrite(path, **header):
    """Change header entries of a file, None removes one; it is then without checksums, as of earlier versions."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    training = json.loads(metadata["training"])
    training.pop(CHECKS, None)  # as in files of earlier versions, which are not checked
    metadata |= {"training": json.dumps(training)} | {key: json.dumps(value) for key, value in header.items()}
    save_file(load_file(path), path, {key: value for key, value in metadata.items() if value != "null"})


@pytest.fixture
def adapter(tmp_path):
    path = tmp_path / "adapter.safetensors"
    saved(path)
    return path


@pytest.mark.parametrize("build", BUILDS)
def test_a_loaded_adapter_is_the_saved_one(tmp_path, build):
    path = tmp_path / "adapter.safetensors"
    method, expected = saved(path, build())
    transformer, batch = tiny_transformer(), tiny_batch()
    loaded = load_adapter(path, transformer)
    assert torch.equal(loaded.velocity(transformer, batch)(batch.target_BCFHW, SIGMA), expected)
    assert loaded.config() == method.config()
    assert type(loaded) is type(method)
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())


def test_the_header_tells_the_whole_story(tmp_path):
    path = tmp_path / "adapter.safetensors"
    method, _ = saved(path, PredictUpdate(source_stream="joint", update_init="paper", gate=False))
    header = read_header(path)
    assert header == AdapterHeader(
        method="predict_update",
        config={
            "source_stream": "joint",
            "adapter": "full",
            "rank": 32,
            "position": "aligned",
            "update_init": "paper",
            "gate": False,
            "update": True,
        },
        inputs=[],
        backbone={
            "name": "tiny",
            "revision": "r1",
            "parameter_hash": parameter_hash(tiny_transformer()),
            "architecture": architecture(tiny_transformer()),
            "sketch": sketch(tiny_transformer()),
        },
        training=TRAINING,
        package_version=imvideoedit.__version__,
        format_version=FORMAT_VERSION,
    )
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    told = {key: json.loads(value) for key, value in metadata.items()}
    assert told["training"].pop(CHECKS).keys() == {"header", "tensors"}
    assert told == dataclasses.asdict(header)


class FramedPredictUpdate(PredictUpdate):
    """A later version of a method, which needs more than the files of today say."""

    inputs = (Input("first_frame", "image", from_target=True), Input("mask", "mask", required=False))


def test_the_header_lists_the_inputs_of_the_class_and_must_agree_with_it(tmp_path, monkeypatch):
    framed, plain = tmp_path / "framed.safetensors", tmp_path / "plain.safetensors"
    saved(framed, FramedPredictUpdate())
    saved(plain, PredictUpdate())
    listed = [
        {"name": "first_frame", "kind": "image", "encoder": "vae", "required": True},
        {"name": "mask", "kind": "mask", "encoder": "raw", "required": False},
    ]
    assert read_header(framed).inputs == listed and read_header(plain).inputs == []
    with pytest.raises(UserError, match=r"takes first_frame \(image, vae\) and mask \(mask, raw, optional\), but"):
        load_adapter(framed, tiny_transformer())
    monkeypatch.setitem(METHODS, "predict_update", FramedPredictUpdate)
    assert load_adapter(framed, tiny_transformer()).inputs == FramedPredictUpdate.inputs
    with pytest.raises(UserError, match=r"plain.safetensors takes no inputs, but .* takes first_frame .*; upgrade"):
        load_adapter(plain, tiny_transformer())


def test_a_first_format_file_has_no_inputs_and_loads(adapter):
    rewrite(adapter, format_version=1, inputs=None)
    header = read_header(adapter)
    assert (header.format_version, header.inputs) == (1, [])
    load_adapter(adapter, tiny_transformer())


def test_a_known_backbone_is_not_hashed_again_and_a_wrong_one_is_refused(adapter, monkeypatch):
    transformer = tiny_transformer()
    known = parameter_hash(transformer)
    monkeypatch.setattr("imvideoedit.methods.adapter_file.parameter_hash", None)
    load_adapter(adapter, transformer, backbone_hash=known)
    with pytest.raises(UserError, match="parameter hash"):
        load_adapter(adapter, tiny_transformer(seed=1), backbone_hash="0" * 16)


def test_every_method_is_known_by_its_own_name():
    assert {name: kind.name for name, kind in METHODS.items()} == {name: name for name in METHODS}


def test_the_file_holds_the_trained_tensors_and_no_more(adapter):
    transformer = tiny_transformer()
    method = PredictUpdate(adapter="lora", rank=4)
    method.install(transformer)
    assert read_state(adapter).keys() == {name for name, _ in method.named_parameters()}


def test_other_tensors_can_take_the_methods_place(tmp_path):
    path = tmp_path / "average.safetensors"
    method = PredictUpdate()
    transformer = tiny_transformer()
    method.install(transformer)
    header = AdapterHeader.describe(method, backbone_of(transformer), {})
    average = {name: weight + 1 for name, weight in method.state_dict().items()}
    save_adapter(method, path, header, average)
    assert all(torch.equal(weight, average[name]) for name, weight in read_state(path).items())
    average.popitem()
    with pytest.raises(ValueError, match="not those of an installed method"):
        save_adapter(method, path, header, average)
    method.uninstall()
    with pytest.raises(ValueError, match="not those of an installed method"):
        save_adapter(method, path, header)


def test_half_precision_halves_the_file(tmp_path):
    full, half = tmp_path / "full.safetensors", tmp_path / "half.safetensors"
    _, expected = saved(full, PredictUpdate())
    saved(half, PredictUpdate(), dtype=torch.bfloat16)
    assert half.stat().st_size < 0.6 * full.stat().st_size
    transformer, batch = tiny_transformer(), tiny_batch()
    loaded = load_adapter(half, transformer)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    velocity = loaded.velocity(transformer, batch)(batch.target_BCFHW, SIGMA)
    torch.testing.assert_close(velocity, expected, rtol=0.1, atol=0.1)


def test_a_half_precision_backbone_takes_the_same_adapter(tmp_path):
    path = tmp_path / "adapter.safetensors"
    _, expected = saved(path)
    transformer, batch = tiny_transformer().to(torch.bfloat16), tiny_batch()
    loaded = load_adapter(path, transformer)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    velocity = loaded.velocity(transformer, batch)(batch.target_BCFHW, SIGMA)
    assert velocity.dtype == torch.float32
    torch.testing.assert_close(velocity, expected, rtol=0.2, atol=0.2)


def test_training_continues_from_a_file(adapter):
    transformer = tiny_transformer()
    method = load_adapter(adapter, transformer, torch.float32).requires_grad_(True)
    method.losses(transformer, tiny_batch())["flow_matching"].mean().backward()
    assert all(parameter.grad is not None for parameter in method.parameters())
    own = {name: p for name, p in transformer.named_parameters() if ".processor." not in name}
    assert not any(parameter.requires_grad for parameter in own.values())


def test_the_hash_names_the_tensors_and_not_the_header(adapter, tmp_path):
    before = adapter_hash(adapter)
    assert before == adapter_hash(read_state(adapter))
    assert len(before) == 16 and int(before, 16) >= 0
    rewrite(adapter, training={"steps": 99})
    assert adapter_hash(adapter) == before
    state = read_state(adapter)
    next(iter(state.values())).view(-1)[0] += 1e-3
    assert adapter_hash(state) != before


def test_a_failed_save_leaves_the_old_file(adapter):
    before = adapter.read_bytes()
    method = PredictUpdate()
    transformer = tiny_transformer()
    method.install(transformer)
    header = AdapterHeader.describe(method, backbone_of(transformer), {"unwritable": object()})
    with pytest.raises(TypeError):
        save_adapter(method, adapter, header)
    assert adapter.read_bytes() == before
    assert list(adapter.parent.iterdir()) == [adapter]


def test_a_disk_that_refuses_it_is_an_error_of_the_system_and_leaves_nothing(tmp_path):
    path = tmp_path / "adapter.safetensors"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError) as caught:  # which the commands turn into one line
            saved(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG and not list(tmp_path.iterdir())


def test_training_starts_from_an_adapter_and_what_it_lacks_starts_as_usual(tmp_path):
    path = tmp_path / "paper.safetensors"
    saved(path, PredictUpdate(update_init="paper"))
    method = PredictUpdate(update_init="zero_out")
    method.install(tiny_transformer())
    start = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    warm_start(method, path)
    stored = read_state(path)
    lacking = start.keys() - stored.keys()
    assert lacking and all("zero_out" in name for name in lacking)
    for name, tensor in method.state_dict().items():
        assert torch.equal(tensor, stored.get(name, start[name])), name
    for other, word in ((PredictUpdate(adapter="lora", rank=4), "unknown"), (PredictUpdate(update=False), "unknown")):
        other.install(tiny_transformer())
        with pytest.raises(UserError, match=f"cannot start this method: .*{word}"):
            warm_start(other, path)
    elsewhere = PredictUpdate()
    elsewhere.install(tiny_transformer(seed=9))
    with pytest.raises(UserError, match="parameter hash"):
        warm_start(elsewhere, path)
