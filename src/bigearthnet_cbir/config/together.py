"""Rules between keys: values that are valid separately, but contradict each other or have no effect together."""

from __future__ import annotations

import re
from typing import Any, Final

from bigearthnet_cbir.config.schema import BACKBONE_WIDTHS, KEYS
from bigearthnet_cbir.messages import brief
from bigearthnet_cbir.types import LOWEST_LEARNED_TEMPERATURE

_DEVICE: Final = re.compile(r"auto|cpu|cuda(:[0-9]{1,2})?")


def check_together(kept: dict[str, Any], problems: list[str]) -> None:
    """Report contradictions.

    Args:
        kept: the given keys, each validated.
        problems: messages are appended here.
    """
    values = {name: kept.get(name, item.default) for name, item in KEYS.items()}
    backbone = values["backbone"]
    width = BACKBONE_WIDTHS.get(backbone)  # only timm knows those of its networks
    if width is not None and values["n_features"] not in (None, width):
        given = brief(values["n_features"])
        problems.append(f"n_features is {given}; {backbone} has {width}; write {width} or remove the key")
    if values["init_weights_s1"] is not None and values["type"] == "joint":
        problems.append(
            "init_weights_s1 is for the separate type's Sentinel-1 backbone; remove it, or use type: separate"
        )
    if values["encoder"] is not None and values["state_dict"] is not None:
        problems.append("state_dict is given with encoder, which has its own weights; remove one of them")
    if values["encoder_path"] is not None and values["encoder"] is None:
        problems.append("encoder_path is given without encoder; remove it, or give encoder")
    _check_backend(values, problems)
    if values["start_epoch"] >= values["epochs"]:
        given = brief(values["start_epoch"])
        problems.append(f"start_epoch is {given}; give a number below epochs, which is {values['epochs']}")
    _check_micro_batches(values["micro_batch_size"], values["batch_size"], problems)
    if values["loss_func"] == "contrastive":
        _check_contrastive(values, problems)
    _check_codes(values, problems)
    if not _DEVICE.fullmatch(values["device"]):
        problems.append(f"device is {brief(values['device'])}; choose one of auto, cpu, cuda, cuda:N")


def _check_backend(values: dict[str, Any], problems: list[str]) -> None:
    if values["precision"] == "int8":
        for key, fits in (("encoder", (None,)), ("extract_backend", ("auto", "onnxruntime"))):
            if values[key] not in fits:
                given = brief(values[key])
                problems.append(
                    f"precision is int8, for networks in onnxruntime, but {key} is {given}; use precision: auto"
                )
        return
    if values["extract_backend"] != "onnxruntime":
        return
    for key, cure in (("encoder", "which is run as it is"), ("precision", "which only torch has")):
        if values[key] not in (None, "auto", "fp32"):
            given = brief(values[key])
            problems.append(f"extract_backend is onnxruntime, but {key} is {given}, {cure}; use extract_backend: torch")


def _check_micro_batches(micro: int, batch: int, problems: list[str]) -> None:
    if micro == 1:
        problems.append("micro_batch_size is 1; a batch norm needs two pairs: give 2 or more, or 0")
    elif micro and (micro >= batch or batch % micro):
        problems.append(
            f"micro_batch_size is {micro}; batch_size is {batch}: give a smaller number that divides it, or 0"
        )


def _check_contrastive(values: dict[str, Any], problems: list[str]) -> None:
    label_aware, memory = values["contrastive_loss"] == "label_aware", values["memory_size"]
    if label_aware and memory:
        problems.append(f"memory_size is {memory}; label_aware has no memory; give 0")
    if values["batch_size"] < 2 and not memory:
        problems.append("batch_size is 1; the contrastive loss of one pair is always 0; give 2 or more")
    if values["learn_temperature"] and values["temperature"] <= LOWEST_LEARNED_TEMPERATURE:
        problems.append(
            f"temperature is {values['temperature']:g}; a learned one stays above {LOWEST_LEARNED_TEMPERATURE:g}: "
            "start higher, or give learn_temperature: false"
        )


def _check_codes(values: dict[str, Any], problems: list[str]) -> None:
    """Report keys of binary codes that could have no effect, or that one bit a feature contradicts."""
    code, bits = values["code"], values["code_bits"]
    if values["rerank"] and values["distance"] != "hamming":
        problems.append(f"rerank is {values['rerank']}; it orders candidates of distance: hamming, give that or 0")
    if bits is not None and code in ("median", "mean") and values["distance"] == "hamming":
        problems.append(
            f"code_bits is {bits}, but code {code} has one bit for each feature; leave code_bits out, or choose code: "
            "rotation, itq or learned"
        )
