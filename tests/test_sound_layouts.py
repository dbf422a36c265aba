"""Sound whose file says how many channels there are and not where each is heard, as AVI and old Matroska files do."""

from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame

from imvideoedit.video.reader import Clip, VideoWriter
from tests.clips import SOUND_RATE, flat_frames

PLACES = {1: "mono", 2: "stereo", 4: "4.0", 6: "5.1"}


def make(path: Path, codec: str, channels: int) -> np.ndarray:
    """Half a second of picture and a low tone, in each channel of another level; returns the levels."""
    levels = np.linspace(0.1, 0.6, channels).astype(np.float32)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        sound = container.add_stream(codec, rate=SOUND_RATE, layout=PLACES[channels])
        for frame_HWC in flat_frames([90] * 5):
            container.mux(stream.encode(VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
        container.mux(stream.encode(None))
        wave = levels[:, None] * np.sin(np.arange(SOUND_RATE // 2) * 2 * np.pi * 60 / SOUND_RATE).astype(np.float32)
        heard = AudioFrame.from_ndarray(wave, format="fltp", layout=PLACES[channels])
        heard.sample_rate, heard.pts = SOUND_RATE, 0
        container.mux(sound.encode(heard))
        container.mux(sound.encode(None))
    return levels


@pytest.mark.parametrize(
    ("name", "codec", "channels", "output"),
    [
        ("old_camera.avi", "pcm_u8", 1, "out.mp4"),
        ("old_camera.avi", "adpcm_ms", 2, "out.mp4"),
        ("recording.mkv", "pcm_f32le", 2, "out.mp4"),
        ("recording.mkv", "pcm_s16le", 2, "out.mov"),
        ("four.mkv", "pcm_u8", 4, "out.mp4"),
        ("six.mkv", "pcm_u8", 6, "out.mp4"),
        ("six.mkv", "pcm_u8", 6, "out.webm"),
    ],
)
def test_sound_without_places_of_its_channels_is_kept_channel_by_channel(tmp_path, name, codec, channels, output):
    levels = make(tmp_path / name, codec, channels)
    with av.open(str(tmp_path / name)) as container:
        assert container.streams.audio[0].layout.channels[0].name == "NONE"  # or there is nothing to test
    clip = Clip(tmp_path / name)
    with VideoWriter(tmp_path / output, clip.info, source=tmp_path / name) as writer:
        for frame_HWC in clip:
            writer.add(frame_HWC)
    with av.open(str(tmp_path / output)) as container:
        (track,) = container.streams.audio
        assert track.layout.nb_channels == channels and track.layout.channels[0].name != "NONE"
        resampler = av.AudioResampler(format="fltp", layout=track.layout)
        parts = [part.to_ndarray() for frame in container.decode(track) for part in resampler.resample(frame)]
    heard = np.concatenate(parts, axis=1)
    middle = heard[:, SOUND_RATE // 5 : SOUND_RATE * 3 // 10]  # six periods, away from what encoders do at both ends
    assert abs(heard.shape[1] / SOUND_RATE - 0.5) < 0.05
    assert np.abs(np.sqrt(2 * (middle**2).mean(axis=1)) - levels).max() < 0.05
