#!/usr/bin/env bash
# Builds the CPU image without Docker, starts it as a plain user on a read-only root, sends requests, stops it. `make image` runs this as
# root on Debian with buildah and mmdebstrap (apt-get install buildah mmdebstrap).
#
#   BASE         image to build on; default: one made of Debian 12's packages, once
#   IMAGE        name of the image, seqrec by default
#   BUILD_FLAGS  of buildah build, such as "-v /etc/pip.conf:/etc/pip.conf:ro" where pip needs this machine's settings
#   CHECKPOINT   the model to serve; default: one is trained in a few seconds, which needs .venv
set -euo pipefail
cd "$(dirname "$0")/.."
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs
image=${IMAGE:-seqrec} port=${SEQREC_PORT:-8321} seqrec_uid=10001 work=build/image
mkdir -p "$work"

base=${BASE:-seqrec-base}
if [ -z "${BASE:-}" ] && ! buildah inspect --type image "$base" >/dev/null 2>&1; then
  sources=(/etc/apt/sources.list.d/debian.sources)
  [ -e "${sources[0]}" ] || sources=()
  mmdebstrap --quiet --variant=minbase --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --include=python3,python3-venv,ca-certificates \
    bookworm "$work/base.tar" "${sources[@]}"
  scratch=$(buildah from scratch)
  buildah add --quiet "$scratch" "$work/base.tar" / >/dev/null
  buildah commit --quiet --rm "$scratch" "$base" >/dev/null
  rm "$work/base.tar"
fi
# BUILD_FLAGS is split into words on purpose.
# shellcheck disable=SC2086
buildah build --quiet --layers=false --format docker --target cpu --build-arg BASE="$base" ${BUILD_FLAGS:-} --tag "$image" . >"$work/id"

checkpoint=${CHECKPOINT:-$work/run/checkpoint}
if [ ! -e "$checkpoint" ]; then
  .venv/bin/python -m seqrec train --preset demo --set optimizer.max_steps=2 --out "$work/run" --overwrite \
    --items data/online-retail/items.jsonl.gz --interactions data/online-retail/interactions.csv.gz
fi

container=$(buildah from "$image")
root=$(buildah mount "$container")
state=$(mktemp -d)
server=
finish() {
  if [ -n "$server" ]; then kill -TERM "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi
  buildah rm "$container" >/dev/null
  rm -rf "$state"
}
trap finish EXIT
cp -R "$checkpoint" "$state/model"
chown -R "$seqrec_uid:$seqrec_uid" "$state"
size() { du -s --block-size=MB "$1" | cut -f1; }
printf 'size of %s: %s, of it the environment: %s\n' "$image" "$(size "$root")" "$(size "$root/venv")"
[ "$(size "$root" | tr -d MB)" -lt 1200 ] || { echo 'larger than 1.2 GB' >&2; exit 1; }

# As in the image, but reachable from this machine only.
mapfile -t environment < <(buildah inspect --type image --format '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' "$image" | grep .)
environment+=(SEQREC_HOST=127.0.0.1 "SEQREC_PORT=$port")

# In a mount namespace of its own, which ends with the program: the root read-only; the state and /tmp can be written.
inside() {
  ROOT=$root STATE=$state OWNER=$seqrec_uid exec unshare --mount --propagation private sh -euc '
    mount --bind "$ROOT" "$ROOT"
    mount -t proc proc "$ROOT/proc"
    mount --rbind /dev "$ROOT/dev"
    mount -t tmpfs tmpfs "$ROOT/tmp"
    mount --bind "$STATE" "$ROOT/var/lib/seqrec"
    mount -o remount,bind,ro "$ROOT"
    exec chroot "$ROOT" setpriv --reuid "$OWNER" --regid "$OWNER" --clear-groups --inh-caps=-all --bounding-set=-all \
      --no-new-privs env -i "$@"' sh "${environment[@]}" "$@"
}

(inside python -c '
import os, importlib.util as util
assert os.getuid() != 0, "runs as root"
try:
    open("/app/probe", "w")
except OSError as error:
    print("the root cannot be written:", error.strerror)
else:
    raise SystemExit("the root can be written")
found = [name for name in ("transformers", "accelerate", "tensorboard", "matplotlib") if util.find_spec(name)]
assert not found, found
import torch
print("torch", torch.__version__, "without the training libraries, as user", os.getuid())
')
(inside seqrec index build --checkpoint /var/lib/seqrec/model --items /app/data/online-retail/items.jsonl.gz --publish)
(inside seqrec serve) &
server=$!
ask() { curl --silent --fail --max-time 10 "http://127.0.0.1:$port$1" "${@:2}"; }
for _ in $(seq 120); do
  kill -0 "$server" || { echo 'the service ended' >&2; exit 1; }
  ask /readyz >/dev/null && break
  sleep 1
done
echo "GET /readyz: $(ask /readyz)"
answer=$(ask /recommend --json '{"history": ["20725", "21559"], "k": 3}')
echo "POST /recommend: $answer"
python3 -c 'import json, sys; assert len(json.loads(sys.argv[1])["items"]) == 3' "$answer"
kill -TERM "$server"
wait "$server" && echo 'SIGTERM: it ended with 0'
server=
