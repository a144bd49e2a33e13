"""Makes model/tests/fixtures/generation.json: what transformers' `generate` writes with language models that are a formula.

    pip install torch transformers==5.23.0    # greedy, beams, filters, constraints
    python scripts/reference/generation.py [PART]
    pip install transformers==4.49.0          # diverse beams, which version 5 no longer has
    python scripts/reference/generation.py

Each run replaces the parts that its version can make and leaves the others as they are. A model's logits are a hash of
the seed, the prompt's number, the last two tokens and the step, so that the test can compute the same. An answer that
changes when the logits change by 1e-5 is not kept: it would hang on rounding. The models of kind "ties" have equal
scores everywhere; `torch.topk` leaves their order open, so they are run with a topk that puts the lower index first
(the script says how often that changes the answer). Sequences that score -1e8 or less are not kept either: transformers
fills up with them where a beam search has fewer possible sequences than beams.
"""

import json
import random
import sys
from pathlib import Path

import torch
import transformers
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput, Seq2SeqLMOutput

OUT = Path(__file__).resolve().parents[2] / "model/tests/fixtures/generation.json"
MASK = 0xFFFFFFFF
topk = torch.topk


def mix(x):
    x = x & MASK
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & MASK
    return x ^ (x >> 16)


def table(case, prompt, second, last, step):
    """Logits [n, v] after rows of tokens; all arguments but the case and the step are int64 [n]."""
    v = case["v"]
    key = mix(mix(mix(mix(case["seed"] + prompt) + last) + second) + step)
    token = torch.arange(v)
    cell = mix(key[:, None] + token * 0x9E3779B9)
    logits = ((cell >> 8).float() / 2**24 - 0.5) * case["scale"]
    ends = torch.isin(token, torch.tensor(case["config"]["end_tokens"], dtype=torch.int64))
    kind = case["kind"]
    if kind == "ties":
        possible = (token + key[:, None]) % v < 2 ** ((key[:, None] >> 20) % 3)
        return torch.where(possible, 0.0, -torch.inf)
    if kind == "random":
        return torch.where(ends, logits + case["end_bias"], logits)
    if kind == "endless" or (kind == "certain" and step < 3):
        return torch.where(ends, -torch.inf, logits)
    if kind == "certain":
        return torch.where(ends, logits, -torch.inf)
    if kind == "last_impossible":
        logits = torch.where(ends, logits + case["end_bias"], logits)
        return torch.where(token == v - 1, -torch.inf, logits)
    raise ValueError(kind)


class TableConfig(PretrainedConfig):
    model_type = "table"

    def __init__(self, vocab_size=11, **kwargs):
        self.vocab_size = vocab_size
        super().__init__(**kwargs)


class Encoder(torch.nn.Module):
    """Hands the prompt's number on."""

    main_input_name = "input_ids"

    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        return BaseModelOutput(last_hidden_state=input_ids[:, :, None].float())


class Table(PreTrainedModel, GenerationMixin):
    config_class = TableConfig
    main_input_name = "input_ids"
    noise = 0.0

    def __init__(self, case, width):
        config = TableConfig(case["v"], is_encoder_decoder=case["encoder_decoder"])
        super().__init__(config)
        self.case, self.width = case, width
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def get_encoder(self, *args, **kwargs):
        return Encoder()

    def prepare_inputs_for_generation(self, input_ids, **kwargs):
        keys = ("prompt", "encoder_outputs")
        return {"input_ids": input_ids} | {key: kwargs[key] for key in keys if key in kwargs}

    def forward(self, input_ids=None, prompt=None, encoder_outputs=None, attention_mask=None, **kwargs):
        if encoder_outputs is not None:
            prompt = encoder_outputs[0][:, 0, 0].long()
        second = input_ids[:, -2] if input_ids.shape[1] > 1 else torch.zeros_like(prompt)
        logits = table(self.case, prompt, second, input_ids[:, -1], input_ids.shape[1] - self.width)
        if self.noise:
            shift = torch.sin(torch.arange(logits.numel()) * 12.9898 + self.noise * 1e9).reshape(logits.shape)
            logits = logits + shift * self.noise
        output = Seq2SeqLMOutput if self.case["encoder_decoder"] else CausalLMOutput
        return output(logits=logits[:, None])


def stable_topk(x, k, dim=-1, largest=True, sorted=True):
    values, indices = torch.sort(x, dim=dim, descending=True, stable=True)
    return values.narrow(dim, 0, k), indices.narrow(dim, 0, k)


