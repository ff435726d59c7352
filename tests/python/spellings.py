"""How people write the same layer: activations, contractions and normalisations as nn.Modules, and the forms a model is handed over in."""
import io
import linecache
import warnings

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def functional(expression):
    """A module whose forward returns `expression` of y."""
    name = f"<spelling {expression}>"
    text = f"def forward(self, y):\n    return {expression}\n"
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)  # where torch.jit.script reads source from
    scope = {"torch": torch, "F": F}
    exec(compile(text, name, "exec"), scope)
    return type("Functional", (nn.Module,), {"forward": scope["forward"]})()


def _functionals(*expressions):
    return {expression: lambda expression=expression: functional(expression) for expression in expressions}


def _modules(*expressions):
    return {f"nn.{expression}": lambda expression=expression: eval(f"nn.{expression}", {"nn": nn}) for expression in expressions}


# {post-op: {spelling: makes a module}}; all spellings of one post-op compute the same function.
ACTIVATIONS = {
    "relu": _functionals("F.relu(y)", "F.relu(y, inplace=True)", "F.relu_(y)", "torch.relu(y)", "torch.relu_(y)", "y.relu()", "y.relu_()")
    | _modules("ReLU()", "ReLU(inplace=True)"),
    "relu6": _functionals("F.relu6(y)", "F.relu6(y, inplace=True)", "F.hardtanh(y, 0.0, 6.0)", "F.hardtanh_(y, 0, 6)")
    | _modules("ReLU6()", "ReLU6(inplace=True)", "Hardtanh(0.0, 6.0)"),
    "hardtanh": _functionals("F.hardtanh(y, -0.5, 0.75)", "F.hardtanh(y, -0.5, 0.75, inplace=True)", "F.hardtanh_(y, -0.5, 0.75)")
    | _modules("Hardtanh(-0.5, 0.75)", "Hardtanh(-0.5, 0.75, inplace=True)"),
    "clamp": _functionals("torch.clamp(y, -0.5, 0.75)", "y.clamp(-0.5, 0.75)", "y.clamp_(-0.5, 0.75)", "torch.clip(y, -0.5, 0.75)",
                          "y.clamp(min=-0.5, max=0.75)"),
    "clamp as relu6": _functionals("torch.clamp(y, 0, 6)", "y.clamp_(0.0, 6.0)"),
    "clamp from below": _functionals("torch.clamp(y, min=-0.25)", "y.clamp(min=-0.25)", "y.clamp_(min=-0.25)", "torch.clamp_min(y, -0.25)",
                                     "y.clamp_min_(-0.25)"),
    "clamp from above": _functionals("torch.clamp(y, max=0.25)", "y.clamp_(max=0.25)", "y.clamp_max(0.25)"),
    "leaky_relu": _functionals("F.leaky_relu(y, 0.2)", "F.leaky_relu(y, 0.2, inplace=True)", "F.leaky_relu_(y, 0.2)")
    | _modules("LeakyReLU(0.2)", "LeakyReLU(0.2, inplace=True)"),
    "sigmoid": _functionals("torch.sigmoid(y)", "y.sigmoid()", "y.sigmoid_()", "F.sigmoid(y)") | _modules("Sigmoid()"),
    "tanh": _functionals("torch.tanh(y)", "y.tanh()", "y.tanh_()", "F.tanh(y)") | _modules("Tanh()"),
    "silu": _functionals("F.silu(y)", "F.silu(y, inplace=True)", "y * torch.sigmoid(y)", "torch.sigmoid(y) * y", "y.mul(y.sigmoid())")
    | _modules("SiLU()", "SiLU(inplace=True)"),
    "hardswish": _functionals("F.hardswish(y)", "F.hardswish(y, inplace=True)", "y * F.relu6(y + 3) / 6", "y * F.hardtanh(y + 3, 0.0, 6.0) / 6.0",
                              "y * torch.clamp(y + 3, 0, 6) / 6", "y * F.hardsigmoid(y)")
    | _modules("Hardswish()", "Hardswish(inplace=True)"),
    "hardsigmoid": _functionals("F.hardsigmoid(y)", "F.hardsigmoid(y, inplace=True)", "F.relu6(y + 3) / 6", "torch.clamp(y + 3, 0, 6) / 6")
    | _modules("Hardsigmoid()", "Hardsigmoid(inplace=True)"),
    "gelu": _functionals("F.gelu(y)", "F.gelu(y, approximate='none')") | _modules("GELU()"),
    "gelu_erf": _functionals("y * 0.5 * (1.0 + torch.erf(y / 1.4142135623730951))", "0.5 * y * (torch.erf(y * 0.7071067811865476) + 1)"),
    "gelu_tanh": _functionals("F.gelu(y, approximate='tanh')") | _modules("GELU('tanh')"),
    "elu": _functionals("F.elu(y, 0.8)", "F.elu(y, 0.8, inplace=True)", "F.elu_(y, 0.8)") | _modules("ELU(0.8)", "ELU(0.8, inplace=True)"),
    "mish": _functionals("F.mish(y)", "F.mish(y, inplace=True)", "y * torch.tanh(F.softplus(y))") | _modules("Mish()", "Mish(inplace=True)"),
    "softplus": _functionals("F.softplus(y)", "F.softplus(y, 1, 20)") | _modules("Softplus()"),
    "prelu": _modules("PReLU()", "PReLU(init=0.25)"),
    "prelu per channel": _modules("PReLU(8)", "PReLU(8, init=0.25)"),
}

