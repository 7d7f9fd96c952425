"""Continues fixed prompts once each, seed by place, nothing picked: what the card shows."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import AutoTokenizer, GPT2LMHeadModel

PROMPTS = (
    "Once upon a time", "I went to the shop and", "The best way to learn", "Dear Sir,", "Water is",
    "My grandmother always said", "The weather today", "Hello, my name is", "In the morning she", "The king of France",
    "How do I cook rice?", "Yesterday the government announced",
)  # fmt: skip


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starter", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=48)
    chosen = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(chosen.starter)
    model = GPT2LMHeadModel.from_pretrained(chosen.starter, dtype=torch.float32).eval()
    for seed, prompt in enumerate(PROMPTS):
        torch.manual_seed(seed)
        made = model.generate(
            **tokenizer(prompt, return_tensors="pt"), max_new_tokens=chosen.tokens, do_sample=True, temperature=0.7,
            top_k=40, pad_token_id=model.config.eos_token_id,
        )  # fmt: skip
        print(f"    {tokenizer.decode(made[0], skip_special_tokens=True)}")


if __name__ == "__main__":
    main()
