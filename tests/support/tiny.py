"""The settings of the smallest run."""

# Every cell takes about a second: 64 images, two time steps, one epoch.
TINY = (
    "time_steps=2",
    "epochs=1",
    "batch_size=16",
    "latent_size=4",
    "train_images=64",
    "test_images=24",
    "generated_images=10",
    "evaluation_batch_size=7",
    "noise_levels=[0.1, 0.3]",
    "kid_subset_size=5",
    "autoencoder_epochs=1",
    "autoencoder_batch_size=16",
    "models.fsvae.k=3",
)
# For tests that are not about what is measured: a run with EfficientNet's distances costs twice as
# much, one with all metrics four times as much as one with these.
FEW_METRICS = "reconstruction_loss,fad,firing_rate"
SLOW_METRICS = "efficientnet*"
