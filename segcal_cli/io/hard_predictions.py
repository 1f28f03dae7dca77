"""Hard predictions: label maps and masks in place of probabilities, where only decisions are measured.

Calibration needs soft values, and a hard mask that slips in makes every figure wrong; so these files are taken only by
a run that asks for overlap alone. Each class then has probability 1 where the map says so and 0 elsewhere.
"""

from __future__ import annotations

import numpy as np

from segcal_cli.core.labels import LabelSpace
from segcal_cli.io import files, images
from segcal_cli.io.arrays import ArrayHeader
from segcal_cli.io.checks import ValueReport
from segcal_cli.io.files import FileHeader
from segcal_cli.io.images import ImageHeader
from segcal_cli.io.labelmaps import label_map


def is_label_map(header: FileHeader, table: LabelSpace) -> bool:
    """Whether one file of a prediction holds label values: whole numbers in one volume, or no room for channels.

    A gray image of one foreground may be either; it is a label map if no pixel goes beyond the label values.
    """
    if isinstance(header, ArrayHeader):
        return header.dtype.kind in "biu"
    if isinstance(header, ImageHeader):
        if header.colour:
            return False
        if header.bits == 1 or header.mode == "P" or not table.binary:
            return True
        whole = np.dtype(header.dtype).kind in "biu"
        return whole and set(np.unique(images.read_indices(header)).tolist()) <= table.known_values | {0}
    if files.channel_count(header) > 1:
        return False
    unscaled = (header.slope, header.inter) == (1.0, 0.0)
    return not table.binary or (unscaled and header.dtype.kind in "biu")


def label_map_shape(header: FileHeader, table: LabelSpace) -> tuple[int, int, int, int]:
    """(class, z, y, x) of the channels that a label map stands for; the foreground alone of a binary table."""
    return (1 if table.binary else len(table.channels), *files.label_shape(header))


def read_label_map(header: FileHeader, table: LabelSpace) -> tuple[np.ndarray, ValueReport]:
    """Zeros and ones, float32 "class z y x" as ``label_map_shape`` says. Raises the refusals of labels."""
    numbers = files.read_labels(header)
    raw = numbers.raw.reshape(files.label_shape(header))
    labels = label_map(raw, table, path=header.path, slope=numbers.slope, inter=numbers.inter, image_mask=numbers.image)
    channels = [table.foreground] if table.binary else range(len(table.channels))
    array = np.stack([labels.holds(channel) for channel in channels]).astype(np.float32)
    return array, ValueReport(header.path, 0.0, 1.0, True, False, None)
