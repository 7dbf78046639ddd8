"""DINOv2's features and metrics, against a network written out and against other libraries."""

import hashlib
import pickle
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from contexts import cell_context
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.spatial.distance import cdist
from scipy.special import erf, softmax
from sklearn.metrics.pairwise import polynomial_kernel
from tiny import TINY

import bench
from bench.datasets.batches import to_unit_range
from bench.datasets.dataset_contract import describe, load_images
from bench.datasets.resolve import open_dataset
from bench.errors import NotInstalledError, SkippedError
from bench.metrics.extractors.dinov2 import DINOv2, resampled_positions
from bench.protocol import load_protocol

NAMES = ("fd_dinov2", "kid_dinov2", "precision_dinov2", "recall_dinov2")
WIDTH, DEPTH, HEADS = 16, 2, 2
OPTIONS = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS}
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


class SmallDINOv2(DINOv2):
    """The same network with 16 features and two blocks."""

    options = OPTIONS


def planted(path, width=WIDTH, depth=DEPTH, grid=37, dtype=torch.float32):
    """Write random weights in the layout of Meta's file, and return its path."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape, scale=0.3, mean=0.0):
        return torch.randn(shape, generator=generator).mul(scale).add(mean).to(dtype)

    tensors = {
        "embeddings.cls_token": drawn(1, 1, width),
        "embeddings.mask_token": drawn(1, width),
        "embeddings.position_embeddings": drawn(1, 1 + grid * grid, width),
        "embeddings.patch_embeddings.projection.weight": drawn(width, 3, 14, 14, scale=0.1),
        "embeddings.patch_embeddings.projection.bias": drawn(width),
        "layernorm.weight": drawn(width, mean=1),
        "layernorm.bias": drawn(width),
    }
    linear = {
        "attention.attention.query": (width, width),
        "attention.attention.key": (width, width),
        "attention.attention.value": (width, width),
        "attention.output.dense": (width, width),
        "mlp.fc1": (4 * width, width),
        "mlp.fc2": (width, 4 * width),
    }
    for layer in range(depth):
        block = f"encoder.layer.{layer}"
        for name, shape in linear.items():
            tensors[f"{block}.{name}.weight"] = drawn(*shape)
            tensors[f"{block}.{name}.bias"] = drawn(shape[0])
        for name in ("norm1.bias", "norm2.bias"):
            tensors[f"{block}.{name}"] = drawn(width)
        for name in (
            "norm1.weight",
            "norm2.weight",
            "layer_scale1.lambda1",
            "layer_scale2.lambda1",
        ):
            tensors[f"{block}.{name}"] = drawn(width, mean=1)
    save_file(tensors, path)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return planted(tmp_path_factory.mktemp("weights") / "dinov2.safetensors")


def context(folder, **files):
    return cell_context(load_protocol("smoke").resolve("m", "d"), None, folder, files)


def pictures(n, channels=3, seed=0):
    """uint8 images of smooth patches."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, channels, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (32, 32), mode="bilinear")
    return (smooth * 255).round().to(torch.uint8)


# An independent network, in float64


def cubic(x):
    """Keys' kernel with a = -0.75, which PyTorch and OpenCV use."""
    x, a = np.abs(x), -0.75
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def interpolation_matrix(old, new, offset):
    """Weights ``(new, old)`` of bicubic interpolation; positions beyond the border repeat it."""
    matrix = np.zeros((new, old))
    for i in range(new):
        centre = (i + 0.5) * old / (new + offset) - 0.5
        for j in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            matrix[i, np.clip(j, 0, old - 1)] += cubic(centre - j)
    return matrix


def linear(x, tensors, name):
    return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]


def layer_norm(x, tensors, name):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-6)
    return scaled * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]


def attention(x, tensors, name):
    heads = []
    query, key, value = (
        linear(x, tensors, f"{name}.attention.{part}") for part in ("query", "key", "value")
    )
    for part in np.split(np.arange(WIDTH), HEADS):
        scores = query[:, part] @ key[:, part].T / np.sqrt(len(part))
        heads.append(softmax(scores, axis=1) @ value[:, part])
    return linear(np.concatenate(heads, 1), tensors, f"{name}.output.dense")


