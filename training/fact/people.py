"""The material of a run: pictures of persons as latents, prompts, face masks and face conditions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...faces.errors import LikenessError

LEAST_PICTURES = 2


class BadMaterial(LikenessError):
    """Pictures that nothing can be learned from."""


@dataclass(frozen=True, eq=False)
class People:
    """N pictures of several persons.

    Attributes:
        latents: (N, 4, h, w) as the UNet takes them (scaled).
        text: (N, T, C) prompts, or (1, T, C) one for all.
        conditions: what the projector takes, in the encoder's units: tokens (N, S, D) for FACT, embeddings (N, D) for
            FaceID.
        masks: (N, h, w) of the face or head, 0..1.
        persons: (N,) whose picture it is; two or more pictures each.
        encoder: id of the encoder the conditions come from.
    """

    latents: Tensor
    text: Tensor
    conditions: Tensor
    masks: Tensor
    persons: Tensor
    encoder: str

    def __post_init__(self) -> None:
        count = len(self.latents)
        if count == 0:
            raise BadMaterial(
                "training pictures", expected="pictures of persons", found="none", cure="choose a folder with pictures"
            )
        sizes = {len(self.conditions), len(self.masks), len(self.persons), *({len(self.text)} - {1})}
        if sizes != {count}:
            raise BadMaterial(
                "training material",
                expected=f"{count} of everything, as there are {count} latents",
                found=", ".join(str(size) for size in sorted(sizes)),
                cure="encode all pictures in the same way",
            )
        for name in ("latents", "text", "conditions", "masks"):
            if not bool(torch.isfinite(getattr(self, name)).all()):
                raise BadMaterial(
                    f"training {name}",
                    expected="numbers",
                    found="values that are not numbers",
                    cure="remove the picture or the encoder that makes them",
                )
        self._check_persons()

    def _check_persons(self) -> None:
        persons, counts = self.persons.unique(return_counts=True)
        lonely = persons[counts < LEAST_PICTURES].tolist()
        if lonely:
            raise BadMaterial(
                "training pictures",
                expected=f"{LEAST_PICTURES} or more of every person",
                found=f"one of person {', '.join(map(str, lonely[:5]))}{' and others' if len(lonely) > 5 else ''}",
                cure="add pictures of these persons or leave them out",
            )

    def rows_of_persons(self, count: int, each: int, generator: torch.Generator) -> Tensor:
        """Rows of ``count`` persons drawn at random, ``each`` pictures of every one; few pictures come twice."""
        everyone = self.persons.unique(sorted=True)
        chosen = everyone[torch.randint(len(everyone), (count,), generator=generator)]
        rows = []
        for person in chosen:
            own = (self.persons == person).nonzero()[:, 0]
            order = torch.randperm(len(own), generator=generator)
            rows.append(own[order.repeat(-(-each // len(own)))[:each]])
        return torch.cat(rows)

    def prompts(self, rows: Tensor) -> Tensor:
        """(B, T, C) prompts of some rows."""
        return self.text.expand(len(rows), -1, -1) if len(self.text) == 1 else self.text[rows]
