#!/usr/bin/env bash
# Installs Mesa's software driver for Vulkan where no Vulkan driver is installed.
set -euo pipefail

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

if [[ $(uname) == Darwin ]] || compgen -G '/usr/share/vulkan/icd.d/*.json' > /dev/null; then
  exit 0
fi
if ! command -v apt-get > /dev/null; then
  echo "error: this machine has no Vulkan driver; install one, as Mesa's" >&2
  exit 1
fi
echo "installing with apt-get: mesa-vulkan-drivers"
as_root apt-get update -q
as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends mesa-vulkan-drivers
