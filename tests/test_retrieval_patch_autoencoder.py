"""The linear image encoder: a real round trip through diffusers, and what a projection must guarantee."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffsim.retrieval.networks.patch_autoencoder import PatchAutoencoder


def smooth_pictures(count: int) -> Tensor:
    """[count,3,32,32] in [-1,1]: a few random colours blown up, so that neighbours agree as in real pictures."""
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, (32, 32), mode="bilinear")


def encoded(model: PatchAutoencoder, pictures: Tensor) -> Tensor:
    return model.encode(pictures).latent_dist.mean


def test_saved_and_loaded_the_latents_are_the_same(tmp_path: Path) -> None:
    pictures = smooth_pictures(16)
    model = PatchAutoencoder.fit(pictures, latent_channels=4)
    model.save_pretrained(tmp_path / "vae")
    loaded = PatchAutoencoder.from_pretrained(tmp_path / "vae")
    assert loaded.config["_class_name"] == "PatchAutoencoder"
    assert loaded.config.scaling_factor == model.config.scaling_factor
    assert torch.equal(encoded(loaded, pictures), encoded(model, pictures))


def test_a_batch_is_encoded_as_one_by_one() -> None:
    pictures = smooth_pictures(5)
    model = PatchAutoencoder.fit(pictures, latent_channels=4)
    one_by_one = torch.cat([encoded(model, picture[None]) for picture in pictures])
    torch.testing.assert_close(encoded(model, pictures), one_by_one)


def test_the_posterior_is_a_point() -> None:
    pictures = smooth_pictures(2)
    posterior = PatchAutoencoder.fit(pictures, latent_channels=4).encode(pictures).latent_dist
    torch.testing.assert_close(posterior.sample(), posterior.mean, atol=1e-5, rtol=0)


def test_scaled_latents_have_unit_variance_and_the_strongest_channel_first() -> None:
    pictures = smooth_pictures(64)
    model = PatchAutoencoder.fit(pictures, latent_channels=8)
    latents = encoded(model, pictures) * model.config.scaling_factor
    variance = latents.var((0, 2, 3))
    assert variance.mean().item() == pytest.approx(1.0, abs=0.01)
    assert torch.equal(variance.argsort(descending=True), torch.arange(8))


def test_latents_are_half_whitened() -> None:
    pictures = smooth_pictures(64)
    model = PatchAutoencoder.fit(pictures, latent_channels=8)
    std = encoded(model, pictures).std((0, 2, 3))
    component_std = std * model.decoder.weight.flatten(1).norm(dim=1)  # the decoder undoes the gain
    torch.testing.assert_close(std, component_std.sqrt(), rtol=0.01, atol=0)


def test_reconstruction_improves_with_channels_until_it_is_exact() -> None:
    pictures = smooth_pictures(64)
    errors = []
    for channels in (1, 3, 12, 192):
        model = PatchAutoencoder.fit(pictures, latent_channels=channels)
        errors.append((model.decode(encoded(model, pictures)).sample - pictures).square().mean().item())
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 10 * errors[2]
    assert errors[-1] < 1e-6


def test_too_many_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="allow at most 16; give more pictures or fewer channels"):
        PatchAutoencoder.fit(smooth_pictures(1), latent_channels=17)
