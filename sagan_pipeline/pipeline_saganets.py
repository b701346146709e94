"""Tells illustrated stories: GPT-2 writes the next caption, a UNet under a LoRA adapter paints it.

Story Augmentation with Generative AI (SAGANets), sections 4.1 to 4.3.
"""

from __future__ import annotations

import copy
import inspect
import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny, DiffusionPipeline, UNet2DConditionModel
from diffusers.hooks.group_offloading import _is_group_offload_enabled
from diffusers.image_processor import VaeImageProcessor
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from diffusers.schedulers import KarrasDiffusionSchedulers
from diffusers.utils.torch_utils import randn_tensor
from transformers import CLIPTextModel, CLIPTokenizer, GPT2LMHeadModel, GPT2Tokenizer, ImageProcessingMixin

from .captioner import next_captions
from .checks import (
    Prefix,
    Request,
    as_stories,
    checked_alphas,
    checked_generators,
    checked_story,
    multiple,
    number,
    whole,
)
from .few_steps import generator_scheduler
from .loading import PAINTER, SAGANetsLoaderMixin
from .lora import AdaptedUNets, Adapter
from .pipeline_output import SAGANetsPipelineOutput
from .pose_noise import tell_pose
from .safety import blank_picture, flagged_pictures
from .story import Frame, Story, draw_seed, seed_for


logger = logging.getLogger(__name__)

OUTPUT_TYPES = ("pil", "np", "pt", "latent")
MAX_FRAMES = 64
MAX_STEPS = 1000
MAX_ALPHA = 1000.0
FRAMES_AT_ONCE = 16  # in one batch of the UNet


