#!/usr/bin/env python3
"""Writes the seeds of tests/fuzz/corpus that are not plain text. The others are written by hand,
and inputs that once showed a fault are kept beside them as `found_*`.

    tests/fuzz/make_corpus.py [FOLDER]
"""

import gzip
import hashlib
import json
import os
import struct
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
BETWEEN = b"\n%%%\n"
TYPES = {"F32": 4, "BF16": 2, "F16": 2, "I64": 8}


def safetensors(tensors, metadata=None):
    """tensors: (name, dtype, shape); the data counts up."""
    header, at = {}, 0
    if metadata:
        header["__metadata__"] = metadata
    for name, dtype, shape in tensors:
        size = TYPES[dtype]
        for extent in shape:
            size *= extent
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(i % 251 for i in range(at))


def checkpoint(exponent=7):
    """A state of the adapter of fuzz_checkpoint: q_proj of a 2 x 2 layer, rank 1."""
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    shapes = {module + ".lora_A.weight": [1, 2], module + ".lora_B.weight": [2, 1]}
    tensors = [("exponents", "I64", [2])]
    tensors += [(prefix + name, "F32", shape)
                for prefix in ("", "moment1.", "moment2.") for name, shape in shapes.items()]
    metadata = {"format": "tundra.checkpoint.1", "spec_hash": "spec", "base_hash": "base",
                "numerics_class": "class", "sha256": "0" * 64}
    for counter in ("step", "updates", "non_finite", "non_finite_in_row", "redone", "tokens",
                    "target_tokens"):
        metadata[counter] = "3"
    file = safetensors(tensors, metadata)
    # Exponents that are in range.
    data = 8 + struct.unpack("<Q", file[:8])[0]
    file = file[:data] + struct.pack("<qq", -5, exponent) + file[data + 16:]
    return file.replace(b"0" * 64, hashlib.sha256(file).hexdigest().encode())


def base_folder(indexed):
    config = {"architectures": ["LlamaForCausalLM"], "vocab_size": 8, "hidden_size": 4,
              "intermediate_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2,
              "num_key_value_heads": 1, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
              "hidden_act": "silu", "tie_word_embeddings": True, "eos_token_id": 2,
              "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                               "high_freq_factor": 4.0, "original_max_position_embeddings": 32}}
    layer = "model.layers.0."
    tensors = [("model.embed_tokens.weight", [8, 4]), (layer + "input_layernorm.weight", [4]),
               (layer + "self_attn.q_proj.weight", [4, 4]), (layer + "self_attn.k_proj.weight", [2, 4]),
               (layer + "self_attn.v_proj.weight", [2, 4]), (layer + "self_attn.o_proj.weight", [4, 4]),
               (layer + "post_attention_layernorm.weight", [4]), (layer + "mlp.gate_proj.weight", [4, 4]),
               (layer + "mlp.up_proj.weight", [4, 4]), (layer + "mlp.down_proj.weight", [4, 4]),
               ("model.norm.weight", [4])]
    weights = safetensors([(name, "BF16", shape) for name, shape in tensors])
    index = json.dumps({"weight_map": {name: "a.safetensors" for name, _ in tensors}}).encode()
    parts = [json.dumps(config).encode(), b'{"eos_token_id": [2, 3], "bos_token_id": 1}',
             index if indexed else b"", b'{"stamp": "", "hash": ""}',
             weights if indexed else b"", b"" if indexed else weights]
    return BETWEEN.join(parts)


def adapter(dtype):
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 2, "lora_dropout": 0.0, "bias": "none",
              "use_rslora": False, "target_modules": ["q_proj", "layers.0.mlp.down_proj"],
              "base_model_name_or_path": "tiny", "task_type": "CAUSAL_LM", "use_dora": False}
    start = "base_model.model.model.layers.0."
    tensors = [(start + "self_attn.q_proj.lora_A.weight", dtype, [1, 4]),
               (start + "self_attn.q_proj.lora_B.weight", dtype, [4, 1]),
               (start + "mlp.down_proj.lora_A.weight", dtype, [1, 8]),
               (start + "mlp.down_proj.lora_B.weight", dtype, [4, 1])]
    return BETWEEN.join([json.dumps(config).encode(), safetensors(tensors, {"format": "pt"})])


