"""The networks' files: what is missing is listed with its remedy, what is wrong is refused, random ones say so."""

import hashlib
import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from imvideoedit.common.errors import UserError
from imvideoedit.evaluation.metrics.scorer import MEASURES, OpenScorer
from imvideoedit.evaluation.vbench.scorer import DIMENSIONS, VBenchScorer
from imvideoedit.evaluation.weights import files
from imvideoedit.evaluation.weights.files import NETWORKS, WeightFile, check
from imvideoedit.evaluation.weights.networks import ClipEncoder, fill, read_state
from imvideoedit.evaluation.weights.prepare import download
from tests.processes import run
from tests.test_edit import assert_one_line


def test_every_missing_file_is_listed_with_where_from_and_where_to(tmp_path):
    with pytest.raises(UserError) as caught:
        VBenchScorer(weights=tmp_path).identity()
    wanted = [
        file
        for network in ("dino_b16", "clip_b32", "clip_l14", "raft", "aesthetic", "musiq")
        for file in NETWORKS[network]
    ]
    told = str(caught.value)
    assert all(file.url in told and str(tmp_path / file.name) in told for file in wanted)
    assert f"{len(wanted)} weight files" in told and "--download" in told and "\n" not in told


def test_the_command_says_it_in_one_line_and_measures_without_networks_need_none(tmp_path):
    order = ("--folder", tmp_path, "--networks", "musiq")
    done = run("imvideoedit.evaluation.weights.prepare", *order, forked=False)
    assert_one_line(done, "1 weight files are missing", "musiq_spaq_ckpt-358bb6af.pth", str(tmp_path))
    light = [name for name, needs in MEASURES.items() if needs in ((), ("flow",))]
    assert OpenScorer(light, weights=tmp_path, flow="tvl1").identity()
    with pytest.raises(UserError, match="raft_large"):
        OpenScorer(light, weights=tmp_path).identity()


def test_a_file_of_another_hash_is_refused_unless_it_says_it_is_random(tmp_path, monkeypatch):
    right = hashlib.sha256(b"right").hexdigest()
    monkeypatch.setitem(NETWORKS, "musiq", [WeightFile("musiq/m.pth", "https://example.org/m.pth", right)])
    (tmp_path / "musiq").mkdir()
    (tmp_path / "musiq/m.pth").write_bytes(b"right")
    assert check(tmp_path, ["musiq"]) == {"musiq/m.pth": right}
    (tmp_path / "musiq/m.pth").write_bytes(b"wrong")
    with pytest.raises(UserError, match="not the published file .* download it again from https://example.org"):
        check(tmp_path, ["musiq"])
    (tmp_path / files.MARK).touch()
    assert check(tmp_path, ["musiq"])["musiq/m.pth"] == hashlib.sha256(b"wrong").hexdigest()
    assert "random weights" in VBenchScorer(["imaging_quality"], weights=tmp_path).warnings()[0]


def test_files_are_downloaded_once_and_wrong_ones_not_kept(tmp_path, monkeypatch):
    (tmp_path / "served").mkdir()
    (tmp_path / "served/good.bin").write_bytes(b"good")
    (tmp_path / "served/bad.bin").write_bytes(b"bad")
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "served")
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base, right = f"http://127.0.0.1:{server.server_port}", hashlib.sha256(b"good").hexdigest()
    monkeypatch.setitem(NETWORKS, "raft", [WeightFile("raft/good.bin", f"{base}/good.bin", right[:8])])
    monkeypatch.setitem(NETWORKS, "musiq", [WeightFile("musiq/bad.bin", f"{base}/bad.bin", right)])
    monkeypatch.setitem(NETWORKS, "lpips", [WeightFile("lpips/none.bin", f"{base}/none.bin")])
    download(tmp_path, ["raft"])
    assert (tmp_path / "raft/good.bin").read_bytes() == b"good"
    with pytest.raises(UserError, match="not the published file"):
        download(tmp_path, ["musiq"])
    with pytest.raises(UserError, match="none.bin"):
        download(tmp_path, ["lpips"])
    assert not list((tmp_path / "musiq").iterdir()) and not list((tmp_path / "lpips").iterdir())
    server.shutdown()
    download(tmp_path, ["raft"])


def test_what_is_not_tensors_is_not_loaded(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="no checkpoint of tensors"):
        read_state(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()
    torch.save(
        {"state_dict": {"module.weight": torch.ones(1, 3), "module.bias": torch.zeros(1)}}, tmp_path / "good.pth"
    )
    layer = torch.nn.Linear(3, 1)
    fill(layer, read_state(tmp_path / "good.pth"), tmp_path / "good.pth")
    assert layer.weight.tolist() == [[1, 1, 1]]
    with pytest.raises(UserError, match="does not fit Linear"):
        fill(torch.nn.Linear(4, 1), read_state(tmp_path / "good.pth"), Path("good.pth"))


def test_there_are_six_dimensions_and_mistakes_are_named():
    assert len(DIMENSIONS) == 6
    with pytest.raises(UserError, match="no 'beauty'"):
        VBenchScorer(["beauty"])
    with pytest.raises(UserError, match="no 'farneback'"):
        VBenchScorer(flow="farneback")


@pytest.mark.parametrize("contents", ["{}", "no json", '{"model_type": "clip"}'])
def test_a_damaged_clip_costs_one_line(contents, tmp_path):
    (tmp_path / "config.json").write_text(contents)
    (tmp_path / "model.safetensors").write_bytes(b"none")
    with pytest.raises(UserError, match="no CLIP") as caught:
        ClipEncoder(tmp_path, tmp_path, "cpu")
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
