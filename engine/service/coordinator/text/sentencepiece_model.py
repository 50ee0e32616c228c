"""A tokenizer from a `tokenizer.model`, the file that sentencepiece writes, built of the pieces of the `tokenizers` library.

It encodes like `SentencePieceProcessor.encode`: the same normalization, BPE merges in the order of the pieces' scores, user-defined
pieces whole. The construction is that of transformers' `SpmConverter.build_tokenizer_from_spm_proto` (Apache 2.0); the tests compare
with sentencepiece itself. Which ids a family really uses, and what stands around a prompt, is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from google.protobuf.message import DecodeError
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from engine.data.errors import Corrupt, NotSupported
from protos import sentencepiece_pb2 as pb

SPACE = "\u2581"


class SentencePieceModel:
    """The pieces of one file. `renamed` are pieces that the model's makers gave another name afterwards, by id."""

    def __init__(self, path: Path, renamed: Mapping[int, str]) -> None:
        """Raises Corrupt for a file that is none, NotSupported for a kind of model that cannot be built here."""
        self._spec = _read(path)
        pieces = self._spec.pieces
        self._names = [renamed.get(i, piece.piece) for i, piece in enumerate(pieces)]
        kind, trainer = self._spec.trainer_spec.model_type, self._spec.trainer_spec
        if kind not in (pb.TrainerSpec.UNIGRAM, pb.TrainerSpec.BPE):
            raise NotSupported(f"{path.name} is a {pb.TrainerSpec.ModelType.Name(kind)} model: only UNIGRAM and BPE are read")
        if trainer.treat_whitespace_as_suffix or (kind == pb.TrainerSpec.UNIGRAM and any(p.type == pb.Piece.UNUSED for p in pieces)):
            raise NotSupported(f"{path.name} has settings (spaces behind words, or unused pieces) that are not read")
        rules = normalizers.Sequence(self._rules())
        if changed := [name for name in self._of_type(pb.Piece.USER_DEFINED) if rules.normalize_str(name) != name.replace(" ", SPACE)]:
            raise NotSupported(f"{path.name} normalizes its own piece {changed[0][:40]!r}, which is not read")

    def __len__(self) -> int:
        return len(self._names)

    def name(self, piece_id: int) -> str:
        """The piece of that id, empty if there is none: -1 says so."""
        return self._names[piece_id] if 0 <= piece_id < len(self._names) else ""

    @property
    def bos(self) -> str:
        return self.name(self._spec.trainer_spec.bos_id)

    @property
    def eos(self) -> str:
        return self.name(self._spec.trainer_spec.eos_id)

    def tokenizer(self, prefixes_every_part: bool) -> Tokenizer:
        """With its control pieces as special tokens. A text that special tokens divide gets the dummy prefix once, or in every part."""
        rules, trainer = self._spec.normalizer_spec, self._spec.trainer_spec
        tokenizer = Tokenizer(self._unigram() if trainer.model_type == pb.TrainerSpec.UNIGRAM else self._bpe())
        steps = self._rules()
        if rules.add_dummy_prefix and prefixes_every_part:  # Metaspace leaves a part that begins with a space without its prefix
            steps.append(normalizers.Replace(Regex(rf"\A{SPACE}"), SPACE * 2))
        tokenizer.normalizer = normalizers.Sequence(steps)
        before = list[pre_tokenizers.PreTokenizer]()
        if rules.add_dummy_prefix:
            scheme = "always" if prefixes_every_part else "first"
            before.append(pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme=scheme, split=False))
        if whole := self._of_type(pb.Piece.USER_DEFINED):
            pattern = "|".join(re.escape(name) for name in sorted(whole, key=len, reverse=True))
            before.append(pre_tokenizers.Split(Regex(pattern), behavior="isolated"))
        if before:
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence(before)
        behind = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
        tokenizer.decoder = decoders.Sequence([*behind, decoders.Strip(" ", 1, 0)] if rules.add_dummy_prefix else behind)
        special = [*self._of_type(pb.Piece.UNKNOWN), *self._of_type(pb.Piece.CONTROL)]
        tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in special])
        return tokenizer

    def _rules(self) -> list[normalizers.Normalizer]:
        """What happens to a text before it is cut into pieces."""
        rules, steps = self._spec.normalizer_spec, list[normalizers.Normalizer]()
        if rules.precompiled_charsmap:
            steps.append(normalizers.Precompiled(rules.precompiled_charsmap))
        if rules.remove_extra_whitespaces:
            steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
        return [*steps, normalizers.Replace(" ", SPACE)] if rules.escape_whitespaces else steps

    def _unigram(self) -> models.Unigram:
        trainer = self._spec.trainer_spec
        scored = [(name, piece.score) for name, piece in zip(self._names, self._spec.pieces, strict=True)]
        return models.Unigram(scored, unk_id=trainer.unk_id, byte_fallback=trainer.byte_fallback)

    def _bpe(self) -> models.BPE:
        trainer = self._spec.trainer_spec
        return models.BPE(
            vocab={name: i for i, name in enumerate(self._names)},
            merges=self._merges(),
            unk_token=self.name(trainer.unk_id),
            fuse_unk=True,
            byte_fallback=trainer.byte_fallback,
            ignore_merges=bool(self._of_type(pb.Piece.USER_DEFINED)),
        )

    def _merges(self) -> list[tuple[str, str]]:
        """Every way to put a normal piece together from two, the best scores first."""
        numbered = enumerate(zip(self._names, self._spec.pieces, strict=True))
        normal = {name: (-piece.score, i) for i, (name, piece) in numbered if piece.type == pb.Piece.NORMAL}
        ways = [
            (rank, name[:cut], name[cut:])
            for name, rank in normal.items()
            for cut in range(1, len(name))
            if name[:cut] in normal and name[cut:] in normal
        ]
        return [(left, right) for _, left, right in sorted(ways)]

    def _of_type(self, kind: pb.Piece.Type) -> list[str]:
        return [name for name, piece in zip(self._names, self._spec.pieces, strict=True) if piece.type == kind]


def _read(path: Path) -> pb.Model:
    spec = pb.Model()
    try:
        spec.ParseFromString(path.read_bytes())
    except (OSError, DecodeError) as e:
        raise Corrupt(f"{path} cannot be read as a sentencepiece model ({e}): fetch the model again") from e
    names = [piece.piece for piece in spec.pieces]
    if not names or len(set(names)) != len(names):
        raise Corrupt(f"{path} is no sentencepiece model: it has {len(names)} pieces, {len(set(names))} of them different; fetch it again")
    return spec
