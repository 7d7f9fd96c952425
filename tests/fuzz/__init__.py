"""Random input into every parser of ours: an answer or a refusal of ours, never another exception."""
