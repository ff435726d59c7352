"""A process that knows fusible only as a shared library: the way a deployment loads a fused archive."""
import subprocess
import sys
from pathlib import Path

_SERVER = """
import sys, torch
torch.ops.load_library(sys.argv[1])
torch.set_num_threads(int(sys.argv[2]))

def tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = [value[key] for key in sorted(value)]
    return [tensor for item in value for tensor in tensors(item)] if isinstance(value, (list, tuple)) else []

for line in sys.stdin:
    archive, inputs, outputs = line.rstrip("\\n").split("\\t")
    module = torch.jit.load(archive)
    with torch.no_grad():
        results = [module(*torch.load(inputs)) for _ in range(2)]
    assert "fusible" not in sys.modules
    torch.save(tensors(results[-1]), outputs)
    print("done", flush=True)
"""


def libfusible():
    """Path of the library that `import fusible` mapped into this process."""
    import fusible  # noqa: F401

    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.split(maxsplit=5)[-1]
        if Path(path).name.startswith("libfusible.so"):
            return path
    raise AssertionError("import fusible mapped no libfusible.so")


class FreshProcess:
    """Runs archives one after the other in one process; close() ends it."""

    def __init__(self, folder, threads):
        self.folder = Path(folder)
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _SERVER, libfusible(), str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )

    def run(self, archive, inputs):
        """The tensors of the archive's second output on `inputs` (a tuple), in the order of oracle.tensors."""
        import torch

        inputs_path, outputs_path = self.folder / "inputs.pt", self.folder / "outputs.pt"
        torch.save(inputs, inputs_path)
        self.process.stdin.write(f"{archive}\t{inputs_path}\t{outputs_path}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        assert answer == "done", f"the process ended with {self.process.poll()}: its messages are on stderr"
        return torch.load(outputs_path)

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()
