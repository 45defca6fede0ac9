"""
Uncertainty of a classifier
===========================

Predictions under many dropout masks disagree where training data are missing. Two measures on a toy
problem: the entropy is high wherever classes are mixed, the mutual information where the network has
seen nothing.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

from cdrop import DropoutMLPClassifier

# %%
# Two half moons, and a network with dropout.
X, y = make_moons(300, noise=0.15, random_state=0)
model = DropoutMLPClassifier(
    (64, 64), dropout=0.3, learning_rate_init=0.01, tol=1e-3, random_state=0
)
model.fit(X, y)

# %%
# 100 masks for each point of a grid.
axis = np.linspace(-4, 5, 60), np.linspace(-4, 4.5, 60)
grid = np.stack(np.meshgrid(*axis), axis=-1).reshape(-1, 2)
result = model.predict_uncertainty(grid, mc_samples=100)

figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), sharey=True, layout="constrained")
panels = {
    "mean probability of class 1": (result.mean[:, 1], "RdBu_r"),
    "uncertainty of the data (expected entropy)": (result.expected_entropy, "viridis"),
    "uncertainty of the model (mutual information)": (result.mutual_information, "viridis"),
}
for ax, (title, (values, colors)) in zip(axes, panels.items(), strict=True):
    contours = ax.contourf(*axis, values.reshape(60, 60), 20, cmap=colors)
    figure.colorbar(contours, ax=ax)
    ax.scatter(*X.T, c=np.where(y, "white", "black"), s=4)
    ax.set_title(title, fontsize=9)
plt.show()
