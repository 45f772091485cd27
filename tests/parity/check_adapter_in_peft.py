"""Checks, in the reference environment, that PEFT loads an adapter that Tundra wrote and computes the same with it.

  python tests/parity/check_adapter_in_peft.py --base BASE_DIR --adapter ADAPTER_DIR [what to compare]

Always: the files are as PEFT writes them (keys of adapter_config.json, tensor names, shapes, type,
metadata), and PEFT loads every tensor. With --logits FILE.safetensors, which holds input_ids [T]
(int64 or int32) and logits [T, vocab] (float32) of one sequence computed by Tundra: PEFT's logits are
within --tolerance of the largest. With --prompt and --text FILE, the output of
`tundra generate --temperature 0` with that prompt: PEFT's greedy answer is the same text. Prints the figures;
exits with 1 when anything differs.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

FREE_KEYS = {"base_model_name_or_path", "revision", "target_modules", "peft_version"}


class Report:
    """Prints each finding and remembers whether one was bad."""

    def __init__(self):
        self.failed = False

    def say(self, good, text):
        print(("ok    " if good else "WRONG ") + text)
        self.failed |= not good


def load_base(path):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()


def check_files(report, base, adapter):
    """Compares with what PEFT itself writes for the same settings."""
    ours = json.loads((adapter / "adapter_config.json").read_text())
    settings = {key: ours[key] for key in ("r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "bias", "task_type")}
    with tempfile.TemporaryDirectory() as temp:
        net = get_peft_model(load_base(base), LoraConfig(**settings))
        net.save_pretrained(temp, save_embedding_layers=False)
        theirs = json.loads((Path(temp) / "adapter_config.json").read_text())
        shapes, metadata = tensor_shapes(Path(temp) / "adapter_model.safetensors")
    report.say(not theirs.keys() - ours.keys(), f"adapter_config.json lacks: {sorted(theirs.keys() - ours.keys()) or 'nothing'}")
    report.say(not ours.keys() - theirs.keys(), f"adapter_config.json has besides: {sorted(ours.keys() - theirs.keys()) or 'nothing'}")
    changed = {k: (ours[k], theirs[k]) for k in sorted(ours.keys() & theirs.keys() - FREE_KEYS) if ours[k] != theirs[k]}
    report.say(not changed, f"values that differ (ours, PEFT's): {changed or 'none'}")
    found, found_metadata = tensor_shapes(adapter / "adapter_model.safetensors")
    report.say(found == shapes, f"{len(found)} tensors, PEFT writes {len(shapes)}; different: {sorted(set(found.items()) ^ set(shapes.items()))[:4] or 'none'}")
    shared = {k: v for k, v in found_metadata.items() if not k.startswith("tundra.")}  # ours say where it came from
    report.say(shared == metadata, f"metadata {found_metadata}, PEFT writes {metadata}")


def tensor_shapes(path):
    with safe_open(path, framework="pt") as file:
        shapes = {key: (tuple(file.get_slice(key).get_shape()), file.get_slice(key).get_dtype()) for key in file.keys()}
        return shapes, file.metadata()


def check_loading(report, base, adapter):
    """Loads the adapter with PEFT and makes sure that every tensor arrived."""
    net = PeftModel.from_pretrained(load_base(base), adapter).eval()
    loaded = {name.replace(".default", ""): p for name, p in net.named_parameters() if "lora_" in name}
    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as file:
        missing = sorted(loaded.keys() ^ set(file.keys()))
        equal = not missing and all(torch.equal(file.get_tensor(key), value.data) for key, value in loaded.items())
        finite = all(bool(torch.isfinite(file.get_tensor(key)).all()) for key in file.keys())
        moved = sum(bool(file.get_tensor(key).any()) for key in file.keys() if "lora_B" in key)
    report.say(equal, f"PEFT holds the file's {len(loaded)} tensors (in only one of both: {missing[:4] or 'none'})")
    report.say(finite, "all values are finite")
    report.say(moved > 0, f"{moved} of the B matrices are not zero")
    return net


def check_logits(report, net, path, tolerance):
    with safe_open(path, framework="pt") as file:
        ids, ours = file.get_tensor("input_ids").long().reshape(1, -1), file.get_tensor("logits").float()
    with torch.no_grad():
        theirs = net(input_ids=ids, use_cache=False).logits[0]
        with net.disable_adapter():
            without = net(input_ids=ids, use_cache=False).logits[0]
    scale = theirs.abs().max()
    gap = ((ours - theirs).abs().max() / scale).item()
    effect = ((without - theirs).abs().max() / scale).item()
    report.say(gap <= tolerance, f"logits of {ids.shape[1]} tokens: largest difference {gap:.2e} of the largest logit (the adapter changes them by {effect:.2e})")


def check_text(report, net, base, prompt, path, max_tokens):
    tokenizer = AutoTokenizer.from_pretrained(base)
    turns = [{"role": "user", "content": prompt}]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)["input_ids"]
    with torch.no_grad():
        out = net.generate(input_ids=ids, max_new_tokens=max_tokens, do_sample=False, use_cache=True)
    theirs = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    ours = path.read_text(encoding="utf-8")
    report.say(ours.strip() == theirs.strip(), f"greedy text after {prompt!r}:\n  ours  {ours.strip()!r}\n  PEFT  {theirs.strip()!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--logits", type=Path)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--prompt", help="what was asked, as in `tundra generate --prompt`")
    parser.add_argument("--text", type=Path, help="file with Tundra's answer to --prompt")
    parser.add_argument("--max-tokens", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if (options.prompt is None) != (options.text is None):
        parser.error("--prompt and --text go together")

    report = Report()
    check_files(report, options.base, options.adapter)
    net = check_loading(report, options.base, options.adapter)
    if options.logits:
        check_logits(report, net, options.logits, options.tolerance)
    if options.prompt is not None:
        check_text(report, net, options.base, options.prompt, options.text, options.max_tokens)
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
