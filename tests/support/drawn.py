"""Drawn images as files that torchvision takes for a dataset's."""

import hashlib

import numpy as np


def md5(content):
    return hashlib.md5(content).hexdigest()


def idx(array):
    """The content of a file in MNIST's format."""
    shape = np.array(array.shape, ">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + shape + array.tobytes()
