"""Peak rates of accelerators, for estimates."""

import dataclasses
import difflib


@dataclasses.dataclass(frozen=True)
class Device:
    """An accelerator, by its data sheet, for dense matrices.

    Attributes:
        name: common name.
        float32_tflops: matrix products in float32, 1e12 per second.
        bfloat16_tflops: the same in bfloat16; None if it has no such units
            and computes in float32.
        bandwidth_gb: bandwidth of its memory, 1e9 bytes per second.
        memory_gb: size of its memory, 1e9 bytes.
    """

    name: str
    float32_tflops: float
    bfloat16_tflops: float | None
    bandwidth_gb: float
    memory_gb: float

    def peak_flops(self, precision: str) -> float:
        """Returns peak FLOP per second in "float32" or "mixed_bfloat16"."""
        peak = self.float32_tflops
        if precision == "mixed_bfloat16" and self.bfloat16_tflops is not None:
            peak = self.bfloat16_tflops
        return 1e12 * peak


# NVIDIA's data sheets; float32 without TF32, which TensorFlow enables only on
# request. Google Cloud's documentation of TPUs, whose units are bfloat16 only.
DEVICES = {
    device.name: device
    for device in (
        Device("v100", 15.7, None, 900.0, 16.0),
        Device("t4", 8.1, None, 320.0, 16.0),
        Device("a10g", 31.2, 70.0, 600.0, 24.0),
        Device("l4", 30.3, 121.0, 300.0, 24.0),
        Device("a100", 19.5, 312.0, 1555.0, 40.0),
        Device("h100", 67.0, 989.0, 3350.0, 80.0),
        Device("rtx4090", 82.6, 165.2, 1008.0, 24.0),
        Device("tpu_v4", 275.0, 275.0, 1228.0, 32.0),
    )
}


def find_device(name: str) -> Device:
    """Returns a device by its name.

    Raises:
        ValueError: if there is none, naming the nearest and all others.
    """
    device = DEVICES.get(name.lower().replace("-", "_"))
    if device is not None:
        return device
    near = difflib.get_close_matches(name.lower(), DEVICES, 1)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"`--device` must be one of {', '.join(DEVICES)}.{guess} Received: "
        f"{name!r}."
    )
