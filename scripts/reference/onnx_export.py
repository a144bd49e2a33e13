"""Exports tiny random BLIP-2 parts to ONNX by both of PyTorch's exporters, beside their parameters as safetensors.

The readers' tests recover the parameters from the ONNX files and compare them bit for bit.

    pip install torch==2.15.0 transformers==5.23.0 onnx==1.23.2 onnxscript==0.7.2 safetensors
    python scripts/reference/onnx_export.py model/tests/fixtures/checkpoints/onnx

What the newer exporter notes beside every node (stack traces, classes) is removed to keep the files small, all but the
names of the modules; so are the shapes of intermediate results. Nothing else is changed.
"""

import sys
from pathlib import Path

import onnx
import torch
from safetensors.torch import save_file
from torch.export import Dim
from transformers import (
    Blip2QFormerConfig,
    Blip2QFormerModel,
    Blip2VisionConfig,
    Blip2VisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

IDS = torch.tensor([[2, 5, 6, 7], [2, 8, 9, 1]])
HIDDEN = 8


class Decoder(torch.nn.Module):
    """A causal LM as a function of its ids; the wrapper's name goes before every parameter's."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        return self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits


class Queries(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, query_embeds, encoder_hidden_states):
        return self.model(query_embeds=query_embeds, encoder_hidden_states=encoder_hidden_states).last_hidden_state


class Seq2Seq(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, decoder_input_ids):
        return self.model(input_ids=input_ids, decoder_input_ids=decoder_input_ids, use_cache=False).logits


def t5(**options):
    sizes = dict(vocab_size=19, d_model=HIDDEN, d_kv=4, d_ff=12, num_heads=2)
    options = dict(attn_implementation="eager", num_decoder_layers=1) | options
    config = T5Config(**sizes, relative_attention_num_buckets=8, decoder_start_token_id=0, **options)
    return T5ForConditionalGeneration(config), Seq2Seq, (IDS, IDS)


def parts():
    vision = Blip2VisionConfig(
        hidden_size=HIDDEN, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4
    )
    yield "vit", Blip2VisionModel(vision), None, (torch.randn(2, 3, 8, 8),)
    qformer = Blip2QFormerConfig(
        hidden_size=HIDDEN, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2, encoder_hidden_size=HIDDEN
    )
    yield "qformer", Blip2QFormerModel(qformer), Queries, (torch.randn(2, 3, HIDDEN), torch.randn(2, 5, HIDDEN))
    yield "t5", *t5(num_layers=1, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    yield "t5_tied", *t5(num_layers=2, feed_forward_proj="relu", tie_word_embeddings=True)
    opt = OPTConfig(
        vocab_size=19, hidden_size=HIDDEN, ffn_dim=12, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=16, word_embed_proj_dim=HIDDEN,
    )
    yield "opt", OPTForCausalLM(opt), Decoder, (IDS, torch.ones_like(IDS))
    llama = LlamaConfig(
        vocab_size=19, hidden_size=HIDDEN, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=16,
    )
    yield "llama", LlamaForCausalLM(llama), Decoder, (IDS, torch.ones_like(IDS))




def export(model, inputs, path, dynamo, external):
    # Token ids of any number and length: with fixed ones an exporter may fold positions into constants.
    is_text = not inputs[0].is_floating_point()
    if dynamo:
        shapes = tuple({0: Dim.DYNAMIC, 1: Dim.DYNAMIC} for _ in inputs) if is_text else None
        options = dict(dynamic_shapes=shapes, external_data=external, verbose=False)
        torch.onnx.export(model, inputs, path, dynamo=True, **options)
    else:
        names = [f"input_{index}" for index in range(len(inputs))]
        axes = {name: {0: "batch", 1: "length"} for name in names} if is_text else None
        torch.onnx.export(model, inputs, path, dynamo=False, opset_version=17, input_names=names, dynamic_axes=axes)
    exported = onnx.load(path, load_external_data=False)
    strip(exported)
    onnx.save(exported, path)


def strip(exported):
    for node in exported.graph.node:
        keep(node, "name_scopes")
    for part in (exported, exported.graph, *exported.graph.input, *exported.graph.output, *exported.graph.initializer):
        keep(part, "nothing")
    del exported.graph.value_info[:]


def keep(part, word):
    kept = [entry for entry in part.metadata_props if word in entry.key]
    del part.metadata_props[:]
    part.metadata_props.extend(kept)


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    only = sys.argv[2:]
    for seed, (name, model, wrapper, inputs) in enumerate(parts()):
        if only and name not in only:
            continue
        torch.manual_seed(seed)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter)
        model.eval()
        tensors = {}
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                tensors[key] = value.clone().contiguous()
        save_file(tensors, folder / f"{name}.safetensors")
        if wrapper is not None:
            model = wrapper(model).eval()
        for exporter in ("torchscript", "dynamo"):
            path = folder / f"{name}.{exporter}.onnx"
            export(model, inputs, str(path), exporter == "dynamo", external=name == "llama")
            print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
