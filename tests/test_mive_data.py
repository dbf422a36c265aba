"""MiVE from files to edits: cached features, nano pairs, steps, references, offloading, the nano model."""

import json
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning import Trainer
from PIL import Image
from torch.optim import AdamW

from imvideoedit.common.errors import UserError
from imvideoedit.edit import main
from imvideoedit.editing.edit_file import load_pipeline
from imvideoedit.editing.memory import needs
from imvideoedit.editing.model_options import ModelOptions
from imvideoedit.editing.offload import Placement
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.evaluation.nano.editors import copy_source
from imvideoedit.evaluation.nano.located import located_editor, score_located
from imvideoedit.methods.adapter_file import AdapterHeader, save_adapter
from imvideoedit.methods.mive import Mive
from imvideoedit.methods.vision_language import VisionLanguage
from imvideoedit.nano import fit_vlm
from imvideoedit.nano.inputs import Preparation
from imvideoedit.nano.mix import PairMix, sample_pair
from imvideoedit.nano.pair_set import PairSet
from imvideoedit.nano.pairs import NanoPairs
from imvideoedit.nano.text import build_vlm_tokenizer
from imvideoedit.training.data_module import LatentDataModule
from imvideoedit.training.export import ExportAdapter
from imvideoedit.training.task import EditTask
from imvideoedit.video.reader import read_video, write_video
from imvideoedit.wan.backbone import Backbone, load_backbone
from imvideoedit.world.grammar import apply_instruction
from imvideoedit.world.located import SAYINGS, located_edits, mistaken, sample_located
from imvideoedit.world.render import render
from imvideoedit.world.scenes import is_held_out
from tests.conftest import awaken
from tests.processes import CHECKOUT

SIZE = (32, 32)
CPU = torch.device("cpu")
TEXT = "make the red box blue"


@pytest.fixture(scope="module")
def vlm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vlm")
    torch.manual_seed(0)
    fit_vlm.build_vlm().save_pretrained(folder)
    build_vlm_tokenizer().save_pretrained(folder)
    return str(folder)


def settings(vlm, **changes):
    own = {"vlm": vlm, "width": 96, "token": 16, "frames": 2, "pixels": 1024, "text_tokens": 24, "rank": 4}
    return own | {"adapter": "lora"} | changes


@pytest.fixture
def read(monkeypatch):
    """Every text that a reader reads."""
    seen, own = [], VisionLanguage.read
    monkeypatch.setattr(VisionLanguage, "read", lambda self, text, *rest: seen.append(text) or own(self, text, *rest))
    return seen


@pytest.fixture
def no_text_encoder(monkeypatch):
    def refuse(self, texts):
        raise AssertionError(f"the backbone's text encoder is asked for {texts}")

    monkeypatch.setattr(Backbone, "encode_text", refuse)


def random_clip(seed, frames=5):
    return np.random.default_rng(seed).integers(0, 256, (frames, *SIZE, 3), np.uint8)


def save_frames(folder, video):
    folder.mkdir(parents=True)
    for number, frame in enumerate(video):
        Image.fromarray(frame).save(folder / f"{number}.png")
    return folder.name


def write(folder, instructions, **more):
    folder.mkdir(exist_ok=True)
    lines = []
    for row, text in enumerate(instructions):
        names = {}
        for place, side in enumerate(("source", "target")):
            if not (folder / f"{row}{side}").exists():
                save_frames(folder / f"{row}{side}", random_clip(2 * row + place))
            names[side] = f"{row}{side}"
        lines.append({"instruction": text, "edited_prompt": "snow", **names, **more})
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder / "pairs.jsonl"


def opened(path, backbone, method):
    how = {"max_area": 1024, "pixel_multiple": 16, "batch_size": 2, "frames": [5], "format": "jsonl"}
    data = LatentDataModule(path, path.parent / "cache", **how)
    strategy = SimpleNamespace(barrier=lambda: None, root_device=CPU)
    data.trainer = SimpleNamespace(
        **{"global_rank": 0, "world_size": 1, "accumulate_grad_batches": 1, "strategy": strategy},
        lightning_module=SimpleNamespace(backbone=backbone, method=method),
    )
    data.setup()
    return data


