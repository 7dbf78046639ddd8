import json
import re
from importlib.resources import files

import hypothesis.strategies as st
import pytest
from hypothesis import given

import bench
from baselines.spiking_diffusion import SpikingDiffusion
from bench.datasets.batches import batch_count
from bench.errors import BenchError, UnknownNameError
from bench.protocol import (
    ArctangentSurrogate,
    Protocol,
    SurrogateWindow,
    TestBatching,
    builtin_protocols,
    load_protocol,
    parse_settings,
)
from bench.training.stages import stage_epochs

DATASETS = ["mnist", "fashion_mnist", "cifar10", "celeba"]
BUILT_IN = [
    "esvae_paper", "fsvae_paper", "quick", "sddpm_paper", "sgad_paper", "smoke",
    "spiking_diffusion_paper", "standard", "taid_paper",
]  # fmt: skip


def test_the_built_in_protocols_are_there_and_valid():
    assert builtin_protocols() == BUILT_IN
    for name in BUILT_IN:
        protocol = load_protocol(name)
        assert protocol.name == name
        assert protocol.description


@pytest.mark.parametrize(
    ("model", "dataset", "expected"),
    [
        (
            "fsvae",
            "mnist",
            {
                "time_steps": 16,
                "epochs": 150,
                "batch_size": 250,
                "latent_size": 128,
                "learning_rate": 1e-3,
                "effective_learning_rate": 1e-3,
                "optimizer": "adamw",
                "betas": (0.9, 0.999),
                "weight_decay": 1e-3,
                "image_size": 32,
                "interpolation": "bilinear",
                "horizontal_flip": "never",
                "membrane_decay": 0.25,
                "threshold": 0.2,
                "surrogate": "official_code",
                "epoch_selection": "best_test_loss",
                "generated_images": 5120,
            },
        ),
        ("ann_vae", "mnist", {"weight_decay": 0.01, "horizontal_flip": "never"}),
        ("fsvae", "cifar10", {"horizontal_flip": "train"}),
        ("ann_vae", "cifar10", {"horizontal_flip": "never"}),
        (
            "fsvae",
            "celeba",
            {
                "horizontal_flip": "train_and_test",
                "center_crop": 148,
                "image_size": 64,
                "batch_size": 250,
                "official_fid_split": "validation",
                "official_inception_split_size": 256,
            },
        ),
        *(
            (
                model,
                dataset,
                {
                    "drop_last": False,
                    "official_test_batching": TestBatching(size=250, drop_last=False),
                    "official_fad_batch_size": 256,
                },
            )
            for model in ("fsvae", "ann_vae")
            for dataset in DATASETS
        ),
    ],
)
def test_fsvae_paper_has_the_published_values(model, dataset, expected):
    resolved = load_protocol("fsvae_paper").resolve(model, dataset)
    assert {name: getattr(resolved, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ("mnist", {"latent_size": 32, "learning_rate": 3e-3, "horizontal_flip": "never"}),
        ("fashion_mnist", {"latent_size": 32, "learning_rate": 3e-3, "horizontal_flip": "never"}),
        ("cifar10", {"latent_size": 128, "learning_rate": 6e-4, "horizontal_flip": "train"}),
        (
            "celeba",
            {
                "latent_size": 128,
                "learning_rate": 1e-3,
                "batch_size": 64,
                "image_size": 64,
                "center_crop": 148,
                "horizontal_flip": "train",
                "official_fid_split": "validation",
                "official_inception_split_size": 128,
            },
        ),
    ],
)
def test_esvae_paper_has_the_published_values(dataset, expected):
    protocol = load_protocol("esvae_paper")
    resolved = protocol.resolve("esvae", dataset)
    assert {name: getattr(resolved, name) for name in expected} == expected
    assert (resolved.epochs, resolved.weight_decay) == (300, 1e-3)
    assert resolved.official_fad_batch_size == 128
    assert protocol.seeds == (42,)
    assert resolved.epoch_selection == "best_per_metric"


