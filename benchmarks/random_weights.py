"""Writes checkpoints of random weights from a seed, with tokenizers that give every id a text. Downloads nothing."""

import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from tokenizers import ByteLevelBPETokenizer
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizerFast,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2TokenizerFast,
    MarianConfig,
    MarianMTModel,
)

PRINTABLE = [chr(code) for code in range(33, 127)]


def words(count: int) -> list[str]:
    """`count` different strings of two and three printable characters, pairs first."""
    pairs = ("".join(pair) for pair in itertools.product(PRINTABLE, repeat=2))
    triples = ("".join(triple) for triple in itertools.product(PRINTABLE, repeat=3))
    return list(itertools.islice(itertools.chain(pairs, triples), count))


def write_gpt2(folder: Path, size: dict[str, int]) -> None:
    """GPT-2 with a byte-level vocabulary that decodes every id to text of its own."""
    alphabet = sorted(ByteLevel.alphabet())
    made = words(size["vocabulary"] - len(alphabet) - 1)
    vocabulary = {token: index for index, token in enumerate([*alphabet, *made, "<|endoftext|>"])}
    merges = [(word[:-1], word[-1]) for word in made]
    bpe: Any = ByteLevelBPETokenizer(vocab=vocabulary, merges=merges)
    bpe.save_model(str(folder))
    tokenizer: Any = GPT2TokenizerFast.from_pretrained(folder)
    tokenizer.model_max_length = size["positions"]
    tokenizer.save_pretrained(folder)
    eos = size["vocabulary"] - 1
    config = GPT2Config(
        vocab_size=size["vocabulary"], n_positions=size["positions"], n_embd=size["width"], n_layer=size["layers"],
        n_head=size["heads"], bos_token_id=eos, eos_token_id=eos,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)


def write_bert(folder: Path, size: dict[str, int]) -> None:
    """BERT with two labels and a WordPiece vocabulary of made words."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = [*special, *words(size["vocabulary"] - len(special))]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    tokenizer: Any = BertTokenizerFast(vocab={token: index for index, token in enumerate(vocabulary)})
    tokenizer.model_max_length = size["positions"]
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=size["vocabulary"], hidden_size=size["width"], num_hidden_layers=size["layers"],
        num_attention_heads=size["heads"], intermediate_size=size["inner"],
        max_position_embeddings=size["positions"], id2label={0: "NEGATIVE", 1: "POSITIVE"},
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)


def write_marian(folder: Path, size: dict[str, int]) -> None:
    """Marian with one small SentencePiece model, its vocabulary filled up with made pieces."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a small text of some words to have pieces"] * 8), model_writer=written, vocab_size=40,
        model_type="unigram", hard_vocab_limit=False, eos_id=0, unk_id=1, bos_id=-1, pad_id=-1, minloglevel=2,
    )  # fmt: skip
    for name in ("source.spm", "target.spm"):
        (folder / name).write_bytes(written.getvalue())
    pieces: Any = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    known = [pieces.id_to_piece(index) for index in range(pieces.get_piece_size())]
    pad = size["vocabulary"] - 1
    vocabulary = [*known, *(f"▁{word}" for word in words(pad - len(known))), "<pad>"]
    by_token = {token: index for index, token in enumerate(vocabulary)}
    assert len(by_token) == size["vocabulary"], "a made piece equals a trained one. This is a bug."
    (folder / "vocab.json").write_text(json.dumps(by_token), encoding="utf-8")
    settings = {"tokenizer_class": "MarianTokenizer", "source_lang": "en", "target_lang": "de",
                "model_max_length": size["positions"]}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    config = MarianConfig(
        vocab_size=size["vocabulary"], d_model=size["width"], encoder_layers=size["layers"],
        decoder_layers=size["layers"], encoder_attention_heads=size["heads"], decoder_attention_heads=size["heads"],
        encoder_ffn_dim=size["inner"], decoder_ffn_dim=size["inner"], activation_function="swish",
        scale_embedding=True, max_position_embeddings=size["positions"], pad_token_id=pad, eos_token_id=0,
        decoder_start_token_id=pad, forced_eos_token_id=0,
    )  # fmt: skip
    model: Any = MarianMTModel(config)
    model.generation_config.bad_words_ids = [[pad]]
    model.save_pretrained(folder)


MAKERS: dict[str, Callable[[Path, dict[str, int]], None]] = {
    "gpt2": write_gpt2,
    "bert": write_bert,
    "marian": write_marian,
}


def write_checkpoint(model: str, folder: Path, size: dict[str, int]) -> None:
    """Fill `folder` with `model` at `size`; the same bytes at every call on one version of the libraries."""
    torch.manual_seed(0)
    MAKERS[model](folder, size)