# Training.


def test_features_are_cached_by_model_frames_and_text(tmp_path, wan_folder, vlm, read, no_text_encoder):
    backbone = load_backbone(str(wan_folder), device="cpu", parts=("vae",))
    texts = ["make it red", "make it red"]
    method = Mive(**settings(vlm))
    (batch,) = opened(write(tmp_path / "data", texts), backbone, method).train_dataloader()
    assert read == texts, "alike words about other frames"
    for row, number in enumerate(int(name[0]) for name in batch.ids):
        source, target = random_clip(2 * number), random_clip(2 * number + 1)
        with method.reader.on(CPU):
            wanted = method.reader.read("make it red", [source[0], source[4]], 5, {"reference": target[0]})
        torch.testing.assert_close(batch.text_BTD[row].float(), wanted, rtol=2e-3, atol=2e-3)
    assert batch.empty_TD is None and method.labelled(batch).empty_TD.shape == batch.text_BTD.shape
    assert batch.conditions["reference"].shape[2] == 1
    del read[:]
    opened(tmp_path / "data/pairs.jsonl", backbone, Mive(**settings(vlm, rank=2)))
    assert read == [], "all is there"
    opened(write(tmp_path / "data", ["make it red", "make it blue"]), backbone, method)
    assert read == ["make it blue"]
    Image.fromarray(random_clip(9)[0]).save(tmp_path / "data/other.png")
    opened(write(tmp_path / "data", texts, reference="other.png"), backbone, method)
    assert read[1:] == texts, "another reference"
    opened(write(tmp_path / "data", texts), backbone, Mive(**settings(vlm, layers="last")))
    assert read[3:] == texts, "another layer"
    assert method.reader._loaded is None, "let go of when all is encoded"


def test_an_instruction_that_is_too_long_is_refused_before_training(tmp_path, wan_folder, vlm):
    backbone = load_backbone(str(wan_folder), device="cpu", parts=("vae",))
    path = write(tmp_path / "data", ["red " * 30])
    with pytest.raises(UserError, match=r"has 30 tokens, more than the 24 of method\.text_tokens"):
        opened(path, backbone, Mive(**settings(vlm)))


def test_nano_pairs_have_the_first_frame_as_reference_and_the_instruction(vlm):
    asked = Preparation.of(Mive(**settings(vlm)))
    pairs = PairSet(0, 2, "train", 32, frames=5, preparation=asked)
    edit, text = pairs.pair(1)
    example = pairs.example(1)
    assert text == edit.instruction == example["prompt"]
    assert np.array_equal(example["reference"], example["target"][:1])
    assert pairs.key("e") != PairSet(
        0, 2, "train", 32, frames=5, preparation=Preparation.of(Mive(**settings(vlm, layers="first")))
    ).key("e")


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_steps_on_nano_and_an_edit_that_looks_once(tmp_path, vlm, adapter, read, no_text_encoder):
    backbone = load_backbone("nano", device="cpu", parts=("vae",))
    method = Mive(**settings(vlm, adapter=adapter, text_tokens=64))
    task = EditTask(backbone, method, partial(AdamW, lr=1e-3), warmup=0, text_dropout=0.5)
    mix = PairMix(partial=0.0, empty=0.2, located=0.5)
    data = NanoPairs(pairs=3, batch_size=2, validation_pairs=1, resolution=32, frames=5, mix=mix)
    file = tmp_path / "adapter.safetensors"
    config = SamplingConfig(max_area=1024, max_frames=5, overlap=4, steps=2, guidance=3.0)
    before = backbone.parameter_hash()
    Trainer(
        max_steps=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[ExportAdapter(file, config)],
        default_root_dir=tmp_path,
    ).fit(task, data)
    assert task.backbone_hash == before and len(read) == 4
    del read[:]
    pipeline = EditPipeline.from_pretrained(adapter=file, device="cpu")
    assert pipeline.backbone.text_encoder is None
    video = render(sample_pair(0, 0)[0].source, 13, SIZE)
    result = pipeline(video, TEXT, inputs={"reference": video[0]})
    assert result.prompt == TEXT and result.frames.shape == video.shape
    assert read == [TEXT], "once for an edit, with guidance and several windows"
    with pytest.raises(UserError, match="needs the input reference"):
        pipeline(video, TEXT)


