"""Open Inference Protocol, version 2, over HTTP, with the binary tensor extension.

https://github.com/kserve/open-inference-protocol (REST) and
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md

Input is what the graph takes, pixels as `lesion_edge.preprocess.load_pixels` gives them. Of the outputs,
`probabilities`, `outlier`, `label` and `status` are those of a `Prediction`: threshold, site and limit of
refusal apply as everywhere. `label` and `status` come whatever was asked for, so that nobody takes the
probability of a refused image for an answer. What a tensor does not show is left out: nothing here can tell that
its file was damaged, too large, turned or in another color space.
"""

from __future__ import annotations

import asyncio
import json
import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.responses import JSONResponse, Response

from lesion_edge import __version__
from lesion_serve.requests import answer, read_body, unless_gone
from lesion_serve.service import RequestError

if TYPE_CHECKING:
    from starlette.requests import Request

    from lesion_edge.classifier import Classifier
    from lesion_edge.prediction import Prediction
    from lesion_serve.service import Service

MODEL = "lesion-edge"
"""Name of the model; its version is `model_version`."""
INPUT = "image"
DECISION = ("label", "status")
"""Outputs that come with every answer."""
HEADER_LENGTH = "Inference-Header-Content-Length"
"""HTTP header with the length of the JSON, where tensors follow it."""

Outputs = dict[str, "np.ndarray[Any, Any]"]


@dataclass(frozen=True)
class InferRequest:
    """What an inference asks for."""

    identifier: str | None
    """Of the caller, given back."""
    pixels: np.ndarray[Any, np.dtype[np.uint8]]
    """uint8 (N, S, S, 3), RGB."""
    outputs: dict[str, bool]
    """Name of each output in order, and whether it goes as binary."""


def model_version(classifier: Classifier) -> str:
    """Version of the model: the beginning of the bundle's digest."""
    return classifier.manifest.digest[:12]


def server_metadata() -> dict[str, Any]:
    """What the server can do."""
    return {"name": MODEL, "version": __version__, "extensions": ["binary_tensor_data"]}


def model_metadata(classifier: Classifier) -> dict[str, Any]:
    """Inputs and outputs of the model; -1 stands for any length."""
    size, classes = classifier.manifest.image_size, len(classifier.manifest.class_names)
    shapes = {"probabilities": [-1, classes], "logits": [-1, classes], "cam": [-1, -1, -1]}
    if classifier.manifest.variants[classifier.variant].outlier_limit is not None:
        shapes["outlier"] = [-1]
    outputs = [{"name": name, "datatype": "FP32", "shape": shape} for name, shape in shapes.items()]
    return {
        "name": MODEL,
        "versions": [model_version(classifier)],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, size, size, 3]}],
        "outputs": [*outputs, *({"name": name, "datatype": "BYTES", "shape": [-1]} for name in DECISION)],
    }


def check_model(service: Service, request: Request) -> None:
    """Refuse another model, or another version of it.

    Raises:
        RequestError: the path names one.
    """
    name, version = request.path_params["model"], request.path_params.get("version")
    expected = model_version(service.classifier)
    if name != MODEL or version not in (None, expected):
        asked = name if version is None else f"{name}, version {version}"
        raise RequestError(404, f"no model is called {asked}: there is {MODEL}, version {expected}")


async def infer(service: Service, request: Request) -> Response:
    """Answer tensors of pixels."""
    check_model(service, request)
    header = request.headers.get(HEADER_LENGTH)

    async def work() -> Response:
        body = await read_body(service, request)
        known = [output["name"] for output in model_metadata(service.classifier)["outputs"]]
        size = service.classifier.manifest.image_size
        asked = await asyncio.to_thread(parse_request, body, header, known, size)
        answers = await unless_gone(
            request, service.call_each(lambda image: _infer_one(service.classifier, image[None]), asked.pixels)
        )
        for _, prediction in answers:
            service.metrics.count(prediction)
            if prediction.error is not None:
                raise RequestError(500, prediction.error)
        outputs = {name: np.concatenate([row[name] for row, _ in answers]) for name in asked.outputs}
        return encode_response(asked, outputs, model_version(service.classifier))

    return await answer(service, request, work)


