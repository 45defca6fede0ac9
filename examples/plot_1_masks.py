"""
What dropout masks do
=====================

Dropout sets units to zero at random, other ones for each row and in each step. The ReLU sets more of them to
zero. cdrop computes only with what is left, the *live* units.
"""

import matplotlib.pyplot as plt
import numpy as np

from cdrop import Network, kernels
from cdrop.datasets import make_digits

# %%
# A network with two hidden layers of 64 units learns drawn digits.
images, labels = make_digits(2000, seed=0)
X = images.reshape(2000, 784).astype("float32") / 255
net = Network([784, 64, 64, 10], dropout=0.5, seed=0)
net.fit(X, labels, batch_size=100, iterations=200)
print(f"accuracy on the training rows: {net.score(X, labels):.3f}")

# %%
# A mask is a function of seed, step, layer and row. It is packed, one bit per unit: 40 rows of 64 units
# are 40 words of 64 bits.
mask = kernels.bernoulli_mask(40, 64, 0.5, seed=0, step=200, layer=1)
kept = kernels.unpack_mask(mask, 64)
positive = X[:40] @ net.coefs_[0] + net.intercepts_[0] > 0

figure, axes = plt.subplots(1, 3, figsize=(9, 4), sharey=True, layout="constrained")
titles = ("kept by dropout", "positive after ReLU", "live: both")
for ax, title, units in zip(axes, titles, (kept, positive, kept & positive), strict=True):
    ax.imshow(units, cmap="Blues", vmax=1.3, interpolation="nearest")
    ax.set(title=f"{title}: {units.mean():.0%}", xlabel="hidden unit")
axes[0].set_ylabel("row of the minibatch")

# %%
# The smaller the share of live units, the less there is to compute. Over the keep probability:
keeps = np.linspace(0.1, 1.0, 10)
live = [
    (kernels.unpack_mask(kernels.bernoulli_mask(40, 64, keep, seed=1), 64) & positive).mean()
    for keep in keeps
]
figure, ax = plt.subplots(figsize=(5, 3), layout="constrained")
ax.plot(keeps, live, marker="o", label="live")
ax.plot(keeps, keeps, linestyle=":", color="gray", label="kept")
ax.set(xlabel="probability of keeping a unit", ylabel="share of the units", ylim=(0, 1))
ax.legend(frameon=False)
plt.show()