def zstd_frame(data):
    """One raw block of one frame, without a checksum: RFC 8878, section 3.1.1."""
    block = (len(data) << 3 | 1).to_bytes(3, "little") + data
    return b"\x28\xb5\x2f\xfd\x20" + bytes([len(data)]) + block


def rle_zstd_frame(byte, count):
    """One block that repeats a byte."""
    return (b"\x28\xb5\x2f\xfd\xa0" + count.to_bytes(4, "little") +
            (count << 3 | 3).to_bytes(3, "little") + byte)


def field(number, value):
    """A field of a message of Protocol Buffers: a number, or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value):
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def report(time):
    """A worker's report of one step."""
    step = field(2, field(1, time)) + field(3, 1)
    job = field(1, b"job") + field(2, 1) + field(3, 1) + field(4, 2) + field(8, step)
    return field(1, b"w") + field(4, b"run") + field(8, job)


def framed(message):
    return struct.pack("<I", len(message)) + message


def star_message(kind, payload):
    return struct.pack("<IIiiiiQQQ", 0x4C434E54, kind, 0, 1, 1, 1, 1, len(payload), len(payload)) + payload


def gloo_address(size):
    """Of rank 0: on each of two channels, nothing for itself and a place for each other rank."""
    places = struct.pack("<I", 0) + (struct.pack("<I", 5) + b"place") * (size - 1)
    return b"TGLO" + struct.pack("<II", 0, size) + 2 * places


def corpora():
    rows = b'{"text": "one"}\n\n{"text": "two"}\r\n{"text": "three"}'
    setup = field(1, field(1, b"group") + field(2, 7) + field(4, 2) + field(7, b"/bases/tiny"))
    state = field(1, field(1, 3)) + field(6, b"job") + field(7, 1)
    nccl = (b"TNCA1" + struct.pack("<I", 2) + b"s" * 16 + struct.pack("<I", 2) + b"i" * 256 +
            struct.pack("<II", 4711, 9) + b"127.0.0.1")
    return {
        "safetensors": {
            "two": safetensors([("a", "F32", [2, 3]), ("b", "BF16", [4])], {"format": "pt"}),
            "empty": safetensors([]),
            "shapes": safetensors([("none", "I64", []), ("zero", "F16", [0, 4]), ("one", "I64", [1])]),
        },
        "base_folder": {"single": base_folder(False), "indexed": base_folder(True)},
        "adapter": {"f32": adapter("F32"), "f16": adapter("F16")},
        "checkpoint": {"whole": checkpoint(), "found_exponent": checkpoint(1 << 40)},
        "decompress": {
            "plain": rows,
            "gzip": gzip.compress(rows, mtime=0),
            "gzip_two": gzip.compress(rows, mtime=0) + gzip.compress(b"more\n", mtime=0),
            "zstd": zstd_frame(rows),
            "zstd_two": zstd_frame(rows) + rle_zstd_frame(b"\n", 1000),
        },
        "worker_report": {
            "bytes": report(1_800_000_000),
            "found_year_10000": report(1 << 60),
        },
        "rank_link": {
            "setup": framed(setup) + framed(field(6, b"")),
            "state": framed(state) + framed(b""),
            "large": struct.pack("<I", (64 << 20) + 1) + b"x" * 10,
        },
        "rendezvous": {
            "nccl": nccl,
            "gloo_two": gloo_address(2),
            "gloo_three": gloo_address(3),
            "messages": star_message(2, b"") + star_message(4, b"a reason"),
            "hello": star_message(1, b"secret" + bytes(10)),
        },
    }


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "corpus")
    for target, seeds in corpora().items():
        os.makedirs(os.path.join(folder, target), exist_ok=True)
        for name, seed in seeds.items():
            with open(os.path.join(folder, target, name), "wb") as file:
                file.write(seed)


if __name__ == "__main__":
    main()
