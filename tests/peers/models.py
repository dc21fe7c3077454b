# What the two scripts about models share: running peer_models and reading what it says.
import pathlib
import subprocess
import sys
import tempfile

failures = 0


def check(what, good):
    global failures
    failures += not good
    print(("ok   " if good else "FAIL ") + what, flush=True)


class Case:
    def __init__(self, folder, name):
        self.gguf, self.folder, self.name = folder / f"{name}.gguf", folder / name, name
        for line in (folder / f"{name}.txt").read_text().splitlines():
            key, *values = line.split(" ")
            setattr(self, key, [float(v) if key == "logits" else int(v) for v in values])
        self.text_bytes = bytes(self.bytes)

    def compare(self, who, logits, tolerance):
        """logits: [tokens, vocab], an array."""
        import numpy
        ours = numpy.array(self.logits, dtype=numpy.float32).reshape(len(self.tokens), -1)
        difference = float(abs(numpy.asarray(logits) - ours).max() / (ours.max() - ours.min()))
        check(f"{self.name}: {who}'s logits differ by {difference:.1e} of their range, allowed {tolerance:.0e}",
              difference <= tolerance)


def run(compare):
    """compare(case) for each model that the program in argv[1] writes."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        subprocess.run([sys.argv[1], folder], check=True)
        for file in sorted(folder.glob("*.txt")):
            compare(Case(folder, file.stem))
    sys.exit(failures > 0)
