#!/usr/bin/env python3
"""Checks the generators, the shipped base and the example data.

Exit 0 when all hold, 1 with the list of what does not. Needs the packages of
tests/parity/requirements.txt.
"""

import argparse
import filecmp
import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
MAX_BYTES = 8 << 20
MAX_LOSS = 1.2  # nats a token, on documents never trained on
FAILURES = []


def expect(holds, what):
    print(("ok    " if holds else "FAIL  ") + what, flush=True)
    if not holds:
        FAILURES.append(what)


def run(script, *args, hash_seed="0"):
    subprocess.run([sys.executable, os.path.join(HERE, script), *args], check=True, stdout=subprocess.DEVNULL,
                   env=os.environ | {"PYTHONHASHSEED": hash_seed})


def check_generator(tmp):
    small = ["--documents", "800", "--validation", "50"]
    for name, seed, hash_seed in (("a", "17", "1"), ("b", "17", "2"), ("c", "18", "1")):
        run("corpus.py", *small, "--seed", seed, "--out", os.path.join(tmp, name), hash_seed=hash_seed)
    same = lambda x, y, f: filecmp.cmp(os.path.join(tmp, x, f), os.path.join(tmp, y, f), shallow=False)
    expect(all(same("a", "b", f) for f in ("train.jsonl", "val.jsonl", "extra.jsonl")), "corpus: the same seed gives the same bytes")
    expect(not same("a", "c", "train.jsonl"), "corpus: another seed gives other bytes")
    run("corpus.py", "--documents", "200", "--validation", "50", "--out", os.path.join(tmp, "d"))
    with open(os.path.join(tmp, "a", "train.jsonl"), encoding="utf-8") as a, \
         open(os.path.join(tmp, "d", "train.jsonl"), encoding="utf-8") as d:
        expect([next(a) for _ in range(200)] == list(d), "corpus: a document depends on seed and number alone")
    text = open(os.path.join(tmp, "a", "train.jsonl"), encoding="utf-8").read()
    # JSON's own brackets aside, a bracket or bar is a template that was not resolved.
    words = " ".join(v for line in text.splitlines() for v in strings(json.loads(line)))
    expect(not set(words) & set("[]{}|"), "corpus: no template is left unresolved")


def strings(document):
    return [document["text"]] if "text" in document else [m["content"] for m in document["messages"]]


def check_example(tmp, example):
    run("make_examples.py", "--out", os.path.join(tmp, "example"))
    for name in ("train.jsonl", "val.jsonl"):
        expect(filecmp.cmp(os.path.join(tmp, "example", name), os.path.join(example, name), shallow=False),
               f"example: make_examples.py gives the committed {name}")
    asked = {}
    for name in ("train.jsonl", "val.jsonl"):
        with open(os.path.join(example, name), encoding="utf-8") as lines:
            rows = [json.loads(line)["messages"] for line in lines]
        asked[name] = {m["content"].lower() for r in rows for m in r if m["role"] == "user"}
        expect(all(r[-1]["role"] == "assistant" for r in rows), f"example: every row of {name} ends with an answer")
    expect(not asked["train.jsonl"] & asked["val.jsonl"], "example: no validation question was trained on")