def run(case, noise=0.0, stable=False):
    """The output of generate, and the width of the prompt."""
    config = case["config"]
    width = max(len(prompt) for prompt in case["prompts"])
    model = Table(case, width)
    model.noise = noise
    padded = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in case["prompts"]])
    numbers = torch.arange(len(padded))
    search = config.get("search", "beam")
    options = {key: value for key, value in config.items() if key not in ("search", "end_tokens")}
    if "sample" in search:
        options |= {"do_sample": True, "top_k": 0} | search["sample"]
    if "diverse_beam" in search:
        diverse = search["diverse_beam"]
        options |= {"num_beam_groups": diverse["groups"], "diversity_penalty": diverse["penalty"]}
    if options.get("min_new_tokens") == 0:
        del options["min_new_tokens"]
    if case["encoder_decoder"]:
        read = torch.tensor(case.get("encoder") or numbers[:, None].tolist())  # the first is the prompt's number
        inputs = {"input_ids": read, "decoder_input_ids": padded, "decoder_start_token_id": 0}
    else:
        inputs = {"input_ids": padded, "attention_mask": (padded != 0).long(), "prompt": numbers}
    pad = case["v"] - 1 if case["kind"] == "last_impossible" else 0
    torch.topk = stable_topk if stable else topk
    try:
        output = model.generate(
            **inputs, **options, eos_token_id=config["end_tokens"] or None, pad_token_id=pad, use_cache=False,
            output_scores=True, return_dict_in_generate=True,
        )
    finally:
        torch.topk = topk
    return output, width


def answer(case, **how):
    """For each prompt the new tokens of each sequence, to its end; and their scores, for beams."""
    output, width = run(case, **how)
    config = case["config"]
    count = config.get("num_return_sequences", 1)
    scores = getattr(output, "sequences_scores", None)
    ids, kept = [], []
    for prompt in range(len(case["prompts"])):
        ids.append([])
        kept.append([])
        for row in range(prompt * count, (prompt + 1) * count):
            new = output.sequences[row, width:].tolist()
            end = next((place for place, token in enumerate(new) if token in config["end_tokens"]), None)
            if scores is not None:
                if not scores[row] > -1e8 / config["max_new_tokens"]:
                    continue
                kept[-1].append(float(f"{scores[row].item():.7g}"))
            if scores is None or case["kind"] != "last_impossible":
                ids[-1].append(new if end is None else new[: end + 1])
            else:
                # version 4 writes the first of the ends whichever it was: the test compares what is before it
                ids[-1].append(new if end is None else new[:end])
    return ids, kept


def draw_case(draw, kind, search):
    """A random case."""
    v = draw.choice([11, 12, 17, 23, 37, 60])
    ends = draw.sample(range(1, v - 1), draw.choice([1, 1, 1, 2, 3, 0]))
    if kind != "random" and not ends:
        ends = [2]
    encoder_decoder = draw.random() < 0.4
    batch = draw.choice([1, 2, 3, 4])
    prompts = [[0]] * batch
    if not encoder_decoder:
        longest = 3 if kind == "last_impossible" else draw.choice([1, 2, 4])
        shortest = longest if kind == "last_impossible" else 1
        prompts = [
            [draw.randrange(1, v - 1) for _ in range(draw.randint(shortest, longest))] for _ in range(batch)
        ]
    config = {"max_new_tokens": draw.choice([1, 2, 4, 6, 8, 10, 12]), "end_tokens": ends}
    if draw.random() < 0.35:
        config["repetition_penalty"] = draw.choice([0.7, 1.1, 1.5, 3.0])
    if draw.random() < 0.3:
        config["min_new_tokens"] = draw.randint(0, config["max_new_tokens"])
    if kind in ("ties", "certain"):
        config.pop("min_new_tokens", None)  # where only ends are possible, nothing would be left
    if search == "beam":
        config["num_beams"] = draw.choice([2, 2, 3, 4, 5, 5, 6])
    if search == "diverse_beam":
        groups, size = draw.choice([2, 2, 3]), draw.choice([1, 2, 3])
        config["num_beams"] = groups * size
        config["search"] = {"diverse_beam": {"groups": groups, "penalty": draw.choice([0.2, 0.5, 1.0, 3.0])}}
    if search in ("beam", "diverse_beam"):
        config["length_penalty"] = draw.choice([-1.0, 0.0, 0.6, 1.0, 1.0, 1.5])
        config["early_stopping"] = draw.choice([False, False, True, "never"])
        config["num_return_sequences"] = draw.randint(1, config["num_beams"])
    if search == "sample":
        filters = {"temperature": draw.choice([0.4, 1.0, 1.7])}
        if draw.random() < 0.6:
            filters["top_k"] = draw.choice([1, 2, 5, 10, 100])
        if draw.random() < 0.7:
            filters["top_p"] = draw.choice([0.05, 0.3, 0.6, 0.9, 0.99])
        config["search"] = {"sample": filters}
        config["max_new_tokens"] = 1
        config.pop("min_new_tokens", None)
        config.pop("repetition_penalty", None)
    return {
        "v": v, "seed": draw.randrange(2**31), "kind": kind, "scale": draw.choice([2.0, 6.0, 12.0]),
        "end_bias": draw.choice([-1.0, 0.0, 1.0, 2.0]), "encoder_decoder": encoder_decoder,
        "prompts": prompts, "config": config,
    }


