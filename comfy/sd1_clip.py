# ruff: noqa: B006 - defaults like upstream's; they are only read
"""Prompts for CLIP text encoders: weights in parentheses, chunks of 77 tokens, and their encoding.

A tokenized prompt is a list of chunks of `(token, weight)`; a token is a number or an embedding's vector.
"""

from __future__ import annotations

import logging
import numbers
import re

import torch

import comfy.model_management
from comfy.clip_vocabulary import END_TOKEN, START_TOKEN, clip_tokenizer
from comfy.textual_inversion import expand_directory_list, load_embed

__all__ = [
    "ClipTokenWeightEncoder", "SD1CheckpointClipModel", "SD1ClipModel", "SD1Tokenizer", "SDClipModel",
    "SDTokenizer", "escape_important", "expand_directory_list", "gen_empty_tokens", "load_embed",
    "parse_parentheses", "token_weights", "unescape_important",
]  # fmt: skip

CHUNK_LENGTH = 77


# --- weights in the text ---


def parse_parentheses(string: str) -> list[str]:
    """Cut a text into its outermost groups "(...)" and what stands between them."""
    parts: list[str] = []
    start = depth = 0
    for position, char in enumerate(string):
        if char == "(":
            if depth == 0 and position > start:
                parts.append(string[start:position])
                start = position
            depth += 1
        elif char == ")":
            depth -= 1
            if depth == 0:
                parts.append(string[start : position + 1])
                start = position + 1
    return parts + [string[start:]] if start < len(string) else parts


def token_weights(string: str, current_weight: float) -> list[tuple[str, float]]:
    """Texts with their weights: "(x)" multiplies by 1.1, "(x:1.3)" sets 1.3; groups may be nested."""
    out: list[tuple[str, float]] = []
    for part in parse_parentheses(string):
        if len(part) < 2 or part[0] != "(" or part[-1] != ")":
            out.append((part, current_weight))
            continue
        inside, weight = part[1:-1], current_weight * 1.1
        text, colon, number = inside.rpartition(":")
        if colon and text:
            try:
                inside, weight = text, float(number)
            except ValueError:
                inside = part[1:-1]  # the colon belonged to the text
        out += token_weights(inside, weight)
    return out


def escape_important(text: str) -> str:
    r"""Hide `\(` and `\)` from the parser of weights."""
    return text.replace("\\)", "\0\1").replace("\\(", "\0\2")


def unescape_important(text: str) -> str:
    """Parentheses that `escape_important` has hidden, as plain characters."""
    return text.replace("\0\1", ")").replace("\0\2", "(")


# --- tokens ---


