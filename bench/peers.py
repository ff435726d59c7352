"""Who races. Each peer makes offline what it can ship as a file, then loads that file and answers calls.

`prepare(folder)` runs in a process of its own; `load(folder, threads)` runs in the peer's long-lived worker and gives a function without
arguments that computes the model on the inputs of inputs.pt. Both may raise: the race names the peer with its error.
"""
import importlib.util
import os
from pathlib import Path


class Peer:
    name = ""
    packages = ("torch",)
    install = "pip install torch==2.13.0"

    def missing(self):
        return [package for package in self.packages if importlib.util.find_spec(package) is None]

    def prepare(self, folder):
        pass

    def load(self, folder, threads):
        raise NotImplementedError


def read_module(folder):
    """The eager network and its inputs."""
    import models  # noqa: F401  (the classes that the pickle names)
    import torch

    return torch.load(Path(folder) / "module.pt", weights_only=False), torch.load(Path(folder) / "inputs.pt")


class TorchScript(Peer):
    """A TorchScript archive as it is loaded."""

    archive = "traced.pt"

    def module(self, folder):
        import torch

        return torch.jit.load(str(Path(folder) / self.archive))

    def load(self, folder, threads):
        import torch

        torch.set_num_threads(threads)
        module, inputs = self.module(folder), torch.load(Path(folder) / "inputs.pt")

        def call():
            with torch.no_grad():
                return module(*inputs)

        return call


class Eager(TorchScript):
    name = "eager"


class Freeze(TorchScript):
    name = "freeze"
    archive = "frozen.pt"

    def prepare(self, folder):
        import torch

        torch.jit.save(torch.jit.freeze(torch.jit.load(str(Path(folder) / "traced.pt"))), str(Path(folder) / self.archive))


class OptimizeForInference(TorchScript):
    """Its result does not survive saving, so every process pays for it."""

    name = "ofi"

    def module(self, folder):
        import torch

        return torch.jit.optimize_for_inference(torch.jit.freeze(super().module(folder)))


class OneDnnGraph(TorchScript):
    """LLGA: a process-wide switch; it compiles during the first calls, and nothing of it can be saved."""

    name = "llga"

    def module(self, folder):
        import torch

        torch.jit.enable_onednn_fusion(True)
        return torch.jit.freeze(super().module(folder))


class Inductor(Peer):
    name = "inductor"

    def load(self, folder, threads):
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(folder) / f"inductor-{threads}-{os.getpid()}")
        import torch
        import torch._inductor.config

        torch.set_num_threads(threads)
        torch._inductor.config.freezing = True
        module, inputs = read_module(folder)
        compiled = torch.compile(module)

        def call():
            with torch.no_grad():
                return compiled(*inputs)

        return call


def export_onnx(folder):
    """Writes model.onnx with the exporter that manages: torch.export's, else the tracing one."""
    import torch

    path = Path(folder) / "model.onnx"
    module, inputs = read_module(folder)
    try:
        torch.onnx.export(module, inputs, str(path), dynamo=True, verbose=False)
    except Exception as first:
        try:
            torch.onnx.export(module, inputs, str(path), dynamo=False)
        except Exception as second:
            raise RuntimeError(f"no exporter managed: {first}; {second}") from second
    return path


class OnnxRuntime(Peer):
    name = "onnxruntime"
    packages = ("onnxruntime", "onnx", "onnxscript")
    install = "pip install onnxruntime onnx && pip install --no-deps onnxscript onnx_ir ml_dtypes"

    def prepare(self, folder):
        export_onnx(folder)

    def load(self, folder, threads):
        import onnxruntime
        import torch

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(Path(folder) / "model.onnx"), options, providers=["CPUExecutionProvider"])
        inputs = torch.load(Path(folder) / "inputs.pt")
        feed = {node.name: tensor.numpy() for node, tensor in zip(session.get_inputs(), inputs)}
        return lambda: session.run(None, feed)


class OpenVino(Peer):
    name = "openvino"
    packages = ("openvino",)
    install = "pip install openvino"

    def prepare(self, folder):
        import openvino

        module, inputs = read_module(folder)
        try:
            model = openvino.convert_model(module, example_input=inputs, input=[list(tensor.shape) for tensor in inputs])
        except Exception as error:
            path = Path(folder) / "openvino" / "model.onnx"
            path.parent.mkdir()
            for name in ("module.pt", "inputs.pt"):
                (path.parent / name).symlink_to(Path(folder).resolve() / name)
            try:
                model = openvino.convert_model(str(export_onnx(path.parent)))
            except Exception as second:
                raise RuntimeError(f"neither front end managed: {error}; {second}") from second
        openvino.save_model(model, str(Path(folder) / "model.xml"), compress_to_fp16=False)

    def load(self, folder, threads):
        import openvino
        import torch

        # float32 must be asked for: on machines with AMX the default is bfloat16.
        settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        compiled = openvino.Core().compile_model(str(Path(folder) / "model.xml"), "CPU", settings)
        inputs = [tensor.numpy() for tensor in torch.load(Path(folder) / "inputs.pt")]
        return lambda: list(compiled(inputs, share_inputs=True, share_outputs=True).values())


class Fusible(TorchScript):
    name = "fusible"
    packages = ("torch", "fusible")
    install = "pip install --no-build-isolation ."
    archive = "fused.pt"

    def prepare(self, folder):
        import fusible
        import torch

        torch.jit.save(fusible.fuse(torch.jit.load(str(Path(folder) / "traced.pt"))), str(Path(folder) / self.archive))

    def module(self, folder):
        import fusible  # noqa: F401

        return super().module(folder)


_ALL = (Eager(), Freeze(), OptimizeForInference(), OneDnnGraph(), Inductor(), OnnxRuntime(), OpenVino(), Fusible())
PEERS = {peer.name: peer for peer in _ALL}
