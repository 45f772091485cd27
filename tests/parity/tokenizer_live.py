"""Compares Tundra's tokenizer with Hugging Face tokenizers on real files.

    PYTHON tests/parity/tokenizer_live.py ENCODE_LINES TOKENIZER_JSON... [--time]

ENCODE_LINES is the program of that name (build/release/tests/encode_lines).
The strings are those of tests/parity/golden/tokenizers/strings.jsonl.gz, this
repository's own sources, each of a tokenizer's added tokens between words, and
every assigned code point of Unicode in runs. Ids (with and without special
tokens) and decoded text must be identical, offsets are counted. Prints a line
for each file and exits 1 when any id or text differs.
"""
import argparse
import gzip
import json
import pathlib
import subprocess
import sys
import time

import tokenizers

ROOT = pathlib.Path(__file__).resolve().parents[2]


def golden_strings():
    with gzip.open(ROOT / "tests/parity/golden/tokenizers/strings.jsonl.gz", "rt", encoding="utf-8") as f:
        return [json.loads(line)["text"] for line in f]


def source_strings():
    out = []
    for folder in ("common", "tests/parity"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".cc", ".h", ".py", ".md"):
                out.append(path.read_text(encoding="utf-8"))
    return out


def code_point_strings():
    cps = [chr(c) for c in range(0x323B0) if not 0xD800 <= c <= 0xDFFF] + \
        [chr(c) for c in range(0xE0000, 0xE0200)]
    return ["".join(cps[i:i + 50]) for i in range(0, len(cps), 50)] + \
        ["a" + " a".join(cps[i:i + 20]) for i in range(0, 0x3000, 20)]


def added_token_strings(tokenizer):
    out = []
    for token in tokenizer.get_added_tokens_decoder().values():
        t = token.content
        out += [t, f"a{t}b", f"a {t} b", f"  {t}  {t}\n", t[:-1], t + t]
    return out[:6000]


def compare(program, path):
    reference = tokenizers.Tokenizer.from_file(str(path))
    reference.no_truncation()
    reference.no_padding()
    strings = golden_strings() + source_strings() + code_point_strings() + added_token_strings(reference)
    lines = "".join(json.dumps(s) + "\n" for s in strings)
    done = subprocess.run([program, str(path)], input=lines.encode(), stdout=subprocess.PIPE, check=True)
    answers = done.stdout.decode().split("\n")[:-1]
    assert len(answers) == len(strings), (len(answers), len(strings))
    wrong, offsets_wrong = [], 0
    for text, line in zip(strings, answers):
        got = json.loads(line)
        want = reference.encode(text, add_special_tokens=False)
        special = reference.encode(text, add_special_tokens=True).ids
        if got.get("ids") != want.ids or got.get("special") != special or \
                got.get("text") != reference.decode(want.ids, skip_special_tokens=False):
            wrong.append((text, got, want.ids))
            continue
        at = [0]  # code points to bytes
        for char in text:
            at.append(at[-1] + len(char.encode()))
        if [[at[a], at[b]] for a, b in want.offsets] != got["offsets"]:
            offsets_wrong += 1
    print(f"{path}: {len(strings)} strings, {len(wrong)} differ, {offsets_wrong} have other offsets", flush=True)
    for text, got, want in wrong[:5]:
        print("  ", repr(text[:100]), str(got)[:300], str(want)[:200])
    return not wrong


def speed(program, path, seconds=3):
    """CPU time of one thread each, line by line, with warm caches."""
    text = "\n".join(source_strings())
    big = pathlib.Path("/tmp/tokenizer_live.txt")
    big.write_text(text, encoding="utf-8")
    reference = tokenizers.Tokenizer.from_file(str(path))
    lines = text.split("\n")
    size = len(text.encode())
    start, done = time.process_time(), 0
    while time.process_time() - start < seconds:
        for line in lines:
            reference.encode(line, add_special_tokens=False)
        done += size
    print(f"   reference, warm: {done / (time.process_time() - start) / 1e6:.1f} MB/s;  here: ", end="", flush=True)
    subprocess.run([program, "--time", str(path), str(big), str(seconds)], check=True)
    big.unlink()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("encode_lines")
    parser.add_argument("tokenizer_json", nargs="+")
    parser.add_argument("--time", action="store_true", help="measure speed too")
    args = parser.parse_args()
    same = True
    for path in args.tokenizer_json:
        same &= compare(args.encode_lines, path)
        if args.time:
            speed(args.encode_lines, path)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
