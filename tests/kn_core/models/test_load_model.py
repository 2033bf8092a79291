"""What `load_model` takes, and the prompt that a checkpoint's own chat template writes around a picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForImageTextToText,
    Idefics3Processor,
    InternVLProcessor,
    LlavaModel,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    SmolVLMProcessor,
)

from kn_core.method.capture import Target, capture
from kn_core.models import identity, load_model
from kn_core.models.checkpoints import CheckpointError
from kn_core.models.hooks import intervene, record
from kn_core.profile import ProfileError, load_profile
from tests.tiny_checkpoints import FAMILIES, byte_level, pictures, save

PROMPT = "Provide a one-sentence caption for the provided image."
FAKE, GLOBAL = "<fake_token_around_image>", "<global-img>"
IDEFICS = """{% for message in messages %}{{ message['role'] | capitalize }}{{ ':' if message['content'][0]['type'] ==
'image' else ': ' }}{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}{%
endfor %}<end_of_utterance>
{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"""


@dataclass(frozen=True)
class Chat:
    """A family's chat format, in the words of its released checkpoints."""

    marks: tuple[str, ...]  # special tokens: begin, end, image, ...
    template: str
    before: str  # as the README's table has them
    after: str
    processor: Callable[..., Any]  # of image processor and tokenizer, where this environment can make one


CHATS = {
    "llava": Chat(
        ("<s>", "</s>", "<image>", "<pad>", "<unk>"),
        """{% for message in messages %}{{ message['role'].upper() + ': ' }}{% for part in message['content'] |
selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}{% for part in message['content'] |
selectattr('type', 'equalto', 'text') %}{{ part['text'] + ' ' }}{% endfor %}{% endfor %}{% if add_generation_prompt %}{{
'ASSISTANT:' }}{% endif %}""",
        "<s>USER: ",
        f"\n{PROMPT} ASSISTANT:",
        lambda *parts: LlavaProcessor(
            *parts, patch_size=8, num_additional_image_tokens=1, vision_feature_select_strategy="default"
        ),
    ),
    "internvl-qwen2": Chat(
        ("<|im_start|>", "<|im_end|>", "<IMG_CONTEXT>", "<img>", "</img>"),
        """{% for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\n' }}{% for part in message['content'] -%}
{{ '<IMG_CONTEXT>\n' if part['type'] == 'image' else part['text'] }}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}{% if
add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}""",
        "<|im_start|>user\n<img>",
        f"</img>\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n",
        lambda pictures, tokenizer: SimpleNamespace(image_processor=pictures, tokenizer=tokenizer),
    ),
    "smolvlm": Chat(
        ("<|im_start|>", "<end_of_utterance>", "<image>", FAKE, GLOBAL),
        "<|im_start|>" + IDEFICS,
        f"<|im_start|>User:{FAKE}{GLOBAL}",
        f"{FAKE}{PROMPT}<end_of_utterance>\nAssistant:",
        lambda pictures, tokenizer: SimpleNamespace(image_processor=pictures, tokenizer=tokenizer),
    ),
    "idefics3": Chat(
        ("<|begin_of_text|>", "<end_of_utterance>", "<image>", FAKE, GLOBAL),
        "<|begin_of_text|>" + IDEFICS,
        f"<|begin_of_text|>User:{FAKE}{GLOBAL}",
        f"{FAKE}{PROMPT}<end_of_utterance>\nAssistant:",
        lambda *parts: Idefics3Processor(*parts, image_seq_len=16),
    ),
}
EVERY = pytest.mark.parametrize("name", CHATS)


def chatting(name: str) -> PreTrainedTokenizerFast:
    tokenizer = byte_level(FAMILIES[name].begins, CHATS[name].marks)
    tokenizer.chat_template = CHATS[name].template
    return tokenizer


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save(name, tmp_path_factory.mktemp(name), None, chatting(name)) for name in CHATS}


