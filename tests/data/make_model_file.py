"""Write model.safetensors, a small file of the current format. Run it with each new format, and keep the old files."""

from pathlib import Path

import numpy as np

from cdrop import Network

if __name__ == "__main__":
    net = Network([2, 3, 2], dropout=0.5, seed=7)
    x, y = np.array([[0.5, 0.5], [0.5, 1.0], [0.5, 0.5]]), [0, 1, 0]
    net.fit(x, y, optimizer="adam", learning_rate=0.3, batch_size=2, iterations=4)
    net.save(Path(__file__).parent / "model.safetensors")
