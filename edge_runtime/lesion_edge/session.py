"""ONNX Runtime sessions: provider, threads and memory, opened in this module alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lesion_edge.errors import LesionEdgeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnxruntime

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "directml": "DmlExecutionProvider",
}
"""ONNX Runtime's provider of each device; `auto` takes CUDA where it is there, else the CPU."""

OUTPUTS = ("probabilities", "logits", "cam")


def import_onnxruntime() -> Any:
    """Module `onnxruntime`.

    Raises:
        LesionEdgeError: it is not installed, with the extra that brings it.
    """
    try:
        import onnxruntime
    except ImportError:
        raise LesionEdgeError("ONNX Runtime is not installed: pip install 'lesion-edge[cpu]' (or [gpu])") from None
    return onnxruntime


def choose_device(device: str, available: Sequence[str] | None = None) -> str:
    """Resolve `auto`, and check that this ONNX Runtime has the device.

    Args:
        device: `auto` or a key of `PROVIDERS`.
        available: providers of ONNX Runtime; None asks the one that is installed.

    Raises:
        LesionEdgeError: it has not, or no device is called so.
    """
    if available is None:
        available = import_onnxruntime().get_available_providers()
    if device == "auto":
        return "cuda" if PROVIDERS["cuda"] in available else "cpu"
    if device not in PROVIDERS:
        raise LesionEdgeError(f"no device is called '{device}': choose auto, {', '.join(PROVIDERS)}")
    if PROVIDERS[device] not in available:
        devices = ", ".join(name for name, provider in PROVIDERS.items() if provider in available)
        raise LesionEdgeError(
            f"this ONNX Runtime has no {PROVIDERS[device]} for --device {device}; it has: {devices}"
        )
    return device


def open_session(model: bytes, device: str = "cpu", threads: int = 1) -> onnxruntime.InferenceSession:
    """Open an ONNX model on a device, and fail rather than fall back to another.

    Args:
        model: the content of an ONNX file.
        device: a key of `PROVIDERS`.
        threads: CPU threads inside one call of `run`.

    Raises:
        LesionEdgeError: the graph cannot be loaded, or the device was not honoured.
    """
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # An idle thread that spins takes a core from whatever else the device does.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    provider = PROVIDERS[device]
    providers = [provider] if device == "cpu" else [provider, PROVIDERS["cpu"]]
    try:
        session = runtime.InferenceSession(model, options, providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        reason = " ".join(str(error).split())
        raise LesionEdgeError(f"ONNX Runtime {runtime.__version__} cannot load the model: {reason}") from None
    if session.get_providers()[0] != provider:
        raise LesionEdgeError(
            f"ONNX Runtime could not start {provider}; choose --device cpu or mend its installation"
        )
    return session


def check_signature(
    session: onnxruntime.InferenceSession, image_size: int, classes: int, outlier: bool = False
) -> None:
    """Check inputs and outputs of an ONNX model against the bundle's contract.

    Contract: `image` uint8 (N, S, S, 3) to `probabilities` and `logits` float32 (N, K), `cam` float32 (N, h, w),
    and where the manifest speaks of a score, `outlier` float32 (N,).
    """
    inputs, outputs = session.get_inputs(), {output.name: output for output in session.get_outputs()}
    signature = [(value.name, value.type, list(value.shape)) for value in inputs]
    expected = [("image", "tensor(uint8)", [image_size, image_size, 3])]
    fixed_batch = any(isinstance(shape[0], int) for _, _, shape in signature if shape)
    if fixed_batch or [(name, kind, shape[1:]) for name, kind, shape in signature] != expected:
        raise LesionEdgeError(
            f"the model takes {signature}, expected 'image' uint8 (N, {image_size}, {image_size}, 3)"
        )
    for name in (*OUTPUTS, *(["outlier"] if outlier else [])):
        if name not in outputs or outputs[name].type != "tensor(float)":
            raise LesionEdgeError(f"the model has no float32 output '{name}'")
    for name in ("probabilities", "logits"):
        if list(outputs[name].shape[1:]) != [classes]:
            raise LesionEdgeError(f"the model gives {outputs[name].shape[1:]} {name}, not {classes}")
    if len(outputs["cam"].shape) != 3:
        raise LesionEdgeError(f"the model gives 'cam' {outputs['cam'].shape}, expected (N, h, w)")
    if outlier and len(outputs["outlier"].shape) != 1:
        raise LesionEdgeError(f"the model gives 'outlier' {outputs['outlier'].shape}, expected (N,)")
