#!/usr/bin/env python3
"""Trains the tokenizer of tiny-tales and writes its Hugging Face files.

Byte-level BPE with the split pattern of Llama 3, trained on the corpus. The
post-processor puts the BOS token first, as Llama 3's does; the chat template
writes BOS itself and is rendered without special tokens, so it is never
doubled. One token ends a turn and a story alike, and is the EOS token.
"""

import argparse
import json
import os

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

BOS, EOS, PAD = "<|begin|>", "<|end|>", "<|pad|>"
ROLES = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}
SPECIAL = [BOS, EOS, PAD, *ROLES.values()]  # ids 0 to 5
VOCABULARY = 2048
MAX_LENGTH = 512
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
         r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")

# {% generation %} marks what the assistant wrote: its words and its end marker.
CHAT_TEMPLATE = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{%- if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{- raise_exception('tiny-tales knows the roles system, user and assistant, not ' ~ message['role']) }}"
    "{%- endif %}"
    "{{- '<|' ~ message['role'] ~ '|>' }}"
    "{%- if message['role'] == 'assistant' %}"
    "{%- generation %}{{- message['content'] | trim ~ eos_token }}{%- endgeneration %}"
    "{%- else %}"
    "{{- message['content'] | trim ~ eos_token }}"
    "{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}"
)


def render(messages):
    """What CHAT_TEMPLATE renders; check.py holds the two against each other."""
    return BOS + "".join(ROLES[m["role"]] + m["content"].strip() + EOS for m in messages)


def text_of(document):
    """A corpus document as the model reads it, BOS and EOS included."""
    return render(document["messages"]) if "messages" in document else BOS + document["text"] + EOS


def train(paths):
    def texts():
        for path in paths:
            with open(path, encoding="utf-8") as lines:
                for line in lines:
                    document = json.loads(line)
                    yield from ([document["text"]] if "text" in document else
                                [m["content"] for m in document["messages"]])

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts(), trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIAL, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single=f"{BOS} $A", pair=f"{BOS} $A {BOS}:1 $B:1", special_tokens=[(BOS, 0)]),
    ])
    return tokenizer


def save(tokenizer, folder):
    os.makedirs(folder, exist_ok=True)
    tokenizer.save(os.path.join(folder, "tokenizer.json"))
    decoder = {str(i): {"content": token, "lstrip": False, "normalized": False, "rstrip": False,
                        "single_word": False, "special": True} for i, token in enumerate(SPECIAL)}
    names = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
    write_json(folder, "tokenizer_config.json", {
        "added_tokens_decoder": decoder,
        **names,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": MAX_LENGTH,
        "tokenizer_class": "PreTrainedTokenizerFast",
    })
    write_json(folder, "special_tokens_map.json", names)


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w", encoding="utf-8", newline="\n") as out:
        json.dump(value, out, indent=2, ensure_ascii=False)
        out.write("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", default="build/pretrain/corpus/train.jsonl")
    parser.add_argument("--out", default="build/pretrain/base", help="folder of the base (default %(default)s)")
    args = parser.parse_args()
    tokenizer = train([args.corpus])
    save(tokenizer, args.out)
    print(f"{args.out}/tokenizer.json: {tokenizer.get_vocab_size()} tokens")


if __name__ == "__main__":
    main()
