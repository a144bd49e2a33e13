#!/usr/bin/env bash
# Installs what Recap needs and is missing: GStreamer 1.20 or newer with development files and the base,
# good, bad, ugly and libav plug-ins, pkg-config, a C compiler, pip, and Rust with clippy and rustfmt. Prints
# what it installs; uses sudo only when it is not root. Does nothing when everything is installed.
set -euo pipefail

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# The plug-ins that the code names, one file of each set: vpx and matroska (good), the H.264 parser (bad), ASF
# (ugly), libav.
has_gstreamer() {
  command -v pkg-config >/dev/null || return 1
  pkg-config --atleast-version=1.20 gstreamer-1.0 gstreamer-app-1.0 gstreamer-video-1.0 2>/dev/null || return 1
  local folder plugin
  folder=$(pkg-config --variable=pluginsdir gstreamer-1.0)
  for plugin in app videoconvert vpx matroska isomp4 avi videoparsersbad asf libav; do
    compgen -G "$folder/libgst$plugin.*" >/dev/null || has_merged_plugin "$folder" "$plugin" || return 1
  done
}

# GStreamer 1.22 merged videoconvert and videoscale into one file.
has_merged_plugin() {
  [ "$2" = videoconvert ] && compgen -G "$1/libgstvideoconvertscale.*" >/dev/null
}

install_packages() {
  if command -v apt-get >/dev/null; then
    local packages=(build-essential curl pkg-config libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev
      gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly
      gstreamer1.0-libav python3-pip)
    echo "installing with apt-get: ${packages[*]}"
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${packages[@]}"
  elif command -v dnf >/dev/null; then
    local packages=(gcc curl pkgconf-pkg-config gstreamer1-devel gstreamer1-plugins-base-devel gstreamer1-plugins-base
      gstreamer1-plugins-good gstreamer1-plugins-bad-free gstreamer1-plugins-ugly-free gstreamer1-plugin-libav
      python3-pip)
    echo "installing with dnf: ${packages[*]}"
    as_root dnf install -y "${packages[@]}"
  elif command -v brew >/dev/null; then
    echo "installing with brew: pkgconf gstreamer python"
    brew install pkgconf gstreamer python
  else
    echo "error: found none of apt-get, dnf and brew; install GStreamer 1.20+ with development files and the base, good," \
      "bad, ugly and libav plug-ins, pkg-config, a C compiler and pip, then run this again" >&2
    exit 1
  fi
}

if ! has_gstreamer || ! command -v cc >/dev/null || ! python3 -m pip --version >/dev/null 2>&1; then
  install_packages
  if ! has_gstreamer; then
    echo "error: GStreamer 1.20+ or one of its plug-ins is still missing after the installation" >&2
    exit 1
  fi
fi

export PATH="$HOME/.cargo/bin:$PATH"
if ! command -v cargo >/dev/null; then
  echo "installing Rust with rustup (https://rustup.rs)"
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal -c clippy -c rustfmt
elif command -v rustup >/dev/null && ! { cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1; then
  echo "installing clippy and rustfmt with rustup"
  rustup component add clippy rustfmt
fi
