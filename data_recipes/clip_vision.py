"""Masks and depth by models of transformers.

Shapes: F frames, H W pixels.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from data_recipes.clip_models import Depth, Masker, where
from imvideoedit.common.errors import UserError


def _loaded(kind: Any, name: str, setting: str, **how: Any) -> Any:
    try:
        return kind(name, **how)
    except Exception as error:  # from the hub, the file system or a library
        raise UserError(f"the model {name} cannot be loaded ({error}); check {setting} and the network") from error


@dataclass
class GroundedMasks(Masker):
    """The object's box in the first frame by a detector that takes words, followed through the clip by SAM 2.

    SAM 2 in transformers needs torchvision. Neither model was run here.
    """

    detector: str = "IDEA-Research/grounding-dino-base"
    tracker: str = "facebook/sam2.1-hiera-large"
    threshold: float = 0.3  # least score of a box
    device: str | None = None

    def __post_init__(self) -> None:
        self._models: tuple[Any, Any, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_models": None}

    @property
    def models(self) -> dict[str, str]:
        return {"boxes": self.detector, "masks": self.tracker}

    def identity(self) -> Any:
        return [self.detector, self.tracker, self.threshold]

    def masks(self, video_FHWC: np.ndarray, words: str) -> np.ndarray | None:
        """As ``Masker.masks``.

        Raises:
            UserError: a model cannot be loaded.
        """
        detect, processor, tracker = self._load()
        images = [Image.fromarray(frame) for frame in video_FHWC]
        found = detect(images[0], candidate_labels=[f"{words.lower().rstrip('.')}."], threshold=self.threshold)
        if not found:
            return None
        box = max(found, key=lambda each: each["score"])["box"]
        session = processor.init_video_session(images, inference_device=where(self.device))
        corners = [[[float(box[side]) for side in ("xmin", "ymin", "xmax", "ymax")]]]
        processor.add_inputs_to_inference_session(session, frame_idx=0, obj_ids=1, input_boxes=corners)
        size = [video_FHWC.shape[1:3]]
        masks = np.zeros(video_FHWC.shape[:3], np.uint8)
        with torch.inference_mode():
            tracker(inference_session=session, frame_idx=0)
            for output in tracker.propagate_in_video_iterator(session):
                mask = processor.post_process_masks([output.pred_masks], original_sizes=size)[0]
                masks[output.frame_idx] = mask[0, 0].cpu().numpy() * np.uint8(255)
        return masks

    def _load(self) -> tuple[Any, Any, Any]:
        if self._models is None:
            from transformers import Sam2VideoModel, Sam2VideoProcessor, pipeline

            detect = _loaded(
                lambda name: pipeline("zero-shot-object-detection", name, device=where(self.device)),
                self.detector,
                "masker.detector",
            )
            processor = _loaded(lambda name: Sam2VideoProcessor.from_pretrained(name), self.tracker, "masker.tracker")
            tracker = _loaded(Sam2VideoModel.from_pretrained, self.tracker, "masker.tracker", use_safetensors=True)
            self._models = detect, processor, tracker.eval().to(where(self.device))
        return self._models


@dataclass
class DepthMaps(Depth):
    """Depth frame by frame, scaled over the whole clip; a model of single frames may flicker."""

    model: str = "depth-anything/Depth-Anything-V2-Large-hf"
    device: str | None = None

    def __post_init__(self) -> None:
        self._estimate: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_estimate": None}

    @property
    def models(self) -> dict[str, str]:
        return {"depth": self.model}

    def identity(self) -> Any:
        return self.model

    def depth(self, video_FHWC: np.ndarray) -> np.ndarray:
        """As ``Depth.depth``.

        Raises:
            UserError: the model cannot be loaded.
        """
        if self._estimate is None:
            from transformers import pipeline

            self._estimate = _loaded(
                lambda name: pipeline("depth-estimation", name, device=where(self.device)), self.model, "depth.model"
            )
        height, width = video_FHWC.shape[1:3]
        frames = []
        for frame in video_FHWC:
            near = self._estimate(Image.fromarray(frame))["predicted_depth"].float().squeeze()
            resized = torch.nn.functional.interpolate(near[None, None], (height, width), mode="bilinear")
            frames.append(resized[0, 0].cpu().numpy())
        near_FHW = np.stack(frames)
        low, high = near_FHW.min(), near_FHW.max()
        return ((near_FHW - low) / max(high - low, 1e-6) * 255).round().astype(np.uint8)
