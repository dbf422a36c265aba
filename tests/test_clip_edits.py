"""Fits of nano clips: what their cases hold, and a command that goes on clip by clip."""

import json
import math
import re

import numpy as np
import pytest

from imvideoedit.evaluation.nano import clip_edits
from imvideoedit.evaluation.nano.clip_cases import LATE, TASKS, sample_case, sample_hidden_case
from imvideoedit.evaluation.nano.clip_edits import over_clips
from imvideoedit.evaluation.nano.clip_fits import SECOND
from imvideoedit.world.scenes import OBJECT_COLORS


def test_a_hidden_thing_shows_only_later_and_no_text_tells_of_it():
    for number in range(4):
        case = sample_hidden_case(np.random.default_rng(number))
        assert np.array_equal(case.source[0], case.target[0]), "the first frame cannot know"
        assert case.changed[LATE].mean() > 0.02 and case.changed[SECOND].any() and not case.changed[0].any()
        assert (case.mask > 0)[case.changed].mean() > 0.9
        assert case.source_prompt == case.edited_prompt
        assert len([word for word in re.findall(r"\w+", case.edited_prompt) if word in OBJECT_COLORS]) == 1


@pytest.mark.parametrize("task", TASKS)
def test_a_case_changes_within_its_mask_alone(task):
    case = sample_case(np.random.default_rng((3, TASKS.index(task))), task)
    assert case.task == task and case.changed.any() and 0 < (case.mask > 0).mean() < 1
    assert np.abs(case.source.astype(int) - case.target)[~case.changed].max() <= 4


def test_intervals_are_of_the_clips_whose_values_are_known():
    assert over_clips([2.0, 2.0, math.nan]) == (2.0, 2.0, 2.0)
    mean, low, high = over_clips([1.0, 3.0, 2.0, 6.0])
    assert mean == 3.0 and 1.0 <= low < 3.0 < high <= 6.0
    assert math.isnan(over_clips([math.nan]).mean)


@pytest.fixture
def measured(monkeypatch) -> list[int]:
    """The numbers of the clips that are measured; their scores are made up."""
    numbers: list[int] = []

    def measure(backbone, number, how, folder):
        numbers.append(number)
        (folder / "half").mkdir(parents=True, exist_ok=True)
        if number == 2 and numbers.count(2) == 1:
            raise KeyboardInterrupt
        value = {"changed_psnr": 10.0 + number, "kept_psnr": math.nan, "frame_psnr": 20.0}
        edit = dict.fromkeys(("copy", "ceiling", "base", "lora_edit", "naive"), value)
        later = dict.fromkeys(("copy", "first frame", "second frame"), value)
        return {"task": "color_texture", "edit": edit, "later": later}

    monkeypatch.setattr(clip_edits, "measure", measure)
    monkeypatch.setattr(clip_edits, "load_backbone", lambda *_, **__: object())
    return numbers


def test_what_is_made_is_passed_over_and_the_tables_name_their_command(measured, tmp_path, capsys):
    command = ["--out", str(tmp_path / "out"), "--clips", "4"]
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        clip_edits.main(command)
    assert measured == [0, 1, 2] and (tmp_path / "out" / "unfinished" / "002" / "half").is_dir(), "to go on from"
    clip_edits.main(command)
    assert measured == [0, 1, 2, 2, 3] and not (tmp_path / "out" / "unfinished").exists()
    said = " ".join(capsys.readouterr().out.split())
    assert "4 clips, by python -m imvideoedit.evaluation.nano.clip_edits --out" in said
    assert "11.5 (1" in said and "second frame over first frame" in said and "nan (nan to nan)" in said
    row = json.loads((tmp_path / "out" / "003.json").read_text())
    assert row["edit"]["base"] == {"changed_psnr": 13.0, "kept_psnr": None, "frame_psnr": 20.0}
    with pytest.raises(SystemExit) as end:
        clip_edits.main([*command, "--steps", "3"])
    assert end.value.code == 2 and "holds clips with another steps" in capsys.readouterr().err
