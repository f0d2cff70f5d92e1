"""Models that read texts: transformers, sentence-transformers and model2vec, of random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from batcher.core.spec import Array
from tests.integration.models.case import Case, Reference, Rows

WORDS = (
    *("a", "the", "not", "old", "young", "on", "under", "sits", "sleeps", "flies"),
    *("cat", "dog", "owl", "mat", "tree", "house"),
)
TEXTS = ("the old cat sits", "a dog", "not the owl on the house", "young cat", "")


def text_array(*texts: str) -> Array:
    """Return texts as the server takes them: an array of bytes."""
    return np.array([text.encode() for text in texts], object)


def strings(array: Array) -> list[str]:
    """Return an array of bytes as texts."""
    return [text.decode() for text in array]


def save_tokenizer(folder: Path) -> Any:
    """Write a tokenizer of whole words, and return it."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = {word: number for number, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "attention_mask"],
    )
    fast.save_pretrained(folder)
    return fast


def small_bert(**more: Any) -> Any:
    """Return the settings of a BERT of few weights."""
    from transformers import BertConfig

    sizes = {
        "vocab_size": len(WORDS) + 4,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
    }
    return BertConfig(**(sizes | more))


def tokens() -> dict[str, Array]:
    """Return token numbers of four texts of one length, some of them padded."""
    generator = np.random.default_rng(2)
    mask = (np.arange(9) < np.array([[9], [4], [7], [2]])).astype(np.int64)
    return {"input_ids": generator.integers(4, 20, (4, 9)) * mask, "attention_mask": mask}


def by_keywords(module: torch.nn.Module, *outputs: str) -> Any:
    """Return a function that calls `module` with the inputs by their names."""

    def answer(inputs: dict[str, Array]) -> Rows:
        with torch.inference_mode():
            result = module(**{name: torch.from_numpy(array) for name, array in inputs.items()})
        return {name: result[name].numpy() for name in outputs}

    return answer


def sentiment(folder: Path) -> Reference:
    """A BERT for classes: texts in, scores out."""
    from transformers import BertForSequenceClassification

    torch.manual_seed(0)
    net = BertForSequenceClassification(small_bert(num_labels=3)).eval()
    net.save_pretrained(folder)
    tokenizer = save_tokenizer(folder)

    def answer(inputs: dict[str, Array]) -> Rows:
        with torch.inference_mode():
            padded = tokenizer(strings(inputs["text"]), padding=True, return_tensors="pt")
            return {"logits": net(**padded).logits.numpy()}

    return Reference({"text": text_array(*TEXTS)}, answer)


def translator(folder: Path) -> Reference:
    """A T5 that writes texts of its own lengths."""
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(WORDS) + 4,
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        pad_token_id=0,
        eos_token_id=3,
        decoder_start_token_id=0,
        initializer_factor=10.0,
    )
    net = T5ForConditionalGeneration(config).eval()
    net.save_pretrained(folder)
    tokenizer = save_tokenizer(folder)

    def answer(inputs: dict[str, Array]) -> Rows:
        with torch.inference_mode():
            padded = tokenizer(strings(inputs["text"]), padding=True, return_tensors="pt")
            made = net.generate(**padded, max_new_tokens=6)
        texts = tokenizer.batch_decode(made, skip_special_tokens=True)
        return {"translation": [text.encode() for text in texts]}

    return Reference({"text": text_array(*TEXTS)}, answer)


def encoder(folder: Path) -> Reference:
    """The encoder of a sequence-to-sequence model, with free axes."""
    from transformers import BartConfig, BartModel

    torch.manual_seed(0)
    sizes = {
        "d_model": 16,
        "encoder_layers": 2,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
    }
    whole = BartModel(BartConfig(vocab_size=24, max_position_embeddings=64, **sizes)).eval()
    whole.save_pretrained(folder)
    return Reference(tokens(), by_keywords(whole.get_encoder(), "last_hidden_state"))


def bert_export(folder: Path) -> Reference:
    """A BERT, exported as it is: keyword inputs, free axes, and an output type of its library."""
    from transformers import BertModel

    torch.manual_seed(0)
    net = BertModel(small_bert()).eval()
    example = {name: torch.from_numpy(array[:2]) for name, array in tokens().items()}
    axes = {
        0: torch.export.Dim("batch", min=1, max=1024),
        1: torch.export.Dim("length", min=2, max=64),
    }
    program = torch.export.export(
        net, (), example, dynamic_shapes=dict.fromkeys(example, axes), strict=False
    )
    torch.export.save(program, folder / "bert.pt2")
    return Reference(tokens(), by_keywords(net, "last_hidden_state", "pooler_output"))


def sentences(folder: Path) -> Reference:
    """A MiniLM of sentence-transformers: six layers of 384 numbers."""
    from sentence_transformers import SentenceTransformer, models
    from transformers import BertModel

    torch.manual_seed(0)
    parts = folder / "parts"
    net = BertModel(small_bert(hidden_size=384, num_hidden_layers=6, num_attention_heads=12))
    net.save_pretrained(parts)
    save_tokenizer(parts)
    transformer = models.Transformer(str(parts), max_seq_length=32)
    pooling = models.Pooling(384, pooling_mode="mean")
    whole = SentenceTransformer(modules=[transformer, pooling, models.Normalize()], device="cpu")
    whole.save(str(folder))

    def answer(inputs: dict[str, Array]) -> Rows:
        return {"embedding": whole.encode(strings(inputs["text"]))}

    return Reference({"text": text_array(*TEXTS)}, answer)


def static_embeddings(folder: Path) -> Reference:
    """Static embeddings of model2vec."""
    from model2vec import StaticModel

    tokenizer = save_tokenizer(folder / "parts")
    vectors = np.random.default_rng(3).normal(size=(len(WORDS) + 4, 8)).astype(np.float32)
    model = StaticModel(vectors, tokenizer.backend_tokenizer)
    model.save_pretrained(folder)

    def answer(inputs: dict[str, Array]) -> Rows:
        return {"embedding": model.encode(strings(inputs["text"]))}

    return Reference({"text": text_array(*TEXTS)}, answer)


CASES = [
    Case("sentiment", ("transformers",), sentiment),
    Case("translator", ("transformers",), translator),
    Case("encoder", ("transformers",), encoder),
    Case("bert_export", ("transformers",), bert_export),
    Case("sentences", ("sentence_transformers",), sentences),
    Case("static_embeddings", ("model2vec", "transformers"), static_embeddings),
]
