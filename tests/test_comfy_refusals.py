"""What a workflow gets wrong is refused before a node runs, or in one line on the node."""

import pytest
import torch

from tests.comfy_executor import Executor, Invalid
from tests.comfy_workflows import changed, example, new_executor, with_settings, with_tensors


@pytest.fixture
def executor(tmp_path, monkeypatch) -> Executor:
    return new_executor(tmp_path / "ComfyUI", monkeypatch)


@pytest.fixture
def workflow():
    return example()


@pytest.mark.parametrize(
    ("values", "refused"),
    [
        ({"5.video": ["1", 0]}, r"5.video takes IMAGE, not VIDEO"),
        ({"5.adapter": ["3", 0]}, r"5.adapter takes IMVIDEOEDIT_ADAPTER, not IMVIDEOEDIT_BASE"),
        ({"5.mask": ["2", 0]}, r"5.mask takes MASK, not IMAGE"),
        ({"5.settings": "steps"}, r"5.settings takes IMVIDEOEDIT_SETTINGS, which only a link gives"),
        ({"5.video": None}, r"5.video is missing"),
        ({"5.seed": -1}, r"5.seed is out of its range"),
        ({"5.seed": 2**64}, r"5.seed is out of its range"),
        ({"5.seed": "red"}, r"5.seed is no INT"),
        ({"5.quality": "finest"}, r"5.quality is not in its list"),
        ({"3.base": "nowhere"}, r"3.base is not in its list"),
        ({"4.adapter": "nowhere.safetensors"}, r"4.adapter is not in its list"),
        ({"4.memory": "all"}, r"4.memory is not in its list"),
        ({"6.fps": 0}, r"6.fps is out of its range"),
        ({"6.format": "gif"}, r"6.format is not in its list"),
        ({"9.steps": 10001}, r"9.steps is out of its range"),
        ({"9.guided_share": 1.5}, r"9.guided_share is out of its range"),
    ],
)
def test_a_wrong_link_or_value_is_refused_before_a_node_runs(executor, workflow, values, refused):
    with pytest.raises(Invalid, match=refused):
        executor.run(changed(with_settings(workflow), values))
    assert executor.outputs == {}


IMAGE, MASK = torch.rand(1, 64, 64, 3), torch.ones(1, 64, 64)


@pytest.mark.parametrize(
    ("tensors", "refused"),
    [
        ({"reference": IMAGE}, "the adapter adapter.safetensors does not know the input reference; it takes none"),
        ({"first_frame": IMAGE}, "the adapter adapter.safetensors does not know the input first_frame; it takes none"),
        ({"first_frame": IMAGE.repeat(2, 1, 1, 1)}, "first_frame is 2 images; give one"),
        ({"mask": MASK * torch.nan}, "mask holds NaN or infinite values; check the node that it comes from"),
        ({"mask": MASK[:, :, :, None, None]}, "mask is [1, 64, 64, 1, 1]; give a mask: frames, height, width"),
        ({"mask": MASK[:, :32]}, "the input mask is 64x32, but the source is 64x64; crop it to the same aspect ratio"),
        (
            {"mask": MASK * 0},
            "mask is black in every frame; paint white what may change",
        ),
        ({"mask": MASK.repeat(3, 1, 1)}, "has 3 frames, but the video has 6; give one for each"),
        ({"video": IMAGE[0]}, "video is [64, 64, 3]; give images of three colours: frames, height, width, 3"),
        ({"video": torch.rand(2, 64, 64, 4)}, "video is [2, 64, 64, 4]; give images of three colours"),
        ({"video": IMAGE / 0}, "video holds NaN or infinite values; check the node that it comes from"),
    ],
)
def test_what_does_not_fit_is_one_line_on_the_node(executor, workflow, tmp_path, tensors, refused):
    run = executor.run(with_tensors(workflow, tmp_path, **tensors))
    assert run.failed == "5" and refused in run.error and "\n" not in run.error
