"""The reader of MiVE: a Qwen3-VL of transformers' class, what it is given, which layers it gives, and when it loads."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import Qwen3Config, Qwen3VLModel
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from imvideoedit.common.errors import UserError
from imvideoedit.methods.mive_options import MiveOptions
from imvideoedit.methods.vision_inputs import patches, prompt, times_of
from imvideoedit.methods.vision_language import VisionLanguage
from imvideoedit.nano.fit_vlm import build_vlm
from imvideoedit.nano.text import build_vlm_tokenizer

CPU = torch.device("cpu")
WIDTH, WORDS = 96, 12
TEXT = "make the red ball at the left blue"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny Qwen3-VL with random weights; large ones, so that no layer is nearly nothing."""
    place = tmp_path_factory.mktemp("vlm")
    torch.manual_seed(0)
    model = build_vlm()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.ndim > 1 else 1)
    model.save_pretrained(place)
    build_vlm_tokenizer().save_pretrained(place)
    return place


def options(folder, **changes):
    own = {"vlm": str(folder), "width": WIDTH, "token": 16, "frames": 4, "pixels": 4096, "text_tokens": WORDS}
    return MiveOptions(**own | changes)


def film(count, seed=0, size=(64, 64)):
    return list(np.random.default_rng(seed).integers(0, 256, (count, *size, 3), np.uint8))


def read(reader, text=TEXT, count=9, seed=0, reference=7):
    frames = film(count, seed)
    with reader.on(CPU):
        seen = [frames[place] for place in reader.places(count)]
        return reader.read(text, seen, count, {"reference": film(1, reference)[0]})


def test_layers_are_those_that_the_models_own_modules_give(folder):
    """The indices in transformers' list, by hooks on the modules of a tiny random model."""
    reader = VisionLanguage(options(folder))
    seen = {}
    with reader.on(CPU):
        language = reader._loaded[0].language_model
        hooks = [
            language.layers[0].register_forward_hook(lambda part, args, output: seen.update(first=output)),
            language.layers[1].register_forward_pre_hook(lambda part, args: seen.update(second=args[0])),
            language.norm.register_forward_hook(lambda part, args, output: seen.update(last=output)),
        ]
        found = read(reader)
        for hook in hooks:
            hook.remove()
    rows = seen["first"].shape[1]
    first, last = found[:rows].split(WIDTH, -1)
    assert torch.equal(first, seen["first"][0]) and torch.equal(last, seen["last"][0])
    assert not torch.allclose(seen["first"], seen["second"]), "the vision encoder's features come in between"
    behind = read(VisionLanguage(options(folder, post_deepstack=True, layers="first")))
    assert torch.equal(behind[:rows], seen["second"][0])
    for layers, wanted in (("first", first), ("last", last)):
        assert torch.equal(read(VisionLanguage(options(folder, layers=layers)))[:rows], wanted)