# Editing.


def saved(backbone, path, vlm):
    loaded = load_backbone(backbone, device="cpu")
    method, before = Mive(**settings(vlm)), loaded.parameter_hash()
    torch.manual_seed(0)
    method.install(loaded.transformer)
    awaken(method)
    sampler = vars(SamplingConfig(max_area=1024, max_frames=5, overlap=0, steps=1, guidance=1.0))
    save_adapter(method, path, AdapterHeader.describe(method, loaded, {"sampler": sampler}, before))
    return path


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, vlm):
    return saved("nano", tmp_path_factory.mktemp("nano") / "mive.safetensors", vlm)


@pytest.fixture
def clip(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (5, 32, 48, 3), np.uint8)
    write_video(tmp_path / "clip.mkv", frames, 10, codec="lossless")
    return tmp_path / "clip.mkv"


def edit(*arguments):
    main([str(each) for each in arguments])


def test_without_a_reference_the_bundled_adapter_edits_the_first_frame(adapter, clip, tmp_path, capsys, read):
    command = [clip, TEXT, "--adapter", adapter, "--codec", "lossless"]
    edit(*command, "--output", tmp_path / "made.mkv")
    notes = [line for line in capsys.readouterr().err.splitlines() if "first frame" in line]
    assert len(notes) == 1 and notes[0].endswith("give --reference for another")
    frame = EditPipeline.from_pretrained(device="cpu")(read_video(clip)[0][:1], TEXT).frames[0]
    Image.fromarray(frame).save(tmp_path / "reference.png")
    edit(*command, "--reference", tmp_path / "reference.png", "--output", tmp_path / "given.mkv")
    assert "first frame" not in capsys.readouterr().err
    made, given = (read_video(tmp_path / name)[0] for name in ("made.mkv", "given.mkv"))
    assert made.shape == (5, 32, 48, 3) and np.array_equal(made, given)
    assert read == [TEXT] * 2, "the instruction as typed"


def test_a_reference_may_be_any_image(adapter, clip, tmp_path):
    outputs = []
    for seed in (1, 2):
        picture = np.random.default_rng(seed).integers(0, 256, (60, 40, 3), np.uint8)
        Image.fromarray(picture).save(tmp_path / f"{seed}.png")
        command = [clip, TEXT, "--adapter", adapter, "--codec", "lossless", "--reference", tmp_path / f"{seed}.png"]
        edit(*command, "--output", tmp_path / f"{seed}.mkv")
        outputs.append(read_video(tmp_path / f"{seed}.mkv")[0])
    assert outputs[0].shape == (5, 32, 48, 3) and not np.array_equal(*outputs)


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        edit(*arguments)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert ended.value.code == 2 and len(errors) == 1
    return errors[0]


def test_what_cannot_be_is_refused_in_one_line(adapter, clip, tmp_path, wan_folder, vlm, capsys):
    elsewhere = saved(str(wan_folder), tmp_path / "elsewhere.safetensors", vlm)
    words = refused(capsys, clip, TEXT, "--adapter", elsewhere)
    assert "needs the input reference (image), which is not given" in words
    assert "of another backbone; give --reference FILE, or --first-frame-adapter FILE" in words
    Image.fromarray(random_clip(0)[0]).save(tmp_path / "r.png")
    words = refused(capsys, clip, "red " * 30, "--adapter", adapter, "--reference", tmp_path / "r.png")
    assert "has 30 tokens, more than the 24" in words
    assert not (tmp_path / "clip_edited.mp4").exists()


