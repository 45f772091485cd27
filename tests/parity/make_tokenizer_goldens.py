"""Makes the tokenizer goldens: small tokenizers, and what Hugging Face tokenizers does with them.

Each tokenizer of TOKENIZERS copies the shape of a family of real tokenizer.json files (not its
vocabulary): it is trained on golden_text.training_lines(), or built from another's vocabulary,
and given added tokens with every combination of flags that real files use. The ids and decodings
come from `tokenizers`, reading the very tokenizer.json that is committed.

  python tests/parity/make_tokenizer_goldens.py          rewrites tests/parity/golden/tokenizers
  python tests/parity/make_tokenizer_goldens.py --out D  writes to another folder, to compare

The format of the files is told in tests/parity/golden/README.md.
"""

import argparse
import collections
import json
import os
import random
import unicodedata
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import tokenizers  # noqa: E402  (the switch above is read when it loads)
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers  # noqa: E402

import golden_common  # noqa: E402
import golden_text  # noqa: E402

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA3_SPLIT = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2_SPLIT = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN_SPLIT = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]

# Added tokens with every kind of flag; (content, flags). Those in brackets are normalized ones.
FLAG_TOKENS = [
    ("<|im_start|>", dict(special=True, normalized=False)),
    ("<|im_end|>", dict(special=True, normalized=False)),
    ("<mask>", dict(special=True, normalized=False, lstrip=True)),
    ("<|right|>", dict(special=True, normalized=False, rstrip=True)),
    ("<|both|>", dict(special=True, normalized=False, lstrip=True, rstrip=True)),
    ("Tundra", dict(special=False, normalized=False, single_word=True)),
    ("<tool>", dict(special=False, normalized=False, rstrip=True)),
    ("naïve", dict(special=False, normalized=True)),
    ("Ångström", dict(special=False, normalized=False)),
    ("[X]", dict(special=False, normalized=False)),
    ("[X][Y]", dict(special=False, normalized=False)),
    ("[Y]", dict(special=False, normalized=True)),
    ("<one word>", dict(special=False, normalized=True, single_word=True, lstrip=True)),
    ("[INST]", dict(special=True, normalized=True)),
]


def added_tokens(first):
    return [AddedToken(text, special=True, normalized=False) for text in first] + [
        AddedToken(text, **flags) for text, flags in FLAG_TOKENS
    ]


