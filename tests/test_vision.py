"""The fix-up for torchvision mends a library that does not load, costs nothing elsewhere. Each case is a process."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]


def python(code: str, *path: Path) -> str:
    """Run ``code`` in a fresh interpreter that finds ``path`` and the checkout first; return what it prints."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [*path, CHECKOUT]))}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, text=True, stdout=subprocess.PIPE
    ).stdout.strip()


def test_a_library_that_does_not_load_is_mended(tmp_path):
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "_C.so").write_bytes(b"built for another torch")
    (package / "__init__.py").write_text(
        "import torch\n@torch.library.register_fake('torchvision::nms')\ndef nms(dets, scores, iou_threshold): ...\n"
    )
    code = (
        "import imvideoedit, gc, torch; gc.collect(); import torchvision\n"
        "try: torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)\n"
        "except NotImplementedError: print('declared only', imvideoedit.fix_torchvision())"
    )
    assert python(code, tmp_path) == "declared only False"


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed")
def test_without_torchvision_the_package_does_not_even_import_torch():
    assert python("import imvideoedit, sys; print('torch' in sys.modules)") == "False"


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed (the vision extra)")
def test_timm_lightning_and_wan_import_and_timm_runs():
    code = (
        "import imvideoedit, timm, torch, lightning\n"
        "from diffusers import WanPipeline; from transformers import UMT5EncoderModel\n"
        "model = timm.create_model('resnet10t', num_classes=3).eval()\n"
        "print(tuple(model(torch.zeros(1, 3, 32, 32)).shape))"
    )
    assert python(code) == "(1, 3)"