def constrain(draw, case):
    """Adds excluded and forced tokens. The prompts get equal lengths: transformers counts padding as text."""
    v, config, batch = case["v"], case["config"], len(case["prompts"])
    some = lambda count: [draw.randrange(1, v - 1) for _ in range(count)]
    if case["encoder_decoder"]:
        length = draw.choice([1, 3, 6])
        case["encoder"] = [[prompt] + some(length - 1) for prompt in range(batch)]
    else:
        length = draw.choice([1, 1, 3, 6])
        case["prompts"] = case["encoder"] = [some(length) for _ in range(batch)]
    if draw.random() < 0.6:
        config["no_repeat_ngram_size"] = draw.choice([1, 2, 2, 3])
    if draw.random() < 0.5:
        config["encoder_no_repeat_ngram_size"] = draw.choice([1, 2, 2, 3])
    if draw.random() < 0.6:
        words = [some(draw.choice([1, 1, 2, 3])) for _ in range(draw.randint(1, 12))]
        ends = [[end] for end in config["end_tokens"] if draw.random() < 0.4]
        config["bad_words_ids"] = words + (ends if any(len(word) > 1 for word in words) else [])
    if draw.random() < 0.4:
        config["forced_bos_token_id"] = draw.choice(some(1) + config["end_tokens"][:1])
    return case


def has_a_way(case):
    """Whether some token is possible at every step: transformers writes token 0 where none is."""
    return all((scores.max(dim=-1).values > -1e8).all() for scores in run(case)[0].scores)


def make(draw, kind, search, count, is_constrained=False):
    """Cases whose answers do not hang on rounding."""
    cases, fragile, topk_order = [], 0, 0
    while len(cases) < count:
        case = draw_case(draw, kind, search)
        if is_constrained and not has_a_way(constrain(draw, case)):
            continue
        ties = kind == "ties"
        ids, scores = answer(case, stable=ties)
        if ties:
            topk_order += answer(case)[0] != ids
        elif any(answer(case, noise=noise)[0] != ids for noise in (1e-5, 1.1e-5, 1.2e-5)):
            fragile += 1
            continue
        cases.append(case | {"ids": ids} | ({"scores": scores} if any(scores) else {}))
    print(f"{search} {kind}: {count} cases, {fragile} dropped as fragile, {topk_order} where torch's topk orders otherwise")
    return cases


def make_filters(draw, count):
    """Distributions that samples are drawn from."""
    cases = []
    while len(cases) < count:
        case = draw_case(draw, "random", "sample")
        scores = run(case)[0].scores[0]
        if any(((run(case, noise=1e-5)[0].scores[0] > -torch.inf) != (scores > -torch.inf)).flatten().tolist()):
            continue
        tokens = [row.isfinite().nonzero().flatten().tolist() for row in scores]
        weights = [row[kept].double().softmax(0).tolist() for row, kept in zip(scores, tokens)]
        weights = [[float(f"{weight:.6g}") for weight in row] for row in weights]
        cases.append(case | {"tokens": tokens, "probabilities": weights})
    return cases


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    parts = json.loads(OUT.read_text()) if OUT.exists() else {}
    draw = random.Random(20)
    wanted = sys.argv[1:] or ["constrained", "free"]
    if transformers.__version__.startswith("5.") and "constrained" in wanted:
        own = random.Random(21)
        parts["constrained"] = [
            case for search, count in [("greedy", 120), ("beam", 240)]
            for case in make(own, "random", search, count, is_constrained=True)
        ]
    if transformers.__version__.startswith("5.") and "free" in wanted:
        parts["greedy"] = [
            case for kind, count in [("random", 50), ("ties", 15), ("endless", 5), ("certain", 5)]
            for case in make(draw, kind, "greedy", count)
        ]
        parts["beam"] = [
            case for kind, count in [("random", 300), ("ties", 40), ("endless", 30), ("certain", 30)]
            for case in make(draw, kind, "beam", count)
        ]
        parts["filters"] = make_filters(draw, 60)
    if transformers.__version__.startswith("4."):
        parts["diverse"] = make(draw, "last_impossible", "diverse_beam", 100)
    text = ",\n".join(
        f'"{part}": [\n' + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]"
        for part, cases in parts.items()
    )
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text("{\n" + text + "\n}\n")
    print(OUT, OUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