def train_byte_level(pre_tokenizer, normalizer, vocab_size):
    """{vocab, merges} of a byte-level BPE trained with the given splitting."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator(golden_text.training_lines(), trainer)
    return json.loads(tokenizer.to_str())["model"]


def train_sentencepiece(vocab_size, alphabet):
    """{vocab, merges} in SentencePiece's manner: <unk> <s> </s>, the bytes, then the learned ones.

    The trainer breaks ties of its own alphabet limit by hash order, so the alphabet is chosen here.
    """
    lines = golden_text.training_lines()
    counts = collections.Counter("".join(lines).replace(" ", "▁"))
    chosen = sorted(counts, key=lambda char: (-counts[char], char))[:alphabet]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=sorted(chosen), limit_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(lines, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = [["▁", "▁"], ["▁▁", "▁▁"], ["▁▁▁▁", "▁▁▁▁"]] + model["merges"]
    learned = sorted(model["vocab"], key=model["vocab"].get)
    names = ["<unk>", "<s>", "</s>"] + BYTE_TOKENS + ["▁▁", "▁▁▁▁", "▁▁▁▁▁▁▁▁"] + learned
    return {"vocab": {name: i for i, name in enumerate(dict.fromkeys(names))}, "merges": merges}


def bpe(model, **options):
    """The `model` of a tokenizer.json, with every key that `tokenizers` writes."""
    record = dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None, end_of_word_suffix=None, fuse_unk=False)
    record.update(byte_fallback=False, ignore_merges=False)
    record.update(options)
    record.update(vocab=model["vocab"], merges=model["merges"])
    return record


BYTE_LEVEL = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)
BYTE_LEVEL_RAW = dict(BYTE_LEVEL, use_regex=False)
SPACE_TO_BAR = dict(type="Replace", pattern={"String": " "}, content="▁")
BAR_TO_SPACE = dict(type="Replace", pattern={"String": "▁"}, content=" ")
STRIP_ONE = dict(type="Strip", content=" ", start=1, stop=0)


def sequence(kind, *parts):
    key = {"pre_tokenizer": "pretokenizers", "normalizer": "normalizers", "decoder": "decoders", "post": "processors"}[kind]
    return {"type": "Sequence", key: list(parts)}


def split(pattern):
    return dict(type="Split", pattern={"Regex": pattern}, behavior="Isolated", invert=False)


def template(bos, bos_id, eos=None, eos_id=None):
    """TemplateProcessing that writes bos (and eos) around each sequence."""
    def special(name):
        return {"SpecialToken": {"id": name, "type_id": 0}}

    def piece(name, type_id):
        return {"Sequence": {"id": name, "type_id": type_id}}

    ends = [special(eos)] if eos else []
    ids = {bos: bos_id} | ({eos: eos_id} if eos else {})
    return {
        "type": "TemplateProcessing",
        "single": [special(bos), piece("A", 0)] + ends,
        "pair": [special(bos), piece("A", 0)] + ends + [special(bos), piece("B", 1)] + ends,
        "special_tokens": {name: {"id": name, "ids": [i], "tokens": [name]} for name, i in ids.items()},
    }


def assemble(model, first_added, **parts):
    """A tokenizers.Tokenizer from the parts of a tokenizer.json, with the added tokens."""
    record = dict(version="1.0", truncation=None, padding=None, added_tokens=[], normalizer=None, pre_tokenizer=None)
    record.update(post_processor=None, decoder=None)
    record.update(parts)
    record["model"] = model
    tokenizer = Tokenizer.from_str(json.dumps(record, ensure_ascii=False))
    tokenizer.add_tokens(added_tokens(first_added))
    return tokenizer


def make_gpt2(_):
    """GPT-2: the pattern built into ByteLevel, merges as "a b" strings, prefixes as "" not null."""
    model = train_byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), None, 1500)
    tokenizer = assemble(
        bpe(model, continuing_subword_prefix="", end_of_word_suffix=""), ["<|endoftext|>"],
        pre_tokenizer=BYTE_LEVEL, decoder=BYTE_LEVEL, post_processor=dict(BYTE_LEVEL, trim_offsets=False),
    )
    tokenizer.add_tokens([AddedToken("   ", normalized=True, special=False)])
    record = json.loads(tokenizer.to_str())
    record["model"]["merges"] = [" ".join(pair) for pair in record["model"]["merges"]]
    return record


def make_gpt2_prefix(made):
    """As gpt2_style, with add_prefix_space."""
    record = json.loads(json.dumps(made["gpt2_style"]))
    record["pre_tokenizer"]["add_prefix_space"] = True
    return record


def make_smollm(made):
    """SmolLM2: single digits, then ByteLevel's own pattern."""
    record = json.loads(json.dumps(made["gpt2_style"]))
    record["pre_tokenizer"] = sequence("pre_tokenizer", dict(type="Digits", individual_digits=True), BYTE_LEVEL)
    record["post_processor"] = None
    return record


def make_llama3(_):
    """Llama 3: its split pattern, BOS by template, ignore_merges with words no merge reaches."""
    pattern = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    model = train_byte_level(pattern, None, 1500)
    for word in ("Ġlighthouses", "quickstart", "ĠUnreachable", "ĠðŁĺĢ", "12a", "Ġa", "===="):
        model["vocab"].setdefault(word, len(model["vocab"]))
    bos_id = len(model["vocab"])
    return json.loads(assemble(
        bpe(model, ignore_merges=True), ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        pre_tokenizer=sequence("pre_tokenizer", split(LLAMA3_SPLIT), BYTE_LEVEL_RAW), decoder=BYTE_LEVEL,
        post_processor=sequence("post", dict(BYTE_LEVEL, trim_offsets=True), template("<|begin_of_text|>", bos_id)),
    ).to_str())


