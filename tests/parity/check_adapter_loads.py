"""Checks that PEFT loads the adapters that Tundra trains, and computes Tundra's logits with them.

For each golden base that Tundra supports: Tundra trains an adapter on the golden rows and computes
the logits of all rows with it; PEFT loads the folder onto the same base in float32 and computes them
too. They must agree within 1e-4 of the largest logit. Figures are printed.

  python tests/parity/check_adapter_loads.py [--engine build/release/tests/parity-engine]

Runs in the reference environment (tests/parity/setup), after `ninja parity-engine`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).resolve().parent / "golden" / "peft"
BOUND = 1e-4
STEPS = 12


def check(engine, name, folder):
    base, rows = GOLDEN / name / "base", GOLDEN / name / "golden.json"
    adapter, out = folder / "adapter", folder / "logits.safetensors"
    trained = subprocess.run([engine, "train", base, rows, str(STEPS), adapter], check=True, capture_output=True, text=True)
    subprocess.run([engine, "logits", base, adapter, rows, out], check=True)
    ours = load_file(out)["logits"]

    net = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        plain = logits_of(net, rows)
        net = PeftModel.from_pretrained(net, adapter).eval()
        theirs = logits_of(net, rows)
    largest = theirs.abs().max()
    error = ((ours - theirs).abs().max() / largest).item()
    effect = ((plain - theirs).abs().max() / largest).item()
    print(f"{name}: {', '.join(trained.stdout.split(chr(10))[:2])}; logits differ by {error:.1e} of the largest "
          f"(the adapter moves them by {effect:.1e})")
    return error < BOUND and effect > 100 * BOUND


def logits_of(net, rows):
    rows = json.loads(rows.read_text())["rows"]
    return torch.cat([net(input_ids=torch.tensor([row["input_ids"]]), use_cache=False).logits[0] for row in rows])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", type=Path, default=ROOT / "build/release/tests/parity-engine")
    options = parser.parse_args()
    torch.set_num_threads(1)
    good = True
    for entry in json.loads((GOLDEN / "index.json").read_text()):
        if "optional" in entry:
            print(f"{entry['name']}: skipped, {entry['optional']}")
            continue
        with tempfile.TemporaryDirectory() as folder:
            good = check(options.engine, entry["name"], Path(folder)) and good
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
