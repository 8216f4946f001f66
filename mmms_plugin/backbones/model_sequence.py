"""Several networks in a row: the plain way to spend little on easy pictures, and a baseline of MSDNet.

Every network sees the picture and reuses nothing of those before it. With a classifier for each
(``heads/multi_exit_head.py``), trained together, each learns as if trained alone, since they share no weights; early
exit (``exits/``) then runs them one after another until one is confident, or averages their answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor, nn

from mmms_plugin.backbones.base import Backbone
from mmms_plugin.compat.networks import ModuleList
from mmms_plugin.layers.common import InitConfig
from mmms_plugin.registry import MODELS


@MODELS.register_module()
class ModelSequence(Backbone):
    """The last map of each of several networks.

    Args:
        networks: config dicts of backbones of this package, in the order in which they run, such as small to large.
        out_indices: networks to run; None for all.
        frozen_stages: -1 and 0 none (there is no stem), k the first k networks.
        norm_eval: keep batch norms in eval mode while training.
        with_cp: recompute blocks in the backward pass to save memory, in every network.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)``, or None for the networks' own.

    Shape: ``[N, 3, H, W]`` to a tuple of ``[N, out_channels[i], ceil(H / out_strides[i]), ...]``.
    Raises: ValueError for a bad argument, and for too small pictures.
    """

    def __init__(
        self,
        networks: Sequence[Mapping[str, Any]],
        *,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: InitConfig = None,
    ) -> None:
        if not isinstance(networks, Sequence) or not networks:
            raise ValueError(f"networks={networks!r}: must be a sequence of configs of backbones")
        chosen = tuple(range(len(networks))) if out_indices is None else out_indices
        super().__init__(len(networks), chosen, frozen_stages, norm_eval, init_cfg)
        self.networks = ModuleList([MODELS.build({"with_cp": with_cp, **network}) for network in networks])
        for number, network in enumerate(self.networks):
            if not isinstance(network, Backbone):
                raise ValueError(f"networks[{number}]: must be a backbone of mmms_plugin, not {type(network).__name__}")
        built = [cast(Backbone, network) for network in self.networks]
        self.declare_outputs(
            [network.out_channels[-1] for network in built], [network.out_strides[-1] for network in built]
        )
        self.freeze()

    def stem_modules(self) -> list[nn.Module]:
        """As ``Backbone``: there is no stem."""
        return []

    def stage_modules(self) -> list[list[nn.Module]]:
        """As ``Backbone``: the networks."""
        return [[network] for network in self.networks]

    def start(self, x: Tensor) -> list[Tensor]:
        """As ``Backbone``: the picture, which every network sees."""
        self.check_size(x)
        return [x]

    def advance(self, maps: list[Tensor], index: int) -> list[Tensor]:
        """As ``Backbone``: the picture, and the last map of a network."""
        return [maps[0], self.networks[self.out_indices[index]](maps[0])[-1]]