def class_token(image, tensors):
    """The class token ``(16,)`` of one uint8 image ``(C, H, W)``, from the paper's equations."""
    rgb = np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0)
    resized = Image.fromarray(np.ascontiguousarray(rgb)).resize(
        (224, 224), Image.Resampling.BICUBIC
    )
    pixels = (np.asarray(resized) / 255 - MEAN) / DEVIATION
    patches = pixels.reshape(16, 14, 16, 14, 3).transpose(0, 2, 4, 1, 3).reshape(256, -1)
    projection = "embeddings.patch_embeddings.projection"
    kernel = tensors[f"{projection}.weight"].reshape(WIDTH, -1)
    embedded = patches @ kernel.T + tensors[f"{projection}.bias"]
    positions = tensors["embeddings.position_embeddings"][0]
    matrix = interpolation_matrix(37, 16, offset=0.1)
    grid = np.einsum("ia,jb,abd->ijd", matrix, matrix, positions[1:].reshape(37, 37, WIDTH))
    token = tensors["embeddings.cls_token"][0] + positions[:1]
    x = np.concatenate([token, embedded + grid.reshape(256, WIDTH)])
    for layer in range(DEPTH):
        name = f"encoder.layer.{layer}"
        attended = attention(layer_norm(x, tensors, f"{name}.norm1"), tensors, f"{name}.attention")
        x = x + tensors[f"{name}.layer_scale1.lambda1"] * attended
        hidden = linear(layer_norm(x, tensors, f"{name}.norm2"), tensors, f"{name}.mlp.fc1")
        hidden = hidden * (1 + erf(hidden / np.sqrt(2))) / 2
        x = x + tensors[f"{name}.layer_scale2.lambda1"] * linear(hidden, tensors, f"{name}.mlp.fc2")
    return layer_norm(x[:1], tensors, "layernorm")[0]


def features(images, path):
    tensors = {name: value.double().numpy() for name, value in load_file(path).items()}
    return np.stack([class_token(image.numpy(), tensors) for image in images])


@pytest.mark.parametrize("channels", [1, 3])
def test_features_are_the_class_token_of_a_network_written_out(tmp_path, weights, channels):
    images = pictures(4, channels)
    extractor = SmallDINOv2(context(tmp_path, dinov2=weights))
    found = extractor(to_unit_range(images))
    expected = features(images, weights)
    np.testing.assert_allclose(found.pool, expected, rtol=1e-4, atol=1e-4)
    assert found.logits is None
    assert expected.std(0).min() > 1e-2  # The images differ in every feature.
    assert extractor.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_positions_are_not_those_of_other_libraries():
    """Without the offset, or with antialiasing, they differ by more than rounding."""
    positions = torch.randn(1, 1 + 37 * 37, 3, generator=torch.Generator().manual_seed(0))
    found = resampled_positions(positions, 16)
    grid = positions[:, 1:].unflatten(1, (37, 37)).permute(0, 3, 1, 2)
    for antialias in (False, True):
        plain = torch.nn.functional.interpolate(grid, (16, 16), mode="bicubic", antialias=antialias)
        assert (plain.permute(0, 2, 3, 1).flatten(1, 2) - found[:, 1:]).abs().max() > 0.1
    assert torch.equal(found[:, 0], positions[:, 0])
    assert resampled_positions(found, 16) is found
    with pytest.raises(ValueError, match="5 position embeddings are not a square"):
        resampled_positions(positions[:, :6], 16)


def test_a_file_in_timms_layout_gives_the_same_features(tmp_path, weights):
    images = to_unit_range(pictures(2))
    meta = SmallDINOv2(context(tmp_path, dinov2=weights))
    path = tmp_path / "timm.safetensors"
    save_file(meta._network.state_dict(), path)
    timm = SmallDINOv2(context(tmp_path, dinov2=path))
    assert torch.equal(timm(images).pool, meta(images).pool)
    assert timm.sha256 != meta.sha256


def test_loading_draws_no_random_number(tmp_path, weights):
    state = torch.get_rng_state()
    SmallDINOv2(context(tmp_path, dinov2=weights))
    assert torch.equal(torch.get_rng_state(), state)


# The metrics


def test_a_score_has_all_four_metrics_as_other_libraries_compute_them(
    tmp_path, monkeypatch, weights
):
    monkeypatch.setattr(DINOv2, "options", OPTIONS)
    dataset, protocol = open_dataset("digits", tmp_path), load_protocol("smoke", TINY)
    images = load_images(dataset, describe(dataset), protocol.resolve("images", "digits"))
    reference = torch.from_numpy(images.test.images)
    generated = torch.from_numpy(images.train.images[:30])
    generated[20:] //= 2  # Some lie outside of the reference, some within.
    np.savez(tmp_path / "images.npz", images=generated[:, 0].numpy())
    settings = [*TINY, "inception_minimum_images=2", "kid_subset_size=12", "neighbours=1"]
    rows = bench.score(
        tmp_path / "images.npz", settings=settings, metrics="*_dinov2",
        weights=[f"dinov2={weights}"], out=tmp_path / "run",
    )  # fmt: skip
    scale = rows[(rows["kind"] == "dataset") & (rows["status"] == "ok")]
    assert list(scale["metric"]) == ["fd_dinov2"] * 2
    found = rows[(rows["kind"] == "model") & (rows["status"] == "ok")].set_index("metric")
    assert set(found.index) == set(NAMES)
    assert set(found["extractor"]) == {DINOv2.description}
    assert set(found["extractor_sha256"]) == {hashlib.sha256(weights.read_bytes()).hexdigest()}
    assert set(found["n"]) == {30}
    assert (found["ci_low"] < found["value"]).all()
    assert (found["value"] < found["ci_high"]).all()
    a, b = features(generated, weights), features(reference, weights)
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    distance = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(
        np.cov(a.T) + np.cov(b.T) - 2 * root
    )
    assert found.loc["fd_dinov2", "value"] == pytest.approx(distance, rel=1e-3)
    assert_kid(found.loc["kid_dinov2"], a, b)
    for name, points, others in (("precision_dinov2", a, b), ("recall_dinov2", b, a)):
        radii = np.sort(cdist(others, others), axis=1)[:, 1]
        inside = (cdist(points, others) <= radii).any(1).mean()
        assert 0 < inside < 1
        assert found.loc[name, "value"] == pytest.approx(inside, abs=1e-9), name


