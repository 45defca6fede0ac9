"""
Does dropout help on this table?
================================

One run with dropout and one without prove nothing: they differ by luck. An experiment in pairs
splits the rows again in each repeat, and gives the difference an interval and a verdict.
"""

from sklearn.datasets import load_wine

from cdrop.datasets import from_frame
from cdrop.experiments import paired_experiment

# %%
# Both arms share the splits, the initial weights and the order of the minibatches. The second one
# chooses its rate on validation rows inside each split.
table = from_frame(load_wine(as_frame=True).frame, "target", name="wine")
shared = {"hidden": (64,), "optimizer": "adam", "batch_size": 16, "epochs": 40}
result = paired_experiment(
    {
        "no dropout": shared,
        "dropout": [{**shared, "dropout": rate} for rate in (0.2, 0.5)],
    },
    table,
    repeats=10,
    margin=0.02,
)
result

# %%
# The picture shows every repeat: learning curves where there are any, scores, and differences with
# their interval.
figure = result.plot()

# %%
# The verdict compares the interval with 0 and with the margin, the largest difference that does not
# matter.
(contrast,) = result.contrasts()
print(contrast.verdict)
