"""What a pass through a caption model asks of a machine, counted from shapes: operations, and numbers that are read.

A pass takes at least as long as its operations take at the machine's peak, and at least as long as its numbers take to
come from memory (Williams et al. 2009, 'Roofline'); and, on an accelerator, as long as its layers take to be launched.
A multiplication with an addition counts as two operations, as in torch.utils.flop_counter, against which
`tests/test_roofline.py` holds every count here. Left out: norms, activation functions, rotary angles, softmax; and of
what is read, activations.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """One pass: floating-point operations, numbers that must come from memory, layers one after the other."""

    operations: float
    numbers: float
    layers: int = 0

    def __add__(self, other: Load) -> Load:
        """Two passes that are bounded as one, such as a decoder's and its head's."""
        return Load(self.operations + other.operations, self.numbers + other.numbers, self.layers + other.layers)


@dataclass(frozen=True)
class Machine:
    """What does the work. `width` is the bytes of a number in the precision that the model has there."""

    name: str
    operations: float  # a second, at peak, of one card
    bandwidth: float  # bytes a second from its memory
    memory: float  # bytes
    width: int
    cards: int = 1
    launch: float = 0.0  # seconds a layer; 0 where what computes also launches

    def seconds(self, load: Load, share: float = 1.0) -> float:
        """The least time that a pass takes on one card of which a share of the peak is reached."""
        peak = max(load.operations / self.operations, load.numbers * self.width / self.bandwidth)
        return max(peak / share, load.layers * self.launch)


@dataclass(frozen=True)
class ViT:
    """A vision transformer whose blocks have biases and an MLP with one hidden layer."""

    layers: int
    width: int
    mlp: int
    patches: int
    patch: int  # pixels a side

    @property
    def weights(self) -> int:
        """Numbers: patch embedding, class token, positions, blocks; no norm behind the last block."""
        block = 4 * self.width**2 + 2 * self.width * self.mlp + 9 * self.width + self.mlp
        return self.layers * block + (3 * self.patch**2 + 1) * self.width + (self.patches + 2) * self.width

    def forward(self, pictures: int) -> Load:
        """The features of some pictures at once."""
        tokens = self.patches + 1  # and the class token
        block = 2 * tokens * (4 * self.width**2 + 2 * self.width * self.mlp) + 4 * tokens**2 * self.width
        embedding = 2 * self.patches * 3 * self.patch**2 * self.width
        return Load(pictures * (self.layers * block + embedding), self.weights, self.layers)


@dataclass(frozen=True)
class Convolutions:
    """A convolutional tower, by its counts."""

    operations: int  # a picture
    weights: int
    layers: int  # blocks

    def forward(self, pictures: int) -> Load:
        return Load(pictures * self.operations, self.weights, self.layers)


@dataclass(frozen=True)
class Decoder:
    """A Llama: gated FFNs, no biases; `kv_heads` keys and values of `hidden / heads` numbers a token and layer."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool = False  # whether embedding and head are one matrix

    @property
    def cached(self) -> int:
        """Numbers that a token leaves in the cache: a key and a value a layer."""
        return self.layers * 2 * self.kv_heads * (self.hidden // self.heads)

    @property
    def _matrices(self) -> int:
        """Numbers of the matrices of one layer: queries and output, keys and values, gate, up and down."""
        return 2 * self.hidden**2 + self.hidden * self.cached // self.layers + 3 * self.hidden * self.ffn

    @property
    def head(self) -> int:
        return self.hidden * self.vocabulary

    @property
    def weights(self) -> int:
        """Numbers in all: layers with two norms each, the last norm, embedding and head."""
        return self.layers * (self._matrices + 2 * self.hidden) + self.hidden + self.head * (1 if self.tied else 2)

    def forward(self, tokens: int, read: int, past: float = 0, rows: int = 1) -> Load:
        """`tokens` more of `rows` sequences that have `past` in the cache; logits at the last `read` of them.

        Attention is counted in full, above the diagonal too, because that is what is computed.
        """
        attention = 4 * tokens * (past + tokens) * self.hidden * self.layers
        matrices = 2 * tokens * self.layers * self._matrices
        numbers = self.layers * self._matrices + rows * past * self.cached
        return Load(rows * (attention + matrices), numbers, self.layers) + self._logits(read, rows)

    def backward(self, tokens: int, read: int, past: float = 0, rows: int = 1, lowest: int = 0) -> Load:
        """From a logit of each row to the activations of all layers from `lowest` on, the weights being frozen.

        Every matrix is gone through once, for what it read; of attention, both products twice. Of the lowest layer only
        the way from its output to its activation is needed.
        """
        layers = self.layers - 1 - lowest
        attention = 8 * tokens * (past + tokens) * self.hidden * layers
        matrices = layers * self._matrices + self.hidden * self.ffn
        numbers = matrices + rows * past * self.cached * layers / self.layers
        return Load(rows * (attention + 2 * tokens * matrices), numbers, layers + 1) + self._logits(read, rows)

    def _logits(self, read: int, rows: int) -> Load:
        return Load(2 * rows * read * self.head, self.head if read else 0)
