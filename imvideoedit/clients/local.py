"""A vision-language model of transformers in this process, with the interface of an endpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image
from pydantic import BaseModel
from transformers import AutoModelForImageTextToText, AutoProcessor

from imvideoedit.clients.answers import AnswerCache, ContentPart, Question, fitting_json
from imvideoedit.video.pictures import open_picture

Answer = TypeVar("Answer", bound=BaseModel)


class LocalModel:
    """Answers with text to images and text, by greedy decoding; loaded at its first question.

    It comes from a folder or the hub and runs on the GPU if there is one. Only safetensors are read, and none of the
    model's own code is run.
    """

    def __init__(self, name: str, cache: Path, device: str | None = None, max_tokens: int = 400) -> None:
        self._name, self._device, self._max_tokens = name, device, max_tokens
        self._cache = AnswerCache(cache)
        self._loaded: tuple[Any, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None}  # another process loads its own

    def ask(self, parts: Sequence[ContentPart], schema: type[Answer], system: str = "") -> Answer:
        """Ask one question, as ``Endpoint.ask`` does; answers are cached by the model's name and files.

        Raises:
            Unanswered: the output does not fit the schema.
            OSError, ValueError: the model cannot be loaded.
        """
        question = Question(parts, schema, system)
        key = question.key(_identity(self._name), temperature=0.0)
        answer = self._cache.read(key, schema)
        if answer is None:
            answer = fitting_json(self._generate(question), schema)
            self._cache.write(key, answer)
        return schema.model_validate_json(answer)

    @torch.inference_mode()
    def _generate(self, question: Question) -> str:
        model, processor = self._loaded = self._loaded or self._load()
        # Instructions go into the user's turn: many small models' chat templates know no system role.
        content = [{"type": "text", "text": question.instructions}, *map(_content, question.parts)]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(model.device, dtype=model.dtype)
        tokens_BT = model.generate(**inputs, do_sample=False, max_new_tokens=self._max_tokens)
        new_BT = tokens_BT[:, inputs["input_ids"].shape[1] :]
        return processor.batch_decode(new_BT, skip_special_tokens=True)[0]

    def _load(self) -> tuple[Any, Any]:
        device = self._device or ("cuda" if torch.cuda.is_available() else "cpu")
        # False, not the default, with which transformers asks on the terminal whether to run the model's code.
        processor = AutoProcessor.from_pretrained(self._name, trust_remote_code=False)
        model = AutoModelForImageTextToText.from_pretrained(
            self._name, trust_remote_code=False, use_safetensors=True, dtype="auto"
        )
        return model.to(device).eval(), processor


def _identity(name: str) -> str:
    """The name and, of a folder, its files' sizes and times: they may be replaced by another model's."""
    folder = Path(name)
    if not folder.is_dir():
        return name
    stats = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
    return " ".join([str(folder.resolve()), *(f"{file}:{stat.st_size}:{stat.st_mtime_ns}" for file, stat in stats)])


def _content(part: ContentPart) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    image = open_picture(part).convert("RGB") if isinstance(part, bytes) else Image.fromarray(part)
    return {"type": "image", "image": image}
