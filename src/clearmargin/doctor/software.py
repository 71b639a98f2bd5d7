"""Checks of what is installed: libraries and their versions, extras, and whether the large ones compute."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

from clearmargin.doctor.outcome import Outcome, failed, ok, warning

if TYPE_CHECKING:
    from packaging.requirements import Requirement

MODULES = {
    "pillow": "PIL",
    "pyjpegls": "jpeg_ls",
    "python-gdcm": "gdcm",
    "scikit-learn": "sklearn",
}
"""Distribution to the module that it installs, where that is not its name with underscores."""
INSTALL = 'pip install --upgrade "clearmargin"'
_IMPORT = """
import importlib, json, os, sys
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
for name in json.loads(sys.argv[1]):
    sys.stdout.write(name + "\\n")
    sys.stdout.flush()
    try:
        importlib.import_module(name)
    except BaseException as error:
        sys.stdout.write("! " + " ".join(f"{type(error).__name__}: {error}".split()) + "\\n")
print("end")
"""
_TIMEOUT_S = 60
_NVIDIA = Path("/proc/driver/nvidia/version")
_SIDE = 8


def check_libraries() -> Outcome:
    """Every library is there, in a version that fits, and can be imported; tried in a process of its own."""
    wanted = _requirements()
    if wanted is None:
        return warning("Clearmargin itself is not installed, so the versions that it needs are not known", INSTALL)
    missing, unfit = _compare(wanted)
    if missing:
        return failed(f"not installed: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    if unfit:
        return failed(f"versions that do not fit: {'; '.join(unfit)}", INSTALL)
    broken = _import([MODULES.get(each.name, each.name.replace("-", "_")) for each in wanted])
    if broken:
        name, reason = next(iter(broken.items()))
        more = f" (and {', '.join(list(broken)[1:])})" if len(broken) > 1 else ""
        return failed(f"{name} cannot be imported: {reason}{more}", "Install it anew: pip install --force-reinstall.")
    return ok(f"{len(wanted)} are there, fit and can be imported")


def check_extras() -> Outcome:
    """Which extras are there, and how to get the others."""
    names = _extras()
    there: list[str] = []
    absent: list[str] = []
    unfit: list[str] = []
    for name in names:
        missing, wrong = _compare(_requirements(name) or [])
        unfit += wrong if not missing else []
        (absent if missing else there).append(name)
    text = f"{', '.join(there) or 'none'}" + (f"; not installed: {', '.join(absent)}" if absent else "")
    if unfit:
        return warning(f"{text}; versions that do not fit: {'; '.join(unfit)}", "Upgrade them with pip.")
    get = f' (pip install "clearmargin[{",".join(absent)}]")' if absent else ""
    return ok(f"{text}{get}")


def check_torch() -> Outcome:
    """A convolution and its gradient are computed, and are what they must be."""
    import torch

    x = torch.ones(1, 1, _SIDE, _SIDE)
    layer = torch.nn.Conv2d(1, 1, 3, bias=False)
    with torch.no_grad():
        layer.weight.fill_(0.5)
    value = layer(x).sum()
    value.backward()
    places = (_SIDE - 2) ** 2
    gradient = layer.weight.grad
    if gradient is None or float(value.detach()) != 4.5 * places or not bool((gradient == places).all()):
        return failed(f"torch {torch.__version__} computes a convolution wrongly", "Install torch anew.")
    text = f"torch {torch.__version__}, {torch.get_num_threads()} threads, {_devices()}"
    if _NVIDIA.exists() and not torch.cuda.is_available():
        return warning(
            f"{text}; there is an NVIDIA driver that it does not use",
            "Install the build of torch for your CUDA version (docs/install.md), or a newer driver.",
        )
    return ok(text)


def check_onnxruntime() -> Outcome:
    """A small network under ONNX Runtime agrees with NumPy."""
    import numpy as np
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    from clearmargin.bundle import runtime  # noqa: F401  (switches its reports off before it is imported)

    weights = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["product"]), helper.make_node("Relu", ["product"], ["y"])],
        "doctor",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 3])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.linspace(-2, 2, 8, dtype=np.float32).reshape(2, 4)
    apart = float(np.abs(session.run(None, {"x": x})[0] - np.maximum(x @ weights, 0)).max())
    text = f"ONNX Runtime {onnxruntime.__version__}, onnx {onnx.__version__}"
    if apart > 1e-5:
        return failed(f"{text}: {apart:g} apart from NumPy", "Install onnxruntime anew.")
    return ok(f"{text}, agrees with NumPy")


def check_drawing() -> Outcome:
    """A plot with letters becomes an SVG, in a font that comes along."""
    import matplotlib
    from matplotlib import font_manager

    from clearmargin.report.svg import drawing, render

    font = font_manager.findfont("DejaVu Sans", fallback_to_default=False)
    with drawing() as figure:
        figure.add_subplot().plot([0, 1], [0, 1])
        svg = render(figure, "doctor", title="a line").svg
    if not svg.startswith("<svg") or "<path" not in svg:
        return failed("matplotlib draws nothing", "Install matplotlib anew.")
    return ok(f"matplotlib {matplotlib.__version__} draws, with {Path(font).name}")


def _devices() -> str:
    import torch

    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}, no GPU is seen" if torch.version.cuda else "CPU build"
        native = torch.cpu.get_capabilities().get("avx512_bf16") or torch.cpu.get_capabilities().get("amx_bf16")
        return f"{built}, bf16 {'native' if native else 'not native'}"
    names = {torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())}
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return f"{torch.cuda.device_count()} GPU ({', '.join(sorted(names))}), bf16 {'native' if bf16 else 'not native'}"


def _requirements(extra: str | None = None) -> list[Requirement] | None:
    """What the package, or one of its extras, needs here; None where the package is not installed."""
    from packaging.requirements import Requirement

    try:
        stated = [Requirement(text) for text in requires("clearmargin") or []]
    except PackageNotFoundError:
        return None
    if extra is None:
        return [each for each in stated if each.marker is None or each.marker.evaluate({"extra": ""})]
    return [
        each
        for each in stated
        if each.marker is not None
        and each.marker.evaluate({"extra": extra})
        and not each.marker.evaluate({"extra": ""})
    ]


def _extras() -> list[str]:
    try:
        return sorted(metadata("clearmargin").get_all("Provides-Extra") or [])
    except PackageNotFoundError:
        return []


def _compare(wanted: Iterable[Requirement]) -> tuple[list[str], list[str]]:
    """The names that are not installed, and what does not fit, in words."""
    missing, unfit = [], []
    for each in wanted:
        try:
            found = version(each.name)
        except PackageNotFoundError:
            missing.append(each.name)
            continue
        if not each.specifier.contains(found, prereleases=True):
            unfit.append(f"{each.name} {found}, needed {each.specifier}")
    return missing, unfit


def _import(modules: list[str]) -> dict[str, str]:
    """Module to the reason why it cannot be imported."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _IMPORT, json.dumps(modules)],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        lines, how = done.stdout.splitlines(), f"it ends the process ({done.returncode})"
    except subprocess.TimeoutExpired as error:
        taken = error.stdout or ""
        lines, how = (taken.decode() if isinstance(taken, bytes) else taken).splitlines(), "it never ends"
    broken: dict[str, str] = {}
    now = ""
    for line in lines:
        if line.startswith("! "):
            broken[now] = line[2:200]
        elif line in (*modules, "end"):  # libraries may print, too
            now = line
    if now != "end":
        broken[now] = how
    return broken