class SDTokenizer:
    """From a text to chunks of (token, weight) for one text encoder."""

    def __init__(
        self, tokenizer_path=None, max_length=CHUNK_LENGTH, pad_with_end=True, embedding_directory=None,
        embedding_size=768, embedding_key="clip_l", tokenizer_class=None, has_start_token=True,
        has_end_token=True,
        pad_to_max_length=True, min_length=None, pad_token=None, end_token=None, min_padding=None,
        pad_left=False,
        disable_weights=False, tokenizer_data={}, tokenizer_args={},
    ):  # fmt: skip
        if tokenizer_path is None and tokenizer_class is None:
            self.tokenizer = clip_tokenizer()
        else:
            self.tokenizer = tokenizer_class.from_pretrained(tokenizer_path, **tokenizer_args)
        self.max_length = tokenizer_data.get(f"{embedding_key}_max_length", max_length)
        self.min_length = tokenizer_data.get(f"{embedding_key}_min_length", min_length)
        self.embedding_size = tokenizer_data.get(f"{embedding_key}_embedding_size", embedding_size)
        self.embedding_key = embedding_key
        self.embedding_directory = embedding_directory
        self.embedding_identifier = "embedding:"
        self.min_padding, self.pad_left, self.pad_to_max_length = min_padding, pad_left, pad_to_max_length
        self.disable_weights = disable_weights
        self.max_word_length = 8
        empty = self.tokenizer("")["input_ids"]
        self.tokens_start = 1 if has_start_token else 0
        self.start_token = empty[0] if has_start_token else None
        self.tokenizer_adds_end_token = has_end_token
        self.end_token = end_token
        if end_token is None and has_end_token:
            self.end_token = empty[self.tokens_start]
        self.pad_with_end = pad_with_end
        self.pad_token = pad_token
        if pad_token is None:
            self.pad_token = self.end_token if pad_with_end else 0
        self._inv_vocab: dict[int, str] | None = None

    @property
    def inv_vocab(self) -> dict[int, str]:
        """Token number -> text; made when first asked for."""
        if self._inv_vocab is None:
            self._inv_vocab = {number: text for text, number in self.tokenizer.get_vocab().items()}
        return self._inv_vocab

    def tokenize_with_weights(self, text: str, return_word_ids=False, tokenizer_options={}, **kwargs):
        """Chunks of (token, weight), or of (token, weight, word id) with id 0 for what is no word."""
        text = escape_important(text)
        plain = kwargs.get("disable_weights", self.disable_weights)
        groups: list[list[tuple]] = []
        for part, weight in [(text, 1.0)] if plain else token_weights(text, 1.0):
            groups += self._tokenize_part(unescape_important(part), weight)
        chunks = self._chunks(groups)
        self._finish(chunks[-1], tokenizer_options)
        if return_word_ids:
            return chunks
        return [[(token, weight) for token, weight, _ in chunk] for chunk in chunks]

    def _tokenize_part(self, text: str, weight: float) -> list[list[tuple]]:
        """Groups of (token, weight) that should stay together; an embedding is a group of its own."""
        marker = self.embedding_identifier
        pieces = re.split(rf"[ \n](?={re.escape(marker)})", text)
        groups = []
        for piece in pieces:
            if piece.startswith(marker) and self.embedding_directory is not None:
                vectors, piece = self._take_embedding(piece[len(marker) :].strip("\n"))
                if vectors is not None:
                    groups.append([(vector, weight) for vector in vectors.reshape(-1, vectors.shape[-1])])
            if piece:
                tokens = self.tokenizer(piece)["input_ids"][self.tokens_start :]
                tokens = tokens[:-1] if self.tokenizer_adds_end_token else tokens
                groups.append([(token, weight) for token in tokens])
        return groups

    def _take_embedding(self, text: str) -> tuple[torch.Tensor | None, str]:
        """The embedding that `text` begins with, and the rest of the text."""
        name, _, rest = text.strip().partition(" ")
        rest = " ".join(rest.split())
        for candidate in dict.fromkeys((name, name.strip(","))):
            vectors = load_embed(candidate, self.embedding_directory, self.embedding_size, self.embedding_key)
            if vectors is not None:
                return vectors, f"{name[len(candidate) :]} {rest}".strip()
        logging.warning("There is no embedding '%s'; it is left out of the prompt.", name)
        return None, rest

    def _chunks(self, groups: list[list[tuple]]) -> list[list[tuple]]:
        """Lay the groups into chunks; one that does not fit begins the next, a long one is broken."""
        start = [] if self.start_token is None else [(self.start_token, 1.0, 0)]
        end = [] if self.end_token is None else [(self.end_token, 1.0, 0)]
        chunks = [list(start)]
        for word, group in enumerate(groups, start=1):
            rest = [(token, weight, word) for token, weight in group]
            while rest:
                chunk = chunks[-1]
                room = self.max_length - len(chunk) - len(end)
                if len(rest) <= room:
                    chunk += rest
                    break
                if len(group) >= self.max_word_length:
                    chunk += rest[:room] + end
                    rest = rest[room:]
                else:
                    chunk += end
                    if self.pad_to_max_length:
                        self.pad_tokens(chunk, room)
                chunks.append(list(start))
        chunks[-1] += end
        return chunks

    def _finish(self, chunk: list[tuple], options: dict) -> None:
        min_length = options.get(f"{self.embedding_key}_min_length", self.min_length)
        min_padding = options.get(f"{self.embedding_key}_min_padding", self.min_padding)
        self.pad_tokens(chunk, min_padding or 0)
        if self.pad_to_max_length:
            self.pad_tokens(chunk, self.max_length - len(chunk))
        self.pad_tokens(chunk, (min_length or 0) - len(chunk))

    def pad_tokens(self, tokens: list[tuple], amount: int) -> None:
        """Add `amount` padding tokens in place."""
        padding = [(self.pad_token, 1.0, 0)] * max(0, amount)
        tokens[:] = padding + tokens if self.pad_left else tokens + padding

    def untokenize(self, token_weight_pair) -> list:
        return [(pair, self.inv_vocab[pair[0]]) for pair in token_weight_pair]

    def state_dict(self) -> dict:
        return {}


class SD1Tokenizer:
    """The tokenizers of a model with one text encoder: {"l": chunks}."""

    def __init__(
        self, embedding_directory=None, tokenizer_data={}, clip_name="l", tokenizer=SDTokenizer, name=None
    ):  # fmt: skip
        self.clip_name = clip_name if name is None else name
        self.clip = f"clip_{clip_name}" if name is None else name
        make = tokenizer_data.get(f"{self.clip}_tokenizer_class", tokenizer)
        setattr(self, self.clip, make(embedding_directory=embedding_directory, tokenizer_data=tokenizer_data))

    def tokenize_with_weights(self, text: str, return_word_ids=False, **kwargs) -> dict:
        return {
            self.clip_name: getattr(self, self.clip).tokenize_with_weights(text, return_word_ids, **kwargs)
        }

    def untokenize(self, token_weight_pair) -> list:
        return getattr(self, self.clip).untokenize(token_weight_pair)

    def state_dict(self) -> dict:
        return getattr(self, self.clip).state_dict()


