"""What the scripts of this folder share: a BLIP-2 of transformers run stage by stage over video clips.

transformers' own `Blip2ForConditionalGeneration.forward` reads one image and scatters the projected queries into
placeholder tokens. A video captioner reads several frames, joins them before the Q-Former, and puts the projected
queries in front of the prompt, so the stages are called here one by one, each being transformers' own module.

Versions: torch 2.15, transformers 5.23, safetensors 0.8.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

IGNORED = -100


def load_model(checkpoint, dtype=torch.float32):
    """A checkpoint of transformers, for comparing: no dropout, plain attention, on the CPU."""
    from transformers import Blip2ForConditionalGeneration

    model = Blip2ForConditionalGeneration.from_pretrained(checkpoint, dtype=dtype, attn_implementation="eager")
    return model.eval()


def fuse(vision_features, frames, fusion):
    """Tokens of `[batch*frames, n, d]` joined over frames: `[batch, frames*n, d]` (concat) or `[batch, n, d]` (average)."""
    n, d = vision_features.shape[1:]
    if fusion == "concat":
        return vision_features.reshape(-1, frames * n, d)
    if fusion == "average":
        return vision_features.reshape(-1, frames, n, d).mean(1)
    raise ValueError(f"fusion is {fusion!r}, expected 'concat' or 'average'")


def positions(mask):
    """Positions as transformers' `generate` derives them: masked tokens take no place."""
    return (mask.cumsum(-1) - 1).masked_fill(mask == 0, 0)


def shift_right(labels, start, pad):
    """What a decoder reads to predict `labels`."""
    shifted = torch.cat([torch.full_like(labels[:, :1], start), labels[:, :-1]], 1)
    return shifted.masked_fill(shifted == IGNORED, pad)


class Stages:
    """One forward pass of a BLIP-2 over clips, all stages kept. `pixel_values` is `[batch, frames, 3, S, S]`."""

    def __init__(self, model, pixel_values, fusion, input_ids=None, input_mask=None, labels=None):
        self.model, self.language_model = model, model.language_model
        self.input_ids, self.labels = input_ids, labels
        self.see(pixel_values, fusion)
        self.prefix, self.prefix_mask = self.projected, torch.ones(self.projected.shape[:2], dtype=torch.long)
        if input_ids is not None:
            input_mask = torch.ones_like(input_ids) if input_mask is None else input_mask
            self.prefix = torch.cat([self.prefix, self.embed(input_ids)], 1)
            self.prefix_mask = torch.cat([self.prefix_mask, input_mask], 1)
        if labels is not None:
            self.logits = self.encoder_decoder_logits() if self.has_encoder else self.decoder_only_logits()
            self.loss = torch.nn.functional.cross_entropy(
                self.logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED
            )

    def see(self, pixel_values, fusion):
        """Clips to what the language model reads of them."""
        model, (batch, frames) = self.model, pixel_values.shape[:2]
        size = model.config.vision_config.image_size
        self.vision_features = model.vision_model(
            pixel_values.flatten(0, 1), interpolate_pos_encoding=pixel_values.shape[-1] != size
        ).last_hidden_state
        self.fused_features = fuse(self.vision_features, frames, fusion)
        self.query_output = model.qformer(
            query_embeds=model.query_tokens.expand(batch, -1, -1), encoder_hidden_states=self.fused_features
        ).last_hidden_state
        weight = model.language_projection.weight
        self.projected = model.language_projection(self.query_output.to(weight.dtype))

    @property
    def has_encoder(self):
        return self.language_model.config.is_encoder_decoder

    def embed(self, ids):
        return self.language_model.get_input_embeddings()(ids)

    def encoder_decoder_logits(self):
        config = self.language_model.config
        return self.language_model(
            inputs_embeds=self.prefix,
            attention_mask=self.prefix_mask,
            decoder_input_ids=shift_right(self.labels, config.decoder_start_token_id, config.pad_token_id),
        ).logits

    def decoder_only_logits(self):
        """Logits that predict each label; the first label's stand at the last token of the prefix."""
        pad = self.language_model.config.pad_token_id or 0
        read = self.labels.masked_fill(self.labels == IGNORED, pad)
        mask = torch.cat([self.prefix_mask, torch.ones_like(read)], 1)
        logits = self.language_model(
            inputs_embeds=torch.cat([self.prefix, self.embed(read)], 1),
            attention_mask=mask,
            position_ids=positions(mask),
        ).logits
        return logits[:, -read.shape[1] - 1 : -1]

    @torch.no_grad()
    def generate(self, *, num_beams, max_new_tokens, length_penalty=1.0, end_tokens=None, **settings):
        """Ids as `generate` returns them (T5's begin with the decoder's start token, short ones end in padding), and
        the scores of beam search or None. `end_tokens` None means the model's own, an empty list that nothing ends
        (transformers then gets an id outside the vocabulary)."""
        own = self.language_model.generation_config
        given = {} if num_beams == 1 else {"length_penalty": length_penalty}
        if end_tokens is None:
            end_tokens = own.eos_token_id
        elif not end_tokens:
            end_tokens = [self.language_model.config.vocab_size]
        output = self.language_model.generate(
            inputs_embeds=self.prefix,
            attention_mask=self.prefix_mask,
            do_sample=False,
            num_beams=num_beams,
            max_new_tokens=max_new_tokens,
            eos_token_id=end_tokens,
            pad_token_id=own.pad_token_id if own.pad_token_id is not None else 0,
            return_dict_in_generate=True,
            output_scores=True,
            **given,
            **settings,
        )
        return output.sequences, output.get("sequences_scores")


def gradients(model, loss):
    """Gradients at the tensors that `verify` compares."""
    model.zero_grad()
    loss.backward()
    return {
        "grad_query_tokens": model.query_tokens.grad,
        "grad_language_projection_weight": model.language_projection.weight.grad,
        "grad_vision_layer0_fc1_weight": model.vision_model.encoder.layers[0].mlp.fc1.weight.grad,
    }


def random_ids(generator, shape, vocabulary, avoid=()):
    """Token ids of the whole vocabulary but `avoid`."""
    allowed = torch.tensor([token for token in range(vocabulary) if token not in set(avoid)])
    return allowed[torch.randint(len(allowed), shape, generator=generator)]


def save(stem, tensors, description):
    """Writes `stem.safetensors` and `stem.json`; floats as f32, ids as i64."""
    stem = Path(stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    floats = {torch.float16: torch.float32, torch.bfloat16: torch.float32, torch.float64: torch.float32}
    tensors = {
        name: tensor.detach().to(floats.get(tensor.dtype, tensor.dtype)).clone().contiguous()
        for name, tensor in tensors.items()
        if tensor is not None
    }
    save_file(tensors, stem.with_name(stem.name + ".safetensors"))
    stem.with_name(stem.name + ".json").write_text(json.dumps(description, indent=2) + "\n")
