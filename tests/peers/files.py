"""GGUF and safetensors files, ours read by the gguf and safetensors packages and theirs by us.

Run as: python3 files.py PROGRAM, where PROGRAM is built from files.cpp.
"""
import subprocess
import sys
import tempfile

try:
    import gguf
    import numpy as np
    import safetensors.numpy
except ImportError as missing:
    print("SKIPPED:", missing)
    sys.exit()

program = sys.argv[1]
folder = tempfile.TemporaryDirectory()
path = folder.name + "/a"


def run(*words):
    return subprocess.run([program, *words], check=True, capture_output=True, text=True).stdout


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


# Ours, read by the gguf package.
run("write-gguf", path)
reader = gguf.GGUFReader(path)
found = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
assert found == {
    "general.architecture": "test", "u8": 200, "i8": -100, "u16": 60000, "i16": -30000, "u32": 4_000_000_000,
    "i32": -2_000_000_000, "u64": 1 << 63, "i64": -(1 << 62), "f32": 0.5, "f64": 1e300, "bool": True,
    "text": "नमस्ते", "texts": ["", "a", "ab"], "i32s": [-1, 0, 1], "f32s": [0.25, -2], "bools": [True, False],
}, found
types = {key: field.types[0].name for key, field in reader.fields.items()}
for key, name in {"u8": "UINT8", "i64": "INT64", "f32": "FLOAT32", "f64": "FLOAT64", "bool": "BOOL"}.items():
    assert types[key] == name, (key, types[key])
assert reader.fields["bools"].types[1].name == "BOOL"
assert len(reader.tensors) == 18
for tensor in reader.tensors:
    values, size = gguf.GGML_QUANT_SIZES[tensor.tensor_type]
    assert tensor.name == tensor.tensor_type.name, tensor
    assert list(tensor.shape) == [2 * values, 3], tensor
    assert tensor.data.tobytes() == b"x" * (6 * size), tensor

# Theirs, read by us.
random = np.random.default_rng(1)
for alignment in (None, 64):
    writer = gguf.GGUFWriter(path, "test")
    if alignment:
        writer.add_custom_alignment(alignment)
    writer.add_uint8("u8", 255)
    writer.add_int8("i8", -128)
    writer.add_uint16("u16", 65535)
    writer.add_int16("i16", -32768)
    writer.add_uint32("u32", 1 << 31)
    writer.add_int32("i32", -1)
    writer.add_uint64("u64", 1 << 62)
    writer.add_int64("i64", -1 << 63)
    writer.add_float32("f32", 0.5)
    writer.add_float64("f64", -0.125)
    writer.add_bool("bool", False)
    writer.add_string("text", "दुनिया")
    writer.add_array("texts", ["", "é"])
    writer.add_array("i32s", [1, -2, 3])
    writer.add_array("f32s", [1.5, -2.5])
    writer.add_array("bools", [True, False])
    tensors = {
        "f32": random.standard_normal((3, 5), np.float32),
        "f16": random.standard_normal((2, 3, 4), np.float32).astype(np.float16),
        "i8": random.integers(-128, 127, (7,), np.int8),
        "i64": random.integers(-9, 9, (2, 2, 2, 2), np.int64),
    }
    for name, data in tensors.items():
        writer.add_tensor(name, data)
    expected = [[name, name.upper(), *map(str, reversed(data.shape)), "%08x" % crc32c(data.tobytes())]
                for name, data in tensors.items()]
    for name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "BF16", "TQ1_0", "TQ2_0"):
        kind = gguf.GGMLQuantizationType[name]
        data = gguf.quants.quantize(random.standard_normal((2, 512), np.float32), kind)
        writer.add_tensor(name, data, raw_dtype=kind)
        expected.append([name, name, "512", "2", "%08x" % crc32c(data.tobytes())])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    metadata = [
        ["general.architecture", "string", "test"], ["u8", "u8", "255"], ["i8", "i8", "-128"], ["u16", "u16", "65535"],
        ["i16", "i16", "-32768"], ["u32", "u32", "2147483648"], ["i32", "i32", "-1"], ["u64", "u64", str(1 << 62)],
        ["i64", "i64", str(-1 << 63)], ["f32", "f32", "0.500000"], ["f64", "f64", "-0.125000"],
        ["bool", "bool", "False"], ["text", "string", "दुनिया"], ["texts", "array", "", "é"],
        ["i32s", "array", "1", "-2", "3"], ["f32s", "array", "1.500000", "-2.500000"], ["bools", "array", "1", "0"],
    ]
    if alignment:
        metadata.insert(1, ["general.alignment", "u32", str(alignment)])
    lines = [line.split("\t") for line in run("print-gguf", path).splitlines()]
    assert lines == metadata + expected, lines

# Theirs, copied by us, read by the safetensors package.
tensors = {name: random.integers(0, 2, shape).astype(name)
           for name, shape in {"float64": (2, 3), "float32": (4,), "float16": (), "int64": (1, 1, 5), "int32": (0, 3),
                               "int16": (2,), "int8": (3,), "uint8": (5,), "bool": (7, 1)}.items()}
metadata = {"format": "np", "note": "\"नमस्ते\"\n\\"}
safetensors.numpy.save_file(tensors, path, metadata)
run("copy-safetensors", path, path + "2")
with safetensors.safe_open(path + "2", "np") as file:
    assert file.metadata() == metadata, file.metadata()
    assert sorted(file.keys()) == sorted(tensors)
    for name, data in tensors.items():
        copy = file.get_tensor(name)
        assert copy.dtype == data.dtype and copy.shape == data.shape and np.array_equal(copy, data), name
print("ours and theirs agree")
