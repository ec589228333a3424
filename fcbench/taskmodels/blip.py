"""``blip:VARIANT``: BLIP's text decoder, which attends to the tokens of an image and writes a caption.

Variants: ``base`` (default), ``large``: the captioning checkpoints.

    image -> 384x384 (bicubic, aspect not kept) -> ViT -> tokens [B, C, 24, 24] and class token [B, C, 1, 1]
    both -> [B, 1 + 576, C] -> | frozen: text decoder with cross-attention | -> word pieces

The training loss is the decoder's own: mean cross-entropy in nats per word piece of the reference captions (as BLIP's
training has them, see `plain`, but without its prompt "a picture of"), teacher-forced. Captions are generated greedily,
up to `MAX_TOKENS` pieces.

The tokenizer belongs to the weights: it is read from their folder, or fetched with them from the hub; a weights file
without a tokenizer beside it is refused. Random weights use one token per word of the data set's vocabulary, which only
serves to test the code path, like everything with random weights.

References:
    Li et al., "BLIP: Bootstrapping Language-Image Pre-training", ICML 2022.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from fcbench.core.errors import FcbenchError
from fcbench.core.features import FeatureSpec, WeightsInfo
from fcbench.core.tasks import Task, TaskModel
from fcbench.encoders.shared import huggingface
from fcbench.taskmodels.shared import official
from fcbench.taskmodels.shared.transformers_plugin import TransformersPlugin
from fcbench.tasks.captioning import CaptioningTask
from fcbench.tasks.captioning.head import CaptionBatch

REPOS = {size: f"Salesforce/blip-image-captioning-{size}" for size in ("base", "large")}
VISION = {"base": (768, 12, 12), "large": (1024, 24, 16)}  # Width, layers, heads of the image encoder
NORMALIZATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's mean and deviation
TOKENIZER = (("tokenizer.json", "vocab.txt"), ("tokenizer_config.json",))
"""Files of a tokenizer, each with its alternative names."""
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[DEC]")
MAX_TOKENS = 20  # Longest generated caption; the official evaluation's 20 include [DEC] and the prompt, not used here
MAX_REFERENCE_TOKENS = 40  # Longest reference in training, as in the official training; longer ones are truncated
IGNORED = -100  # Label of a token without loss


def word_tokenizer(words: Sequence[str]) -> Any:
    """A tokenizer of whole words, used instead of BLIP's with random weights."""
    transformers = huggingface.library()
    import tokenizers

    table = {w: i for i, w in enumerate(dict.fromkeys([*SPECIAL, *words]))}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(table, unk_token="[UNK]"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    core.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(t, table[t]) for t in ("[CLS]", "[SEP]")]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        **{f"{role}_token": token for role, token in zip(("pad", "unk", "cls", "sep", "bos"), SPECIAL)},
    )


def plain(caption: str) -> str:
    """A caption in lower case, without the punctuation that BLIP's training removes (its ``pre_caption``).

    >>> plain("A man's (red-hot) stove, lit.")
    "a man's red-hot stove, lit"
    """
    return " ".join(re.sub(r'[.!"()*#:;~]', " ", caption.lower()).split())


def with_words(config: Any, tokenizer: Any) -> Any:
    """A copy of a configuration whose text decoder uses the tokens of a `word_tokenizer`."""
    changed = type(config).from_dict(config.to_dict())
    text = changed.text_config
    text.vocab_size = len(tokenizer)
    text.bos_token_id = tokenizer.bos_token_id
    text.pad_token_id = tokenizer.pad_token_id
    text.sep_token_id = text.eos_token_id = tokenizer.sep_token_id
    return changed


def tokenizer_of(name: str, folder: Path) -> Any:
    """The tokenizer in a folder of weights."""
    names = TOKENIZER[0]
    if not any((folder / n).is_file() for n in names):
        raise FcbenchError(
            f"{name}: no tokenizer ({' or '.join(names)}) beside the weights in {folder}: "
            "give the model's whole folder, as published or as save_pretrained writes model and tokenizer"
        )
    try:
        with huggingface.quiet():
            return huggingface.library().AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as exc:  # readers may raise anything
        reason = (str(exc).splitlines() or [type(exc).__name__])[0]
        raise FcbenchError(f"{name}: the tokenizer in {folder} cannot be read ({reason})") from exc


