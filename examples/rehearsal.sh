#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The paper's road on made-up data, in minutes: bash examples/rehearsal.sh DIR
#
# FLAME, captures and the weights of others are made up (tests/rehearsal/make_inputs.py) with the
# structure of the real ones. Who has the real ones walks the same road with larger numbers: every
# step below is a command of docs/training.md. A step that was interrupted goes on. What the commands
# say is in DIR/log.txt.
set -euo pipefail

DIR=${1:?"usage: bash examples/rehearsal.sh DIR"}
PYTHON=${PYTHON:-.venv/bin/python}
PROCESSES=${PROCESSES:-2}

export OMP_NUM_THREADS=1 GOMP_SPINCOUNT=0 ACCELERATE_USE_CPU=true HF_HUB_OFFLINE=1
export PYTHONPATH="tests${PYTHONPATH:+:$PYTHONPATH}" FLAME_MODEL="$DIR/inputs/flame"

step() { echo "$(date +%T) $*"; }
hf() { "$PYTHON" -m pointillist_hf.cli "$@" >&2; }
train() {
	"$PYTHON" -m accelerate.commands.launch --multi_gpu --num_processes "$PROCESSES" \
		--num_machines 1 --mixed_precision no --dynamo_backend no \
		examples/train.py --size nano --data "$DIR/data" --output "$DIR/run" "$@" >&2
}

mkdir -p "$DIR"
exec 3>&2 2>"$DIR/log.txt"
trap 'tail -n 20 "$DIR/log.txt" >&3' ERR

step "making up FLAME, captures of four people, and weights"
"$PYTHON" tests/rehearsal/make_inputs.py "$DIR/inputs"

step "fitting Gaussians to the captures"
hf fit "$DIR/inputs/captures" -o "$DIR/fits" --preset fast --num-steps 200 --num-proc "$PROCESSES"

step "making tokens of the fits, one of the people held out"
echo 253 >"$DIR/held_out.txt"
hf tokenize "$DIR/fits" -o "$DIR/data" --num-bins 256 --image-size 112 --min-opacity 0.3 \
	--test-people "$DIR/held_out.txt" --num-proc "$PROCESSES"

step "converting Michelangelo's encoder"
[ -d "$DIR/michelangelo" ] ||
	hf convert-michelangelo "$DIR/inputs/shapevae-256.ckpt" "$DIR/michelangelo"

step "training the regressor, which only those without a tracker need"
train --stage regressor --max_steps 40 --batch_size 4 --learning_rate 3e-3

step "training the generator on DINOv2 and Michelangelo"
train --stage generator --max_steps 60 --batch_size 4 --learning_rate 3e-3 \
	--image_encoder "$DIR/inputs/dinov2" --point_cloud_encoder "$DIR/michelangelo"

step "training the decoder"
train --stage decoder --max_steps 120 --batch_size 2 --learning_rate 5e-3

step "putting the pipeline together"
"$PYTHON" examples/assemble.py --components "$DIR/run" --output "$DIR/pipeline" \
	--landmarks "$DIR/inputs/flame/landmark_embedding_with_eyes.npy" --max_points 600 \
	--dtype float32 >&2

for person in 104 306; do
	step "making the avatar of $person from a photograph"
	hf avatar "$DIR/inputs/portraits/$person.png" --model "$DIR/pipeline" -o "$DIR/avatars/$person"
done

step "moving it by a take of Live Link Face"
hf animate "$DIR/avatars/104/avatar" "$DIR/inputs/face.csv" -o "$DIR/clip.gif" --size 128 --fps 5

step "exporting it"
for suffix in ply ga.ply glb spz; do
	hf export "$DIR/avatars/104/avatar" "$DIR/exports/me.$suffix"
done

step "pushing the pipeline to a stand-in of the Hub, and pulling it"
"$PYTHON" tests/rehearsal/push_and_pull.py "$DIR"

step "done"