@pytest.fixture
def held(folders: dict[str, Path]) -> Callable[[str], tuple[Any, Any]]:
    """held(name): the checkpoint as (model, processor) of transformers in memory."""

    def hold(name: str) -> tuple[Any, Any]:
        model = AutoModelForImageTextToText.from_pretrained(folders[name])
        return model, CHATS[name].processor(FAMILIES[name].processor(), chatting(name))

    return hold


def read(model: Any) -> tuple[str, str]:
    """The texts before and after the image tokens, as a model from a checkpoint reads them."""
    return model.tokenizer.decode(model.before), model.tokenizer.decode(model.after)


@EVERY
def test_the_chat_template_writes_what_the_readme_says(folders, name):
    asked = load_model(folders[name], device="cpu")
    assert read(asked) == (CHATS[name].before, CHATS[name].after)
    typed = load_model(str(folders[name]), before=CHATS[name].before, after=CHATS[name].after, device="cpu")
    for tokens in ("before", "after"):
        assert getattr(asked, tokens).tolist() == getattr(typed, tokens).tolist()


@EVERY
def test_from_memory_it_is_the_model_in_the_folder(folders, held, name):
    model, processor = held(name)
    found, images = load_model((model, processor), batch_size=3), pictures(2)
    expected = load_model(folders[name], device="cpu")
    assert torch.equal(found.logits(images), expected.logits(images))
    assert found.caption(images, 4) == expected.caption(images, 4)
    assert (found.model, found.batch_size) == (model, 3)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    target = Target("bear", found.encode("A bear")[0][1], 1)
    assert capture(found, *images, "A bear", target).gradcam.any()
    with intervene(found, {0: lambda activations, _: activations * 0}), record(found) as activations:
        found.logits(images)
    assert not activations[0].any()
    assert activations[1].any()


def test_a_processor_of_transformers_writes_the_same_tokens(held):
    """Where this environment can make the processor, on a picture; else by what it says of one that is not tiled."""
    (image,) = pictures(1)
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPT}]}]
    for name in ("llava", "idefics3"):
        model, processor = held(name)
        text = processor.apply_chat_template(asked, add_generation_prompt=True, chat_template=CHATS[name].template)
        begun = text.startswith(CHATS[name].marks[0])
        ids = processor(images=[image], text=[text], add_special_tokens=not begun)["input_ids"][0]
        found = load_model((model, processor))
        assert list(ids) == [*found.before.tolist(), *[2] * 16, *found.after.tolist()]
    views = {"num_patches": [1], "rows": [[0]], "cols": [[0]]}
    tags = SimpleNamespace(fake_image_token=FAKE, global_image_token=GLOBAL, image_token="<image>", image_seq_len=1)
    said = SmolVLMProcessor.replace_image_token(tags, views, 0)
    assert said == f"{CHATS['smolvlm'].before.split(':')[1]}<image>{FAKE}"
    tags = SimpleNamespace(start_image_token="<img>", end_image_token="</img>", image_token="*", image_seq_length=1)
    assert InternVLProcessor.replace_image_token(tags, views, 0) == "<img>*</img>"


@pytest.fixture
def copied(folders: dict[str, Path], tmp_path: Path) -> Path:
    """The files of the tiny LLaVA, without a chat template."""
    for file in folders["llava"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "chat_template.jinja").unlink()
    return tmp_path


@pytest.mark.parametrize("file", ["processor_config.json", "chat_template.json", "tokenizer_config.json"])
def test_a_template_is_found_wherever_transformers_has_put_it(copied, file):
    path, processor = copied / file, copied / "processor_config.json"
    said = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(said | {"chat_template": CHATS["llava"].template}))
    if file != "tokenizer_config.json":  # a decoder's own, for text alone, is not the one
        kept = json.loads((copied / "tokenizer_config.json").read_text())
        (copied / "tokenizer_config.json").write_text(json.dumps(kept | {"chat_template": "{{ messages }}"}))
    assert file == processor.name or not processor.exists()
    assert read(load_model(copied, device="cpu")) == (CHATS["llava"].before, CHATS["llava"].after)