@pytest.mark.parametrize(
    ("dataset", "rate"), [("mnist", 3.072e-3), ("cifar10", 6.144e-4), ("celeba", 2.56e-4)]
)
def test_esvae_paper_gives_the_effective_learning_rates_of_the_official_code(dataset, rate):
    resolved = load_protocol("esvae_paper").resolve("esvae", dataset)
    assert resolved.effective_learning_rate == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize(
    ("dataset", "training", "testing", "size"),
    [
        ("mnist", (60_000, 60_000), (10_000, 10_000), 512),
        ("fashion_mnist", (60_000, 59_904), (10_000, 9_728), 512),
        ("cifar10", (50_000, 49_920), (10_000, 9_728), 512),
        ("celeba", (162_770, 162_770), (19_962, 19_962), 128),
    ],
)
def test_esvae_paper_leaves_out_the_images_that_the_official_code_leaves_out(
    dataset, training, testing, size
):
    """Both pairs are the split's images and those of an epoch."""
    resolved = load_protocol("esvae_paper").resolve("esvae", dataset)
    batching = resolved.official_test_batching
    assert batching.size == resolved.evaluation_batch_size == size
    assert _seen(training[0], resolved.batch_size, resolved.drop_last) == training[1]
    assert _seen(testing[0], batching.size, batching.drop_last) == testing[1]


def _seen(images, size, drop_last):
    return min(images, batch_count(images, size, drop_last) * size)


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("ann_vae", {"epochs": 150, "batch_size": 250, "weight_decay": 0.01}),
        ("fsvae", {"epochs": 150, "batch_size": 250, "weight_decay": 1e-3}),
    ],
)
def test_esvae_paper_trains_the_other_models_as_its_code_does(model, expected, dataset):
    if model == "fsvae":
        expected = expected | {"celeba": {"batch_size": 64}, "cifar10": {"epochs": 300}}.get(
            dataset, {}
        )
    expected = expected | {"latent_size": 128, "drop_last": False}
    resolved = load_protocol("esvae_paper").resolve(model, dataset)
    assert {name: getattr(resolved, name) for name in expected} == expected
    rate = 2.56e-4 if resolved.batch_size == 64 else 1e-3
    assert resolved.effective_learning_rate == pytest.approx(rate, rel=1e-12)
    twice = resolved.batch_size * (2 if model == "fsvae" else 1)
    assert resolved.official_test_batching == TestBatching(size=twice, drop_last=False)
    flipped = {"celeba": "train" if model == "fsvae" else "train_and_test"}
    if model == "fsvae":
        flipped["cifar10"] = "train"
    assert resolved.horizontal_flip == flipped.get(dataset, "never")


def test_standard_trains_the_ann_vae_as_published_but_for_kl_weight_and_selected_epoch():
    ours, papers = (
        load_protocol(name).resolve("ann_vae", "mnist") for name in ("standard", "fsvae_paper")
    )
    evaluated = {"seeds", "threads", "generated_images", "official_test_batching"}
    evaluated |= {"official_fad_batch_size", "paper_models", "name", "description"}
    different = {
        name
        for name in type(ours).model_fields.keys() - evaluated
        if getattr(ours, name) != getattr(papers, name)
    }
    assert different == {"learning_rate_batch_size", "models", "epoch_selection"}
    assert ours.effective_learning_rate == papers.effective_learning_rate
    assert ours.models["ann_vae"] == papers.models["ann_vae"] | {"kl_weight": "elbo"}


def test_a_model_that_its_paper_does_not_train_is_named_in_the_rows(tmp_path, tiny):
    path = tmp_path / "paper.toml"
    lines = [*tiny, "learning_rate=1e-3"]
    path.write_text('paper_models = ["esvae"]\n' + "\n".join(lines))
    rows = bench.run("ann_vae,esvae", protocol=path, metrics="fad", out=tmp_path / "run")
    names = rows.groupby("model")["protocol"].unique().map(list).to_dict()
    of_the_dataset = ("fad_autoencoder", "real_images", "pixel_noise")
    assert names == {
        "ann_vae": ["paper+other_model"],
        "esvae": ["paper"],
        **{name: ["paper"] for name in of_the_dataset},
    }