def test_the_model_has_left_the_device_before_the_first_pass(adapter, clip, tmp_path, monkeypatch):
    """Bytes on the device, counted at every move: ``to(torch.device)`` brings a part there, ``to("cpu")`` away."""
    pipeline = load_pipeline(ModelOptions(((adapter, 1.0),)), "cpu")
    backbone, reader = pipeline.backbone, pipeline.method.reader
    pipeline.placement = Placement(backbone, pipeline.method, CPU, "model")
    with reader.on(CPU):
        model = reader._loaded[0]
    sizes = {"reader": model, "transformer": backbone.transformer, "vae": backbone.vae}
    sizes = {name: (part, sum(p.nbytes for p in part.state_dict().values())) for name, part in sizes.items()}
    there, peaks, order = set(), [], []

    def moved(name, part, where):
        (there.add if isinstance(where, torch.device) else there.discard)(name)
        peaks.append(sum(sizes[each][1] for each in there))
        order.append((name, isinstance(where, torch.device)))
        return part

    video = read_video(clip)[0]
    pipeline.fit_memory(pipeline.config, *video.shape[1:3])
    for name, (part, _) in sizes.items():
        monkeypatch.setattr(part, "to", partial(moved, name, part))
    pipeline(video, TEXT, inputs={"reference": video[0]})
    assert [each for each in order if each[0] != "vae"] == [
        *(("reader", True), ("reader", False)),
        *(("transformer", True), ("transformer", False)),
    ]
    whole = {name: size for name, (_, size) in sizes.items()}
    assert max(peaks) == max(whole.values()) < sum(whole.values())
    needed = replace(needs(backbone, pipeline.method, 100, 1024), coding=0, tile=0, work=0, features=())
    own = needed.weights["reader"]
    assert own == sum(p.nbytes for p in model.parameters())
    assert needed.of("full") == sum(needed.weights.values()) == needed.held("full") + own
    assert needed.of("group") >= own and needed.of("model") == max(needed.weights.values())


# The instruction alone names the thing.


def test_the_set_of_40_has_exact_answers_that_only_the_instruction_tells():
    edits = located_edits()
    assert len(edits) == 40 and len({each.instruction for each in edits}) > 30
    assert sorted({each.task for each in edits}) == [
        *("color_texture", "local_attribute", "object_removal", "rigid_replacement"),
    ]
    for each in edits:
        one, other = each.source.things
        assert (one.kind, one.color, one.material, one.state) == (other.kind, other.color, other.material, other.state)
        assert one.location != other.location and is_held_out(one.color, one.kind)
        changed = [thing for thing in each.source.things if thing not in each.target.things]
        assert len(changed) == 1
        said = [saying.format(color=one.color, kind=one.kind, place=changed[0].location) for saying in SAYINGS]
        assert any(who in each.instruction for who in said)
        assert apply_instruction(each.instruction) is None, "the grammar of the other methods does not know it"
        source, target, mask = each.render(1)
        assert mask.mean() > 0.01 and not np.array_equal(source, target)
    assert located_edits() == edits and located_edits(seed=1) != edits
    words = build_vlm_tokenizer()
    assert all(words.unk_token_id not in words(each.instruction).input_ids for each in edits)
    train = [sample_located(np.random.default_rng(n), "train") for n in range(30)]
    assert not any(is_held_out(t.color, t.kind) for each in train for s in (each.source, each.target) for t in s.things)


def test_located_pairs_join_the_mix_and_leave_other_caches_as_they_were():
    plain, mixed = PairMix(), PairMix(located=1.0, partial=0.0, empty=0.0)
    assert sample_pair(0, 5, mix=plain) == sample_pair(0, 5)
    edit, text = sample_pair(0, 5, mix=mixed)
    assert text == edit.edited_prompt and len(edit.source.things) == 2
    with pytest.raises(UserError, match="fractions"):
        PairMix(compound=0.6, located=0.6)
    keys = {PairSet(0, 2, "train", mix=mix).key("e") for mix in (plain, mixed)}
    assert len(keys) == 2


