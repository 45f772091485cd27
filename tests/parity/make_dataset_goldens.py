"""Makes the data set goldens: the token ids and labels that TRL's SFTTrainer prepares from rows.

Runs TRL's own preparation (SFTTrainer._prepare_dataset) on rows of text, prompt and completion, and
messages, with some of the tokenizers of golden/tokenizers and the template generation_chatml. Needs
the packages of requirements-datasets.txt besides those of requirements.txt, and golden/tokenizers.

  python tests/parity/make_dataset_goldens.py          rewrites tests/parity/golden/datasets
  python tests/parity/make_dataset_goldens.py --out D  writes to another folder, to compare

The format of the files is told in tests/parity/golden/README.md.
"""

import argparse
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp()

import accelerate  # noqa: E402
import datasets  # noqa: E402
import transformers  # noqa: E402
from trl import SFTTrainer  # noqa: E402
from trl.data_utils import _tokenize, common_prefix_length, is_conversational  # noqa: E402

import golden_common  # noqa: E402

TEMPLATE = Path(__file__).resolve().parent / "templates" / "generation_chatml.jinja"
# (tokenizer, bos token or None, eos token)
TOKENIZERS = [
    ("gpt2_style", None, "<|endoftext|>"),
    ("llama3_style", "<|begin_of_text|>", "<|end_of_text|>"),
    ("qwen_style", None, "<|im_end|>"),
    ("sentencepiece_style", "<s>", "</s>"),
    ("metaspace_first_style", "<s>", "</s>"),
]


def text_rows(eos):
    texts = ["The harbour was quiet when the first boats came home.", "x", " padded ", "日本語 😀 é", "two\n\nlines\n", "ends with" + eos,
             "inside " + eos + " too", "def f(x):\n    return x + 1\n"]
    return [{"text": text} for text in texts]


def completion_rows(eos):
    pairs = [("Question: why?\nAnswer:", " Because."), ("Translate: hello", "\nbonjour"), ("2 + 2 =", " 4"), ("日本", "語です"), ("A", "B"),
             ("Say it.", " done" + eos), ("The lighthouse", " keeper counts the waves."), ("trailing space ", "next"), ("wor", "ds"), ("", "only this")]
    return [{"prompt": prompt, "completion": completion} for prompt, completion in pairs]


def turns(*contents):
    """Messages: users and assistants in turn."""
    return [{"role": "assistant" if i % 2 else "user", "content": content} for i, content in enumerate(contents)]


CHATS = [
    turns("Hello", "Hi! How can I help?"),
    turns("One", "Two", "Three", "Four\n"),
    [{"role": "system", "content": "Be brief."}] + turns("Why?", "Because."),
    turns("日本語で", "はい 😀", "e\u0301?", "yes"),
    turns(" spaces ", " kept ", "", "empty question"),
]
CHAT_ROWS = [{"messages": chat} for chat in CHATS]
CHAT_COMPLETION_ROWS = [{"prompt": chat[:-1], "completion": chat[-1:]} for chat in CHATS]


def prepare(tokenizer, rows, template, loss_on):
    """What TRL makes of each row on its own: input_ids and labels (-100 where nothing is learned)."""
    trainer = SimpleNamespace(_tokenizer=tokenizer, chat_template=template, completion_only_loss=loss_on == "completion")
    settings = SimpleNamespace(dataset_num_proc=None, dataset_text_field="text", assistant_only_loss=loss_on == "assistant",
                               max_length=None, truncation_mode="keep_start", shuffle_dataset=False)
    cases = []
    for row in rows:
        stream = datasets.Dataset.from_list([row]).to_iterable_dataset()
        made = next(iter(SFTTrainer._prepare_dataset(trainer, stream, tokenizer, settings, False, None, "train")))
        case = {"row": row, "loss_on": loss_on, "input_ids": made["input_ids"], "labels": made["labels"]}
        if "prompt" in row:
            rest = {"chat_template": template}
            prompt = _tokenize(tokenizer, row["prompt"], **rest, **({"add_generation_prompt": True} if is_conversational(row) else {}))["input_ids"]
            case["prompt_is_prefix"] = common_prefix_length(prompt, made["input_ids"]) == len(prompt)
        cases.append(case)
    return cases


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=golden_common.GOLDEN_DIR / "datasets")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    # Fingerprints name cache files, which are not used here, and pickle all that a Dataset holds.
    datasets.fingerprint.Hasher.hash = classmethod(lambda cls, value: "unused")
    accelerate.PartialState(cpu=True)

    template = TEMPLATE.read_text(encoding="utf-8")
    for name, bos, eos in TOKENIZERS:
        path = golden_common.GOLDEN_DIR / "tokenizers" / name / "tokenizer.json"
        special = {"eos_token": eos} | ({"bos_token": bos} if bos else {})
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(path), **special)
        cases = prepare(tokenizer, text_rows(eos), template, "all")
        cases += prepare(tokenizer, completion_rows(eos), template, "completion")
        cases += prepare(tokenizer, CHAT_ROWS, template, "assistant")
        cases += prepare(tokenizer, CHAT_ROWS, template, "all")
        cases += prepare(tokenizer, CHAT_COMPLETION_ROWS, template, "completion")
        record = {"tokenizer": name, "special_tokens": special, "chat_template": template, "cases": cases}
        golden_common.write_gz(options.out / f"{name}.json.gz", (golden_common.dumps(record) + "\n").encode())
        print(f"{name}: {len(cases)} rows")
    golden_common.write_versions(options.out, ["trl", "datasets", "transformers", "tokenizers"])
    golden_common.print_digests(options.out)


if __name__ == "__main__":
    main()