def test_one_text_can_be_typed_and_the_question_changed(folders):
    model = load_model(folders["llava"], prompt="What is it?", before="<s>", device="cpu")
    assert read(model) == ("<s>", "\nWhat is it? ASSISTANT:")


def test_a_prompt_and_a_template_decide_who_a_checkpoint_is(folders, copied):
    settings = load_profile("llava-1.5-7b").model_dump()

    def known(folder: Path, **model: Any) -> tuple[Any, object]:
        kept = {key: value for key, value in settings["model"].items() if key not in ("before", "after")}
        profile = type(load_profile("embedded")).model_validate(
            settings | {"model": kept | {"checkpoint": str(folder)} | model}
        )
        return profile.fingerprint("model"), identity(profile)

    plain = known(folders["llava"])
    for changed in ({"prompt": "What?"}, {"before": "<s>"}, {"after": " say:"}):
        assert known(folders["llava"], **changed)[0] != plain[0]
    assert known(copied)[1] != plain[1]  # no chat template


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("", "has no chat template that says how it is asked. Give before and after, the chat's text around"),
        (
            "{{ messages[0]['content'] + '!' }}",
            r"takes no picture \(can only concatenate list .* Give before and after",
        ),
        ("{{ messages[0]['content'].strip() }}", r"takes no picture \('list object' has no attribute 'strip'\)"),
        ("{{ messages[0]['role'] }}", "must write '<image>' once for one picture. It is there 0 times in 'user'. Give"),
        ("<image><image>", "It is there 2 times"),
    ],
)
def test_a_template_that_does_not_say_how_it_is_asked(held, template, message):
    model, processor = held("llava")
    processor.chat_template = processor.tokenizer.chat_template = template or None
    with pytest.raises(CheckpointError, match=message) as error:
        load_model((model, processor))
    assert "\n" not in str(error.value)


def test_a_name_is_a_profiles_or_a_checkpoints(folders, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ProfileError, match="No profile 'embeded' .* Did you mean 'embedded'"):
        load_model("embeded")
    with pytest.raises(ProfileError, match=r"No profile '.*none.yaml' \(.* does not exist"):
        load_model(tmp_path / "none.yaml")
    with pytest.raises(FileNotFoundError, match="No checkpoint 'some/where': .* `hf download some/where`"):
        load_model("some/where")
    with pytest.raises(FileNotFoundError, match="is incomplete: no config.json, tokenizer.json"):
        load_model(tmp_path)


def test_wrong_kinds_are_told_what_it_takes(held):
    model, processor = held("llava")
    takes = "load_model takes a Profile, the name of one or its YAML file, a checkpoint's folder or .* Got "
    for wrong, got in (
        (None, "NoneType"),
        (model, "LlavaForConditionalGeneration"),
        ((processor, model), "LlavaProcessor, LlavaForConditionalGeneration"),
        ((model, processor.tokenizer), "LlavaForConditionalGeneration, .*Tokenizer.*"),
        ((model,), "LlavaForConditionalGeneration"),
    ):
        with pytest.raises(TypeError, match=f"{takes}{got}[.]$"):
            load_model(wrong)
    with pytest.raises(ProfileError, match="a profile holds its own settings. Got prompt beside 'embedded'"):
        load_model("embedded", prompt="What?")
    with pytest.raises(TypeError, match="a model in memory has its own bits, device, dtype"):
        load_model((model, processor), device="cpu", dtype="float32", bits="8-bit")
    with pytest.raises(ProfileError, match="sense: device: .* got 'tpu'; batch: Extra inputs .* got 3"):
        load_model("some/where", device="tpu", batch=3)
    with pytest.raises(CheckpointError, match="must write text, as a ...ForConditionalGeneration does. Got LlavaModel"):
        load_model((LlavaModel(model.config), processor))
    model.config.model_type = "llava_llama"
    with pytest.raises(CheckpointError, match="'llava_llama' of LlavaForConditionalGeneration: .* looked for among"):
        load_model((model, processor))