class CaptionDecoder(official.FrozenDecoder):
    """The text decoder, frozen: image tokens to captions.

    `name`: the task model's, as typed. `specs`: its inputs. `grids`: (h, w) of each. `model`:
    BlipForConditionalGeneration, which provides the text decoder. `tokenizer`: the weights' own.
    """

    def __init__(
        self, name: str, specs: Sequence[FeatureSpec], grids: official.Grids, model: Any, tokenizer: Any
    ) -> None:
        super().__init__(name, specs, grids)
        self.decoder: nn.Module = model.text_decoder
        self.tokenizer = tokenizer
        text = model.config.text_config
        self.bos, self.end, self.pad = (text.bos_token_id, text.sep_token_id, text.pad_token_id)

    def image_tokens(self, x: Mapping[str, Tensor]) -> Tensor:
        """Class token, then patch tokens: [B, 1 + h w, C]."""
        tokens, first = self.inputs(x)
        return torch.cat([first.flatten(2), tokens.flatten(2)], 2).transpose(1, 2)

    def tokenize(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokens [R, T] int64, beginning with `bos`, and a mask of those that are not padding [R, T]."""
        rows = self.tokenizer(
            list(captions), padding=True, truncation=True, max_length=MAX_REFERENCE_TOKENS, return_tensors="pt"
        )
        tokens: Tensor = rows["input_ids"].clone()
        tokens[:, 0] = self.bos
        return tokens, rows["attention_mask"]

    def loss(self, x: Mapping[str, Tensor], batch: CaptionBatch) -> Tensor:
        """Mean cross-entropy per word piece in nats. In training mode over one reference per image, drawn with torch's
        generator; otherwise over all."""
        image, captions = self._references(batch)
        seen = self.image_tokens(x)
        tokens, mask = (t.to(seen.device) for t in self.tokenize(captions))
        loss: Tensor = self.decoder(
            input_ids=tokens,
            attention_mask=mask,
            encoder_hidden_states=seen[image.to(seen.device)],
            labels=tokens.masked_fill(mask == 0, IGNORED),
        ).loss
        return loss

    def predict(self, x: Mapping[str, Tensor], batch: CaptionBatch) -> list[str]:
        """Greedy captions, one per image."""
        seen = self.image_tokens(x)
        first = torch.full((len(seen), 1), self.bos, device=seen.device)
        decoder = cast(Any, self.decoder)
        with torch.no_grad():
            tokens = decoder.generate(
                input_ids=first,
                attention_mask=torch.ones_like(first),
                encoder_hidden_states=seen,
                encoder_attention_mask=torch.ones_like(seen[..., 0], dtype=torch.long),
                eos_token_id=self.end,
                pad_token_id=self.pad,
                do_sample=False,
                num_beams=1,
                max_new_tokens=MAX_TOKENS,
            )
        texts = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [t.strip() for t in texts]

    def _references(self, batch: CaptionBatch) -> tuple[Tensor, list[str]]:
        """Image [R] of each reference, and the references."""
        counts = torch.tensor([len(c) for c in batch.captions])
        image = torch.arange(len(counts)).repeat_interleave(counts)
        captions = [plain(text) for of_image in batch.captions for text in of_image]
        if not self.training:
            return image, captions
        drawn = (torch.rand(len(counts)) * counts).long()
        chosen = counts.cumsum(0) - counts + drawn
        return image[chosen], [captions[i] for i in chosen.tolist()]


def default_config(variant: str) -> Any:
    """The official configuration of a variant, as published."""
    transformers = huggingface.library()
    width, layers, heads = VISION[variant]
    vision = transformers.BlipVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=384,
        patch_size=16,
        initializer_range=0.02,  # the class's own 1e-10 gives features that do not depend on the image
    )
    text = transformers.BlipTextConfig(num_attention_heads=12)
    return transformers.BlipConfig(vision_config=vision.to_dict(), text_config=text.to_dict())


def _task_model(
    name: str, model: Any, info: WeightsInfo, tokenizer: Any, image_px: tuple[int, int], device: torch.device
) -> TaskModel:
    vision, encoder_module = model.config.vision_config, model.vision_model
    side = vision.image_size
    grid = (side // vision.patch_size, side // vision.patch_size)
    grids = {"tokens": grid, "class": (1, 1)}
    specs = [official.spec_of(n, vision.hidden_size, g, image_px) for n, g in grids.items()]

    def run(images: Tensor) -> list[Tensor]:
        x = official.pixels(images, (side, side), NORMALIZATION)
        tokens = encoder_module(x).last_hidden_state
        return [official.to_map(tokens[:, 1:], grid), official.to_map(tokens[:, :1], (1, 1))]

    encoder = official.OwnEncoder(name, specs, encoder_module, run, info, image_px, device)
    decoder = CaptionDecoder(name, specs, grids, model, tokenizer)
    return official.OfficialModel(encoder, decoder)


class Plugin(TransformersPlugin):
    """BLIP, with the tokenizer of its weights."""

    def from_config(
        self,
        name: str,
        config: Any,
        weights: str | None,
        task: Task,
        image_px: tuple[int, int],
        device: torch.device,
        repo: str = "",
    ) -> TaskModel:
        model_class = getattr(huggingface.library(), self.model_class)
        if weights == "random":
            tokenizer = word_tokenizer(cast(CaptioningTask, task).vocabulary.words)
            found = huggingface.random_model(model_class, with_words(config, tokenizer))
        else:
            files = huggingface.find(name, weights, repo, TOKENIZER)
            tokenizer = tokenizer_of(name, files[0].parent)
            found = huggingface.load(name, model_class, *files)
        return self.make(name, *found, tokenizer, image_px, device)


PLUGIN = Plugin("blip", "captioning", REPOS, default_config, "BlipForConditionalGeneration", _task_model)