def test_editors_of_the_set_are_told_apart_by_which_thing_they_change(tmp_path):
    def exact(source, edit):
        return render(edit.target, len(source), source.shape[1:3])

    def twin(source, edit):
        return render(mistaken(edit), len(source), source.shape[1:3])

    found = score_located({"exact": exact, "copy": copy_source, "twin": twin}, frames=1, count=40)
    assert [found[name]["right"] for name in ("exact", "copy", "twin")] == [1, 0, 0]
    assert found["exact"]["overall"] > 95 and found["exact"]["overall"] > found["copy"]["overall"]


def test_without_the_exact_frame_the_sources_own_is_given(adapter, read):
    pipeline, edit = EditPipeline.from_pretrained(adapter=adapter, device="cpu"), located_edits(1)[0]
    source = render(edit.source, 1, SIZE)
    for given, frame in (("source", source[0]), ("exact", render(edit.target, 1, SIZE)[0])):
        made = located_editor(pipeline, given)(source, edit)
        wanted = pipeline(source, edit.instruction, prompt=edit.instruction, inputs={"reference": frame}).frames
        assert np.array_equal(made, wanted)
    assert read == [edit.instruction] * 4


# The nano model.


def composed(name):
    with initialize_config_dir(str(CHECKOUT / "conf"), version_base="1.3"):
        return compose("train", [f"+experiment={name}"])


def test_the_command_trains_a_model_that_can_read(tmp_path, capsys):
    fit_vlm.main(["--output", str(tmp_path / "vlm"), "--steps", "1", "--edits", "4"])
    assert "of the words of 64 held-out edits" in capsys.readouterr().out
    reader = Mive(**settings(str(tmp_path / "vlm"))).reader
    with reader.on(CPU):
        assert reader.read(TEXT, list(random_clip(0)[:2]), 2, {}).isfinite().all()
    with pytest.raises(SystemExit) as ended:
        fit_vlm.main(["--output", str(tmp_path / "other"), "--steps", "0"])
    assert ended.value.code == 2


def test_the_experiment_is_for_the_model_that_the_command_makes():
    method = instantiate(composed("mive_nano").method)
    own, text = method.options, fit_vlm.TEXT
    assert (own.width, own.token) == (text["hidden_size"], fit_vlm.PATCH * fit_vlm.MERGE)
    assert (own.frames, own.pixels) == (fit_vlm.SEEN, fit_vlm.SIDE**2)
    words = build_vlm_tokenizer()
    drawn = [sample_pair(0, n, mix=PairMix(compound=1.0, partial=0.0, empty=0.0))[0].instruction for n in range(40)]
    assert max(len(words(each).input_ids) for each in drawn) <= own.text_tokens


def test_words_that_are_right_are_counted_where_a_model_sees_and_where_it_does_not():
    lessons = [fit_vlm.lesson(5, place, "test") for place in range(3)]
    blind = fit_vlm.mixed_up(lessons)
    assert [each.answer for each in blind] == [each.answer for each in lessons]
    assert all(one.reference is not other.reference for one, other in zip(blind, lessons, strict=True))
    words = build_vlm_tokenizer()
    batch = fit_vlm.batch_of(lessons, words)
    told = batch["labels"] != -100

    def exact(**given):
        shifted = given["input_ids"].roll(-1, 1)
        return SimpleNamespace(logits=torch.nn.functional.one_hot(shifted, len(words)).float())

    assert fit_vlm.words_right(exact, lessons, words) == 1
    said = words.decode(batch["input_ids"][0][told[0]])
    assert lessons[0].instruction.split()[0] in said and lessons[0].answer.split()[0] in said
