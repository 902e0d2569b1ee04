"""The networks: windows of features in, probabilities of the classes out.

Every network takes ``features`` (window, frame, coefficient) and ``valid_frames`` (window,), holds its own
standardisation, and maps each window alone: what else lies in a batch never changes a window's probabilities.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras
import numpy as np
import onnx
import tensorflow
from keras import layers, ops
from numpy.typing import NDArray

from emolib.errors import SettingsError

# Pinned, so that a newer exporter does not ask for a newer ONNX Runtime on the workers than they have.
_OPSET = 15


@keras.saving.register_keras_serializable(package="emolib")
class Standardize(layers.Layer):
    """Subtract each coefficient's mean and divide by its scale.

    Unlike `keras.layers.Normalization` with fixed values, the numbers are weights: those survive the way to ONNX.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the weights ``mean`` and ``scale``, shape ``(coefficient,)``."""
        shape = (input_shape[-1],)
        self.mean = self.add_weight(name="mean", shape=shape, initializer="zeros", trainable=False)
        self.scale = self.add_weight(name="scale", shape=shape, initializer="ones", trainable=False)

    def call(self, features: Any) -> Any:
        """Map ``(window, frame, coefficient)`` to the same shape."""
        return (features - self.mean) / self.scale


@keras.saving.register_keras_serializable(package="emolib")
class MaskPadding(layers.Layer):
    """Set the frames that are padding to zero, whatever they held."""

    def call(self, features: Any, valid_frames: Any) -> Any:
        """Map ``(window, frame, coefficient)`` and ``(window,)`` to ``(window, frame, coefficient)``."""
        return features * _real(features, valid_frames, stride=1)


@keras.saving.register_keras_serializable(package="emolib")
class Deltas(layers.Layer):
    """Put each coefficient's slope and curvature over time beside it: the usual regression over five frames."""

    def call(self, features: Any) -> Any:
        """Map ``(window, frame, coefficient)`` to ``(window, frame, 3 * coefficient)``."""
        slope = _slope(features)
        return ops.concatenate([features, slope, _slope(slope)], axis=-1)