# --- encoding ---


def gen_empty_tokens(special_tokens: dict, length: int) -> list[int]:
    """The tokens of an empty prompt: start, end, padding."""
    tokens = [special_tokens[name] for name in ("start", "end") if special_tokens.get(name) is not None]
    return tokens + [special_tokens.get("pad")] * (length - len(tokens))


class ClipTokenWeightEncoder:
    """Turns weights into distances from the encoding of the empty prompt, token by token."""

    def encode_token_weights(self, token_weight_pairs):
        """(conditioning (1, tokens of all chunks, width), pooled (1, width))[, further outputs]."""
        chunks = [[pair[0] for pair in chunk] for chunk in token_weight_pairs]
        weights = [[pair[1] for pair in chunk] for chunk in token_weight_pairs]
        weighted = any(weight != 1.0 for chunk in weights for weight in chunk)
        to_encode = list(chunks)
        if weighted or not chunks:
            longest = max((len(chunk) for chunk in chunks), default=0)
            make_empty = getattr(self, "gen_empty_tokens", gen_empty_tokens)
            to_encode.append(make_empty(self.special_tokens, longest))
        out, pooled, *more = self.encode(to_encode)  # (chunks, tokens, width)
        device = comfy.model_management.intermediate_device()
        encoded = out[: len(chunks)] if chunks else out[-1:]
        if weighted:
            factor = torch.tensor(weights, dtype=out.dtype, device=out.device).unsqueeze(-1)
            moved = (encoded - out[-1]) * factor + out[-1]
            encoded = torch.where(factor == 1.0, encoded, moved)
        conditioning = encoded.reshape(1, -1, encoded.shape[-1]).to(device)
        first_pooled = None if pooled is None else pooled[0:1].to(device)
        if not more:
            return conditioning, first_pooled
        extra = dict(more[0])
        if "attention_mask" in extra:
            extra["attention_mask"] = extra["attention_mask"][: len(chunks)].flatten().unsqueeze(0).to(device)
        return conditioning, first_pooled, extra


