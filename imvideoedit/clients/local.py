"""A vision-language model in this process, asked as an endpoint is."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image
from pydantic import BaseModel
from transformers import AutoModelForImageTextToText, AutoProcessor

from imvideoedit.clients.answers import AnswerCache, Part, Question, fitting_json

Model = TypeVar("Model", bound=BaseModel)


class LocalModel:
    """A model of transformers that answers with text to pictures and text, greedily; loaded at its first question.

    Only safetensors are read and no code that comes with the model is run.

    Args:
        name: folder, or id on the hub.
        cache: folder of the answers.
        device: the GPU if there is one, else the CPU.
        max_tokens: of an answer, at least 1.
    """

    def __init__(self, name: str, cache: Path, device: str | None = None, max_tokens: int = 400) -> None:
        self._name, self._max_tokens = name, max_tokens
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._cache = AnswerCache(cache / "answers")
        self._loaded: tuple[Any, Any] | None = None

    def ask(self, parts: Sequence[Part], schema: type[Model], system: str = "") -> Model:
        """Ask one question, as ``Endpoint.ask`` does; an answer is kept under the model's name and files.

        Raises:
            Unanswered: what the model says does not fit the schema.
            OSError, ValueError: it cannot be loaded.
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
        # Instructions go into the user's turn: the chat templates of many small models know no other.
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
        # Said outright, since left open transformers would ask on the terminal whether to run the model's code.
        processor = AutoProcessor.from_pretrained(self._name, trust_remote_code=False)
        model = AutoModelForImageTextToText.from_pretrained(
            self._name, trust_remote_code=False, use_safetensors=True, dtype="auto"
        )
        return model.to(self._device).eval(), processor


def _identity(name: str) -> str:
    """What tells this model's answers from another's: a folder's files may be replaced by others."""
    folder = Path(name)
    if not folder.is_dir():
        return name
    stats = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
    return " ".join([str(folder.resolve()), *(f"{file}:{stat.st_size}:{stat.st_mtime_ns}" for file, stat in stats)])


def _content(part: Part) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if isinstance(part, bytes):
        return {"type": "image", "image": Image.open(io.BytesIO(part)).convert("RGB")}
    return {"type": "image", "image": Image.fromarray(part)}
