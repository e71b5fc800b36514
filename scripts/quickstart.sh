#!/usr/bin/env bash
# From a bare checkout to a trained network, a table and a picture. Needs Python >= 3.10 with pip, nothing else.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh

echo "1/5  Installing mambair into .venv (the first time this downloads PyTorch) ..."
make_environment .venv
echo "2/5  Photos from scikit-image"
"$python" scripts/quickstart.py photos
echo "3/5  Training a small x2 network"
"$python" mambair/train.py -opt options/train/quickstart.yml
echo "4/5  Testing it, and the network that comes with the package, on photos that neither has seen"
"$python" mambair/test.py -opt options/test/quickstart.yml --compare options/test/quickstart_shipped.yml
echo "5/5  Comparison picture"
"$python" scripts/quickstart.py picture

cat <<'TEXT'

Where everything is
  weights      experiments/quickstart/models/net_g_latest.pth
  curves       .venv/bin/tensorboard --logdir tb_logger/quickstart
  table        results/quickstart/comparison.md
  picture      results/quickstart/comparison.png
What to do next
  enlarge a photo of yours    .venv/bin/mambair restore photo.png -o restored
    by the network just made  .venv/bin/mambair restore photo.png -o restored --weights experiments/quickstart/models/net_g_latest.pth
  train the paper's networks  lay out the data as datasets/README.md says, then
                              .venv/bin/python mambair/train.py -opt options/train/lightSR_x2.yml
TEXT
