"""Makes a complete Hugging Face folder out of a package's weights and a committed delta.

numpy and safetensors only; never torch, never transformers.
"""