def _infer_one(classifier: Classifier, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> tuple[Outputs, Prediction]:
    """Outputs of one image, (1, …) each, and its prediction."""
    outputs: Outputs = dict(classifier.run(pixels))
    (prediction,) = classifier.label(outputs, [""])
    decided: dict[str, Any] = {"label": prediction.label or "", "status": prediction.status}
    outputs |= {name: np.array([value], object) for name, value in decided.items()}
    if prediction.error is None:
        outputs["probabilities"] = np.array([list(prediction.probabilities.values())], np.float32)
        if prediction.outlier is not None:
            outputs["outlier"] = np.array([prediction.outlier], np.float32)
    return outputs, prediction


def parse_request(body: bytes, header: str | None, known: list[str], size: int) -> InferRequest:
    """Read a request for an inference.

    Args:
        body: JSON, and behind it the tensor where it is binary.
        header: value of `HEADER_LENGTH`; None where all is JSON.
        known: names of all outputs.
        size: side S of an image, pixels.

    Raises:
        RequestError: it is wrong, or asks for what there is not.
    """
    length = len(body) if header is None else _integer(header)
    if length > len(body):
        raise RequestError(400, f"{HEADER_LENGTH} is {length}, and the body has {len(body)} bytes")
    try:
        content = json.loads(body[:length])
        _only(content, "the request", {"id", "parameters", "inputs", "outputs"})
        parameters = content.get("parameters", {})
        _only(parameters, "parameters", {"binary_data_output"})
        pixels = _pixels(content["inputs"], body[length:], size)
        all_binary = _boolean(parameters.get("binary_data_output", False))
        outputs = {}
        for entry in content.get("outputs") or [{"name": name} for name in known]:
            _only(entry, "an output", {"name", "parameters"})
            options = entry.get("parameters", {})
            _only(options, "parameters of an output", {"binary_data"})
            if entry["name"] not in known:
                raise ValueError(f"no output is called {entry['name']}: there are {', '.join(known)}")
            outputs[entry["name"]] = _boolean(options.get("binary_data", all_binary))
        identifier = content.get("id")
        if identifier is not None and not isinstance(identifier, str):
            raise ValueError("the id is no text")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise RequestError(400, f"no request of the Open Inference Protocol: {reason}") from None
    return InferRequest(identifier, pixels, {**outputs, **{n: outputs.get(n, all_binary) for n in DECISION}})


def encode_response(request: InferRequest, outputs: Outputs, version: str) -> Response:
    """Response to an inference.

    Args:
        request: what was asked for.
        outputs: name to float32 or texts, N rows each.
        version: of the model.
    """
    entries, tensors = [], []
    for name, is_binary in request.outputs.items():
        values = outputs[name]
        is_text = values.dtype == object
        entry: dict[str, Any] = {"name": name, "datatype": "BYTES" if is_text else "FP32", "shape": values.shape}
        if is_binary:
            tensor = _length_prefixed(values) if is_text else values.astype("<f4").tobytes()
            entry["parameters"] = {"binary_data_size": len(tensor)}
            tensors.append(tensor)
        else:
            entry["data"] = values.ravel().tolist()
        entries.append(entry)
    identifier = {} if request.identifier is None else {"id": request.identifier}
    content = {"model_name": MODEL, "model_version": version, **identifier, "outputs": entries}
    if not tensors:
        return JSONResponse(content)
    head = json.dumps(content, separators=(",", ":")).encode()
    return Response(
        b"".join([head, *tensors]), headers={HEADER_LENGTH: str(len(head))}, media_type="application/octet-stream"
    )


def _pixels(inputs: Any, binary: bytes, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    if not isinstance(inputs, list) or len(inputs) != 1:
        raise ValueError(f"one input is taken, {INPUT}")
    (entry,) = inputs
    _only(entry, "an input", {"name", "datatype", "shape", "parameters", "data"})
    shape = entry["shape"]
    if (entry["name"], entry["datatype"]) != (INPUT, "UINT8") or not _fits(shape, size):
        given = f"{entry['name']} {entry['datatype']} {shape}"
        raise ValueError(f"the input is {given}, expected {INPUT} UINT8 [N,{size},{size},3]")
    parameters = entry.get("parameters", {})
    _only(parameters, "parameters of an input", {"binary_data_size"})
    if "binary_data_size" in parameters:
        if "data" in entry or not parameters["binary_data_size"] == len(binary) == math.prod(shape):
            raise ValueError(f"the tensor has {len(binary)} bytes, and {shape} is {math.prod(shape)}")
        return np.frombuffer(binary, np.uint8).reshape(shape)
    if binary:
        raise ValueError(f"{len(binary)} bytes are behind the JSON, and no input has binary_data_size")
    values = np.asarray(entry["data"])
    if values.dtype.kind not in "iu" or values.size != math.prod(shape) or values.min() < 0 or values.max() > 255:
        raise ValueError(f"the data are not {math.prod(shape)} whole numbers, 0 to 255")
    return values.astype(np.uint8).reshape(shape)


def _fits(shape: Any, size: int) -> bool:
    return (
        isinstance(shape, list)
        and all(type(length) is int for length in shape)
        and shape[1:] == [size, size, 3]
        and shape[0] > 0
    )


def _only(content: Any, name: str, known: set[str]) -> None:
    """Refuse what would be passed over."""
    if not isinstance(content, dict):
        raise ValueError(f"{name} is no JSON object")
    if unknown := content.keys() - known:
        raise ValueError(f"{name} has {', '.join(sorted(unknown))}, which this server does not know")


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value} is neither true nor false")
    return value


def _integer(text: str) -> int:
    if not text.isdecimal():
        raise RequestError(400, f"{HEADER_LENGTH} is no number")
    return int(text)


def _length_prefixed(texts: np.ndarray[Any, Any]) -> bytes:
    encoded = [text.encode() for text in texts.tolist()]
    return b"".join(struct.pack("<I", len(text)) + text for text in encoded)