def make_qwen(_):
    """Qwen2: NFC first, single digits in its pattern, no token of its own around the text."""
    pattern = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(QWEN2_SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    model = train_byte_level(pattern, normalizers.NFC(), 1500)
    off = dict(BYTE_LEVEL_RAW, trim_offsets=False)
    return json.loads(assemble(
        bpe(model, continuing_subword_prefix="", end_of_word_suffix=""), ["<|endoftext|>"],
        normalizer=dict(type="NFC"), pre_tokenizer=sequence("pre_tokenizer", split(QWEN2_SPLIT), off), decoder=off, post_processor=off,
    ).to_str())


def make_tekken(_):
    """Newer Mistral: words split at changes of case, BOS and EOS by template."""
    pattern = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(TEKKEN_SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    model = train_byte_level(pattern, None, 1200)
    bos_id = len(model["vocab"])
    return json.loads(assemble(
        bpe(model, ignore_merges=True), ["<s>", "</s>"],
        pre_tokenizer=sequence("pre_tokenizer", split(TEKKEN_SPLIT), BYTE_LEVEL_RAW), decoder=BYTE_LEVEL,
        post_processor=template("<s>", bos_id, "</s>", bos_id + 1),
    ).to_str())


SENTENCEPIECE_DECODER = sequence("decoder", BAR_TO_SPACE, dict(type="ByteFallback"), dict(type="Fuse"), STRIP_ONE)


def make_sentencepiece(_):
    """Llama 2, as first converted: Prepend and Replace as normalizers, no splitting at all."""
    model = train_sentencepiece(1300, 420)
    return json.loads(assemble(
        bpe(model, unk_token="<unk>", fuse_unk=True, byte_fallback=True), ["<unk>", "<s>", "</s>"],
        normalizer=sequence("normalizer", dict(type="Prepend", prepend="▁"), SPACE_TO_BAR),
        decoder=SENTENCEPIECE_DECODER, post_processor=template("<s>", 1),
    ).to_str())


def _metaspace(made, scheme, splits):
    record = json.loads(json.dumps(made["sentencepiece_style"]))
    record["normalizer"] = None
    record["pre_tokenizer"] = dict(type="Metaspace", replacement="▁", prepend_scheme=scheme, split=splits)
    return record


def make_metaspace_first(made):
    """Newer Mistral and Llama 2 conversions: Metaspace, the bar only before the first piece."""
    return _metaspace(made, "first", False)


def make_metaspace_always(made):
    """Metaspace before every piece between added tokens, byte tokens missing, so <unk> appears."""
    record = _metaspace(made, "always", False)
    kept = [name for name in record["model"]["vocab"] if name not in BYTE_TOKENS or name in ("<0x0A>", "<0xC3>", "<0xA9>")]
    record["model"]["vocab"] = {name: i for i, name in enumerate(kept)}
    moved = len(record["model"]["vocab"])
    for token in record["added_tokens"]:
        known = record["model"]["vocab"].get(token["content"])
        token["id"] = moved if known is None else known
        moved += known is None
    record["decoder"] = sequence("decoder", dict(type="ByteFallback"), dict(type="Metaspace", replacement="▁", prepend_scheme="always", split=False))
    return record


def make_metaspace_split(made):
    """Metaspace that splits at every space, and <unk> that is not fused."""
    record = _metaspace(made, "first", True)
    record["model"]["byte_fallback"] = False
    record["model"]["fuse_unk"] = False
    return record


def make_gemma(made):
    """Gemma: spaces replaced without a bar in front, split after each, nothing stripped."""
    record = json.loads(json.dumps(made["sentencepiece_style"]))
    record["normalizer"] = SPACE_TO_BAR
    record["pre_tokenizer"] = dict(type="Split", pattern={"String": " "}, behavior="MergedWithPrevious", invert=False)
    record["decoder"] = sequence("decoder", BAR_TO_SPACE, dict(type="ByteFallback"), dict(type="Fuse"))
    return record


# In this order: later ones reuse what earlier ones learned. kind is the three kinds.
TOKENIZERS = {
    "gpt2_style": ("gpt2", make_gpt2),
    "gpt2_prefix_style": ("gpt2", make_gpt2_prefix),
    "smollm_style": ("gpt2", make_smollm),
    "llama3_style": ("llama3", make_llama3),
    "qwen_style": ("llama3", make_qwen),
    "tekken_style": ("llama3", make_tekken),
    "sentencepiece_style": ("sentencepiece", make_sentencepiece),
    "metaspace_first_style": ("sentencepiece", make_metaspace_first),
    "metaspace_always_style": ("sentencepiece", make_metaspace_always),
    "metaspace_split_style": ("sentencepiece", make_metaspace_split),
    "gemma_style": ("sentencepiece", make_gemma),
}


def encodings(tokenizer, strings):
    """One row a string: ids without and with the post-processor's tokens; offsets for every 8th."""
    rows = []
    for i, (_, text) in enumerate(strings):
        encoding = tokenizer.encode(text, add_special_tokens=False)
        row = {"ids": encoding.ids, "with_special": tokenizer.encode(text, add_special_tokens=True).ids}
        if i % 8 == 0 and len(text) < 400:
            row["offsets"] = [list(pair) for pair in encoding.offsets]
        rows.append(row)
    return rows


def decodings(tokenizer, rows, seed):
    """Decodings of every 4th string's ids and of random ids, which cut characters apart."""
    rng = random.Random(seed)
    known = sorted(tokenizer.get_vocab(with_added_tokens=True).values())
    special = [i for i, token in tokenizer.get_added_tokens_decoder().items()]
    id_lists = [row["with_special"] for i, row in enumerate(rows) if i % 4 == 0 and len(row["ids"]) < 400]
    for _ in range(300):
        id_lists.append([rng.choice(special if rng.random() < 0.15 else known) for _ in range(rng.randint(1, 12))])
    low = known[:300]
    for _ in range(200):
        id_lists.append([rng.choice(low) for _ in range(rng.randint(1, 9))])
    return [
        {
            "ids": ids,
            "skip": tokenizer.decode(ids, skip_special_tokens=True),
            "keep": tokenizer.decode(ids, skip_special_tokens=False),
        }
        for ids in id_lists
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=golden_common.GOLDEN_DIR / "tokenizers")
    options = parser.parse_args()

    made = {}
    for name, (_, make) in TOKENIZERS.items():
        made[name] = make(made)
    contents = [token["content"] for record in made.values() for token in record["added_tokens"]]
    strings = golden_text.golden_strings(list(dict.fromkeys(contents)))
    golden_common.write_jsonl_gz(options.out / "strings.jsonl.gz", [{"kind": kind, "text": text} for kind, text in strings])

    index = []
    for seed, (name, (kind, make)) in enumerate(TOKENIZERS.items()):
        folder = options.out / name
        text = golden_common.dumps(made[name]) + "\n"
        golden_common.write_bytes(folder / "tokenizer.json", text.encode("utf-8"))
        tokenizer = Tokenizer.from_str(text)
        rows = encodings(tokenizer, strings)
        golden_common.write_jsonl_gz(folder / "encodings.jsonl.gz", rows)
        decoded = decodings(tokenizer, rows, seed)
        golden_common.write_jsonl_gz(folder / "decodings.jsonl.gz", decoded)
        about = " ".join(make.__doc__.split())
        index.append({"name": name, "kind": kind, "about": about, "vocab_size": tokenizer.get_vocab_size(), "strings": len(rows), "decodings": len(decoded)})
    golden_common.write_json(options.out / "index.json", index)
    golden_common.write_versions(options.out, ["tokenizers"], unicode_of_strings=unicodedata.unidata_version)
    golden_common.print_digests(options.out)


if __name__ == "__main__":
    main()