class SDClipModel(torch.nn.Module, ClipTokenWeightEncoder):
    """A CLIP text encoder with the choice of the layer that its output is taken from.

    `textmodel_json_config` is the configuration as a dictionary; `model_class` is built from it.
    """

    LAYERS = ["last", "pooled", "hidden", "all"]

    def __init__(
        self, device="cpu", max_length=CHUNK_LENGTH, freeze=True, layer="last", layer_idx=None,
        textmodel_json_config=None, dtype=None, model_class=None, special_tokens=None,
        layer_norm_hidden_state=True, enable_attention_masks=False, zero_out_masked=False,
        return_projected_pooled=True, return_attention_masks=False, model_options={},
    ):  # fmt: skip
        super().__init__()
        from comfy.families.clip_text import CLIP_L, ClipTextModel

        config = dict(CLIP_L if textmodel_json_config is None else textmodel_json_config)
        config.update(model_options.get(f"{model_options.get('model_name', '')}_model_config", {}))
        operations = model_options.get("custom_operations")
        self.transformer = (model_class or ClipTextModel)(config, dtype, device, operations)
        self.operations = operations
        self.num_layers = self.transformer.num_layers
        self.max_length = max_length
        self.special_tokens = special_tokens or {"start": START_TOKEN, "end": END_TOKEN, "pad": END_TOKEN}
        self.layer, self.layer_idx = layer, None
        self.layer_norm_hidden_state = layer_norm_hidden_state
        self.enable_attention_masks = enable_attention_masks
        self.zero_out_masked = zero_out_masked
        self.return_projected_pooled = return_projected_pooled
        self.return_attention_masks = return_attention_masks
        self.execution_device = None
        if freeze:
            self.freeze()
        if layer == "hidden":
            self.set_clip_options({"layer": layer_idx})
        self.options_default = (self.layer, self.layer_idx, self.return_projected_pooled)

    def freeze(self) -> None:
        self.transformer = self.transformer.eval()
        self.requires_grad_(False)

    def set_clip_options(self, options: dict) -> None:
        """`layer` counts from the end: -1 is the last; one that does not exist means the last."""
        layer_idx = options.get("layer", self.layer_idx)
        self.return_projected_pooled = options.get("projected_pooled", self.return_projected_pooled)
        self.execution_device = options.get("execution_device", self.execution_device)
        if isinstance(self.layer, list) or self.layer == "all":
            return
        if layer_idx is None or abs(layer_idx) > self.num_layers:
            self.layer = "last"
        else:
            self.layer, self.layer_idx = "hidden", layer_idx

    def reset_clip_options(self) -> None:
        self.layer, self.layer_idx, self.return_projected_pooled = self.options_default
        self.execution_device = None

    def _embed(self, chunk: list, device) -> torch.Tensor:
        """Input vectors (1, tokens, width): looked up for numbers, as they are for vectors that fit."""
        table = self.transformer.get_input_embeddings()
        width = table.weight.shape[-1]
        kept = [t for t in chunk if isinstance(t, numbers.Integral) or t.shape[-1] == width]
        if len(kept) < len(chunk):
            logging.warning(
                "An embedding was left out: this text encoder needs vectors of %d numbers.", width
            )
        kept += [self.special_tokens["pad"]] * (len(chunk) - len(kept))
        ids = [int(token) if isinstance(token, numbers.Integral) else 0 for token in kept]
        embedded = table(torch.tensor([ids], dtype=torch.long, device=device)).float()
        for place, token in enumerate(kept):
            if not isinstance(token, numbers.Integral):
                embedded[0, place] = token.to(device=device, dtype=torch.float32)
        return embedded

    def _attended(self, chunk: list) -> list[int]:
        """1 for each token up to the first end of the text, 0 for the padding after it."""
        end = self.special_tokens.get("end")
        mark = self.special_tokens.get("pad", -1) if end is None else end
        for place, token in enumerate(chunk):
            if isinstance(token, numbers.Integral) and int(token) == mark:
                length = place if end is None else place + 1
                return [1] * length + [0] * (len(chunk) - length)
        return [1] * len(chunk)

    def forward(self, tokens):
        """(hidden states (chunks, tokens, width), pooled (chunks, width) or None)[, extra]."""
        device = self.execution_device or self.transformer.get_input_embeddings().weight.device
        embeds = torch.cat([self._embed(chunk, device) for chunk in tokens])
        mask = torch.tensor([self._attended(chunk) for chunk in tokens], dtype=torch.long, device=device)
        wanted = self.layer if isinstance(self.layer, list) or self.layer == "all" else self.layer_idx
        last, intermediate, projected, pooled = self.transformer(
            None,
            mask if self.enable_attention_masks else None,
            embeds=embeds,
            num_tokens=mask.sum(dim=1).tolist(),
            intermediate_output=wanted,
            final_layer_norm_intermediate=self.layer_norm_hidden_state,
            dtype=torch.float32,
        )
        out = (last if self.layer == "last" else intermediate).float()
        if self.zero_out_masked:
            out = out * mask.unsqueeze(-1).float()
        if not self.return_projected_pooled and pooled is not None:
            projected = pooled
        projected = None if projected is None else projected.float()
        return (out, projected, {"attention_mask": mask}) if self.return_attention_masks else (out, projected)

    def encode(self, tokens):
        return self(tokens)

    def load_sd(self, sd):
        return self.transformer.load_weights(sd)


class SD1CheckpointClipModel(SDClipModel):
    """SD1's text encoder has no projection."""

    def __init__(self, device="cpu", dtype=None, model_options={}, **kwargs):
        kwargs.setdefault("return_projected_pooled", False)
        super().__init__(device=device, dtype=dtype, model_options=model_options, **kwargs)


class SD1ClipModel(torch.nn.Module):
    """The text encoders of a model that has one; `clip_l` is it."""

    def __init__(
        self, device="cpu", dtype=None, model_options={}, clip_name="l", clip_model=SD1CheckpointClipModel,
        name=None, **kwargs,
    ):  # fmt: skip
        super().__init__()
        self.clip_name = clip_name if name is None else name
        self.clip = f"clip_{clip_name}" if name is None else name
        make = model_options.get(f"{self.clip}_class", clip_model)
        options = {**model_options, "model_name": self.clip}
        setattr(self, self.clip, make(device=device, dtype=dtype, model_options=options, **kwargs))
        self.dtypes = {dtype} if dtype is not None else set()

    def set_clip_options(self, options: dict) -> None:
        getattr(self, self.clip).set_clip_options(options)

    def reset_clip_options(self) -> None:
        getattr(self, self.clip).reset_clip_options()

    def encode_token_weights(self, token_weight_pairs: dict):
        return getattr(self, self.clip).encode_token_weights(token_weight_pairs[self.clip_name])

    def load_sd(self, sd):
        return getattr(self, self.clip).load_sd(sd)

    def load_full_sd(self, sd) -> None:
        """Like `load_sd`, for weights named as in this module's own state dict."""
        prefix = f"{self.clip}.transformer."
        self.load_sd({key[len(prefix) :]: tensor for key, tensor in sd.items() if key.startswith(prefix)})
