"""Prints which huggingface_hub this is, and that the key opens the server."""

import json
import os
import urllib.request

import huggingface_hub

request = urllib.request.Request(
    os.environ["TOLLGATE_URL"] + "/v1/models", headers={"authorization": "Bearer " + os.environ["TOLLGATE_KEY"]}
)
with urllib.request.urlopen(request) as answer:
    print(json.dumps({"status": answer.status, "huggingface_hub": huggingface_hub.__version__}))
