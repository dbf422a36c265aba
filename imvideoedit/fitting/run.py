"""The stages of a fit, one after the other: prep, two of training, the edit; what is made already is passed over."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from imvideoedit.common.errors import UserError
from imvideoedit.editing.edit_file import load_pipeline, quiet_loading, why_made_again
from imvideoedit.editing.fitted_clip import FOLDER, FittedClip, load_masks, masks_hash
from imvideoedit.editing.job import Job, edited_name
from imvideoedit.editing.job_inputs import Given
from imvideoedit.editing.model_options import ModelOptions
from imvideoedit.editing.shown import edit_shown
from imvideoedit.fitting.masks import make_mask, save_masks, vanishing
from imvideoedit.fitting.plan import Plan
from imvideoedit.fitting.records import Records
from imvideoedit.fitting.request import FIRST
from imvideoedit.fitting.samples import StageSamples, encoded_samples
from imvideoedit.fitting.stage_training import Stage, train_stage
from imvideoedit.fitting.texts import Texts, make_texts
from imvideoedit.methods.adapter_file import adapter_hash, read_header, read_state, save_adapter
from imvideoedit.wan.backbone import Backbone, load_backbone
from imvideoedit.wan.locations import default_dtype

BEGUN, PREP = "begun", "prep"
STAGES = ("stage_1", "stage_2")
ADAPTER = "adapter.safetensors"
Tell = Callable[[str], None]


class FitRun:
    """A fit on its way, in a folder that no other process writes.

    Args:
        device: of training and of the edit.
        tell: takes a line for people.
    """

    def __init__(self, plan: Plan, device: torch.device, tell: Tell) -> None:
        self.plan, self.request, self.device, self.tell = plan, plan.request, device, tell
        self.out, self.records = plan.request.out, Records(plan.request.out)
        self.contents = plan.request.contents()

    def __call__(self, **edit: Any) -> Path:
        """Make what is not made yet; returns the edited clip's file.

        Args:
            edit: ``quality`` and ``codec`` of the job, ``memory`` of the model.

        Raises:
            UserError: the folder holds a fit of another clip, or a stage fails.
            TrainingStopped: at SIGTERM while a stage trains.
        """
        self._begin()
        self._prepare()
        self._train(0)
        if self.plan.later:
            self._train(1)
        else:  # what a second stage learns is not there
            self._take_first()
        self.__dict__.pop("backbone", None)  # the edit loads its own
        return self._edit(**edit)

    def _begin(self) -> None:
        """Take the folder for this clip."""
        begun = {name: self.contents[name] for name in ("clip", "start", "end")}
        if self.records.differing(BEGUN, begun):
            raise UserError(f"{self.out} holds the fit of another clip or range; give another --out")
        if self.records.found(BEGUN, begun) is None:
            if (self.out / FOLDER).exists() or (self.out / ADAPTER).exists():
                raise UserError(f"{self.out} holds a mask or an adapter that no fit made; give another --out")
            self.records.write(BEGUN, begun, self.request.clip.name)

    # Prep.

    def _prepare(self) -> None:
        request, folder = self.request, self.out / FOLDER
        given = ("prompt", "source_prompt", "tracker", "sam2")
        made_from = self.contents | {name: getattr(request, name) for name in given}
        made = self.records.found(PREP, made_from)
        if made is not None and folder.is_dir() and masks_hash(load_masks(folder)) == made["mask_hash"]:
            self.tell("prep: made before")
        else:
            self._again(PREP, made_from)
            texts = make_texts(request, next(iter(self.plan.clip)), self.plan.edited)
            mask = make_mask(request.mask, self.plan.clip, request.tracker, request.sam2, self.device)
            save_masks(mask.frames, folder)
            edited = {str(number): text for number, text in texts.edited.items()}
            made = {"mask_hash": masks_hash(mask.frames), "source": texts.source, "edited": edited, "how": mask.how}
            self.records.write(PREP, made_from, made)
            self._tell_prepared(mask.how, mask.frames, texts)
        self.masks = load_masks(folder)
        self.texts = Texts(made["source"], {int(number): text for number, text in made["edited"].items()})
        self.fitted = FittedClip(
            request.clip.name,
            self.contents["clip"],
            len(self.plan.clip),
            request.start,
            request.end,
            made["mask_hash"],
            self.texts.edit,
            self.plan.prefix,
        )

    def _tell_prepared(self, how: str, masks: Any, texts: Texts) -> None:
        share = (masks > 0).mean()
        self.tell(f"mask: {how}; {share:.1%} of the clip; see {self.out / FOLDER}")
        if (gone := vanishing(masks)) is not None:
            self.tell(f"note: the mask is empty from frame {gone} on; where that is wrong, give a mask for each frame")
        if not texts.source:
            self.tell("note: the clip as it is has no description, so it is trained without; give --source-prompt")

    # Training.

    def _train(self, place: int) -> None:
        name = STAGES[place]
        stage, made_from = self._stage(place)
        words = f"stage {place + 1}"
        if self.records.found(name, made_from) == _hash_of(stage.adapter) is not None:
            self.tell(f"{words}: made before")
            return
        begun = f"{name}_begun"
        if self.records.found(begun, made_from) is None:
            self._again(begun, made_from, words)
            shutil.rmtree(stage.folder, ignore_errors=True)
            self.records.write(begun, made_from, name)
        method = self.plan.method()
        samples, weights = encoded_samples(self.plan, self.backbone, self.masks, self.texts, place, self.device)
        bare = replace(self.backbone, vae=None, text_encoder=None, tokenizer=None, image_encoder=None)
        try:
            train_stage(stage, bare, method, StageSamples(samples, weights, stage.steps, stage.seed), self.device)
        finally:
            method.uninstall()
        self.records.write(name, made_from, _hash_of(stage.adapter))
        shutil.rmtree(stage.folder, ignore_errors=True)

    def _stage(self, place: int) -> tuple[Stage, dict[str, Any]]:
        """A stage, and what decides its result."""
        request, plan = self.request, self.plan
        how = ("steps", "seed", "mode", "target", "rank", "eight_bit")
        settings = {each: getattr(request, each) for each in how}
        texts = {"source_prompt": self.texts.source, "prefix": plan.prefix}
        made_from = (
            settings
            | texts
            | {
                "backbone": self.backbone.parameter_hash(),
                "mask": self.fitted.mask_hash,
                "checkpointing": plan.checkpointing,
                "rate": plan.rate,
                "size": plan.size,
                "sampling": vars(plan.sampling),
            }
        )
        start = None
        if place == 1:
            start = self._adapter(0)
            later = {number: [self.contents["edited"][str(number)], self.texts.edited[number]] for number in plan.later}
            made_from |= {"stage_1": _hash_of(start), "edited": later, **self.fitted.facts()}
        stage = Stage(
            name=f"stage {place + 1}",
            folder=self.out / STAGES[place],
            adapter=self._adapter(place),
            steps=request.steps,
            rate=plan.rate,
            seed=request.seed + place,
            start=start,
            eight_bit=request.eight_bit,
            checkpointing=plan.checkpointing,
            offload=plan.offload(self.device),
            checkpoint_every=request.checkpoint_every,
            sampling=plan.sampling,
            about=self.fitted.facts() | {"stage": place + 1},
        )
        return stage, made_from

    def _take_first(self) -> None:
        """Make the first stage's adapter the fit's."""
        first, made_from = self._adapter(0), self.fitted.facts() | {"stage_1": _hash_of(self._adapter(0))}
        if self.records.found(STAGES[1], made_from) == _hash_of(self._adapter(1)) is not None:
            return
        header, method = read_header(first), self.plan.method()
        method.install(self.backbone.transformer)
        header = replace(header, training=header.training | self.fitted.facts())
        save_adapter(method, self._adapter(1), header, read_state(first))
        method.uninstall()
        self.records.write(STAGES[1], made_from, _hash_of(self._adapter(1)))

    def _adapter(self, place: int) -> Path:
        return self.out / (ADAPTER if place == 1 else f"{STAGES[place]}.safetensors")

    @cached_property
    def backbone(self) -> Backbone:
        """With all its parts, on the CPU: each is on the device only while it works."""
        quiet_loading()
        return load_backbone(self.request.backbone, device="cpu", dtype=default_dtype(self.device))

    # The edit.

    def _edit(self, quality: str, codec: str | None, memory: str) -> Path:
        request, adapter = self.request, self._adapter(1)
        output = self.out / edited_name(request.clip)
        inputs = {"mask": Given(str(self.out / FOLDER)), "first_frame": Given(str(request.edited[FIRST]))}
        job = Job(
            request.clip,
            "",
            output,
            prompt=self.texts.edit,
            quality=quality,
            start=request.start,
            end=request.end,
            codec=codec,
            seed=request.seed,
            inputs=inputs,
        )
        options = ModelOptions(((adapter, 1.0),), memory=memory)
        why = why_made_again(job, options.contents)
        if why is None:
            self.tell("edit: made before")
            return output
        if why:
            self.tell(f"edit again: {why}")
        edit_shown(load_pipeline(options, str(self.device)), job)
        return output

    def _again(self, record: str, made_from: Mapping[str, Any], words: str = PREP) -> None:
        """Say what makes a stage anew that was made or begun before, if one was."""
        if differing := self.records.differing(record, made_from):
            self.tell(f"{words} again: changed since: {', '.join(differing)}")


def _hash_of(adapter: Path) -> str | None:
    """Names an adapter's tensors; None where the file is missing or damaged."""
    try:
        return adapter_hash(adapter)
    except UserError:
        return None
