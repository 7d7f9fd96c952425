"""Strings and token ids: tokenizers, detokenizers, windows, truncation.

No model weights, no HTTP.
"""
