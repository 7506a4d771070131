#!/bin/sh
# Removes from an environment what no program of this image reads: the libraries' own tests, C++ headers and type stubs, test
# programs in torch/bin, and the byte code of what only torch.compile imports. deploy/image.sh runs the result.
set -eu
site=$(echo "$1"/lib/python3*/site-packages)
rm -rf "$site"/torch/test "$site"/torch/include "$site"/torch/share "$site"/torch/lib/*test*.so
find "$site"/torch/bin -mindepth 1 ! -name torch_shm_manager -delete
find "$site" \( -name '*.pyi' -o -name '*.h' -o -name '*.pxd' -o -name '*.a' \) -delete
for library in scipy numpy sympy networkx faiss; do
  find "$site/$library" -depth -type d -name tests -exec rm -rf {} +
done
for library in sympy mpmath networkx; do
  find "$site/$library" -depth -type d -name __pycache__ -exec rm -rf {} +
done
