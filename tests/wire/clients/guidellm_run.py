"""guidellm: a load of synthetic prompts; prints how many tokens it counted in each answer."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

BACKEND = {
    "kind": "openai_http",
    "target": os.environ["TOLLGATE_URL"],
    "model": os.environ["MODEL"],
    "api_key": os.environ["TOLLGATE_KEY"],
    "request_format": os.environ["ROUTE"],
}

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "report.json"
    command = [
        str(Path(sys.executable).with_name("guidellm")), "run", "--disable-console", "--profile",
        "kind=concurrent,streams=3", "--constraint", "kind=max_requests,count=6",
        "--backend", ",".join(f"{name}={value}" for name, value in BACKEND.items()),
        "--tokenizer", f"kind=hf_auto,model={os.environ['CHECKPOINT']}",
        "--data", "kind=synthetic_text,prompt_tokens=8,output_tokens=8",
        "--output", f"kind=json,path={path}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-2500:]
    (benchmark,) = json.loads(path.read_text())["benchmarks"]
requests = benchmark["requests"]
written = [one["output_metrics"]["text_tokens"] for one in requests["successful"]]
print(json.dumps({"errors": len(requests["errored"]), "written": written}))
