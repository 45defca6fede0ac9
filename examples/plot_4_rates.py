"""
Rates that change during training
=================================

A dropout rate, a learning rate or a weight decay can change from step to step. Each class of
:py:mod:`cdrop.rates` maps the progress of the fit, from 0 to 1, to a rate.
"""

import matplotlib.pyplot as plt
import numpy as np

from cdrop import Network
from cdrop.datasets import make_digits
from cdrop.rates import Constant, Cosine, CosLog4, Curriculum, Early, FlatCos, Late, Linear

# %%
rates = [
    Constant(0.5),
    Linear(0.5, 0.0),
    Cosine(0.5),
    FlatCos(0.5),
    CosLog4(0.5),
    Early(0.5, until=0.3),
    Late(0.5, start=0.5),
    Curriculum(0.5),
]
progress = np.linspace(0, 1, 400, endpoint=False)
figure, axes = plt.subplots(2, 4, figsize=(9, 4), sharex=True, sharey=True, layout="constrained")
for ax, rate in zip(axes.flat, rates, strict=True):
    ax.plot(progress, [rate.at(t) for t in progress])
    ax.set_title(repr(rate), fontsize=8)
figure.supxlabel("progress of the fit")
figure.supylabel("rate")

# %%
# The training loss of the same network under three of them. With early dropout the loss falls quickly
# once dropout ends.
images, labels = make_digits(2000, seed=0)
X = images.reshape(2000, 784).astype("float32") / 255
figure, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
for rate in (Constant(0.5), Early(0.5, until=0.3), Late(0.5, start=0.5)):
    net = Network([784, 64, 64, 10], dropout=rate, seed=0)
    history = net.fit(X, labels, batch_size=100, iterations=300)
    smooth = np.convolve(history.loss, np.full(10, 0.1), mode="valid")
    ax.plot(smooth, label=repr(rate))
ax.set(xlabel="step", ylabel="training loss, mean of 10 steps")
ax.legend(frameon=False)
plt.show()
