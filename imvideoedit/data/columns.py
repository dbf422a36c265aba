"""Which column of foreign data holds what: by the names that public trainers and data sets use, or as the user says."""

from collections.abc import Collection, Mapping, Sequence

from imvideoedit.common.errors import UserError
from imvideoedit.data.pair_record import PROMPTS, SIDES

Known = Mapping[str, Sequence[str]]
"""The columns that may hold each of our fields."""

# Hugging Face data sets, such as InstructPix2Pix and MagicBrush, and lists that people write themselves.
PLAIN: Known = {
    "source": ("source", "source_img", "source_image", "input_image", "original_image", "src_img"),
    "target": ("target", "target_img", "target_image", "edited_image", "output_image", "tar_img"),
    "instruction": ("instruction", "edit_prompt", "edit_instruction"),
    "edited_prompt": ("edited_prompt", "prompt", "caption"),
    "source_prompt": ("source_prompt", "original_prompt"),
}
# DiffSynth's: the column ``video`` or ``image`` is what the model learns to make; ViFeEdit adds the source's.
DIFFSYNTH: Known = {
    "source": (*PLAIN["source"], "vife_edit_video", "edit_image", "vace_video", "control_video", "kontext_images"),
    "target": (*PLAIN["target"], "video", "image"),
    "instruction": PLAIN["instruction"],
    "edited_prompt": PLAIN["edited_prompt"],
    "source_prompt": PLAIN["source_prompt"],
}
MUSUBI: Known = {
    "source": ("control_path", "control_path_0"),
    "target": ("image_path", "video_path"),
    "edited_prompt": ("caption",),
}
VIDEOX_FUN: Known = {"source": ("control_file_path",), "target": ("file_path",), "edited_prompt": ("text",)}


def choose_columns(known: Known, present: Collection[str], columns: Mapping[str, str], where: object) -> dict[str, str]:
    """The column of each of our fields that the data have.

    Args:
        present: the data's columns.
        columns: what the user says; it precedes what is known.

    Raises:
        UserError: a column that the user names is missing, a field has several candidates, or source, target or all
            texts have none.
    """
    there = ", ".join(sorted(present)) or "none"
    for name, column in columns.items():
        if column not in present:
            raise UserError(f"{where}: has no column {column}, given for {name}; its columns are {there}")
    chosen = dict(columns)
    for name, candidates in known.items():
        found = [one for one in candidates if one in present and one not in chosen.values()]
        if name in chosen or not found:
            continue
        if len(found) > 1 and (name in SIDES or found[0] != name):
            raise UserError(f"{where}: {' and '.join(found)} may both be the {name}; give columns {name}=COLUMN")
        chosen[name] = found[0]
    lacking = [name for name in SIDES if name not in chosen]
    if not any(name in chosen for name in PROMPTS):
        lacking.append(" or ".join(PROMPTS))
    if lacking:
        wanted = ",".join(f"{name.split()[0]}=COLUMN" for name in lacking)
        raise UserError(
            f"{where}: no column is known to be its {', '.join(lacking)}; its columns are {there}: "
            f"say which, as by columns {wanted}"
        )
    return chosen


def says(form: str, columns: Mapping[str, str]) -> str:
    """The form and its columns, for people."""
    return f"{form}: {', '.join(f'{name} = {column}' for name, column in columns.items())}"