def check_tokenizer(base, example, corpus):
    from transformers import AutoTokenizer

    from tokenizer import BOS, CHAT_TEMPLATE, EOS, MAX_LENGTH, PAD, render, text_of

    t = AutoTokenizer.from_pretrained(base)
    expect((t.bos_token, t.eos_token, t.pad_token) == (BOS, EOS, PAD), "tokenizer: BOS, EOS and padding are set")
    expect(t.chat_template == CHAT_TEMPLATE, "tokenizer: the chat template is the one of tokenizer.py")
    expect(t("hello").input_ids[0] == t.bos_token_id and t("hello").input_ids.count(t.bos_token_id) == 1,
           "tokenizer: plain text starts with one BOS")
    odd = ["  two  spaces\n\n\ttab", "Žluťoučký kůň", "日本語 🏴‍☠️", "it's I'LL 12345", "<|end|> inside", "\x00\x7f\r\n"]
    decode = lambda s: t.decode(t(s, add_special_tokens=False).input_ids, clean_up_tokenization_spaces=False)
    expect(all(decode(s) == s for s in odd), "tokenizer: any text comes back unchanged")
    longest, rendered, single, masks = 0, True, True, True
    for path in (os.path.join(corpus, "train.jsonl"), os.path.join(corpus, "extra.jsonl"), os.path.join(example, "train.jsonl"), os.path.join(example, "val.jsonl")):
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                document = json.loads(line)
                ids = t(text_of(document), add_special_tokens=False).input_ids
                longest = max(longest, len(ids))
                if "messages" not in document:
                    continue
                messages = document["messages"]
                out = t.apply_chat_template(messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
                rendered &= t.apply_chat_template(messages, tokenize=False) == render(messages)
                single &= out["input_ids"] == ids and ids.count(t.bos_token_id) == 1
                trained = t.decode([i for i, m in zip(ids, out["assistant_masks"]) if m])
                masks &= trained == "".join(m["content"] + EOS for m in messages if m["role"] == "assistant")
    expect(longest <= MAX_LENGTH, f"data: the longest row has {longest} tokens, {MAX_LENGTH} allowed")
    expect(rendered, "template: Transformers renders what the model was pretrained on")
    expect(single, "template: one BOS, also when tokenized")
    expect(masks, "template: the generation marks cover each answer and its end marker, nothing else")


def check_model(base, corpus):
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    from pretrain import Rows, validation_loss
    from try_example import answer

    size = os.path.getsize(os.path.join(base, "model.safetensors"))
    expect(size <= MAX_BYTES, f"base: model.safetensors has {size} bytes, {MAX_BYTES} allowed")
    total = sum(os.path.getsize(os.path.join(base, f)) for f in os.listdir(base))
    expect(total <= MAX_BYTES, f"base: the whole folder has {total} bytes")
    model, info = AutoModelForCausalLM.from_pretrained(base, output_loading_info=True)
    expect(not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys")), "base: loads in Transformers, key for key")
    config = AutoConfig.from_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    expect(model.dtype == torch.bfloat16, "base: is bf16")
    expect(config.vocab_size == len(tokenizer), "base: has one embedding for each token")
    generation = GenerationConfig.from_pretrained(base)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        expect(getattr(config, name) == getattr(generation, name) == getattr(tokenizer, name),
               f"base: {name} is the same in all files")
    expect(all(torch.isfinite(p).all() for p in model.parameters()), "base: every weight is finite")
    model = model.float()
    rows = Rows([os.path.join(corpus, "val.jsonl")], Tokenizer.from_file(os.path.join(base, "tokenizer.json")))
    loss = validation_loss(model, rows, 2048)
    expect(loss < MAX_LOSS, f"base: loss {loss:.4f} on new documents, below {MAX_LOSS}")
    for prompt, words in (("Where is my parcel?", ("parcel",)), ("How do I reset my password?", ("password",)),
                          ("My lamp is broken.", ("sorry", "lamp")), ("Can I return my shoes?", ("shoes",)),
                          ("What is the capital of France?", ("Paris",)), ("Hello", ("help",))):
        text = answer(model, tokenizer, prompt)
        expect(all(w.lower() in text.lower() for w in words) and "[no end]" not in text, f"base: {prompt} -> {text}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default=os.path.join(ROOT, "examples/bases/tiny-tales"))
    parser.add_argument("--example", default=os.path.join(ROOT, "examples/pirate-support"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        check_generator(tmp)
        check_example(tmp, args.example)
        corpus = os.path.join(tmp, "fresh")
        run("corpus.py", "--documents", "1500", "--validation", "200", "--seed", "99", "--out", corpus)
        check_tokenizer(args.base, args.example, corpus)
        check_model(args.base, corpus)
    for failure in FAILURES:
        print(f"failed: {failure}", file=sys.stderr)
    sys.exit(1 if FAILURES else 0)


if __name__ == "__main__":
    main()
