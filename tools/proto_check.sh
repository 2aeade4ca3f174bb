#!/usr/bin/env bash
# Fails when gen/ is not what proto/ generates, or when proto/ breaks what main promises.
set -euo pipefail

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
if ! buf generate --output "$fresh" 2>"$fresh/messages"; then
  cat "$fresh/messages" >&2
  exit 1
fi
if ! diff -r -q --exclude=__pycache__ "$fresh/gen" gen; then
  echo "gen/ does not match proto/: run 'make proto' and commit the result" >&2
  exit 1
fi

for ref in origin/main main; do
  if git rev-parse --verify --quiet "$ref:buf.yaml" >/dev/null; then
    buf breaking --against ".git#ref=$(git rev-parse "$ref")"
    echo "gen/ is current; nothing breaks the contracts of $ref"
    exit 0
  fi
done
echo "gen/ is current; there is no main to compare the contracts with"