class SAGANetsPipeline(SAGANetsLoaderMixin, DiffusionPipeline, StableDiffusionLoraLoaderMixin):
    r"""Continues illustrated stories. Works on Stable Diffusion 1.5's components and on the embedded model alike.

    A call changes nothing on the pipeline, so that threads may share one.

    Args:
        vae: decodes latents; `AutoencoderKL`, `AutoencoderTiny` or `AutoencoderDC`.
        text_encoder (`CLIPTextModel`): its last hidden states condition the UNet.
        tokenizer (`CLIPTokenizer`): for `text_encoder`.
        unet (`UNet2DConditionModel`): the base, without the adapter.
        scheduler: any of diffusers' schedulers for Stable Diffusion.
        captioner (`GPT2LMHeadModel`, *optional*): without it, only given captions can be painted.
        captioner_tokenizer (`GPT2Tokenizer`, *optional*): knows `captioner.SPECIAL_TOKENS`.
        safety_checker (`StableDiffusionSafetyChecker`, *optional*): with it, a frame that it flags is left blank and
            marked (`Frame.flagged`). It works on pictures: `output_type="latent"` is not checked.
        feature_extractor (`CLIPImageProcessor`, *optional*): prepares pictures for `safety_checker`.
        default_num_inference_steps, default_guidance_scale, default_lora_alpha, default_num_frames,
            default_temperature: what a call takes for `None`. `default_lora_alpha` `None` is the trained alpha.
        cast, places, vocabulary (`list[str]`, *optional*): the characters, places and words that the model knows. In
            `model_index.json` each is one string, parted by commas: diffusers takes a list there for a component.
        adapter_file (`str`, *optional*): name of the adapter in the folder that the pipeline is loaded from.
        base, base_revision (`str`, *optional*): Hub id and commit, or folder, of the Stable Diffusion model that gives
            the parts which this pipeline's own folder leaves out.

    Examples:
        >>> import torch
        >>> from sagan_pipeline import SAGANetsPipeline
        >>> pipe = SAGANetsPipeline.from_embedded()
        >>> out = pipe("Gus is in the kitchen.", generator=torch.Generator().manual_seed(7))
        >>> out.stories[0].frames[1].image.save("second.png")
    """

    model_cpu_offload_seq = "captioner->text_encoder->unet->vae->safety_checker"
    _optional_components = [*PAINTER, "captioner", "captioner_tokenizer"]
    _callback_tensor_inputs = ["latents"]

    def __init__(
        self,
        vae: AutoencoderKL | AutoencoderTiny | AutoencoderDC | None = None,
        text_encoder: CLIPTextModel | None = None,
        tokenizer: CLIPTokenizer | None = None,
        unet: UNet2DConditionModel | None = None,
        scheduler: KarrasDiffusionSchedulers | None = None,
        captioner: GPT2LMHeadModel | None = None,
        captioner_tokenizer: GPT2Tokenizer | None = None,
        safety_checker: StableDiffusionSafetyChecker | None = None,
        feature_extractor: ImageProcessingMixin | None = None,
        default_num_inference_steps: int = 20,
        default_guidance_scale: float = 5.0,
        default_lora_alpha: float | None = None,
        default_num_frames: int = 4,
        default_temperature: float = 0.8,
        cast: list[str] | str | None = None,
        places: list[str] | str | None = None,
        vocabulary: list[str] | str | None = None,
        adapter_file: str | None = None,
        base: str | None = None,
        base_revision: str | None = None,
    ):
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            captioner=captioner,
            captioner_tokenizer=captioner_tokenizer,
            safety_checker=safety_checker,
            feature_extractor=feature_extractor,
        )
        if safety_checker is not None and feature_extractor is None:
            raise ValueError("`feature_extractor` is None, but `safety_checker` cannot see without one.")
        self.register_to_config(
            default_num_inference_steps=default_num_inference_steps,
            default_guidance_scale=default_guidance_scale,
            default_lora_alpha=default_lora_alpha,
            default_num_frames=default_num_frames,
            default_temperature=default_temperature,
            cast=_joined(cast),
            places=_joined(places),
            vocabulary=_joined(vocabulary),
            adapter_file=adapter_file,
            base=base,
            base_revision=base_revision,
        )
        self.image_processor = VaeImageProcessor(vae_scale_factor=self.vae_scale_factor)
        self._adapted: AdaptedUNets | None = None
        # the tokenizers of the `tokenizers` library refuse two threads at once
        self._tokenizing = threading.Lock()

    @property
    def vae_scale_factor(self) -> int:
        """Pixels of a latent's side; 8 without an autoencoder."""
        if self.vae is None:
            return 8
        channels = self.vae.config.get("block_out_channels") or self.vae.config.encoder_block_out_channels
        return 2 ** (len(channels) - 1)

    @property
    def trained_lora_alpha(self) -> float:
        """The alpha that the adapter was trained at; 1.0 without an adapter."""
        unets = self._adapted_unets()
        return unets.adapter.lora_alpha if unets else 1.0

    @property
    def lora_rank(self) -> int:
        """r of the adapter; 0 without one."""
        unets = self._adapted_unets()
        return unets.adapter.rank if unets else 0

    @property
    def default_lora_alpha(self) -> float:
        """What a call takes for `lora_alpha=None`: the adapter's own default, else the model's, else the trained
        alpha; 0 without an adapter."""
        return self._default_alpha(self._adapted_unets())

    @property
    def default_sampling(self) -> tuple[int, float]:
        """Steps and guidance that a call takes for `None`: what the adapter was made for, where its header says so,
        else the model's own. The base (alpha 0) is painted by the model's own always."""
        unets = self._adapted_unets()
        return self._own_sampling(unets.adapter if unets else None)

    def _default_alpha(self, unets: AdaptedUNets | None) -> float:
        if unets is None:
            return 0.0
        for default in (unets.adapter.default_alpha, self.config.default_lora_alpha):
            if default is not None:
                return default
        return unets.adapter.lora_alpha

    def _model_name(self) -> str | None:
        name = self.config.get("_name_or_path")
        return Path(name).resolve().name if name and os.path.isdir(name) else name

    @property
    def cast(self) -> list[str]:
        """The characters that the model knows; empty if it does not say."""
        return _parted(self.config.cast)

    @property
    def places(self) -> list[str]:
        """The places that the model knows; empty if it does not say."""
        return _parted(self.config.places)

    @property
    def vocabulary(self) -> list[str]:
        """The words that the model knows, lower case; empty if it does not say."""
        return _parted(self.config.vocabulary)

    # Small memory: one picture, or one piece of it, is decoded at a time

    def enable_vae_slicing(self) -> None:
        self.vae.enable_slicing()

    def disable_vae_slicing(self) -> None:
        self.vae.disable_slicing()

    def enable_vae_tiling(self) -> None:
        self.vae.enable_tiling()

    def disable_vae_tiling(self) -> None:
        self.vae.disable_tiling()

    # Checking

    def check_inputs(
        self,
        prefix: Prefix,
        num_frames: int | None = None,
        lora_alpha: float | list[float] | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        height: int | None = None,
        width: int | None = None,
        temperature: float | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> tuple[list[Story], int, list[torch.Generator], Request]:
        """Check all arguments of a call and fill in the model's defaults.

        Returns:
            The prefixes as stories, frames a story, a generator a story, and the rest.

        Raises:
            ValueError: names the argument, what was given and what is accepted.
        """
        config = self.config
        for name in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
            if getattr(self, name) is None:
                raise ValueError(f"this pipeline has no `{name}`, and cannot tell a story without.")
        stories = [checked_story(story) for story in as_stories(prefix)]
        count = config.default_num_frames if num_frames is None else whole("num_frames", num_frames, 1, MAX_FRAMES)
        longest = max(len(story.frames) for story in stories)
        if num_frames is None:
            count = max(count, longest)
        if count < longest:
            raise ValueError(f"`num_frames` is {count}, but the prefix alone has {longest} frames; they count too.")
        if count > min(len(story.frames) for story in stories) and self.captioner is None:
            raise ValueError("`num_frames` asks for captions that are not given, but this pipeline has no captioner.")
        generators = checked_generators(generator, len(stories))
        unets = self._adapted_unets()
        if lora_alpha is None:
            lora_alpha = self._default_alpha(unets)
        alphas = checked_alphas(lora_alpha, MAX_ALPHA if unets else 0.0)
        steps = config.default_num_inference_steps if num_inference_steps is None else num_inference_steps
        steps = whole("num_inference_steps", steps, 1, MAX_STEPS)  # the model's own default too
        guidance = config.default_guidance_scale if guidance_scale is None else guidance_scale
        guidance = number("guidance_scale", guidance, 0.0, 100.0)
        warmth = config.default_temperature if temperature is None else temperature
        side = self.unet.config.sample_size * self.vae_scale_factor
        unit = self.vae_scale_factor * 2 ** (len(self.unet.config.block_out_channels) - 1)
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"`output_type` is {output_type!r}, but must be one of {', '.join(OUTPUT_TYPES)}.")
        if negative_prompt is not None and not isinstance(negative_prompt, str):
            raise ValueError(f"`negative_prompt` is {type(negative_prompt).__name__}, but must be a string.")
        inputs = ["latents"] if callback_on_step_end_tensor_inputs is None else callback_on_step_end_tensor_inputs
        if not set(inputs) <= set(self._callback_tensor_inputs):
            raise ValueError(
                f"`callback_on_step_end_tensor_inputs` is {inputs}, but only {self._callback_tensor_inputs} are there."
            )
        request = Request(
            alphas=alphas,
            num_inference_steps=None if num_inference_steps is None else steps,
            guidance_scale=None if guidance_scale is None else guidance,
            negative_prompt=negative_prompt or "",
            height=multiple("height", side if height is None else height, unit),
            width=multiple("width", side if width is None else width, unit),
            output_type=output_type,
            temperature=number("temperature", warmth, 0.0, 10.0),
            callback=callback_on_step_end,
            callback_inputs=list(inputs),
            unets=unets,
            model=self._model_name(),
        )
        return stories, count, generators, request

    # The steps of a call

    @torch.no_grad()
    def write_captions(
        self,
        prefix: Prefix,
        num_frames: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        temperature: float | None = None,
    ) -> list[list[str]]:
        """The captions of the stories that a call with the same arguments tells, without the pictures."""
        stories, count, generators, request = self.check_inputs(
            prefix, num_frames, temperature=temperature, generator=generator
        )
        seeds = [draw_seed(each) for each in generators]
        return [
            self._captioned(replace(story, seed=seed), count, request).captions
            for story, seed in zip(stories, seeds, strict=True)
        ]

    def _captioned(self, story: Story, count: int, request: Request) -> Story:
        """`story` with captions up to `count` frames. Caption k+1 depends on the story's seed, k and captions 1..k."""
        frames = list(story.frames)
        while len(frames) < count:
            own = torch.Generator().manual_seed(seed_for(story.seed, "caption", len(frames)))
            with self._tokenizing:
                (caption,) = next_captions(
                    self.captioner,
                    self.captioner_tokenizer,
                    [[frame.caption for frame in frames]],
                    [own],
                    temperature=request.temperature,
                )
            before = tuple(frame.caption for frame in frames)
            frames.append(Frame(caption, caption_given=False, index=len(frames), written_from=before))
        return replace(story, frames=frames)

    def encode_prompt(self, prompts: list[str]) -> torch.Tensor:
        """The text encoder's last hidden states: (B, L, D). Words beyond the tokenizer's limit are cut, and named in a
        warning."""
        limit = self.tokenizer.model_max_length
        with self._tokenizing:
            ids = self.tokenizer(
                prompts, padding="max_length", max_length=limit, truncation=True, return_tensors="pt"
            ).input_ids  # [B, L]
            for prompt in prompts:
                whole = self.tokenizer(prompt).input_ids
                if len(whole) > limit:
                    cut = self.tokenizer.decode(whole[limit - 1 : -1])
                    logger.warning("The text encoder reads %d tokens only; cut from a caption: %r", limit, cut)
        return self.text_encoder(ids.to(self.text_encoder.device))[0]  # [B, L, D]

    def prepare_latents(self, seeds: list[int], height: int, width: int) -> tuple[torch.Tensor, list[torch.Generator]]:
        """The noise of frames, each drawn from its own seed: (B, C, h, w), and the generators that drew it."""
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        shape = (
            len(seeds),
            self.unet.config.in_channels,
            height // self.vae_scale_factor,
            width // self.vae_scale_factor,
        )
        # under offload the UNet's device is where it rests
        moved = hasattr(self.unet, "_hf_hook") or _is_group_offload_enabled(self.unet)
        device = self._execution_device if moved else self.unet.device
        latents = randn_tensor(shape, generator=generators, device=device, dtype=torch.float32)
        return latents, generators

    def _sampling(self, alpha: float, request: Request) -> tuple[int, float, bool]:
        """Steps, guidance, and whether a few-step generator paints, under `alpha`."""
        adapter = request.unets.adapter if request.unets and alpha else None
        steps, guidance = self._own_sampling(adapter)
        steps = steps if request.num_inference_steps is None else request.num_inference_steps
        guidance = guidance if request.guidance_scale is None else request.guidance_scale
        return steps, guidance, adapter is not None and adapter.is_generator

    def _own_sampling(self, adapter: Adapter | None) -> tuple[int, float]:
        own = (adapter.num_inference_steps, adapter.guidance_scale) if adapter else (None, None)
        usual = (self.config.default_num_inference_steps, self.config.default_guidance_scale)
        return tuple(each if mine is None else mine for mine, each in zip(own, usual, strict=True))

    @torch.no_grad()
    def _paint(self, frames: list[Frame], seeds: list[int], alpha: float, request: Request) -> list[Frame]:
        """Paint frames in one batch."""
        unet = request.unets.under(self.unet, alpha) if request.unets else self.unet
        steps, guidance_scale, generates = self._sampling(alpha, request)
        guided = guidance_scale > 1

        # 1. Text states, computed once for all steps. Model invocation: self.text_encoder
        captions = [frame.caption for frame in frames]
        states = self.encode_prompt(([request.negative_prompt] if guided else []) + captions)  # [(1+)B, L, D]
        if guided:
            states = torch.cat([states[:1].expand(len(frames), -1, -1), states[1:]])  # [2B, L, D]
        states = states.to(unet.dtype)

        # 2. Noise, a scheduler of this batch's own
        latents, generators = self.prepare_latents(seeds, request.height, request.width)  # [B, C, h, w]
        if alpha and request.unets and request.unets.adapter and request.unets.adapter.reads_pose:
            states = tell_pose(states, torch.cat([latents] * 2) if guided else latents)
        if generates:
            scheduler = generator_scheduler(self.scheduler.config, steps, latents.device)
        else:
            scheduler = copy.deepcopy(self.scheduler)
            scheduler.set_timesteps(steps, device=latents.device)
        latents = latents * scheduler.init_noise_sigma
        takes_generator = "generator" in inspect.signature(scheduler.step).parameters
        extra = {"generator": generators} if takes_generator else {}

        # 3. Denoise. Model invocation: the UNet under this request's alpha
        with self.progress_bar(total=len(scheduler.timesteps)) as progress:
            for i, timestep in enumerate(scheduler.timesteps):
                model_input = torch.cat([latents] * 2) if guided else latents  # [(2)B, C, h, w]
                model_input = scheduler.scale_model_input(model_input, timestep).to(unet.dtype)
                noise = unet(model_input, timestep, encoder_hidden_states=states, return_dict=False)[0].float()
                if guided:
                    unconditional, conditional = noise.chunk(2)  # [B, C, h, w] each
                    noise = unconditional + guidance_scale * (conditional - unconditional)
                latents = scheduler.step(noise, timestep, latents, **extra, return_dict=False)[0]
                if request.callback is not None:
                    values = {}
                    for name in request.callback_inputs:
                        values[name] = latents
                    latents = request.callback(self, i, timestep, values).pop("latents", latents)
                progress.update()

        if unet is not self.unet and getattr(self, "_all_hooks", None):
            unet.to("cpu")  # its own weights too, which the hooks do not know of

        # 4. Decode. Model invocations: self.vae, self.safety_checker
        flags = [False] * len(frames)
        if request.output_type == "latent":
            images = list(latents)
        else:
            scaled = (latents / self.vae.config.scaling_factor).to(self.vae.dtype)
            pictures = self.vae.decode(scaled, return_dict=False)[0].float()  # [B, 3, H, W] in [-1, 1]
            if self.safety_checker is not None:
                flags = flagged_pictures(
                    pictures, self.safety_checker, self.feature_extractor, self.image_processor, latents.device
                )
                for index, flag in enumerate(flags):
                    if flag:
                        pictures[index] = blank_picture(pictures[index])
            images = list(self.image_processor.postprocess(pictures, output_type=request.output_type))
        return [
            replace(
                frame,
                image=image,
                seed=seed,
                lora_alpha=alpha,
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
                model=request.model,
                flagged=flag,
            )
            for frame, image, seed, flag in zip(frames, images, seeds, flags, strict=True)
        ]

    def _painted(self, stories: list[Story], alpha: float, request: Request) -> list[Story]:
        """Paint every frame of `stories` that has no image, in as few batches as may be."""
        places = [
            (s, f) for s, story in enumerate(stories) for f, frame in enumerate(story.frames) if frame.image is None
        ]
        done = [list(story.frames) for story in stories]
        for start in range(0, len(places), FRAMES_AT_ONCE):
            batch = places[start : start + FRAMES_AT_ONCE]
            frames = [stories[s].frames[f] for s, f in batch]
            seeds = [_noise_seed(stories[s], f) for s, f in batch]
            for (s, f), frame in zip(batch, self._paint(frames, seeds, alpha, request), strict=True):
                done[s][f] = frame
        return [replace(story, frames=frames) for story, frames in zip(stories, done, strict=True)]

    @torch.no_grad()
    def __call__(
        self,
        prefix: Prefix = None,
        num_frames: int | None = None,
        lora_alpha: float | list[float] | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        height: int | None = None,
        width: int | None = None,
        temperature: float | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[[Any, int, torch.Tensor, dict], dict] | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> SAGANetsPipelineOutput | tuple:
        r"""Tell a story: captions run ahead, then all frames are painted together.

        Args:
            prefix (`str`, `list[str]`, `Story` or `list[Story]`, *optional*): the frames so far. An image in a
                `Story`, given or painted by an earlier call, is kept as it is, a missing one is painted. Without a
                prefix, the captioner opens the story.
            num_frames (`int`, *optional*): of the whole story, prefix included, 1 to 64. `None`: the model's default.
            lora_alpha (`float` or `list[float]`, *optional*): how much of the adapter, W' = W0 + (alpha / r) B A. 0 is
                the base model. With a list each story is told once for each alpha: same captions, same noise.
            num_inference_steps (`int`, *optional*): denoising steps; more take longer. `None`: those that the adapter
                was made for, where its header says so, else the model's default.
            guidance_scale (`float`, *optional*): of classifier-free guidance; 1 or less is none and twice as fast.
                `None` as for the steps.
            negative_prompt (`str`, *optional*): what the guidance moves away from; empty by default.
            height, width (`int`, *optional*): pixels. `None`: the size that the model was trained at.
            temperature (`float`, *optional*): of the captioner; 0 takes the likeliest word always.
            generator (`torch.Generator` or a list of, *optional*): governs everything; one, or one for each story.
            output_type (`str`): `"pil"`, `"np"` (H, W, 3) in [0, 1], `"pt"` (3, H, W) in [0, 1], or `"latent"`.
            return_dict (`bool`): `False` returns a tuple.
            callback_on_step_end: called as `callback(pipe, step, timestep, {"latents": (B, C, h, w)})` after each step
                of each batch; returns the dictionary, whose latents are gone on with.
            callback_on_step_end_tensor_inputs (`list[str]`, *optional*): what the callback gets; `["latents"]`.

        Returns:
            `SAGANetsPipelineOutput`, or the tuple (stories, images, captions).

        Raises:
            ValueError: an argument is not acceptable; it is named.
        """
        # 0. Check inputs
        stories, count, generators, request = self.check_inputs(
            prefix,
            num_frames,
            lora_alpha,
            num_inference_steps,
            guidance_scale,
            negative_prompt,
            height,
            width,
            temperature,
            generator,
            output_type,
            callback_on_step_end,
            callback_on_step_end_tensor_inputs,
        )
        # 1. One seed a story: everything else follows from it
        stories = [replace(story, seed=draw_seed(g)) for story, g in zip(stories, generators, strict=True)]
        # 2. Captions. Model invocation: self.captioner
        stories = [self._captioned(story, count, request) for story in stories]
        # 3. Pictures, alpha by alpha
        by_alpha = [self._painted(stories, alpha, request) for alpha in request.alphas]
        told = [column[i] for i in range(len(stories)) for column in by_alpha]
        self.maybe_free_model_hooks()
        output = SAGANetsPipelineOutput(
            stories=told, images=[story.images for story in told], captions=[story.captions for story in told]
        )
        return output if return_dict else output.to_tuple()

    def paint(self, captions: Prefix, **kwargs: Any) -> SAGANetsPipelineOutput | tuple:
        """Paint given captions, and write none. Arguments and result as of a call; `num_frames` is not one of them.
        To paint a told story again, give its `captions`, or a `Story` of frames without images, each of which is
        painted from its own `seed` if it has one."""
        longest = max(len(story.frames) for story in as_stories(captions))
        if not longest:
            raise ValueError("`captions` is empty; there is nothing to paint.")
        return self(captions, num_frames=longest, **kwargs)

    def stream(
        self,
        prefix: Prefix = None,
        num_frames: int | None = None,
        lora_alpha: float | None = None,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> Iterator[Frame]:
        """Tell one story and yield each frame as soon as it is painted. Arguments as of a call; one story, one alpha.

        The captions and the noise are those of a call with the same arguments; pictures may differ from that call's in
        the last bit, where the processor's kernels round otherwise for one frame than for several.

        Raises:
            ValueError: an argument is not acceptable; before the first frame is asked for.
        """
        stories, count, generators, request = self.check_inputs(
            prefix, num_frames, lora_alpha, generator=generator, **kwargs
        )
        if len(stories) > 1 or len(request.alphas) > 1:
            raise ValueError("`stream` tells one story under one alpha; call the pipeline for several.")
        return self._stream(replace(stories[0], seed=draw_seed(generators[0])), count, request)

    def _stream(self, story: Story, count: int, request: Request) -> Iterator[Frame]:
        for index in range(count):
            story = self._captioned(story, max(index + 1, len(story.frames)), request)
            frame = story.frames[index]
            if frame.image is None:
                (frame,) = self._paint([frame], [_noise_seed(story, index)], request.alphas[0], request)
            yield frame


def _noise_seed(story: Story, index: int) -> int:
    own = story.frames[index].seed
    return seed_for(story.seed, "noise", index) if own is None else own


def _joined(words: list[str] | str | None) -> str | None:
    return ", ".join(words) if isinstance(words, (list, tuple)) else words


def _parted(words: str | None) -> list[str]:
    return words.split(", ") if words else []
