"""A checkpoint's chat format: the text that stands around a picture's tokens, and its token ids."""

from __future__ import annotations

from typing import Any

import jinja2
import transformers

from kn_core.models.checkpoints import CheckpointError, Found
from kn_core.settings import Checkpoint


def prompt_texts(
    found: Found, settings: Checkpoint, marks: tuple[str, str], written: str | None = None
) -> tuple[str, str]:
    """The prompt before and after the image tokens: the profile's own, else as the chat template writes them.

    The template is given one picture and the question `settings.prompt`, and begins the answer. `marks` are what the
    family's processor puts around the tokens of a single view; a beginning of sequence is added where the tokenizer
    begins every text with one. `written` is what the template writes for a picture, where it is not the image token.
    Raises CheckpointError where there is no template, or none for one picture.
    """
    if settings.before is not None and settings.after is not None:
        return settings.before, settings.after
    give = "Give before and after, the chat's text around the image tokens (in a profile model.before and model.after)."
    if found.chat_template is None:
        raise CheckpointError(f"{found.name} has no chat template that says how it is asked. {give}")
    question: Any = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": settings.prompt}]}
    try:
        text: Any = found.tokenizer.apply_chat_template(
            [question],
            chat_template=found.chat_template,
            add_generation_prompt=True,
            tokenize=False,
        )
    except (jinja2.TemplateError, TypeError) as error:
        raise CheckpointError(f"The chat template of {found.name} takes no picture ({error}). {give}") from None
    image_token = written or str(found.tokenizer.convert_ids_to_tokens(found.model.config.image_token_id))
    if (n := text.count(image_token)) != 1:
        raise CheckpointError(
            f"The chat template of {found.name} must write '{image_token}' once for one picture. It is there {n} times "
            f"in {text!r}. {give}"
        )
    before, after = text.split(image_token)
    begin = _beginning(found.tokenizer)
    if begin and not before.startswith(begin):
        before = begin + before
    read = before + marks[0], marks[1] + after
    given = settings.before, settings.after
    return read[0] if given[0] is None else given[0], read[1] if given[1] is None else given[1]


def prompt_ids(
    tokenizer: transformers.PreTrainedTokenizerBase, image_token: int, before: str, after: str, begins: bool = True
) -> tuple[list[int], list[int]]:
    """Token ids of the prompt's texts before and after the image tokens, tokenised as one text around them.

    Some tokenizers treat a text's first word apart, so that `after` on its own would not be what the model was trained
    on. Nothing is added: a beginning-of-sequence token that the tokenizer would have added stands in `before`, or, not
    `begins`, behind the image tokens.
    """
    text = f"{before}{tokenizer.convert_ids_to_tokens(image_token)}{after}"
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    if (n := ids.count(image_token)) != 1:
        raise CheckpointError(
            f"model.before and model.after must leave the image token {image_token} to the adapter, which puts it "
            f"between them. It is there {n} times."
        )
    begin = _beginning(tokenizer)
    if begins and begin and ids[0] != tokenizer.bos_token_id:
        raise CheckpointError(
            f"model.before must begin with '{begin}', as all of this model's texts do. Got {before!r}."
        )
    place = ids.index(image_token)
    return ids[:place], ids[place + 1 :]


def _beginning(tokenizer: transformers.PreTrainedTokenizerBase) -> str:
    """The beginning of sequence, where the tokenizer begins every text with it; else nothing."""
    begin = tokenizer.bos_token_id
    return str(tokenizer.bos_token) if begin is not None and tokenizer("a").input_ids[0] == begin else ""