@pytest.mark.parametrize(("drop_last", "images"), [("false", 64), ("true", 60)])
def test_an_epoch_leaves_out_an_incomplete_last_batch_where_the_protocol_says_so(
    drop_last, images, tiny, tmp_path
):
    settings = [*tiny, "batch_size=20", f"drop_last={drop_last}"]
    bench.run("ann_vae", settings=settings, metrics="psnr", out=tmp_path / "run")
    (path,) = tmp_path.glob("run/cells/ann_vae*/training.json")
    (epoch,) = json.loads(path.read_text())["epochs"]
    assert epoch["images"] == images
    assert 0 < epoch["losses"]["reconstruction_loss"] < 4


@pytest.mark.parametrize("name", ["fsvae_paper", "esvae_paper", "taid_paper"])
def test_every_value_of_a_paper_s_protocol_has_the_line_that_it_comes_from(name):
    """Behind the value, or in the comments before it."""
    text = (files("bench.protocols") / f"{name}.toml").read_text(encoding="utf-8")
    values = 0
    for block in text.split("\n\n"):
        for line in block.splitlines():
            if re.match(r"(?!description|paper_models|seeds|models|datasets)\w+ = ", line):
                before = "".join(re.findall(r"^#.*", block, re.MULTILINE))
                assert re.search(r"(\.py|yaml|snn|ann):\d", line.partition("#")[2] + before), line
                values += 1
    assert values > 25


@pytest.mark.parametrize("dataset", DATASETS)
def test_taid_paper_is_fsvae_s_protocol_but_for_celeba_s_batches(dataset):
    """The learning rate is not scaled by the batch, as it is in FSVAE's code."""
    ours = {"name", "description", "paper_models", "learning_rate_batch_size", "models"}
    found, expected = (
        load_protocol(f"{name}_paper").resolve(name, dataset).model_dump(exclude=ours)
        for name in ("taid", "fsvae")
    )
    batches = {"batch_size", "evaluation_batch_size", "official_test_batching"}
    differing = {key for key in found if found[key] != expected[key]}
    assert differing == (batches if dataset == "celeba" else set())
    taid, fsvae = (
        load_protocol(f"{name}_paper").resolve(name, dataset) for name in ("taid", "fsvae")
    )
    assert taid.options == {**fsvae.options, "attention": "per_channel"}
    assert (taid.batch_size, taid.effective_learning_rate) == (
        200 if dataset == "celeba" else 250,
        1e-3,
    )


@pytest.mark.parametrize(("model", "epochs"), [("vq_svae", 100), ("spiking_diffusion", 300)])
@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist"])
def test_spiking_diffusion_paper_has_the_values_of_the_official_code(model, epochs, dataset):
    protocol = load_protocol("spiking_diffusion_paper")
    expected = {
        "image_size": 28,
        "time_steps": 16,
        "membrane_decay": 0.5,
        "threshold": 2.0,
        "surrogate": ArctangentSurrogate(alpha=1.0),
        "reset_gradient": True,
        "fires_at_threshold": True,
        "epochs": epochs,
        "batch_size": 32,
        "effective_learning_rate": 1e-3,
        "optimizer": "adamw",
        "betas": (0.9, 0.999),
        "weight_decay": 1e-3,
        "epoch_selection": "last",
        "official_test_batching": TestBatching(size=32, drop_last=dataset == "fashion_mnist"),
    }
    resolved = protocol.resolve(model, dataset)
    assert {name: getattr(resolved, name) for name in expected} == expected
    assert protocol.seeds == (42,)
    if model == "spiking_diffusion":
        stages = stage_epochs(SpikingDiffusion.stages(resolved), resolved.epochs)
        assert [(stage.name, stage.end) for stage in stages] == [("tokens", 100), ("prior", 300)]


def test_model_options_of_the_paper_protocols():
    protocol = load_protocol("fsvae_paper")
    assert protocol.resolve("fsvae", "mnist").options == {
        "k": 20,
        "divergence": "mmd",
        "mmd_over_time": "mean",
        "scheduled_sampling": True,
        "scheduled_sampling_update": "epoch",
        "posterior_statistics": "prefix",
    }
    assert protocol.resolve("ann_vae", "mnist").options == {"kl_weight": "per_batch"}
    assert protocol.resolve("esvae", "mnist").options == {}