# {name: (entry of the vocabulary, makes the layer, its batch_norm, shape of the input)}; eight channels come out.
CONTRACTIONS = {
    "conv1d": ("conv", lambda: nn.Conv1d(4, 8, 3, padding=1), nn.BatchNorm1d, (2, 4, 10)),
    "conv2d": ("conv", lambda: nn.Conv2d(4, 8, 3, padding=1, stride=2), nn.BatchNorm2d, (2, 4, 9, 8)),
    "conv2d grouped": ("conv", lambda: nn.Conv2d(4, 8, 3, groups=2, dilation=2, bias=False), nn.BatchNorm2d, (2, 4, 9, 8)),
    "conv2d same": ("conv", lambda: nn.Conv2d(4, 8, (3, 2), padding="same"), nn.BatchNorm2d, (2, 4, 7, 6)),
    "conv2d reflect": ("conv", lambda: nn.Conv2d(4, 8, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d, (2, 4, 7, 6)),
    "conv3d": ("conv", lambda: nn.Conv3d(4, 8, 2), nn.BatchNorm3d, (2, 4, 5, 4, 6)),
    "conv_transpose1d": ("conv_transpose", lambda: nn.ConvTranspose1d(4, 8, 3, stride=2), nn.BatchNorm1d, (2, 4, 6)),
    "conv_transpose2d": ("conv_transpose", lambda: nn.ConvTranspose2d(4, 8, 3, stride=2, output_padding=1), nn.BatchNorm2d, (2, 4, 5, 6)),
    "conv_transpose2d grouped": ("conv_transpose", lambda: nn.ConvTranspose2d(4, 8, 2, groups=2), nn.BatchNorm2d, (2, 4, 5, 6)),
    "conv_transpose3d": ("conv_transpose", lambda: nn.ConvTranspose3d(4, 8, 2), nn.BatchNorm3d, (2, 4, 3, 4, 3)),
    "linear": ("linear", lambda: nn.Linear(4, 8), nn.BatchNorm1d, (6, 4)),
    "linear without bias": ("linear", lambda: nn.Linear(4, 8, bias=False), nn.BatchNorm1d, (6, 4)),
}


def draw(module, seed=0):
    """Eval mode, with statistics, affine parameters and slopes that no wrong rewrite can pass by."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, _BatchNorm):
                layer.running_mean.normal_(0, 0.5, generator=generator)
                layer.running_var.uniform_(0.5, 2, generator=generator)
                if layer.affine:
                    layer.weight.uniform_(-1.5, 1.5, generator=generator)
                    layer.bias.normal_(0, 0.5, generator=generator)
            elif isinstance(layer, nn.PReLU):
                layer.weight.uniform_(-0.5, 0.5, generator=generator)
            elif hasattr(layer, "weight"):
                layer.weight.normal_(0, 0.3, generator=generator)
                if layer.bias is not None:
                    layer.bias.normal_(0, 0.3, generator=generator)
    return module.eval()


def sample(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _saved_and_loaded(module):
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


# {form: (eager module, inputs) -> ScriptModule}
FORMS = {
    "scripted": lambda module, inputs: torch.jit.script(module),
    "traced": lambda module, inputs: torch.jit.trace(module, inputs, check_trace=False),
    "frozen": lambda module, inputs: torch.jit.freeze(torch.jit.script(module), optimize_numerics=False),
    "traced frozen": lambda module, inputs: torch.jit.freeze(torch.jit.trace(module, inputs, check_trace=False), optimize_numerics=False),
    "scripted loaded": lambda module, inputs: _saved_and_loaded(torch.jit.script(module)),
    "traced loaded": lambda module, inputs: _saved_and_loaded(torch.jit.trace(module, inputs, check_trace=False)),
    "frozen loaded": lambda module, inputs: _saved_and_loaded(torch.jit.freeze(torch.jit.script(module), optimize_numerics=False)),
}


def export(module, inputs, form):
    """The eager `module` as a ScriptModule, in one of FORMS. In-place spellings run on copies of `inputs`."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return FORMS[form](module, tuple(tensor.clone() for tensor in inputs))