@keras.saving.register_keras_serializable(package="emolib")
class Statistics(layers.Layer):
    """Mean and standard deviation over the real frames.

    Parameters
    ----------
    stride
        Input frames per frame of the layer's input. A frame is real if the first input frame it stands for is.
    """

    def __init__(self, *, stride: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stride = stride

    def get_config(self) -> dict[str, Any]:
        """Return what `keras` needs to make the layer again."""
        return {**super().get_config(), "stride": self.stride}

    def call(self, features: Any, valid_frames: Any) -> Any:
        """Map ``(window, frame, channel)`` and ``(window,)`` to ``(window, 2 * channel)``."""
        real = _real(features, valid_frames, stride=self.stride)
        count = ops.maximum(ops.sum(real, axis=1), 1.0)
        mean = ops.sum(features * real, axis=1) / count
        distance = (features - ops.expand_dims(mean, 1)) * real
        # The small term keeps the gradient of the root finite where nothing varies.
        deviation = ops.sqrt(ops.sum(ops.square(distance), axis=1) / count + 1e-6)
        return ops.concatenate([mean, deviation], axis=-1)


def build(
    architecture: str,
    *,
    frames: int,
    coefficients: int,
    classes: int,
    mean: NDArray[np.float32],
    scale: NDArray[np.float32],
    seed: int,
) -> keras.Model:
    """Build an untrained network.

    Parameters
    ----------
    architecture
        One of `ARCHITECTURES`.
    frames, coefficients
        Shape of a window's features.
    classes
        How many classes the network tells apart.
    mean, scale
        Mean and standard deviation of each coefficient over the training data, shape ``(coefficient,)``.
    seed
        Seed of the initial weights and of dropout. Sets the global seeds of Python, NumPy and TensorFlow.

    Returns
    -------
    keras.Model
        Inputs ``features`` (window, frame, coefficient) float32 and ``valid_frames`` (window,) int32, output
        ``probabilities`` (window, class).

    Raises
    ------
    SettingsError
        If the architecture is unknown.
    """
    if architecture not in _BODIES:
        raise SettingsError(f"architecture {architecture!r} found, expected one of {', '.join(ARCHITECTURES)}")
    keras.utils.set_random_seed(seed)
    features = keras.Input((frames, coefficients), dtype="float32", name="features")
    valid_frames = keras.Input((), dtype="int32", name="valid_frames")
    standardize = Standardize(name="standardize")
    hidden = _BODIES[architecture](standardize(features), valid_frames)
    probabilities = layers.Dense(classes, activation="softmax", name="probabilities")(hidden)
    standardize.set_weights([mean, scale])
    return keras.Model({"features": features, "valid_frames": valid_frames}, probabilities, name=architecture)


def to_keras(model: keras.Model) -> bytes:
    """Return a network in Keras's own format, from which training can go on."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return path.read_bytes()


def versions() -> dict[str, str]:
    """Return the versions of the libraries that made a network."""
    return {
        # TensorFlow's distribution has another name on every kind of machine.
        "tensorflow": tensorflow.__version__,
        **{name: version(name) for name in ("keras", "onnx", "tf2onnx")},
    }


def to_onnx(model: keras.Model) -> bytes:
    """Return a network of `build` as ONNX, with the same names of inputs and output and a free batch dimension."""
    # Keras exports only a model that has been called; one that was just loaded has not.
    model({tensor.name: np.zeros((1, *tensor.shape[1:]), tensor.dtype) for tensor in model.inputs})
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        model.export(path, format="onnx", verbose=False, opset_version=_OPSET)
        graph = onnx.load(path)
    # The exporter names the output after TensorFlow's last operation.
    exported = graph.graph.output[0].name
    for node in graph.graph.node:
        node.output[:] = ["probabilities" if name == exported else name for name in node.output]
    graph.graph.output[0].name = "probabilities"
    onnx.checker.check_model(graph)
    return bytes(graph.SerializeToString(deterministic=True))


def _article(features: Any, valid_frames: Any) -> Any:
    """Two blocks of convolution, pooling and dropout, then a dense layer; padding is seen as it is.

    ``valid_frames`` stays unused: the article pads its clips and knows no mask.
    """
    del valid_frames
    hidden = features
    for filters in (64, 128):
        hidden = layers.Conv1D(filters, 5, padding="same", activation="relu")(hidden)
        hidden = layers.MaxPool1D(4)(hidden)
        hidden = layers.Dropout(0.3)(hidden)
    hidden = layers.Flatten()(hidden)
    hidden = layers.Dense(128, activation="relu")(hidden)
    return layers.Dropout(0.3)(hidden)


def _default(features: Any, valid_frames: Any) -> Any:
    """Residual convolutions over coefficients and their deltas, pooled over the frames that are real sound."""
    hidden = Deltas()(MaskPadding()(features, valid_frames))
    # The convolutions run over frames alone, but as images of height one: ONNX Runtime keeps images in the layout of
    # its fast kernels from the first convolution to the last, and turns a sequence round before and after each.
    hidden = layers.Reshape((1, *hidden.shape[1:]))(hidden)
    # Every second frame: neighbours overlap by half, and an epoch takes a third of the time.
    hidden = _normalised_convolution(hidden, 64, 5, strides=2)
    hidden = layers.Activation("relu")(hidden)
    stride = 2
    for filters in (64, 128, 128):
        hidden = _residual(hidden, filters)
        hidden = layers.MaxPool2D((1, 2), padding="same")(hidden)
        hidden = layers.SpatialDropout2D(0.1)(hidden)
        stride *= 2
    hidden = layers.Reshape(hidden.shape[2:])(hidden)
    hidden = Statistics(stride=stride)(hidden, valid_frames)
    return layers.Dropout(0.4)(hidden)


def _residual(hidden: Any, filters: int) -> Any:
    shortcut = hidden if hidden.shape[-1] == filters else layers.Conv2D(filters, 1)(hidden)
    hidden = _normalised_convolution(hidden, filters, 3)
    hidden = layers.Activation("relu")(hidden)
    hidden = _normalised_convolution(hidden, filters, 3)
    return layers.Activation("relu")(layers.Add()([shortcut, hidden]))


def _normalised_convolution(hidden: Any, filters: int, width: int, *, strides: int = 1) -> Any:
    hidden = layers.Conv2D(filters, (1, width), strides=(1, strides), padding="same", use_bias=False)(hidden)
    # Keras's own momentum of 0.99 needs hundreds of steps; a small corpus has a dozen in an epoch.
    return layers.BatchNormalization(momentum=0.9)(hidden)


def _real(features: Any, valid_frames: Any, *, stride: int) -> Any:
    """Return 1 for frames of real sound and 0 for padding, shape ``(window, frame, 1)``."""
    begins = ops.arange(features.shape[1], dtype="int32") * stride
    real = ops.expand_dims(begins, 0) < ops.expand_dims(ops.cast(valid_frames, "int32"), 1)
    return ops.expand_dims(ops.cast(real, "float32"), -1)


def _slope(features: Any) -> Any:
    """Return the slope of the regression line through five frames; the borders are continued by zeros."""
    frames = features.shape[1]
    around = ops.pad(features, ((0, 0), (2, 2), (0, 0)))
    near = around[:, 3 : 3 + frames] - around[:, 1 : 1 + frames]
    far = around[:, 4 : 4 + frames] - around[:, :frames]
    return (near + 2.0 * far) / 10.0


_BODIES: dict[str, Callable[[Any, Any], Any]] = {"default": _default, "article": _article}
ARCHITECTURES = tuple(_BODIES)