def test_what_stands_before_the_instruction_is_the_same_without_it(folder):
    reader = VisionLanguage(options(folder))
    told, other, untold = (read(reader, text) for text in (TEXT, "remove the one at the right", ""))
    assert told.shape == other.shape == untold.shape == (len(told), 2 * WIDTH)
    torch.testing.assert_close(reader.without_text(told), untold, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(reader.without_text(other), untold, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(told[-WORDS:], other[-WORDS:])
    assert told[-WORDS:].abs().sum(-1).count_nonzero() == 8, "a row a word, and then padding"


def test_the_instruction_is_understood_with_what_is_seen(folder):
    reader = VisionLanguage(options(folder))
    plain, source, reference = read(reader), read(reader, seed=5), read(reader, reference=8)
    for other in (source, reference):
        assert not torch.allclose(plain[-WORDS:], other[-WORDS:], atol=1e-3)


def test_patches_are_those_of_the_libraries_processor():
    frames = film(2, size=(32, 48))
    own = Qwen2VLImageProcessorPil(
        patch_size=8, merge_size=2, temporal_patch_size=2, image_mean=[0.5] * 3, image_std=[0.5] * 3, do_resize=False
    )
    wanted = own(images=frames, return_tensors="pt")
    for number, frame in enumerate(frames):
        values, grid = patches([frame], (32, 48), 8, 2, 2)
        assert list(grid) == wanted["image_grid_thw"][number].tolist() == [1, 4, 6]
        torch.testing.assert_close(values, wanted["pixel_values"][24 * number : 24 * (number + 1)])
    both, grid = patches(frames, (32, 48), 8, 2, 2)
    assert grid == (1, 4, 6)
    halves = both.reshape(24, 3, 2, 64)
    for number, frame in enumerate(frames):
        single = patches([frame], (32, 48), 8, 2, 2)[0].reshape(24, 3, 2, 64)
        assert torch.equal(halves[:, :, number], single[:, :, 0])


def test_the_whole_is_what_the_libraries_own_processor_makes(folder):
    pytest.importorskip("torchvision")
    from transformers import Qwen3VLProcessor, Qwen3VLVideoProcessor

    words = build_vlm_tokenizer()
    how = {"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    videos = Qwen3VLVideoProcessor(**how, do_resize=False, do_sample_frames=False)
    own = Qwen3VLProcessor(Qwen2VLImageProcessorPil(**how, do_resize=False), words, videos)
    frames, reference = film(4), film(1, 7)[0]
    seen = "<|video_pad|><|vision_start|><|image_pad|><|vision_end|>"  # the frames have marks of their own
    metadata = [{"fps": 16, "total_num_frames": 9, "frames_indices": [0, 3, 5, 8]}]
    made = own(
        text=[f"<|im_start|>user\n{seen}{TEXT}"],
        images=[reference],
        videos=[np.stack(frames)],
        video_metadata=metadata,
        return_tensors="pt",
    )
    begin = prompt(times_of([place / 16 for place in (0, 3, 5, 8)], 2), 16, [16])
    assert made["input_ids"][0].tolist() == words(begin + TEXT, add_special_tokens=False).input_ids
    torch.testing.assert_close(made["pixel_values_videos"], patches(frames, (64, 64), 8, 2, 2)[0])
    torch.testing.assert_close(made["pixel_values"], patches([reference], (64, 64), 8, 2, 2)[0])


def test_few_frames_are_seen_and_length_depends_on_their_number_alone(folder):
    reader = VisionLanguage(options(folder))
    assert reader.places(1) == [0] and reader.places(3) == [0, 1, 2] and reader.places(81) == [0, 27, 53, 80]
    assert times_of([0.0, 0.5, 2.0], 2) == [0.25, 2.0]
    lengths = {count: len(read(reader, count=count)) for count in (1, 3, 9, 33)}
    assert lengths[9] == lengths[33] == lengths[3] > lengths[1]
    for count, length in lengths.items():
        assert abs(reader.shape(count, 64, 64)[0] - length) < 8 and reader.shape(count, 64, 64)[1] == 2 * WIDTH
    assert "<0.1 seconds><|vision_start|><|video_pad|><|video_pad|><|vision_end|>" in prompt([0.1], 2, [])


def test_it_is_loaded_when_needed_and_leaves_the_device(folder, monkeypatch):
    reader = VisionLanguage(options(folder))
    assert reader._loaded is None
    moves = []
    with reader.on(CPU):
        model = reader._loaded[0]
        assert isinstance(model, Qwen3VLModel) and not any(p.requires_grad for p in model.parameters())
        monkeypatch.setattr(model, "to", lambda where: moves.append(str(where)) or model)
    assert moves == ["cpu"]
    with reader.on(torch.device("meta")):
        assert moves == ["cpu", "meta"]
    assert moves == ["cpu", "meta", "cpu"] and reader._loaded[0] is model
    reader.release()
    assert reader._loaded is None
    assert reader.weight_bytes(torch.bfloat16) == 2 * sum(p.numel() for p in model.parameters())
    with pytest.raises(ValueError, match="loaded on a device first"):
        reader.read(TEXT, film(1), 1, {})


def test_a_cache_tells_models_and_settings_apart(folder, tmp_path):
    names = {
        VisionLanguage(options(folder, **changes)).name
        for changes in ({}, {"layers": "first"}, {"frames": 2}, {"pixels": 1024}, {"text_tokens": 9})
    }
    assert len(names) == 5
    build_vlm().save_pretrained(tmp_path)
    build_vlm_tokenizer().save_pretrained(tmp_path)
    assert VisionLanguage(options(tmp_path)).name not in names
    assert VisionLanguage(options(folder, rank=3)).name == VisionLanguage(options(folder)).name


def test_bad_input_costs_one_line(folder, tmp_path):
    reader = VisionLanguage(options(folder))
    with pytest.raises(
        UserError, match="the instruction has 13 tokens, more than the 12 of method.text_tokens"
    ) as long:
        read(reader, "make the red ball at the left blue and remove the one right")
    with pytest.raises(UserError, match="there is no Qwen3-VL at .*none; give method.vlm") as none:
        read(VisionLanguage(replace(options(folder), vlm=str(tmp_path / "none"))))
    with pytest.raises(UserError, match="has 96 and 16; set them to that") as width:
        read(VisionLanguage(options(folder, width=64)))
    Qwen3Config(hidden_size=WIDTH).save_pretrained(tmp_path / "text")
    with pytest.raises(UserError, match="is a qwen3, which sees no images; give a Qwen3-VL") as text:
        read(VisionLanguage(options(tmp_path / "text")))
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "config.json").write_text(json.dumps(build_vlm().config.to_dict()))
    with pytest.raises(UserError, match="the vision-language model cannot be loaded from .*damaged") as broken:
        read(VisionLanguage(options(damaged)))
    assert all("\n" not in str(each.value) for each in (long, none, width, text, broken))


def test_another_process_loads_its_own(folder):
    import pickle

    reader = VisionLanguage(options(folder))
    with reader.on(CPU):
        again = pickle.loads(pickle.dumps(reader))
    assert again._loaded is None and again.name == reader.name
    assert torch.equal(read(again), read(reader))