def assert_kid(row, a, b):
    """All pairs give the unbiased value; subsets of 12 of 30 images scatter about it."""

    def kernel(one, other):
        return polynomial_kernel(one, other, degree=3, coef0=1)

    def mean_of_pairs(k):
        return (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1))

    whole = mean_of_pairs(kernel(a, a)) + mean_of_pairs(kernel(b, b)) - 2 * kernel(a, b).mean()
    assert row["ci_low"] < whole < row["ci_high"]
    assert row["value"] == pytest.approx(whole, rel=0.2)


def test_a_run_of_few_images_needs_neither_weights_nor_a_line(tiny_run):
    _, rows = tiny_run
    rows = rows[rows["metric"].isin(NAMES)]
    assert len(rows) >= len(NAMES)
    assert set(rows["status"]) == {"not_applicable"}
    assert rows["reason"].str.contains("metrics of DINOv2 features need at least 2000").all()


# What is missing or wrong


def test_without_its_package_the_rows_say_how_to_install_it(tmp_path, monkeypatch, weights):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(NotInstalledError, match=r"pip install 'spikegen-bench\[dinov2\]'"):
        DINOv2(context(tmp_path, dinov2=weights))
    assert "timm is not installed" in DINOv2.unavailable(context(tmp_path).resources)


def test_no_run_downloads_the_weights_but_the_command_does(
    tmp_path, monkeypatch, served, bench_cli
):
    folder, address = served
    (folder / "model.safetensors").write_bytes(b"weights")
    (file,) = DINOv2.weight_files
    file = replace(file, url=f"{address}model.safetensors", variable="BENCH_NOT_SET")
    monkeypatch.setattr(DINOv2, "weight_files", (file,))
    here = context(tmp_path)
    with pytest.raises(
        SkippedError, match=r"no run downloads 1\.2 GB, `bench weights fetch dinov2`"
    ):
        DINOv2(here)
    assert "--weights dinov2=PATH" in DINOv2.unavailable(here.resources)
    assert not (tmp_path / "cache").exists()
    sha256 = hashlib.sha256(b"weights").hexdigest()
    file = replace(file, sha256=sha256)
    monkeypatch.setattr(DINOv2, "weight_files", (file,))
    monkeypatch.setenv("BENCH_CACHE", str(here.resources.cache))
    path = file.default_path(here.resources)
    assert bench_cli("weights", "fetch", "dinov2") == (0, f"dinov2: here, {path}\n", "")
    assert path.read_bytes() == b"weights"
    assert DINOv2.unavailable(here.resources) is None


class Malicious:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


@pytest.mark.parametrize(
    "content", [b"", b"no weights", pickle.dumps(Malicious()), "other", "part"]
)
def test_a_file_that_holds_something_else_is_one_clear_error(
    tmp_path, monkeypatch, weights, content
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file.safetensors"
    match content:
        case "other":
            save_file({"fc.weight": torch.zeros(2)}, path)
        case "part":
            tensors = load_file(weights)
            del tensors["encoder.layer.1.attention.attention.key.bias"]
            save_file(tensors, path)
        case _:
            path.write_bytes(content)
    with pytest.raises(ValueError, match="does not contain weights of DINOv2 ViT-L/14"):
        SmallDINOv2(context(tmp_path, dinov2=path))
    assert not Path("executed").exists()


def test_a_smaller_dinov2_is_refused(tmp_path, weights):
    with pytest.raises(ValueError, match="size mismatch"):
        DINOv2(context(tmp_path, dinov2=weights))


@pytest.mark.full
def test_the_network_of_the_papers_loads_a_file_of_metas_size(tmp_path):
    path = planted(tmp_path / "large.safetensors", 1024, 24, dtype=torch.float16)
    assert len(load_file(path)) == 439
    extractor = DINOv2(context(tmp_path, dinov2=path))
    assert sum(weight.numel() for weight in extractor._network.parameters()) == 303_227_904
    found = extractor(to_unit_range(pictures(2))).pool
    assert found.shape == (2, 1024)
    assert found.isfinite().all()