def test_named_surrogate_gradients():
    paper = load_protocol("smoke", ["surrogate=paper", "threshold=0.3"]).resolve("fsvae", "digits")
    assert paper.surrogate_gradient == SurrogateWindow(centre=0.3, width=0.2)
    official = load_protocol("smoke").resolve("fsvae", "digits")
    assert official.surrogate_gradient == SurrogateWindow(centre=0.0, width=1.0)
    own = load_protocol("smoke", ["surrogate={centre = 0.1, width = 2.0}"])
    window = own.resolve("fsvae", "digits").surrogate_gradient
    assert window == SurrogateWindow(centre=0.1, width=2.0)


def test_a_setting_wins_over_every_override():
    protocol = load_protocol("esvae_paper", ["latent_size=7"])
    for dataset in ("mnist", "cifar10", "celeba"):
        assert protocol.resolve("esvae", dataset).latent_size == 7


def test_a_setting_shows_in_the_name_and_the_hash():
    plain, changed = load_protocol("smoke"), load_protocol("smoke", ["epochs=9"])
    assert changed.name == "smoke+epochs=9"
    assert changed.hash != plain.hash
    assert load_protocol("smoke").hash == plain.hash


def test_seeds_can_be_set_like_any_value():
    assert load_protocol("smoke", ["seeds=[3, 4]"]).seeds == (3, 4)


def test_a_model_option_is_merged_into_the_others():
    resolved = load_protocol("fsvae_paper", ["models.fsvae.k=5"]).resolve("fsvae", "mnist")
    assert resolved.options["k"] == 5
    assert resolved.options["posterior_statistics"] == "prefix"


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_the_hash_tells_any_two_values_apart(a, b):
    first = load_protocol("smoke", [f"epochs={a}"]).resolve("fsvae", "digits")
    second = load_protocol("smoke", [f"epochs={b}"]).resolve("fsvae", "digits")
    assert (first.hash == second.hash) == (a == b)


@pytest.mark.parametrize("change", [{"name": "other"}, {"description": "other"}, {"seeds": (1, 2)}])
def test_name_description_and_seeds_move_no_number(change):
    protocol = load_protocol("smoke")
    assert protocol.model_copy(update=change).hash == protocol.hash


class Extended(Protocol):
    """A protocol of a later version, with one more setting."""

    dropout: float = 0.0


class ExtendedWindow(SurrogateWindow):
    """A window of a later version, with one more value."""

    height: float | None = None


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_setting_that_is_added_later_changes_no_hash_at_its_default(name):
    values = load_protocol(name).model_dump(exclude_unset=True)
    for model, dataset in (("fsvae", "digits"), ("ann_vae", "celeba")):
        before = load_protocol(name).resolve(model, dataset).hash
        later = Extended.model_validate(values).resolve(model, dataset)
        assert later.hash == before
        assert later.model_copy(update={"dropout": 0.5}).hash != before


def test_a_value_that_is_added_later_to_a_part_changes_no_hash_at_its_default():
    window = {"centre": 0.1, "width": 2.0}
    known = load_protocol("smoke").model_copy(update={"surrogate": SurrogateWindow(**window)})
    later = load_protocol("smoke").model_copy(update={"surrogate": ExtendedWindow(**window)})
    assert known.hash == later.hash


def resolved(*settings, protocol="smoke", model="esvae", dataset="digits"):
    return load_protocol(protocol, settings).resolve(model, dataset)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["epochs=9", "batch_size=8"], ["batch_size=8", "epochs=9"]),
        (["epochs=8", "epochs=9"], ["epochs=9"]),
        (["optimizer=adamw", "neighbours=5"], []),
        (["noise_levels=[0.3, 0.1, 0.3]"], ["noise_levels=[0.1, 0.3]"]),
        (["models.fsvae.k=9"], []),
        (["models.esvae={}"], []),
        (["seeds=[1, 2]"], []),
    ],
)
def test_two_ways_to_say_the_same_have_one_hash(one, other):
    assert resolved(*one).hash == resolved(*other).hash


def test_the_hash_does_not_depend_on_which_override_gave_a_value(tmp_path):
    smoke = load_protocol("smoke")
    values = smoke.resolve("fsvae", "digits").model_dump(exclude={"name", "overrides"})
    flat = Protocol.model_validate({**values, "name": "flat"})
    assert flat.resolve("fsvae", "digits").hash == smoke.resolve("fsvae", "digits").hash


