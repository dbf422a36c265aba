"""SAM 2 as a tracker of one clip's mask, through transformers, where its weights are given or in the hub's cache."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import torch
from transformers import Sam2VideoModel, Sam2VideoProcessor

from imvideoedit.common.errors import UserError
from imvideoedit.video.masks import WHITE

SIZES = ("large", "base-plus", "small", "tiny")


def local_sam2() -> str | None:
    """The largest SAM 2.1 in the hub's cache; nothing is downloaded."""
    hub = (f"facebook/sam2.1-hiera-{size}" for size in SIZES)
    cached = (name for name in hub if isinstance(huggingface_hub.try_to_load_from_cache(name, "config.json"), str))
    return next(cached, None)


class Sam2Tracker:
    """As :func:`imvideoedit.fitting.tracking.track`, by SAM 2.

    Args:
        name: a folder, or a hub id whose files are cached.
        device: of the network.

    Raises:
        UserError: it cannot be loaded.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        source: dict[str, Any] = {"local_files_only": True}
        try:
            self._processor = Sam2VideoProcessor.from_pretrained(name, **source)
            self._model = Sam2VideoModel.from_pretrained(name, **source).eval().to(device)
        except Exception as error:  # transformers does not document what a damaged folder raises
            words = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"SAM 2 cannot be loaded from {name}: {words[:300]}; give --sam2 a folder with its weights as "
                "transformers saves them, or --tracker flow"
            ) from error
        self.name, self._device = Path(name).name, device

    @torch.inference_mode()
    def track(self, frames: Iterable[np.ndarray], mask_HW: np.ndarray, box: bool = False) -> Iterator[np.ndarray]:
        """The mask of the first frame in each frame; with ``box`` the prompt is the box around the mask.

        Args, returns: see :func:`imvideoedit.fitting.tracking.track`; all frames are in memory at once.
        """
        video_FHWC = np.stack(list(frames))
        session = self._processor.init_video_session(video_FHWC, inference_device=self._device)
        prompt: dict[str, Any] = {"input_masks": [mask_HW > 0]}
        if box:
            rows, columns = np.nonzero(mask_HW)
            corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            prompt = {"input_boxes": [[[float(corner) for corner in corners]]]}
        self._processor.add_inputs_to_inference_session(session, frame_idx=0, obj_ids=1, **prompt)
        for output in self._model.propagate_in_video_iterator(session, start_frame_idx=0):
            found = self._processor.post_process_masks([output.pred_masks], [mask_HW.shape])[0]
            yield found.reshape(mask_HW.shape).cpu().numpy().astype(np.uint8) * np.uint8(WHITE)
