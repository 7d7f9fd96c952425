"""What Hugging Face's clients speak: the hub's task routes, text-generation-inference (TGI), text-embeddings-inference
(TEI). A file each; `envelope.py` holds what they share. No business rule.
"""

from app.api.huggingface import pipelines, tei, tgi

ROOMS = (tgi, tei, pipelines)
"""In this order: pipelines' paths take any model's id, and come last."""