def test_the_name_lists_the_settings_sorted_and_without_seeds():
    names = {
        load_protocol("smoke", settings).name
        for settings in (
            ["epochs=9", "batch_size=8"],
            ["seeds=[4]", "batch_size=8", "epochs=9"],
            ["epochs=1", "batch_size=8", "epochs=9"],
        )
    }
    assert names == {"smoke+batch_size=8+epochs=9"}


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("time_steps=0", ["time_steps", "greater than or equal to 1", "0"]),
        ("latent_size=0", ["latent_size", "0"]),
        ("batch_size=-1", ["batch_size", "-1"]),
        ("epochs=1.5", ["epochs", "1.5"]),
        ("learning_rate=0", ["learning_rate", "greater than 0"]),
        ("learning_rate=nan", ["learning_rate", "finite"]),
        ("membrane_decay=1.01", ["membrane_decay", "less than or equal to 1"]),
        ("membrane_decay=0", ["membrane_decay", "greater than 0"]),
        ("surrogate=papre", ["surrogate", "papre"]),
        ("epohcs=3", ["epohcs", "Did you mean: epochs?"]),
        ("seeds=[]", ["seeds"]),
        ("name=other", ["name"]),
        ("epochs", ["key=value"]),
        ("models.fsvae=3", ["models"]),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(setting, words):
    with pytest.raises(BenchError) as error:
        load_protocol("smoke", [setting])
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_an_unknown_protocol_suggests_and_lists():
    with pytest.raises(UnknownNameError, match=r"Did you mean: smoke\? Available: esvae_paper"):
        load_protocol("smoek")


def test_own_protocol_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("time_steps = 3\nlatent_size = 5\nepochs = 1\nbatch_size = 4\n"
                    "learning_rate = 0.1\n")  # fmt: skip
    protocol = load_protocol(path)
    assert (protocol.name, protocol.time_steps) == ("mine", 3)


@pytest.mark.parametrize("content", ["time_steps = ", "time_steps = 3", "\xff\xfe"])
def test_a_broken_protocol_file_is_one_line(tmp_path, content):
    path = tmp_path / "mine.toml"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(BenchError, match=r"mine\.toml") as error:
        load_protocol(path)
    assert "\n" not in str(error.value)


def test_a_missing_protocol_file_is_one_line(tmp_path):
    with pytest.raises(BenchError, match="cannot be read"):
        load_protocol(tmp_path / "none.toml")


def test_settings_are_toml_where_they_parse():
    assert parse_settings(["a=1", "b=1e-3", "c=true", "d=word", "e=[1, 2]", "f.g=x"]) == {
        "a": 1,
        "b": 1e-3,
        "c": True,
        "d": "word",
        "e": [1, 2],
        "f.g": "x",
    }


def test_protocols_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        load_protocol("smoke").epochs = 3


def test_an_override_cannot_hide_another_override():
    values = load_protocol("smoke").model_dump(exclude_unset=True)
    with pytest.raises(ValueError, match="cannot set"):
        Protocol.model_validate({**values, "overrides": [{"set": {"seeds": [1]}}]})


@pytest.mark.parametrize(
    ("name", "saved"),
    [
        ("own.toml", lambda text: b"\xef\xbb\xbf" + text.encode()),
        ("own.toml", lambda text: text.replace("\n", "\r\n").encode()),
        ("own.toml", lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()),
        ("own.toml", lambda text: text.encode("utf-16")),
        ("OWN.TOML", lambda text: text.encode()),
    ],
)
def test_a_file_saved_by_a_windows_editor_is_read(tmp_path, name, saved):
    text = (
        "time_steps = 2\nlatent_size = 16\nepochs = 1\nbatch_size = 32\nlearning_rate = 1e-3\n"
        "description = 'é'\n"
    )
    (tmp_path / "plain.toml").write_text(text, encoding="utf-8")
    (tmp_path / name).write_bytes(saved(text))
    protocol = load_protocol(tmp_path / name)
    assert protocol.hash == load_protocol(tmp_path / "plain.toml").hash
    assert (protocol.name, protocol.description) == (name[:3], "é")
