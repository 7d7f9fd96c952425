"""The text-generation package: generate, generate_stream, and its typed errors; prints what it parsed."""

import json
import os

from text_generation import Client
from text_generation.errors import ValidationError

url, key = os.environ["TOLLGATE_URL"] + os.environ["PATH_OF_MODEL"], os.environ["TOLLGATE_KEY"]
client = Client(url, headers={"authorization": f"Bearer {key}"}, timeout=30)
whole = client.generate("hello world", max_new_tokens=6, decoder_input_details=True, top_n_tokens=2)
events = list(client.generate_stream("hello world", max_new_tokens=6))
sampled = client.generate("hello", max_new_tokens=4, do_sample=True, best_of=2)
full = client.generate("hello world", max_new_tokens=6, return_full_text=True)
try:
    client.generate("hello", max_new_tokens=5000)
    refusal = None
except ValidationError as error:
    refusal = str(error)
print(
    json.dumps(
        {
            "text": whole.generated_text, "full": full.generated_text, "tokens": [t.text for t in whole.details.tokens],
            "prefill": len(whole.details.prefill), "top": [len(top) for top in whole.details.top_tokens],
            "reason": whole.details.finish_reason, "streamed": [event.token.text for event in events],
            "last": events[-1].generated_text, "others": len(sampled.details.best_of_sequences), "refusal": refusal,
        }
    )
)  # fmt: skip
