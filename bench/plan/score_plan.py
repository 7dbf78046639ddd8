"""The plan of a request to score: one cell, which trains nothing."""

from dataclasses import fields

from bench.datasets.given_images import given_images
from bench.errors import BenchError
from bench.plan.cells import ImagesCell, WeightsCell
from bench.plan.requested_datasets import requested_datasets
from bench.plan.run_plan import Plan, check_protocol_names, checked_seeds, make_plan
from bench.request import ScoreRequest
from bench.store.schema import EXTERNAL
from bench.training.given_weights import given_weights


def make_images_plan(request: ScoreRequest) -> Plan:
    """Return the plan of one cell, which scores images that exist.

    Args:
        request: images, dataset and protocol.

    Raises:
        BenchError: the request contains a mistake, the dataset is unavailable, or the images do not
            fit it.
    """
    if request.images is None:
        raise BenchError("Nothing to score: give images, or a model and its weights.")
    generated = given_images(request.images, request.range_of_images)
    reconstructions = None
    if request.reconstructions is not None:
        reconstructions = given_images(request.reconstructions, request.range_of_images)
    base = request.base
    check_protocol_names(base)
    (dataset,) = requested_datasets(base, download=True)
    assert dataset.info is not None
    name, protocol = request.checked_name, base.full_protocol
    if protocol.resolve(name, dataset.name).generated_images != len(generated):
        protocol = protocol.customised({"generated_images": len(generated)})
    cell = ImagesCell(
        model=name,
        model_version=generated.sha256[:16],
        backend=EXTERNAL,
        dataset=dataset.name,
        info=dataset.info,
        protocol=protocol,
        seed=checked_seeds(protocol, [request.seed])[0],
        generated=generated,
        reconstructions=reconstructions,
    )
    _check_images(cell)
    return Plan((cell,), {dataset.name: dataset.dataset} if dataset.dataset else {})


def make_weights_plan(request: ScoreRequest) -> Plan:
    """Return the plan of one cell, which scores a model whose weights exist.

    Args:
        request: model, weights, dataset and protocol.

    Raises:
        BenchError: the request contains a mistake, the dataset is unavailable, or the weights
            cannot be read.
    """
    weights, name = given_weights(request.weights_path), request.checked_name
    plan = make_plan(request.base, [request.seed])
    if len(plan.cells) > 1:
        backends = ", ".join(cell.backend for cell in plan.cells)
        raise BenchError(
            f"The model {request.model} is scored on one backend: --backend with one of {backends}."
        )
    (cell,) = plan.cells
    values = {each.name: getattr(cell, each.name) for each in fields(cell)}
    values["model"] = name
    values["model_version"] = f"{cell.model_version}+{weights.sha256[:16]}"
    scored = WeightsCell(**values, registered=cell.model, weights=weights)
    return Plan((scored,), plan.datasets)


def _check_images(cell: ImagesCell) -> None:
    """Check that images fit the dataset as the protocol prepares it.

    Raises:
        BenchError: if size, channels or the number of reconstructions are others.
    """
    assert cell.info is not None
    size, channels = cell.resolved.image_size, cell.info.channels
    for given in (cell.generated, cell.reconstructions):
        if given is not None and given.pixels.shape[1:] != (channels, size, size):
            found, height, width = given.pixels.shape[1:]
            raise BenchError(
                f"{given.source} holds images of {found} channels, {width}x{height}: "
                f"{cell.dataset} is scored with {channels}, {size}x{size} (image_size in the "
                "protocol)."
            )
    if cell.reconstructions is None:
        return
    if len(cell.reconstructions) != cell.test_size:
        raise BenchError(
            f"{cell.reconstructions.source} holds {len(cell.reconstructions)} reconstructions: "
            f"{cell.dataset} has {cell.test_size} test images under this protocol, in their order."
        )
    if cell.resolved.horizontal_flip == "train_and_test":
        raise BenchError(
            f"protocol {cell.resolved.name!r} flips test images at random, so reconstructions of "
            "them cannot be scored: use --set horizontal_flip=train, or none."
        )
